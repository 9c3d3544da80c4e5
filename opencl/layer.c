/*
 * Whole layers that stay on the device, chunk by chunk: no pyramid is stored, the gather pools as it reads and
 * the scatter pulls.
 */
#include "opencl/opencl.h"

/* The plan's own chunk of a tensor between stages. */
static void use_own(struct lh_cl_chunk *k, lh_tensor_id id)
{
    k->view[id] = lh_cl_chunk_view(k, id, lh_cl_own_buffer(k->state, k->number, id));
}

static void use_selected(struct lh_cl_chunk *k)
{
    static const lh_tensor_id ids[] = {LH_INDEX, LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_O_SEL, LH_LSE};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        use_own(k, ids[i]);
}

static lh_status bind_inputs(struct lh_cl_chunk *k, const lh_tensor_id *ids, int count,
                             const lh_tensor *trace, lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < count && status == LH_OK; i++)
        status = lh_cl_bind_input(k, ids[i], &trace[ids[i]], error);
    return status;
}

static const lh_tensor_id none[] = {LH_TENSOR_COUNT};

static lh_status forward_chunk(struct lh_cl_chunk *k, const lh_tensor *trace, lh_error *error)
{
    static const lh_tensor_id kept[] = {LH_INDEX, LH_O_SEL, LH_LSE}, scores[] = {LH_SCORE_Q, LH_SCORE_K};
    static const lh_tensor_id q_k[] = {LH_Q, LH_K, LH_TENSOR_COUNT}, out[] = {LH_OUT, LH_TENSOR_COUNT};
    static const lh_tensor_id q_k_v[] = {LH_Q, LH_K, LH_V, LH_TENSOR_COUNT};
    const bool given = k->plan->options.index_given;
    unsigned there = 0;
    lh_status status = LH_OK;
    use_selected(k);
    lh_cl_bind_output(k, LH_COVERAGE, &trace[LH_COVERAGE]);
    if (given) {
        status = lh_cl_copy_in(k, LH_INDEX, &trace[LH_INDEX], k->view[LH_INDEX].mem, error);
    } else {
        if (k->plan->options.scores_given) {
            status = bind_inputs(k, scores, 2, trace, error);
        } else {
            use_own(k, LH_SCORE_Q);
            use_own(k, LH_SCORE_K);
            status = lh_cl_over_segments(k, lh_cl_score, q_k, none, trace, &there, error);
        }
        if (status == LH_OK)
            status = lh_cl_select(k, error);
    }
    if (status == LH_OK)
        status = lh_cl_over_segments(k, lh_cl_gather_windows, q_k_v, none, trace, &there, error);
    if (status == LH_OK)
        status = lh_cl_attend(k, error);
    if (status == LH_OK)
        status = lh_cl_over_segments(k, lh_cl_scatter, none, out, trace, &there, error);
    if (status == LH_OK)
        status = lh_cl_flush_output(k, LH_COVERAGE, &trace[LH_COVERAGE], error);
    for (int i = given ? 1 : 0; i < 3 && status == LH_OK; i++) {
        if (trace[kept[i]].data)
            status = lh_cl_copy_out(k, kept[i], &trace[kept[i]], k->view[kept[i]].mem, error);
    }
    return status;
}

static lh_status backward_chunk(struct lh_cl_chunk *k, const lh_tensor *trace, lh_error *error)
{
    static const lh_tensor_id kept[] = {LH_INDEX, LH_O_SEL, LH_LSE};
    static const lh_tensor_id between[] = {LH_DO_SEL, LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    static const lh_tensor_id q_k_v[] = {LH_Q, LH_K, LH_V, LH_TENSOR_COUNT},
                              dout[] = {LH_DOUT, LH_TENSOR_COUNT};
    unsigned there = 0;
    lh_status status = LH_OK;
    use_selected(k);
    for (int i = 0; i < 4; i++)
        use_own(k, between[i]);
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        if (trace[kept[i]].data)
            status = lh_cl_copy_in(k, kept[i], &trace[kept[i]], k->view[kept[i]].mem, error);
    }
    if (status == LH_OK)
        status = lh_cl_over_segments(k, lh_cl_gather_windows, q_k_v, none, trace, &there, error);
    if (status == LH_OK)
        status = lh_cl_over_segments(k, lh_cl_scatter_backward, dout, none, trace, &there, error);
    if (status == LH_OK)
        status = lh_cl_attend_backward(k, error);
    if (status == LH_OK)
        status = lh_cl_over_segments(k, lh_cl_unpool, none, lh_layer_gradients, trace, &there, error);
    return status;
}

