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

static cudaError_t pool(const lh_cuda_job *job)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 3 && e == cudaSuccess; i++)
        e = lh_cuda_pool_score(&job->state->shape, heads_of(job, i), rows(job, inputs[i]),
                               job->at[LH_Q_PYR + i].data, 0, NULL, job->state->stream);
    return e;
}

static cudaError_t score(const lh_cuda_job *job)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 2 && e == cudaSuccess; i++)
        e = lh_cuda_pool_score(&job->state->shape, heads_of(job, i), rows(job, inputs[i]), NULL, 0,
                               job->at[LH_SCORE_Q + i].data, job->state->stream);
    return e;
}

cudaError_t lh_cuda_step_pool_and_score(const lh_cuda_job *job, bool scores)
{
    lh_cuda *state = job->state;
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 3 && e == cudaSuccess; i++) {
        float *into = scores && i < 2 ? state->own[LH_SCORE_Q + i] : NULL;
        e = lh_cuda_pool_score(&state->shape, heads_of(job, i), rows(job, inputs[i]), state->upper[i], 1,
                               into, state->stream);
    }
    return e;
}

cudaError_t lh_cuda_step_choose(const lh_cuda_job *job)
{
    return lh_cuda_select(&job->state->shape, job->at[LH_SCORE_Q].data, job->at[LH_SCORE_K].data,
                          job->at[LH_INDEX].data, job->state->select_scratch, job->state->stream);
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
        upper[i] = whole ? state->upper[i] : job->at[LH_Q_PYR + i].data;
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
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 3 && e == cudaSuccess; i++)
        e = lh_cuda_unpool(&job->state->shape, heads_of(job, i), job->at[LH_DQ_SEL + i].data,
                           job->state->slot, rows(job, (lh_tensor_id)(LH_DQ + i)), job->state->stream);
    return e;
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
        e = lh_cuda_step_choose(job);
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
