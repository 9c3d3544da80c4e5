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
#include "openmp/pack.h"
#include "openmp/product.h"

struct operands {
    float *k, *v, *k_columns, *dk, *dv, *dq;
    float *q, *dout, *q_rows, *dout_rows, *lse, *delta, *partial;
};

static int64_t stripe_tiles(const struct lh_omp_sizes *z)
{
    return z->tiles < LH_OMP_STRIPE_TILES ? z->tiles : LH_OMP_STRIPE_TILES;
}

/* Floats of one group's partial dq. */
static size_t partial_floats(const struct lh_omp_sizes *z)
{
    return (size_t)(stripe_tiles(z) * LH_OMP_TILE) * (size_t)z->dim_group;
}

static size_t head_floats(const struct lh_omp_sizes *z)
{
    const size_t keys = (size_t)z->key_rows, stripe = (size_t)(stripe_tiles(z) * LH_OMP_TILE);
    const size_t d = (size_t)z->dim, dg = (size_t)z->dim_group, dv = (size_t)z->dim_vector;
    return keys * (2 * d + dg + 2 * dv) + (size_t)(z->tiles * LH_OMP_TILE) * d + stripe * 2 * (d + dv + 1) +
           (size_t)z->groups * partial_floats(z);
}

size_t lh_omp_backward_floats(const struct lh_omp_sizes *z)
{
    return head_floats(z) * (size_t)z->heads_backward;
}

static struct operands operands_of(const struct lh_omp_state *state, int64_t slot)
{
    const struct lh_omp_sizes *z = &state->sizes;
    const int64_t stripe = stripe_tiles(z) * LH_OMP_TILE;
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
        {&x.q, stripe * z->dim},
        {&x.dout, stripe * z->dim},
        {&x.q_rows, stripe * z->dim_vector},
        {&x.dout_rows, stripe * z->dim_vector},
        {&x.lse, stripe},
        {&x.delta, stripe},
        {&x.partial, z->groups * (int64_t)partial_floats(z)},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].to = next;
        next += parts[i].floats;
    }
    return x;
}

/* The scale of dS, taken by the rows that it is multiplied with: once each, where dS is made anew for every pair. */
static void scale_rows(float *rows, int64_t dim, int64_t n)
{
    const float scale = (float)(1 / sqrt((double)dim));
    for (int64_t i = 0; i < n * dim; i++)
        rows[i] *= scale;
}

static void pack_key_rows(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head,
                          int64_t first, const struct operands *x, float *buffer)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const lh_tensor *index = job->selected ? NULL : job->index;
    const struct lh_omp_rows k = lh_omp_rows_of(plan, &job->k, head, LH_OMP_MEAN, index);
    const struct lh_omp_rows v = lh_omp_rows_of(plan, &job->v, head, LH_OMP_MEAN, index);
    pack_read(&k, first, PACK_ROWS, z->rows, buffer);
    for (int64_t r = 0; r < PACK_ROWS; r += GROUP)
        pack_lanes(buffer + r * z->dim, GROUP, z->dim, x->k + (first + r) * z->dim);
    scale_rows(buffer, z->dim, PACK_ROWS);
    pack_columns(buffer, PACK_ROWS, z, first, x->k_columns);
    pack_read(&v, first, PACK_ROWS, z->rows, buffer);
    for (int64_t r = 0; r < PACK_ROWS; r += GROUP)
        pack_lanes(buffer + r * z->dim, GROUP, z->dim, x->v + (first + r) * z->dim);
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

/* delta: [BLOCK] = sum over c of dout[c] o[c], both [d][BLOCK]: the order that dP is summed in, so that what
 * cancels exactly in dP - D does so here too */
static void row_dots(const float *dout, const float *o, int64_t d, float *delta)
{
    for (int v = 0; v < VECTORS; v++) {
        vfloat sum = splat(0);
        for (int64_t c = 0; c < d; c++)
            sum += *(const vfloat *)(dout + c * BLOCK + v * LANES) *
                   *(const vfloat *)(o + c * BLOCK + v * LANES);
        *(vfloat *)(delta + v * LANES) = sum;
    }
}

