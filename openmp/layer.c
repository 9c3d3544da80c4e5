/*
 * Layer: the whole forward and backward, and the table of what one instruction set offers.
 *
 *   forward    score -> select -> [gather and pool, attend] a few heads at a time -> scatter
 *   backward   [gather, spread dout, attend backward, un-pool] a few heads at a time
 *
 * With rows_kept q_sel k_sel v_sel are written once and read by both instead of gathering.
 *
 * L = 1 is the same attention on q, k, v as they stand, written straight to out. Times are booked as: score,
 * select, gather (pooling as it reads), attend, scatter; backward: gather (k, v), scatter_backward (q and dout),
 * attend_backward, unpool.
 */
#include "openmp/openmp.h"

/* The caller's tensor, or the plan's own where the caller has none. */
static lh_tensor chosen(const lh_tensor *callers, const lh_tensor *own)
{
    return callers->data ? *callers : *own;
}

static const lh_tensor *select_index(lh_plan *plan, const lh_tensor *trace, lh_tensor *index)
{
    const struct lh_omp_state *state = lh_omp_state(plan);
    *index = chosen(&trace[LH_INDEX], &state->index);
    if (plan->config.levels == 1) {
        if (index->data && !plan->options.index_given) {
            lh_tensor dense[LH_TENSOR_COUNT] = {[LH_INDEX] = *index};
            lh_omp_select(plan, dense, NULL);
        }
        return NULL;
    }
    if (!plan->options.index_given) {
        lh_tensor stages[LH_TENSOR_COUNT] = {[LH_Q] = trace[LH_Q], [LH_K] = trace[LH_K], [LH_INDEX] = *index};
        if (plan->options.scores_given) {
            stages[LH_SCORE_Q] = trace[LH_SCORE_Q];
            stages[LH_SCORE_K] = trace[LH_SCORE_K];
        } else {
            lh_tensor_shape(&plan->config, &plan->layout, LH_F32, LH_SCORE_Q, &stages[LH_SCORE_Q]);
            lh_tensor_shape(&plan->config, &plan->layout, LH_F32, LH_SCORE_K, &stages[LH_SCORE_K]);
            stages[LH_SCORE_Q].data = state->score_q;
            stages[LH_SCORE_K].data = state->score_k;
            lh_omp_score(plan, stages, NULL);
        }
        lh_omp_select(plan, stages, NULL);
    }
    return index;
}

static void cover_densely(const lh_plan *plan, int32_t *coverage)
{
    const int64_t n = plan->config.batch * plan->config.heads * plan->config.tokens;
    for (int64_t i = 0; coverage && i < n; i++)
        coverage[i] = 1;
}

lh_status lh_omp_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    const struct lh_omp_state *state = lh_omp_state(plan);
    lh_tensor index;
    struct lh_omp_attention job = {
        .q = trace[LH_Q],
        .k = trace[LH_K],
        .v = trace[LH_V],
        .index = select_index(plan, trace, &index),
        .o = {chosen(&trace[LH_O_SEL], &state->o_sel)},
        .lse = chosen(&trace[LH_LSE], &state->lse),
    };
    if (!job.index) {
        job.o[1] = trace[LH_OUT];
        lh_omp_attend(plan, &job);
        cover_densely(plan, trace[LH_COVERAGE].data);
        return LH_OK;
    }
    if (plan->options.rows_kept) {
        lh_tensor rows[LH_TENSOR_COUNT] = {
            [LH_Q] = trace[LH_Q],        [LH_K] = trace[LH_K],         [LH_V] = trace[LH_V],
            [LH_INDEX] = index,          [LH_Q_SEL] = trace[LH_Q_SEL], [LH_K_SEL] = trace[LH_K_SEL],
            [LH_V_SEL] = trace[LH_V_SEL]};
        lh_omp_gather_tokens(plan, rows, error);
        job.q = trace[LH_Q_SEL];
        job.k = trace[LH_K_SEL];
        job.v = trace[LH_V_SEL];
        job.index = NULL;
    }
    lh_omp_attend(plan, &job);
    lh_tensor scatter[LH_TENSOR_COUNT] = {[LH_O_SEL] = job.o[0],
                                          [LH_INDEX] = index,
                                          [LH_OUT] = trace[LH_OUT],
                                          [LH_COVERAGE] = trace[LH_COVERAGE]};
    return lh_omp_scatter(plan, scatter, error);
}

lh_status lh_omp_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    const struct lh_omp_state *state = lh_omp_state(plan);
    const lh_tensor index = chosen(&trace[LH_INDEX], &state->index);
    const bool rows = plan->options.rows_kept;
    const struct lh_omp_attention job = {
        .q = trace[rows ? LH_Q_SEL : LH_Q],
        .k = trace[rows ? LH_K_SEL : LH_K],
        .v = trace[rows ? LH_V_SEL : LH_V],
        .selected = rows,
        .index = plan->config.levels > 1 ? &index : NULL,
        .o = {chosen(&trace[LH_O_SEL], &state->o_sel)},
        .lse = chosen(&trace[LH_LSE], &state->lse),
        .dout = trace[LH_DOUT],
        .dq = trace[LH_DQ],
        .dk = trace[LH_DK],
        .dv = trace[LH_DV],
    };
    if (job.index)
        lh_omp_slots(plan, job.index);
    lh_omp_attend_backward(plan, &job);
    return LH_OK;
}

const struct lh_omp_build lh_omp_build_table = {
    .name = LH_OMP_TEXT(LH_OMP_SET),
    .arrange = lh_omp_arrange,
    .stage =
        {
            [LH_POOL] = lh_omp_pool,
            [LH_SCORE] = lh_omp_score,
            [LH_SELECT] = lh_omp_select,
            [LH_GATHER] = lh_omp_gather,
            [LH_ATTEND] = lh_omp_stage_attend,
            [LH_SCATTER] = lh_omp_scatter,
            [LH_SCATTER_BACKWARD] = lh_omp_scatter_backward,
            [LH_ATTEND_BACKWARD] = lh_omp_stage_attend_backward,
            [LH_UNPOOL] = lh_omp_unpool,
        },
    .forward = lh_omp_forward,
    .backward = lh_omp_backward,
    .gather_tokens = lh_omp_gather_tokens,
    .windows = &lh_omp_windows,
};
