/* layer.c: stages and whole layers: tensors there, kernels in order, tensors back. */
#include "cuda/job.h"

typedef lh_status body_fn(lh_cuda_job *job, lh_stage stage);

static lh_status one_stage(lh_cuda_job *job, lh_stage stage)
{
    const lh_status status = lh_cuda_step(job, stage);
    return status == LH_OK ? lh_cuda_mark(job, stage) : status;
}

/* Up to the selected rows. */
static lh_status select_rows(lh_cuda_job *job, lh_stage unused)
{
    (void)unused;
    const lh_options *o = &job->plan->options;
    lh_status status = lh_cuda_status(
        job, lh_cuda_step_pool_and_score(job, !o->index_given && !o->scores_given), "pool and score");
    if (status == LH_OK)
        status = lh_cuda_mark(job, LH_POOL);
    if (status == LH_OK)
        status = lh_cuda_status(
            job, o->index_given ? lh_cuda_step_make_slots(job) : lh_cuda_step_choose(job, true), "select");
    if (status == LH_OK)
        status = lh_cuda_mark(job, LH_SELECT);
    if (status == LH_OK)
        status = lh_cuda_status(job, lh_cuda_step_gather(job, true), "gather");
    return status == LH_OK ? lh_cuda_mark(job, LH_GATHER) : status;
}

static lh_status whole_forward(lh_cuda_job *job, lh_stage unused)
{
    lh_status status = select_rows(job, unused);
    if (status == LH_OK)
        status = one_stage(job, LH_ATTEND);
    if (status == LH_OK)
        status = lh_cuda_status(job, lh_cuda_step_scatter(job), "scatter");
    return status == LH_OK ? lh_cuda_mark(job, LH_SCATTER) : status;
}

/* The sub-sequence again from q k v, unless the caller kept it or the plan still holds that of its last forward. */
static lh_status regather(lh_cuda_job *job)
{
    const lh_tensor *t = job->trace;
    if (job->state->held && !t[LH_INDEX].data && !t[LH_O_SEL].data && !t[LH_LSE].data)
        return LH_OK;
    const bool kept = job->plan->options.rows_kept;
    lh_status status = LH_OK;
    job->state->held = false;
    if (!kept)
        status = lh_cuda_status(job, lh_cuda_step_pool_and_score(job, false), "pool");
    if (status == LH_OK)
        status = lh_cuda_mark(job, LH_POOL);
    if (status == LH_OK)
        status = lh_cuda_status(job, lh_cuda_step_make_slots(job), "select");
    if (status == LH_OK)
        status = lh_cuda_mark(job, LH_SELECT);
    if (status == LH_OK && !kept)
        status = lh_cuda_status(job, lh_cuda_step_gather(job, true), "gather");
    return status == LH_OK ? lh_cuda_mark(job, LH_GATHER) : status;
}

static lh_status whole_backward(lh_cuda_job *job, lh_stage unused)
{
    (void)unused;
    lh_status status = regather(job);
    if (status == LH_OK)
        status = one_stage(job, LH_SCATTER_BACKWARD);
    if (status == LH_OK)
        status = one_stage(job, LH_ATTEND_BACKWARD);
    if (status == LH_OK)
        status = lh_cuda_status(job, lh_cuda_step_unpool(job), "unpool");
    return status == LH_OK ? lh_cuda_mark(job, LH_UNPOOL) : status;
}

/* What a call reads, writes and holds in between; lists end at LH_TENSOR_COUNT. */
struct call {
    lh_tensor_id reads[8], writes[8], holds[12];
    bool backward;
    body_fn *body;
};

/* Everything around a body: device, tensors up, tensors down, waiting, profile. */
static lh_status execute(lh_cuda_job *job, const lh_tensor_id *reads, const lh_tensor_id *writes,
                         body_fn *body, lh_stage stage)
{
    const lh_options *o = &job->plan->options;
    job->state->marks = 0;
    lh_status status = lh_cuda_mark(job, -1);
    if (status == LH_OK)
        status = lh_cuda_place(job, writes, false);
    if (status == LH_OK)
        status = lh_cuda_place(job, reads, true);
    if (status == LH_OK)
        status = lh_cuda_mark(job, LH_CUDA_TRANSFER);
    if (status == LH_OK)
        status = body(job, stage);
    if (status == LH_OK)
        status = lh_cuda_fetch(job, writes);
    if (status == LH_OK)
        status = lh_cuda_mark(job, LH_CUDA_TRANSFER);
    /* A caller's stream is left running; after a failure nothing of this call may still run. */
    if (o->memory == LH_HOST || job->state->own_stream || o->profile || status != LH_OK) {
        const cudaError_t e = cudaStreamSynchronize(job->state->stream);
        if (status == LH_OK)
            status = lh_cuda_status(job, e, "running on the device");
    }
    return status == LH_OK ? lh_cuda_book(job) : status;
}

