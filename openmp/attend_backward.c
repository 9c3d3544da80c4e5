/*
 * Attend, backward (SPEC 4): five products a tile, P computed anew from lse.
 *
 *   P[j][i]  = exp(k[j] . q[i] / sqrt(d) - lse[i])        dP[j][i] = v[j] . do[i]
 *   dS = P (dP - D) / sqrt(d),  D[i] = do[i] . o[i]
 *   dq[i] = sum over j of dS[j][i] k[j]    dk[j] = sum over i of dS[j][i] q[i]    dv[j] = sum over i of P do[i]
 *
 * Queries go by in stripes of LH_OMP_STRIPE_TILES tiles. Within a stripe, key tile t belongs to group
 * t mod groups; one thread at a time works on a (head, group), which owns dk and dv of its key tiles and a
 * partial dq of the stripe. Partial sums are then added in group order. The number of groups follows from
 * the configuration, so the order of every sum does too.
 *
 * Operands, per head and per stripe of a head (tiles of LH_OMP_TILE rows, panels as in pack.h):
 *
 *   k, v:        [key_rows/GROUP][d][GROUP]                    dk, dv:  [key_rows][dim_vector]
 *   k_columns:   [key_rows/TILE][dim_group/GROUP][TILE][GROUP]  dq:     [tiles * TILE][d]
 *   q, dout:     [stripe tiles][TILE/BLOCK][d][BLOCK]          q_rows, dout_rows: [stripe tiles][panels]
 *   lse, delta:  [stripe rows]
 *   partial:     [groups][stripe tiles][TILE/BLOCK][dim_group][BLOCK]
 */
#include "openmp/stripe.h"

struct operands {
    float *k, *v, *k_columns, *dk, *dv, *dq, *partial;
    struct lh_omp_stripe stripe;
};

static size_t head_floats(const struct lh_omp_sizes *z)
{
    const size_t keys = (size_t)z->key_rows;
    const size_t d = (size_t)z->dim, dg = (size_t)z->dim_group, dv = (size_t)z->dim_vector;
    return keys * (2 * d + dg + 2 * dv) + (size_t)(z->tiles * LH_OMP_TILE) * d + lh_omp_stripe_floats(z) +
           (size_t)z->groups * lh_omp_partial_floats(z);
}

size_t lh_omp_backward_floats(const struct lh_omp_sizes *z)
{
    return head_floats(z) * (size_t)z->heads_backward;
}

static struct operands operands_of(const struct lh_omp_state *state, int64_t slot)
{
    const struct lh_omp_sizes *z = &state->sizes;
    struct operands x;
    float *next = state->pack + head_floats(z) * (size_t)slot;
    const struct {
        float **to;
        int64_t floats;
    } parts[] = {
        {&x.k, z->key_rows * z->dim},
        {&x.v, z->key_rows * z->dim},
        {&x.k_columns, z->key_rows * z->dim_group},
        {&x.dk, z->key_rows * z->dim_vector},
        {&x.dv, z->key_rows * z->dim_vector},
        {&x.dq, z->tiles * LH_OMP_TILE * z->dim},
        {&x.partial, z->groups * (int64_t)lh_omp_partial_floats(z)},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].to = next;
        next += parts[i].floats;
    }
    x.stripe = lh_omp_stripe_in(z, next);
    return x;
}

static void pack_key_rows(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head,
                          int64_t first, const struct operands *x, float *buffer)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const lh_tensor *index = job->selected ? NULL : job->index;
    const struct lh_omp_rows k = lh_omp_rows_of(plan, &job->k, head, LH_OMP_MEAN, index);
    const struct lh_omp_rows v = lh_omp_rows_of(plan, &job->v, head, LH_OMP_MEAN, index);
    const float *row[PACK_ROWS];
    pack_read(&k, first, PACK_ROWS, z->rows, buffer, row);
    for (int64_t r = 0; r < PACK_ROWS; r += GROUP)
        pack_lanes(row + r, GROUP, z->dim, x->k + (first + r) * z->dim);
    pack_columns(row, PACK_ROWS, z, first, pack_scale(z), x->k_columns);
    pack_read(&v, first, PACK_ROWS, z->rows, buffer, row);
    for (int64_t r = 0; r < PACK_ROWS; r += GROUP)
        pack_lanes(row + r, GROUP, z->dim, x->v + (first + r) * z->dim);
}

/* What the threads share: heads [first, first + heads) of a job, and of them a stripe of `tiles` tiles from `from` on. */
struct work {
    const struct lh_omp_attention *job;
    int64_t first, heads, from, tiles;
};

static void pack_keys_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const int64_t pieces = lh_omp_state(plan)->sizes.key_rows / PACK_ROWS;
    const struct operands x = operands_of(lh_omp_state(plan), i / pieces);
    pack_key_rows(plan, work->job, work->first + i / pieces, i % pieces * PACK_ROWS, &x, scratch);
}

