/* job.h: one call of a CUDA plan, as transfer.c, profile.c, stages.c and layer.c share it. */
#ifndef LH_CUDA_JOB_H
#define LH_CUDA_JOB_H

#include "cuda/plan.h"

/* The plan, and for each tensor where it is on the device. */
typedef struct lh_cuda_job {
    lh_plan *plan;
    lh_cuda *state;
    const lh_tensor *trace;
    bool single; /* a stage alone */
    lh_tensor at[LH_TENSOR_COUNT];
    lh_error *error;
} lh_cuda_job;

static inline lh_status lh_cuda_status(const lh_cuda_job *job, cudaError_t e, const char *what)
{
    return e == cudaSuccess ? LH_OK : lh_cuda_fail(e, what, job->error);
}

/* profile.c */
/* Books the time since the mark before under `stage`; -1 starts the clock. */
lh_status lh_cuda_mark(const lh_cuda_job *job, int stage);
/* After the stream was waited for. */
lh_status lh_cuda_book(const lh_cuda_job *job);

/* transfer.c */
/* The plan's own memory for a tensor. A stage alone leaves alone what a forward keeps for its backward. */
void lh_cuda_hold(lh_cuda_job *job, lh_tensor_id id);
/* Finds every tensor of `ids` on the device; host tensors get the plan's images, and go up where `read`. */
lh_status lh_cuda_place(lh_cuda_job *job, const lh_tensor_id *ids, bool read);
/* Host tensors of `ids` come down. */
lh_status lh_cuda_fetch(lh_cuda_job *job, const lh_tensor_id *ids);

/* stages.c: enqueue, and wait for nothing */
lh_status lh_cuda_step(const lh_cuda_job *job, lh_stage stage);
/* Both in one pass, without copying level 0. */
cudaError_t lh_cuda_step_pool_and_score(const lh_cuda_job *job, bool scores);
/* `slots`: the plan's too, as lh_cuda_step_make_slots would. */
cudaError_t lh_cuda_step_choose(const lh_cuda_job *job, bool slots);
cudaError_t lh_cuda_step_make_slots(const lh_cuda_job *job);
/* `whole`: level 0 from q k v, the rest from the plan's pyramids; else from the trace's pyramids. */
cudaError_t lh_cuda_step_gather(const lh_cuda_job *job, bool whole);
cudaError_t lh_cuda_step_scatter(const lh_cuda_job *job);
cudaError_t lh_cuda_step_unpool(const lh_cuda_job *job);

#endif