lh_status lh_cuda_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    lh_cuda_job job = {.plan = plan, .state = plan->state, .trace = trace, .single = true, .error = error};
    int before;
    lh_status status = lh_cuda_enter(plan->options.device, &before, error);
    if (status != LH_OK)
        return status;
    job.state->held = false; /* slots and selected rows are about to be another's */
    status = execute(&job, lh_stage_reads(stage), lh_stage_writes(stage), one_stage, stage);
    lh_cuda_leave(before);
    return status;
}

static lh_status run_whole(lh_plan *plan, const lh_tensor *trace, const struct call *call, lh_error *error)
{
    lh_cuda_job job = {.plan = plan, .state = plan->state, .trace = trace, .error = error};
    int before;
    lh_status status = lh_cuda_enter(plan->options.device, &before, error);
    if (status != LH_OK)
        return status;
    lh_cuda_settle(plan, call->backward);
    for (const lh_tensor_id *id = call->holds; *id != LH_TENSOR_COUNT; id++)
        lh_cuda_hold(&job, *id);
    if (plan->options.rows_kept) /* on the device, as all of a plan with workspace_given is */
        status = lh_cuda_place(&job, lh_stage_writes(LH_GATHER), false);
    if (status == LH_OK)
        status = execute(&job, call->reads, call->writes, call->body, LH_STAGE_COUNT);
    lh_cuda_leave(before);
    return status;
}

lh_status lh_cuda_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const struct call selecting = {
        {LH_Q, LH_K, LH_V, LH_TENSOR_COUNT},
        {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT, LH_COVERAGE, LH_TENSOR_COUNT},
        {LH_SCORE_Q, LH_SCORE_K, LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_TENSOR_COUNT},
        false,
        whole_forward,
    };
    static const struct call scored = {
        {LH_Q, LH_K, LH_V, LH_SCORE_Q, LH_SCORE_K, LH_TENSOR_COUNT},
        {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT, LH_COVERAGE, LH_TENSOR_COUNT},
        {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_TENSOR_COUNT},
        false,
        whole_forward,
    };
    static const struct call given = {
        {LH_Q, LH_K, LH_V, LH_INDEX, LH_TENSOR_COUNT},
        {LH_O_SEL, LH_LSE, LH_OUT, LH_COVERAGE, LH_TENSOR_COUNT},
        {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_TENSOR_COUNT},
        false,
        whole_forward,
    };
    lh_cuda *state = plan->state;
    state->held = false;
    const lh_options *o = &plan->options;
    const struct call *call = o->index_given ? &given : o->scores_given ? &scored : &selecting;
    const lh_status status = run_whole(plan, trace, call, error);
    state->held = status == LH_OK;
    return status;
}

lh_status lh_cuda_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const struct call call = {
        {LH_Q, LH_K, LH_V, LH_DOUT, LH_INDEX, LH_O_SEL, LH_LSE, LH_TENSOR_COUNT},
        {LH_DQ, LH_DK, LH_DV, LH_TENSOR_COUNT},
        {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_DO_SEL, LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL, LH_TENSOR_COUNT},
        true,
        whole_backward,
    };
    return run_whole(plan, trace, &call, error);
}

lh_status lh_cuda_select_rows(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const struct call call = {
        {LH_Q, LH_K, LH_V, LH_TENSOR_COUNT},
        {LH_SCORE_Q, LH_SCORE_K, LH_INDEX, LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_TENSOR_COUNT},
        {LH_TENSOR_COUNT},
        false,
        select_rows,
    };
    lh_cuda *state = plan->state;
    state->held = false;
    return run_whole(plan, trace, &call, error);
}
