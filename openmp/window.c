/*
 * Window: a layer's stages on some rows of the sub-sequence at a time, for ranks that have no room for all of them (dist/).
 *
 *   gather, unpool     of this rank's rows, for any heads
 *   attend             of one rank's heads: k and v whole, q and what goes with it a window of rows after the other
 *
 * The backward keeps of k, v, dk, dv no copy but the caller's: a key tile is packed anew for each window, and the groups'
 * partial sums of dq (attend_backward.c) are added up some at a time. Every sum has the order that it has there. Per head:
 *
 *   stripe: the window's operands (stripe.h)     sum, partial[sums]: [window tiles][TILE/BLOCK][dim_group][BLOCK]
 */
#include "openmp/stripe.h"
#include "openmp/element.h"

enum {
    PIECE = 96 /* rows per piece of work */
};

/* ---- rows of this rank ---- */

struct gathering {
    const lh_tensor *x, *index, *x_sel;
    enum lh_omp_reading reading;
    int64_t first, pieces; /* of a head */
};

static void gather_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct gathering *g = job;
    const int64_t d = plan->config.dim, rows = g->x_sel->shape[2];
    const int64_t head = i / g->pieces, from = i % g->pieces * PIECE;
    const struct lh_omp_rows x = lh_omp_rows_of(plan, g->x, head, g->reading, g->index);
    float *row = scratch;
    for (int64_t s = from; s < lh_omp_least(from + PIECE, rows); s++) {
        lh_omp_write_row(g->x_sel->data, g->x_sel->dtype, (head * rows + s) * d,
                         lh_omp_row(&x, g->first + s, row), d);
    }
}

static void gather(lh_plan *plan, const lh_tensor *trace, int64_t first)
{
    static const struct {
        lh_tensor_id x, x_sel;
        enum lh_omp_reading reading;
    } tensors[] = {{LH_Q, LH_Q_SEL, LH_OMP_MEAN},
                   {LH_K, LH_K_SEL, LH_OMP_MEAN},
                   {LH_V, LH_V_SEL, LH_OMP_MEAN},
                   {LH_DOUT, LH_DO_SEL, LH_OMP_SPREAD}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        const struct gathering job = {.x = &trace[tensors[i].x],
                                      .index = &trace[LH_INDEX],
                                      .x_sel = &trace[tensors[i].x_sel],
                                      .reading = tensors[i].reading,
                                      .first = first,
                                      .pieces = (trace[tensors[i].x_sel].shape[2] + PIECE - 1) / PIECE};
        if (job.x_sel->data)
            lh_omp_for(plan, plan->config.batch * plan->config.heads * job.pieces, 1, gather_piece, &job);
    }
}

struct unpooling {
    const lh_tensor *dx_sel, *dx, *index;
    int64_t first;
};

/* One head of dx: each row goes to the tokens of its window. A token's coarser rows come later, so that its sum is the
 * pull's (slots.c), fine to coarse, head after head. */
static void push_head(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    (void)scratch;
    const struct unpooling *u = job;
    const lh_layout *layout = &plan->layout;
    const int64_t d = plan->config.dim, rows = u->dx_sel->shape[2],
                  group = plan->config.heads / u->dx->shape[1];
    const bool power = (plan->config.pool & (plan->config.pool - 1)) == 0;
    float *dx = (float *)u->dx->data + lh_omp_head_offset(plan, u->dx, i * group);
    for (int64_t j = 0; j < plan->config.tokens && u->first == 0; j++)
        memset(dx + j * u->dx->stride[2], 0, sizeof *dx * (size_t)d);
    for (int64_t head = i * group; head < (i + 1) * group; head++) {
        const float *x = (const float *)u->dx_sel->data + head * rows * d;
        for (int64_t s = 0; s < rows; s++, x += d) {
            const int64_t entry = lh_index_at(u->index, head * layout->selected + u->first + s);
            const int level = lh_level_of(layout, (int)plan->config.levels, entry);
            const int64_t window = layout->window[level],
                          from = (entry - layout->level_offset[level]) * window;
            for (int64_t j = from; j < from + window; j++)
                add_mean(dx + j * u->dx->stride[2], x, d, (float)window, power || window == 1, LH_F32);
        }
    }
}

