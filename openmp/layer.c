/*
 * Layer: the whole forward and backward, and the plan's workspace.
 *
 *   forward    score -> select -> [gather and pool, attend] a few heads at a time -> scatter
 *   backward   [gather, spread dout, attend backward, un-pool] a few heads at a time
 *
 * No pyramid and no selected rows of more than a few heads are ever in memory. L = 1 is the same attention on
 * q, k, v as they stand, written straight to out. Times are booked as: score, select, gather (pooling as it
 * reads), attend, scatter; backward: gather (k, v), scatter_backward (q and dout), attend_backward, unpool.
 */
#include "openmp/pack.h"

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static int64_t clamp(int64_t n, int64_t least, int64_t most)
{
    return n < least ? least : n > most ? most : n;
}

enum {
    ROWS_AT_A_TIME = 32768, /* heads are worked on together until they have so many rows */
    PIECES_AT_A_TIME = 64   /* pieces of backward work that heads worked on together are cut into */
};

/* The backward's partial sums of dq_sel: of the whole layer, whatever part of it the plan is. */
static void share_out(const lh_config *config, int64_t rows, struct cpu_sizes *z)
{
    const int64_t all = config->batch * config->heads, group = config->heads / config->kv_heads;
    z->heads_backward = clamp(round_up(clamp(ROWS_AT_A_TIME / rows, 1, all), group), 1, all);
    z->groups = clamp(PIECES_AT_A_TIME / z->heads_backward, 1,
                      round_up(rows, CPU_KEY_TILE_BACKWARD) / CPU_KEY_TILE_BACKWARD);
}

static struct cpu_sizes sizes_of(const lh_plan *plan)
{
    const lh_config *config = &plan->config;
    const struct lh_part *part = plan->options.part;
    const int64_t rows = plan->layout.selected, all = config->batch * config->heads;
    struct cpu_sizes z = {
        .rows = rows,
        .tiles = (rows + CPU_TILE - 1) / CPU_TILE,
        .key_rows = round_up(rows, CPU_KEY_ROWS),
        .dim = config->dim,
        .dim_group = round_up(config->dim, GROUP),
        .dim_vector = round_up(config->dim, LANES),
        .heads_forward = clamp(ROWS_AT_A_TIME / rows, 1, all),
    };
    share_out(part ? part->layer : config, part ? part->layout->selected : rows, &z);
    if (part)
        z.heads_backward = z.heads_forward;
    z.first_tile = part ? part->first_query / CPU_TILE : 0;
    return z;
}

/* Bytes per thread, whichever part of the work it is used by. */
static size_t scratch_bytes(const lh_plan *plan, const struct cpu_sizes *z)
{
    const size_t d = (size_t)z->dim, block = BLOCK;
    const size_t needs[] = {
        sizeof(float) * PACK_MOST * d, sizeof(float) * 2 * block * d,
        cpu_forward_bytes(z),          sizeof(float) * 2 * CPU_KEY_TILE_BACKWARD * CPU_TILE,
        cpu_select_bytes(plan),        cpu_pool_bytes(plan),
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        most = needs[i] > most ? needs[i] : most;
    return (most + 127) / 64 * 64; /* a line apart: threads do not share one */
}

/* Takes `bytes` from the workspace, 64-byte aligned; counts them when there is no memory yet. */
static void *take(char *base, size_t *used, size_t bytes)
{
    void *taken = base ? base + *used : NULL;
    *used = bytes > SIZE_MAX - 128 - *used ? SIZE_MAX - 128 : *used + (bytes + 63) / 64 * 64;
    return taken;
}

static void keep(const lh_plan *plan, lh_tensor_id id, bool wanted, char *base, size_t *used,
                 lh_tensor *tensor)
{
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, tensor);
    tensor->data = NULL;
    if (wanted)
        tensor->data = take(base, used, (size_t)lh_tensor_elements(tensor) * lh_dtype_size(tensor->dtype));
}

size_t cpu_arrange(const lh_plan *plan, void *base)
{
    struct cpu_state *state = cpu_state(plan);
    const lh_config *config = &plan->config;
    const size_t entries = (size_t)plan->layout.entries * (size_t)config->batch;
    const bool lighthouse = config->levels > 1, backward = plan->options.backward;
    const bool whole = !plan->options.part;
    const unsigned stages = whole ? ~0u : plan->options.part->stages;
    const struct cpu_sizes z = state->sizes = sizes_of(plan);
    size_t used = 0;
    keep(plan, LH_INDEX, whole && lighthouse, base, &used, &state->index);
    keep(plan, LH_O_SEL, whole && (lighthouse || backward), base, &used, &state->o_sel);
    keep(plan, LH_LSE, whole && backward, base, &used, &state->lse);
    if (whole && lighthouse && !plan->options.index_given) {
        state->score_q = take(base, &used, sizeof(float) * entries * (size_t)config->heads);
        state->score_k = take(base, &used, sizeof(float) * entries * (size_t)config->kv_heads);
    }
    if ((lighthouse || plan->options.stages) && stages & (1u << LH_SCATTER | 1u << LH_UNPOOL))
        state->slot = take(base, &used, sizeof(int32_t) * entries * (size_t)config->heads);
    size_t floats = cpu_forward_floats(&z);
    if (backward && cpu_backward_floats(&z) > floats)
        floats = cpu_backward_floats(&z);
    if (!(stages & (1u << LH_ATTEND | 1u << LH_ATTEND_BACKWARD)))
        floats = 0;
    state->pack = take(base, &used, floats > SIZE_MAX / sizeof(float) ? SIZE_MAX : sizeof(float) * floats);
    state->scratch_bytes = scratch_bytes(plan, &z);
    state->scratch = take(base, &used, state->scratch_bytes * (size_t)state->threads);
    return used;
}