/* Tile `t` of the stripe, `tile` of the head: its operands, lse and D. A padded row weighs nothing. */
static void pack_query_tile(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head,
                            int64_t tile, int64_t t, const struct operands *x, float *buffer)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t d = z->dim, panels = t * LH_OMP_TILE * z->dim_vector;
    const lh_tensor *index = job->selected ? NULL : job->index;
    const struct lh_omp_rows q = lh_omp_rows_of(plan, &job->q, head, LH_OMP_MEAN, index);
    const struct lh_omp_rows dout = lh_omp_rows_of(plan, &job->dout, head, LH_OMP_SPREAD, job->index);
    const struct lh_omp_rows o = lh_omp_rows_of(plan, &job->o[0], head, LH_OMP_ROW, NULL);
    const float *lse = (const float *)job->lse.data + head * z->rows;
    float *lanes = buffer + BLOCK * d;
    for (int64_t b = 0; b < LH_OMP_TILE; b += BLOCK) {
        const int64_t first = tile * LH_OMP_TILE + b, at = t * LH_OMP_TILE + b;
        pack_read(&q, first, BLOCK, z->rows, buffer);
        pack_lanes(buffer, BLOCK, d, x->q + at * d);
        scale_rows(buffer, d, BLOCK);
        pack_panels(buffer, BLOCK, z, b, x->q_rows + panels);
        pack_read(&dout, first, BLOCK, z->rows, buffer);
        pack_lanes(buffer, BLOCK, d, x->dout + at * d);
        pack_panels(buffer, BLOCK, z, b, x->dout_rows + panels);
        pack_read(&o, first, BLOCK, z->rows, buffer);
        pack_lanes(buffer, BLOCK, d, lanes);
        row_dots(x->dout + at * d, lanes, d, x->delta + at);
        for (int64_t i = 0; i < BLOCK; i++)
            x->lse[at + i] = first + i < z->rows ? lse[first + i] : INFINITY;
    }
}

/* s: [n][TILE] k q' -> P, dp: [n][TILE] v do' -> dS. Rows j > i + ahead are hidden from lane i. */
static void differentiate(float *s, float *dp, int64_t n, int64_t ahead, float scale, const float *lse,
                          const float *delta)
{
    const float log2e = (float)(EXP2_STEPS * 1.4426950408889634);
    const vint lanes = vector_lanes();
    const vfloat *shift = (const vfloat *)lse, *mean = (const vfloat *)delta;
    for (int64_t j = 0; j < n; j++) {
        for (int v = 0; v < VECTORS; v++) {
            vfloat *weight = (vfloat *)(s + j * LH_OMP_TILE + v * LANES);
            vfloat *gradient = (vfloat *)(dp + j * LH_OMP_TILE + v * LANES);
            /* No weight passes 1, though lse is rounded: logits of 1e9 leave it hundreds off. */
            vfloat p = vector_exp2(vector_min(splat(0), *weight * scale - shift[v]), log2e);
            vfloat ds = p * (*gradient - mean[v]);
            if (j > ahead) {
                const vint seen = lanes + (int32_t)(v * LANES + ahead) >= (int32_t)j;
                p = vector_select(seen, p, splat(0));
                ds = vector_select(seen, ds, splat(0));
            }
            *weight = p;
            *gradient = ds;
        }
    }
}

/* rows [0, n) of to: [n][BLOCK of LH_OMP_TILE] = x y; x: [n/GROUP][d][GROUP], y: [d][BLOCK] */
static void dots(const float *x, const float *y, int64_t d, int64_t n, float *to)
{
    for (int64_t j = 0; j < n; j += GROUP)
        product(GROUP, VECTORS, PRODUCT_STORE, to + j * LH_OMP_TILE, LH_OMP_TILE, x + j * d, 1, GROUP, y,
                BLOCK, d, NULL);
}

