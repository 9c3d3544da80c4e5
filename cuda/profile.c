/* profile.c: a CUDA event between two stages, and the time between two events booked under the stage. */
#include "cuda/job.h"

lh_status lh_cuda_mark(const lh_cuda_job *job, int stage)
{
    lh_cuda *state = job->state;
    if (!job->plan->options.profile || state->marks == LH_CUDA_MARKS)
        return LH_OK;
    state->mark_stage[state->marks] = stage;
    return lh_cuda_status(job, cudaEventRecord(state->mark[state->marks++], state->stream),
                          "recording a CUDA event");
}

lh_status lh_cuda_book(const lh_cuda_job *job)
{
    lh_cuda *state = job->state;
    lh_profile *profile = &job->plan->profile;
    for (int i = 1; i < state->marks; i++) {
        float milliseconds = 0;
        const cudaError_t e = cudaEventElapsedTime(&milliseconds, state->mark[i - 1], state->mark[i]);
        if (e != cudaSuccess)
            return lh_cuda_status(job, e, "reading a CUDA event");
        if (state->mark_stage[i] == LH_CUDA_TRANSFER)
            profile->transfer += 1e-3 * milliseconds;
        else if (state->mark_stage[i] >= 0)
            profile->seconds[state->mark_stage[i]] += 1e-3 * milliseconds;
    }
    return LH_OK;
}