static void unpool(lh_plan *plan, const lh_tensor *trace, int64_t first)
{
    static const lh_tensor_id from[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL}, to[] = {LH_DQ, LH_DK, LH_DV};
    for (int i = 0; i < 3; i++) {
        const struct unpooling job = {&trace[from[i]], &trace[to[i]], &trace[LH_INDEX], first};
        if (job.dx_sel->data)
            lh_omp_for(plan, plan->config.batch * job.dx->shape[1], 1, push_head, &job);
    }
}

/* ---- attention, forward ---- */

static size_t bytes(const lh_plan *plan)
{
    return sizeof(float) * lh_omp_forward_floats(&lh_omp_state(plan)->sizes);
}

static void keys(lh_plan *plan, const lh_tensor *trace, void *memory)
{
    const struct lh_omp_attention job = {.k = trace[LH_K_SEL], .v = trace[LH_V_SEL]};
    lh_omp_pack_keys(plan, &job, memory);
}

static void attend(lh_plan *plan, const lh_tensor *trace, void *memory, int64_t first)
{
    const struct lh_omp_attention job = {
        .q = trace[LH_Q_SEL], .o = {trace[LH_O_SEL]}, .lse = trace[LH_LSE], .first = first};
    lh_omp_attend_tiles(plan, &job, memory, first / LH_OMP_TILE, trace[LH_Q_SEL].shape[2] / LH_OMP_TILE);
}

/* ---- attention, backward ---- */

static size_t head_floats(const struct lh_omp_sizes *z)
{
    return lh_omp_stripe_floats(z) + (size_t)(1 + z->sums) * lh_omp_partial_floats(z);
}

size_t lh_omp_window_floats(const struct lh_omp_sizes *z)
{
    return head_floats(z) * (size_t)z->heads_window;
}

/* S and dS of a pair; k, v and k's columns of a key tile, and its rows. */
size_t lh_omp_window_bytes(const struct lh_omp_sizes *z)
{
    return sizeof(float) * (2 * LH_OMP_TILE * LH_OMP_TILE +
                            LH_OMP_TILE * (size_t)(2 * z->dim + z->dim_group) + PACK_ROWS * (size_t)z->dim);
}

/* What the threads share: a window, its rows from `first` on, and groups [group, group + groups) of its sums. */
struct window {
    const struct lh_omp_attention *job;
    int64_t first, tiles, group, groups;
};

static float *memory_of(const lh_plan *plan, int64_t head)
{
    const struct lh_omp_state *state = lh_omp_state(plan);
    return state->pack + head_floats(&state->sizes) * (size_t)head;
}

static float *sum_of(const lh_plan *plan, int64_t head)
{
    return memory_of(plan, head) + lh_omp_stripe_floats(&lh_omp_state(plan)->sizes);
}

static void pack_queries_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct window *w = job;
    const int64_t head = i / w->tiles, t = i % w->tiles;
    const struct lh_omp_stripe x = lh_omp_stripe_in(&lh_omp_state(plan)->sizes, memory_of(plan, head));
    lh_omp_pack_queries(plan, w->job, head, w->first / LH_OMP_TILE + t, t, &x, scratch);
}

/* The tile of keys from row `key` on. memory: scratch, [LH_OMP_TILE][2 d + dim_group] and [PACK_ROWS][d] */
static struct lh_omp_keys pack_key_tile(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head,
                                        int64_t key, float *memory)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    float *k = memory, *v = k + LH_OMP_TILE * z->dim, *columns = v + LH_OMP_TILE * z->dim;
    float *rows = columns + LH_OMP_TILE * z->dim_group;
    const struct lh_omp_rows from_k = lh_omp_rows_of(plan, &job->k, head, LH_OMP_ROW, NULL);
    const struct lh_omp_rows from_v = lh_omp_rows_of(plan, &job->v, head, LH_OMP_ROW, NULL);
    for (int64_t first = 0; first < LH_OMP_TILE; first += PACK_ROWS) {
        const float *row[PACK_ROWS];
        pack_read(&from_k, key + first, PACK_ROWS, z->rows, rows, row);
        for (int64_t r = 0; r < PACK_ROWS; r += GROUP)
            pack_lanes(row + r, GROUP, z->dim, k + (first + r) * z->dim);
        pack_columns(row, PACK_ROWS, z, first, pack_scale(z), columns);
        pack_read(&from_v, key + first, PACK_ROWS, z->rows, rows, row);
        for (int64_t r = 0; r < PACK_ROWS; r += GROUP)
            pack_lanes(row + r, GROUP, z->dim, v + (first + r) * z->dim);
    }
    const int64_t at = lh_omp_head_offset(plan, &job->dk, head) + key * z->dim;
    return (struct lh_omp_keys){.k = k,
                                .v = v,
                                .k_columns = columns,
                                .dk = (float *)job->dk.data + at,
                                .dv = (float *)job->dv.data + at};
}