/* The caller's tensor, or the plan's own where the caller has none. */
static lh_tensor chosen(const lh_tensor *callers, const lh_tensor *own)
{
    return callers->data ? *callers : *own;
}

static const lh_tensor *select_index(lh_plan *plan, const lh_tensor *trace, lh_tensor *index)
{
    const struct cpu_state *state = cpu_state(plan);
    *index = chosen(&trace[LH_INDEX], &state->index);
    if (plan->config.levels == 1) {
        if (index->data && !plan->options.index_given) {
            lh_tensor dense[LH_TENSOR_COUNT] = {[LH_INDEX] = *index};
            cpu_select(plan, dense, NULL);
        }
        return NULL;
    }
    if (!plan->options.index_given) {
        lh_tensor stages[LH_TENSOR_COUNT] = {[LH_Q] = trace[LH_Q], [LH_K] = trace[LH_K], [LH_INDEX] = *index};
        lh_tensor_shape(&plan->config, &plan->layout, LH_F32, LH_SCORE_Q, &stages[LH_SCORE_Q]);
        lh_tensor_shape(&plan->config, &plan->layout, LH_F32, LH_SCORE_K, &stages[LH_SCORE_K]);
        stages[LH_SCORE_Q].data = state->score_q;
        stages[LH_SCORE_K].data = state->score_k;
        cpu_score(plan, stages, NULL);
        cpu_select(plan, stages, NULL);
    }
    return index;
}

static void cover_densely(const lh_plan *plan, int32_t *coverage)
{
    const int64_t n = plan->config.batch * plan->config.heads * plan->config.tokens;
    for (int64_t i = 0; coverage && i < n; i++)
        coverage[i] = 1;
}

lh_status cpu_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    const struct cpu_state *state = cpu_state(plan);
    lh_tensor index;
    struct cpu_attention job = {
        .q = trace[LH_Q],
        .k = trace[LH_K],
        .v = trace[LH_V],
        .index = select_index(plan, trace, &index),
        .o = {chosen(&trace[LH_O_SEL], &state->o_sel)},
        .lse = chosen(&trace[LH_LSE], &state->lse),
    };
    if (!job.index) {
        job.o[1] = trace[LH_OUT];
        cpu_attend(plan, &job);
        cover_densely(plan, trace[LH_COVERAGE].data);
        return LH_OK;
    }
    cpu_attend(plan, &job);
    lh_tensor scatter[LH_TENSOR_COUNT] = {[LH_O_SEL] = job.o[0],
                                          [LH_INDEX] = index,
                                          [LH_OUT] = trace[LH_OUT],
                                          [LH_COVERAGE] = trace[LH_COVERAGE]};
    return cpu_scatter(plan, scatter, error);
}

lh_status cpu_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    const struct cpu_state *state = cpu_state(plan);
    const lh_tensor index = chosen(&trace[LH_INDEX], &state->index);
    const struct cpu_attention job = {
        .q = trace[LH_Q],
        .k = trace[LH_K],
        .v = trace[LH_V],
        .index = plan->config.levels > 1 ? &index : NULL,
        .o = {chosen(&trace[LH_O_SEL], &state->o_sel)},
        .lse = chosen(&trace[LH_LSE], &state->lse),
        .dout = trace[LH_DOUT],
        .dq = trace[LH_DQ],
        .dk = trace[LH_DK],
        .dv = trace[LH_DV],
    };
    if (job.index)
        cpu_slots(plan, job.index);
    cpu_attend_backward(plan, &job);
    return LH_OK;
}

const struct cpu_build cpu_build_table = {
    .name = CPU_TEXT(LH_CPU_SET),
    .arrange = cpu_arrange,
    .stage =
        {
            [LH_POOL] = cpu_pool,
            [LH_SCORE] = cpu_score,
            [LH_SELECT] = cpu_select,
            [LH_GATHER] = cpu_gather,
            [LH_ATTEND] = cpu_stage_attend,
            [LH_SCATTER] = cpu_scatter,
            [LH_SCATTER_BACKWARD] = cpu_scatter_backward,
            [LH_ATTEND_BACKWARD] = cpu_stage_attend_backward,
            [LH_UNPOOL] = cpu_unpool,
        },
    .forward = cpu_forward,
    .backward = cpu_backward,
    .gather_tokens = cpu_gather_tokens,
};
