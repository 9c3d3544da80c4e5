/* stages.c: the kernels of each stage, on the tensors of a call. */
#include "cuda/job.h"

static lh_rows rows(const lh_cuda_job *job, lh_tensor_id id)
{
    const lh_tensor *t = &job->at[id];
    return (lh_rows){t->data, t->stride[0], t->stride[1], t->stride[2]};
}

static const lh_tensor_id inputs[3] = {LH_Q, LH_K, LH_V};

static int64_t heads_of(const lh_cuda_job *job, int i)
{
    return i == 0 ? job->state->shape.heads : job->state->shape.kv_heads;
}

static lh_pooling pooling(const lh_cuda_job *job, int i, void *pyramid, float *into)
{
    return (lh_pooling){rows(job, inputs[i]), heads_of(job, i), pyramid, into};
}

static cudaError_t pool(const lh_cuda_job *job)
{
    lh_pooling of[3];
    for (int i = 0; i < 3; i++)
        of[i] = pooling(job, i, job->at[LH_Q_PYR + i].data, NULL);
    return lh_cuda_pool_score(&job->state->shape, of, 3, 0, job->state->stream);
}

static cudaError_t score(const lh_cuda_job *job)
{
    lh_pooling of[2];
    for (int i = 0; i < 2; i++)
        of[i] = pooling(job, i, NULL, job->at[LH_SCORE_Q + i].data);
    return lh_cuda_pool_score(&job->state->shape, of, 2, 0, job->state->stream);
}

/* v's rows above the tokens are pooled by the gather. */
static bool gather_pools(const lh_cuda_job *job)
{
    const lh_rows x[3] = {rows(job, LH_Q), rows(job, LH_K), rows(job, LH_V)};
    void *const selected[3] = {job->at[LH_Q_SEL].data, job->at[LH_K_SEL].data, job->at[LH_V_SEL].data};
    return lh_cuda_gather_pools(&job->state->shape, x, selected);
}

cudaError_t lh_cuda_step_pool_and_score(const lh_cuda_job *job, bool scores)
{
    lh_cuda *state = job->state;
    lh_pooling of[3];
    const int count = gather_pools(job) ? 2 : 3;
    for (int i = 0; i < count; i++)
        of[i] = pooling(job, i, state->upper[i], scores && i < 2 ? job->at[LH_SCORE_Q + i].data : NULL);
    return lh_cuda_pool_score(&state->shape, of, count, 1, state->stream);
}

cudaError_t lh_cuda_step_choose(const lh_cuda_job *job, bool slots)
{
    return lh_cuda_select(&job->state->shape, job->at[LH_SCORE_Q].data, job->at[LH_SCORE_K].data,
                          job->at[LH_INDEX].data, slots ? job->state->slot : NULL, job->state->select_scratch,
                          job->state->stream);
}

cudaError_t lh_cuda_step_gather(const lh_cuda_job *job, bool whole)
{
    lh_cuda *state = job->state;
    lh_rows x[3] = {{0}};
    const void *upper[3];
    void *selected[3];
    for (int i = 0; i < 3; i++) {
        if (whole)
            x[i] = rows(job, inputs[i]);
        upper[i] = whole && i == 2 && gather_pools(job) ? NULL
                   : whole                              ? state->upper[i]
                                                        : job->at[LH_Q_PYR + i].data;
        selected[i] = job->at[LH_Q_SEL + i].data;
    }
    return lh_cuda_gather(&state->shape, x, upper, whole ? 1 : 0, job->at[LH_INDEX].data, selected,
                          state->stream);
}

static lh_attend attend_of(const lh_cuda_job *job)
{
    return (lh_attend){
        .q = job->at[LH_Q_SEL].data,
        .k = job->at[LH_K_SEL].data,
        .v = job->at[LH_V_SEL].data,
        .o = job->at[LH_O_SEL].data,
        .lse = job->at[LH_LSE].data,
        .d_o = job->at[LH_DO_SEL].data,
        .dq = job->at[LH_DQ_SEL].data,
        .dk = job->at[LH_DK_SEL].data,
        .dv = job->at[LH_DV_SEL].data,
        .delta = job->state->delta,
        .scratch = job->state->sums,
    };
}

static lh_status attend(const lh_cuda_job *job, bool backward)
{
    const lh_cuda *state = job->state;
    const lh_attend a = attend_of(job);
    if (state->cudnn && lh_cuda_attend_aligned(&a))
        return backward ? lh_cudnn_attend_backward(state->cudnn, &a, state->stream, job->error)
                        : lh_cudnn_attend(state->cudnn, &a, state->stream, job->error);
    return lh_cuda_status(job,
                          backward ? lh_cuda_attend_backward(&state->shape, &a, state->stream)
                                   : lh_cuda_attend(&state->shape, &a, state->stream),
                          lh_stage_name(backward ? LH_ATTEND_BACKWARD : LH_ATTEND));
}

cudaError_t lh_cuda_step_make_slots(const lh_cuda_job *job)
{
    return lh_cuda_slots(&job->state->shape, job->at[LH_INDEX].data, job->state->slot, job->state->stream);
}

cudaError_t lh_cuda_step_scatter(const lh_cuda_job *job)
{
    return lh_cuda_scatter(&job->state->shape, job->at[LH_O_SEL].data, job->state->slot, rows(job, LH_OUT),
                           job->at[LH_COVERAGE].data, job->state->stream);
}

static cudaError_t scatter_backward(const lh_cuda_job *job)
{
    return lh_cuda_scatter_backward(&job->state->shape, rows(job, LH_DOUT), job->at[LH_INDEX].data,
                                    job->at[LH_DO_SEL].data, job->state->stream);
}

cudaError_t lh_cuda_step_unpool(const lh_cuda_job *job)
{
    lh_unpooling of[3];
    for (int i = 0; i < 3; i++)
        of[i] = (lh_unpooling){job->at[LH_DQ_SEL + i].data, rows(job, (lh_tensor_id)(LH_DQ + i)),
                               heads_of(job, i)};
    return lh_cuda_unpool(&job->state->shape, of, job->state->slot, job->state->stream);
}

lh_status lh_cuda_step(const lh_cuda_job *job, lh_stage stage)
{
    cudaError_t e = cudaSuccess;
    switch (stage) {
    case LH_POOL:
        e = pool(job);
        break;
    case LH_SCORE:
        e = score(job);
        break;
    case LH_SELECT:
        e = lh_cuda_step_choose(job, false);
        break;
    case LH_GATHER:
        e = lh_cuda_step_gather(job, false);
        break;
    case LH_ATTEND:
        return attend(job, false);
    case LH_SCATTER:
        e = lh_cuda_step_make_slots(job);
        if (e == cudaSuccess)
            e = lh_cuda_step_scatter(job);
        break;
    case LH_SCATTER_BACKWARD:
        e = scatter_backward(job);
        break;
    case LH_ATTEND_BACKWARD:
        return attend(job, true);
    case LH_UNPOOL:
        e = lh_cuda_step_make_slots(job);
        if (e == cudaSuccess)
            e = lh_cuda_step_unpool(job);
        break;
    case LH_STAGE_COUNT:
        break;
    }
    return lh_cuda_status(job, e, lh_stage_name(stage));
}