static void group_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct window *w = job;
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t head = i / w->groups, end = w->first + w->tiles * LH_OMP_TILE;
    const struct lh_omp_stripe x = lh_omp_stripe_in(z, memory_of(plan, head));
    float *s = scratch, *ds = s + LH_OMP_TILE * LH_OMP_TILE;
    float *partial = sum_of(plan, head) + (size_t)(1 + i % w->groups) * lh_omp_partial_floats(z);
    const int64_t begin = (w->group + i % w->groups) * LH_OMP_TILE;
    for (int64_t key = begin; key < end; key += z->groups * LH_OMP_TILE) {
        const struct lh_omp_keys tile =
            pack_key_tile(plan, w->job, head, key, ds + LH_OMP_TILE * LH_OMP_TILE);
        if (key >= w->first) { /* no window before this one reached these keys */
            memset(tile.dk, 0, sizeof(float) * LH_OMP_TILE * (size_t)z->dim);
            memset(tile.dv, 0, sizeof(float) * LH_OMP_TILE * (size_t)z->dim);
        }
        for (int64_t t = 0; t < w->tiles; t++) {
            const int64_t query = w->first + t * LH_OMP_TILE;
            if (query + LH_OMP_TILE > key)
                lh_omp_pair(z, &tile, &x, t, query - key, key == begin, partial, s, ds);
        }
    }
}

/* Tile t's partial sums join its sum, in the groups' order; those that have no keys yet add nothing. */
static void add_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    (void)scratch;
    const struct window *w = job;
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t floats = LH_OMP_TILE * z->dim_group, at = i % w->tiles * floats;
    float *sum = sum_of(plan, i / w->tiles) + at;
    const float *part = sum + lh_omp_partial_floats(z);
    const int64_t groups = lh_omp_least(w->groups, w->first / LH_OMP_TILE + i % w->tiles + 1 - w->group);
    for (int64_t g = 0; g < groups; g++, part += lh_omp_partial_floats(z))
        for (int64_t e = 0; e < floats; e += LANES)
            *(vfloat *)(sum + e) += *(const vfloat *)(part + e);
}

static void store_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct window *w = job;
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t head = i / w->tiles, t = i % w->tiles;
    lh_omp_sum_partials(z, sum_of(plan, head), 1, t, scratch,
                        (float *)w->job->dq.data + lh_omp_head_offset(plan, &w->job->dq, head) +
                            t * LH_OMP_TILE * z->dim);
}

static void attend_backward(lh_plan *plan, const lh_tensor *trace, int64_t first)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const struct lh_omp_attention job = {.q = trace[LH_Q_SEL],
                                         .k = trace[LH_K_SEL],
                                         .v = trace[LH_V_SEL],
                                         .o = {trace[LH_O_SEL]},
                                         .lse = trace[LH_LSE],
                                         .dout = trace[LH_DO_SEL],
                                         .dq = trace[LH_DQ_SEL],
                                         .dk = trace[LH_DK_SEL],
                                         .dv = trace[LH_DV_SEL],
                                         .first = first};
    struct window w = {.job = &job, .first = first, .tiles = trace[LH_Q_SEL].shape[2] / LH_OMP_TILE};
    const int64_t key_tiles = first / LH_OMP_TILE + w.tiles;
    const int64_t groups = lh_omp_least(z->groups, key_tiles); /* that have keys */
    lh_omp_for(plan, z->heads_window * w.tiles, 1, pack_queries_piece, &w);
    for (int64_t head = 0; head < z->heads_window; head++)
        memset(sum_of(plan, head), 0, sizeof(float) * lh_omp_partial_floats(z));
    for (w.group = 0; w.group < groups; w.group += z->sums) {
        w.groups = lh_omp_least(groups - w.group, z->sums);
        lh_omp_for(plan, z->heads_window * w.groups, 1, group_piece, &w);
        lh_omp_for(plan, z->heads_window * w.tiles, 1, add_piece, &w);
    }
    lh_omp_for(plan, z->heads_window * w.tiles, 1, store_piece, &w);
}

const struct lh_windows lh_omp_windows = {.gather = gather,
                                          .unpool = unpool,
                                          .bytes = bytes,
                                          .keys = keys,
                                          .attend = attend,
                                          .attend_backward = attend_backward};
