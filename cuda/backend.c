/* backend.c: the CUDA backend's table. */
#include "cuda/plan.h"

static lh_status pool(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_POOL, trace, error);
}

static lh_status score(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_SCORE, trace, error);
}

static lh_status choose(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_SELECT, trace, error);
}

static lh_status gather(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_GATHER, trace, error);
}

static lh_status attend(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_ATTEND, trace, error);
}

static lh_status scatter(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_SCATTER, trace, error);
}

static lh_status scatter_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_SCATTER_BACKWARD, trace, error);
}

static lh_status attend_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_ATTEND_BACKWARD, trace, error);
}

static lh_status unpool(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return lh_cuda_run_stage(plan, LH_UNPOOL, trace, error);
}

const lh_backend lh_backend_cuda = {
    .name = "cuda",
    .device_count = lh_cuda_device_count,
    .device_query = lh_cuda_device_query,
    .supports = lh_cuda_supports,
    .device_memory = true,
    .create = lh_cuda_create,
    .destroy = lh_cuda_destroy,
    .stage =
        {
            [LH_POOL] = pool,
            [LH_SCORE] = score,
            [LH_SELECT] = choose,
            [LH_GATHER] = gather,
            [LH_ATTEND] = attend,
            [LH_SCATTER] = scatter,
            [LH_SCATTER_BACKWARD] = scatter_backward,
            [LH_ATTEND_BACKWARD] = attend_backward,
            [LH_UNPOOL] = unpool,
        },
    .forward = lh_cuda_forward,
    .backward = lh_cuda_backward,
};