/* One stage alone: its reads bound or brought over, its writes brought back. */
static lh_status stage_chunk(struct lh_cl_chunk *k, lh_stage stage, lh_cl_stage_fn *fn,
                             const lh_tensor *trace, lh_error *error)
{
    const lh_tensor_id *reads = lh_stage_reads(stage), *writes = lh_stage_writes(stage);
    unsigned there = 0;
    lh_status status = LH_OK;
    if (k->plan->options.memory == LH_ON_DEVICE)
        k->sel_first = k->first;
    for (const lh_tensor_id *id = reads; *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (!lh_cl_is_long(*id))
            status = lh_cl_bind_input(k, *id, &trace[*id], error);
    }
    for (const lh_tensor_id *id = writes; *id != LH_TENSOR_COUNT; id++) {
        if (!lh_cl_is_long(*id))
            lh_cl_bind_output(k, *id, &trace[*id]);
    }
    if (status == LH_OK)
        status = lh_cl_over_segments(k, fn, reads, writes, trace, &there, error);
    for (const lh_tensor_id *id = writes; *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (!lh_cl_is_long(*id))
            status = lh_cl_flush_output(k, *id, &trace[*id], error);
    }
    return status;
}

/* The work of one chunk: a whole layer, or a stage when `stage` is set. */
struct work {
    lh_status (*layer)(struct lh_cl_chunk *k, const lh_tensor *trace, lh_error *error);
    lh_cl_stage_fn *stage;
    lh_stage number;
};

/* All chunks, then a wait: but not when tensors are in device memory, as the caller's queue keeps the order. */
static lh_status for_chunks(lh_plan *plan, const struct work *work, const lh_tensor *trace, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    lh_status status = lh_cl_same_process(error);
    if (status != LH_OK)
        return status;
    for (int64_t i = 0; i < state->chunks && status == LH_OK; i++) {
        struct lh_cl_chunk chunk;
        lh_cl_chunk_at(plan, i, &chunk);
        status = work->stage ? stage_chunk(&chunk, work->number, work->stage, trace, error)
                             : work->layer(&chunk, trace, error);
    }
    if (status == LH_OK && plan->options.memory == LH_ON_DEVICE && !plan->options.profile) {
        cl_int code = lh_cl_in_order(state); /* the caller's next commands */
        if (code == CL_SUCCESS)
            code = clFlush(state->queue);
        return code == CL_SUCCESS ? LH_OK : lh_cl_fail(&state->device, code, "clFlush", error);
    }
    const lh_status finished = lh_cl_finish(plan, status == LH_OK ? error : NULL);
    if (status == LH_DEVICE || finished == LH_DEVICE)
        lh_cl_context_forget(state->context);
    return status == LH_OK ? finished : status;
}

lh_status lh_cl_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return for_chunks(plan, &(struct work){.layer = forward_chunk}, trace, error);
}

lh_status lh_cl_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return for_chunks(plan, &(struct work){.layer = backward_chunk}, trace, error);
}

lh_status lh_cl_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    static lh_cl_stage_fn *const stages[LH_STAGE_COUNT] = {
        [LH_POOL] = lh_cl_pool,
        [LH_SCORE] = lh_cl_score,
        [LH_SELECT] = lh_cl_select,
        [LH_GATHER] = lh_cl_gather,
        [LH_ATTEND] = lh_cl_attend,
        [LH_SCATTER] = lh_cl_scatter,
        [LH_SCATTER_BACKWARD] = lh_cl_scatter_backward,
        [LH_ATTEND_BACKWARD] = lh_cl_attend_backward,
        [LH_UNPOOL] = lh_cl_unpool,
    };
    return for_chunks(plan, &(struct work){.stage = stages[stage], .number = stage}, trace, error);
}