/* All key tiles of one group against the stripe of `tiles` tiles from tile `from` on. */
static void group_of_stripe(const lh_plan *plan, const struct operands *x, int64_t group, int64_t from,
                            int64_t tiles, float *scratch)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    float *s = scratch, *ds = s + LH_OMP_TILE * LH_OMP_TILE;
    float *partial = x->partial + (size_t)group * lh_omp_partial_floats(z);
    const int64_t end = (from + tiles) * LH_OMP_TILE < z->rows ? (from + tiles) * LH_OMP_TILE : z->rows;
    for (int64_t key = group * LH_OMP_TILE; key < end; key += z->groups * LH_OMP_TILE) {
        if (key >= from * LH_OMP_TILE ||
            from == z->first_tile) { /* no stripe before this one reached these keys */
            memset(x->dk + key * z->dim_vector, 0, sizeof(float) * LH_OMP_TILE * (size_t)z->dim_vector);
            memset(x->dv + key * z->dim_vector, 0, sizeof(float) * LH_OMP_TILE * (size_t)z->dim_vector);
        }
        const struct lh_omp_keys keys = {.k = x->k + key * z->dim,
                                         .v = x->v + key * z->dim,
                                         .k_columns = x->k_columns + key * z->dim_group,
                                         .dk = x->dk + key * z->dim_vector,
                                         .dv = x->dv + key * z->dim_vector};
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t query = (from + t) * LH_OMP_TILE;
            if (query + LH_OMP_TILE > key)
                lh_omp_pair(z, &keys, &x->stripe, t, query - key, key == group * LH_OMP_TILE, partial, s, ds);
        }
    }
}

static void pack_queries_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const int64_t h = i / work->tiles, t = i % work->tiles;
    const struct operands x = operands_of(lh_omp_state(plan), h);
    lh_omp_pack_queries(plan, work->job, work->first + h, work->from + t, t, &x.stripe, scratch);
}

/* Group after group, as the first have a key tile more than the last: no thread is left with one at the end. */
static void group_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const struct operands x = operands_of(lh_omp_state(plan), i % work->heads);
    group_of_stripe(plan, &x, i / work->heads, work->from, work->tiles, scratch);
}

static void partial_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t t = i % work->tiles;
    const struct operands x = operands_of(lh_omp_state(plan), i / work->tiles);
    const int64_t groups =
        lh_omp_least(z->groups, work->from + t + 1); /* key tile g is the first of group g */
    lh_omp_sum_partials(z, x.partial, groups, t, scratch, x.dq + (work->from + t) * LH_OMP_TILE * z->dim);
}

static void run_stripe(lh_plan *plan, const struct work *work)
{
    double since = lh_seconds();
    lh_omp_for(plan, work->heads * work->tiles, 1, pack_queries_piece, work);
    lh_omp_book(plan, LH_SCATTER_BACKWARD, &since);
    lh_omp_for(plan, work->heads * lh_omp_state(plan)->sizes.groups, 1, group_piece, work);
    lh_omp_for(plan, work->heads * work->tiles, 1, partial_piece, work);
    lh_omp_book(plan, LH_ATTEND_BACKWARD, &since);
}

/* dq, dk, dv of `heads` heads from `first` on -> the job's tensors, un-pooled where there is an index */
static void deliver(const lh_plan *plan, const struct lh_omp_attention *job, int64_t first, int64_t heads)
{
    const struct lh_omp_state *state = lh_omp_state(plan);
    const struct lh_omp_sizes *z = &state->sizes;
    const struct operands x = operands_of(state, 0);
    const struct {
        const lh_tensor *to;
        const float *from;
        int64_t row;
    } parts[] = {{&job->dq, x.dq, z->dim}, {&job->dk, x.dk, z->dim_vector}, {&job->dv, x.dv, z->dim_vector}};
    for (int i = 0; i < 3; i++) {
        const struct lh_omp_pull pull = {
            .dst = parts[i].to,
            .src = parts[i].from,
            .src_dtype = LH_F32,
            .src_head = (int64_t)head_floats(z),
            .src_row = parts[i].row,
            .first_head = first,
            .heads = heads,
            .slot = job->index ? state->slot : NULL,
            .mean = true,
        };
        lh_omp_pull(plan, &pull);
    }
}

void lh_omp_attend_backward(lh_plan *plan, const struct lh_omp_attention *job)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t all = plan->config.batch * plan->config.heads;
    double since = lh_seconds();
    for (int64_t head = 0; head < all; head += z->heads_backward) {
        struct work work = {.job = job, .first = head, .heads = lh_omp_least(all - head, z->heads_backward)};
        lh_omp_for(plan, work.heads * (z->key_rows / PACK_ROWS), 4, pack_keys_piece, &work);
        lh_omp_book(plan, LH_GATHER, &since);
        for (int64_t h = 0; h < work.heads; h++) /* rows that are not wanted are not left unwritten */
            memset(operands_of(lh_omp_state(plan), h).dq, 0,
                   sizeof(float) * (size_t)(z->first_tile * LH_OMP_TILE * z->dim));
        for (work.from = z->first_tile; work.from < z->tiles; work.from += LH_OMP_STRIPE_TILES) {
            work.tiles = lh_omp_least(z->tiles - work.from, LH_OMP_STRIPE_TILES);
            run_stripe(plan, &work);
        }
        since = lh_seconds();
        deliver(plan, job, head, work.heads);
        lh_omp_book(plan, LH_UNPOOL, &since);
    }
}

lh_status lh_omp_stage_attend_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    const struct lh_omp_attention job = {
        .q = trace[LH_Q_SEL],
        .k = trace[LH_K_SEL],
        .v = trace[LH_V_SEL],
        .o = {trace[LH_O_SEL]},
        .lse = trace[LH_LSE],
        .dout = trace[LH_DO_SEL],
        .dq = trace[LH_DQ_SEL],
        .dk = trace[LH_DK_SEL],
        .dv = trace[LH_DV_SEL],
    };
    lh_omp_attend_backward(plan, &job);
    return LH_OK;
}