/*
 * Rows of dk or dv of one key tile: to[j] += sum over queries i >= j - ahead of a[j][i] rows[i].
 * a: [n][TILE], rows: a tile's panels. Panel by panel, so that one stays in the first-level cache.
 */
LH_OMP_INLINE void add_panel(int vectors, const float *a, const float *panel, int64_t n, int64_t ahead,
                             float *to, int64_t to_row)
{
    for (int64_t j = 0; j < n; j += KEY_GROUP) {
        const int64_t first = j > ahead ? j - ahead : 0;
        product(KEY_GROUP, vectors, PRODUCT_ADD, to + j * to_row, to_row, a + j * LH_OMP_TILE + first,
                LH_OMP_TILE, 1, panel + first * vectors * LANES, vectors * LANES, LH_OMP_TILE - first, NULL);
    }
}

static void add_rows(const struct lh_omp_sizes *z, const float *a, const float *rows, int64_t n,
                     int64_t ahead, float *to)
{
    const int64_t row = z->dim_vector;
    for (int64_t c = 0, i = 0, columns; (columns = panel_columns(z, i)) > 0; c += columns, i++) {
        const float *panel = rows + c * LH_OMP_TILE;
        if (columns == PANEL)
            add_panel(PANEL / LANES, a, panel, n, ahead, to + c, row);
        else if (columns == 3 * LANES)
            add_panel(3, a, panel, n, ahead, to + c, row);
        else if (columns == 2 * LANES)
            add_panel(2, a, panel, n, ahead, to + c, row);
        else
            add_panel(1, a, panel, n, ahead, to + c, row);
    }
}

/* dq: [dim_group][BLOCK] = or += k' dS, k: one tile's columns, ds: [n][BLOCK of TILE] */
LH_OMP_INLINE void dq_of(enum product_end end, const float *k, const float *ds, int64_t n, int64_t dim_group,
                         float *dq)
{
    for (int64_t c = 0; c < dim_group; c += GROUP)
        product(GROUP, VECTORS, end, dq + c * BLOCK, BLOCK, k + c * LH_OMP_TILE, 1, GROUP, ds, LH_OMP_TILE, n,
                NULL);
}

/* Key tile `key` against tile t of the stripe, whose first row is `query`; it begins the partial dq, or is added to it.
 * s, ds: [TILE][TILE] */
static void pair(const struct lh_omp_sizes *z, const struct operands *x, int64_t key, int64_t query,
                 int64_t t, bool begins, float *partial, float *s, float *ds)
{
    const int64_t d = z->dim, rows = t * LH_OMP_TILE * z->dim_vector;
    const float scale = (float)(1 / sqrt((double)d));
    for (int64_t b = 0; b < LH_OMP_TILE; b += BLOCK) {
        const int64_t ahead = query + b - key, at = t * LH_OMP_TILE + b;
        const int64_t seen = ahead + BLOCK < LH_OMP_TILE ? ahead + BLOCK : LH_OMP_TILE;
        const int64_t n = (seen + GROUP - 1) / GROUP * GROUP;
        if (seen <= 0)
            continue;
        dots(x->k + key * d, x->q + at * d, d, n, s + b);
        dots(x->v + key * d, x->dout + at * d, d, n, ds + b);
        differentiate(s + b, ds + b, n, ahead, scale, x->lse + at, x->delta + at);
        if (begins)
            dq_of(PRODUCT_STORE, x->k_columns + key * z->dim_group, ds + b, n, z->dim_group,
                  partial + at * z->dim_group);
        else
            dq_of(PRODUCT_ADD, x->k_columns + key * z->dim_group, ds + b, n, z->dim_group,
                  partial + at * z->dim_group);
    }
    const int64_t ahead = query - key,
                  seen = ahead + LH_OMP_TILE < LH_OMP_TILE ? ahead + LH_OMP_TILE : LH_OMP_TILE;
    add_rows(z, s, x->dout_rows + rows, seen, ahead, x->dv + key * z->dim_vector);
    add_rows(z, ds, x->q_rows + rows, seen, ahead, x->dk + key * z->dim_vector);
}

/* All key tiles of one group against the stripe of `tiles` tiles from tile `from` on. */
static void group_of_stripe(const lh_plan *plan, const struct operands *x, int64_t group, int64_t from,
                            int64_t tiles, float *scratch)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    float *s = scratch, *ds = s + LH_OMP_TILE * LH_OMP_TILE;
    float *partial = x->partial + (size_t)group * partial_floats(z);
    const int64_t end = (from + tiles) * LH_OMP_TILE < z->rows ? (from + tiles) * LH_OMP_TILE : z->rows;
    for (int64_t key = group * LH_OMP_TILE; key < end; key += z->groups * LH_OMP_TILE) {
        if (key >= from * LH_OMP_TILE ||
            from == z->first_tile) { /* no stripe before this one reached these keys */
            memset(x->dk + key * z->dim_vector, 0, sizeof(float) * LH_OMP_TILE * (size_t)z->dim_vector);
            memset(x->dv + key * z->dim_vector, 0, sizeof(float) * LH_OMP_TILE * (size_t)z->dim_vector);
        }
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t query = (from + t) * LH_OMP_TILE;
            if (query + LH_OMP_TILE > key)
                pair(z, x, key, query, t, key == group * LH_OMP_TILE, partial, s, ds);
        }
    }
}

/* sum: [BLOCK] = the partial sums of `groups` groups of column c of one block, added in order; part: the first group's */
static void sum_groups(const struct lh_omp_sizes *z, int64_t groups, const float *part, float *sum)
{
    vfloat all[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        all[v] = splat(0);
    for (int64_t g = 0; g < groups; g++, part += partial_floats(z))
        for (int v = 0; v < VECTORS; v++)
            all[v] += *(const vfloat *)(part + v * LANES);
    for (int v = 0; v < VECTORS; v++)
        *(vfloat *)(sum + v * LANES) = all[v];
}

/* The groups' partial sums of one tile -> dq, four columns at a time through a transpose */
static void add_partial(const struct lh_omp_sizes *z, const struct operands *x, int64_t from, int64_t t)
{
    _Alignas(LH_OMP_VECTOR_BYTES) float sum[4 * BLOCK];
    const int64_t groups = lh_omp_least(z->groups, from + t + 1); /* key tile g is the first of group g */
    for (int64_t b = t * LH_OMP_TILE; b < (t + 1) * LH_OMP_TILE; b += BLOCK) {
        float *dq = x->dq + (from * LH_OMP_TILE + b) * z->dim;
        const float *part = x->partial + b * z->dim_group;
        for (int64_t c = 0; c < z->dim; c += 4) {
            const int columns = z->dim - c < 4 ? (int)(z->dim - c) : 4;
            for (int k = 0; k < columns; k++)
                sum_groups(z, groups, part + (c + k) * BLOCK, sum + k * BLOCK);
            for (int i = 0; columns == 4 && i < BLOCK; i += 4)
                transpose_four(sum + i, BLOCK, dq + i * z->dim + c, z->dim);
            for (int i = 0; columns < 4 && i < BLOCK; i++)
                for (int k = 0; k < columns; k++)
                    dq[i * z->dim + c + k] = sum[k * BLOCK + i];
        }
    }
}

static void pack_queries_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const int64_t h = i / work->tiles, t = i % work->tiles;
    const struct operands x = operands_of(lh_omp_state(plan), h);
    pack_query_tile(plan, work->job, work->first + h, work->from + t, t, &x, scratch);
}

static void group_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const int64_t groups = lh_omp_state(plan)->sizes.groups;
    const struct operands x = operands_of(lh_omp_state(plan), i / groups);
    group_of_stripe(plan, &x, i % groups, work->from, work->tiles, scratch);
}

static void partial_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    (void)scratch;
    const struct work *work = job;
    const struct operands x = operands_of(lh_omp_state(plan), i / work->tiles);
    add_partial(&lh_omp_state(plan)->sizes, &x, work->from, i % work->tiles);
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
