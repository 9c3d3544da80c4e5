/* The backend table. */
#include "opencl/opencl.h"

static bool supports(int device, lh_dtype dtype)
{
    (void)device; /* arithmetic is float32 on every device */
    return dtype == LH_F32 || dtype == LH_F16 || dtype == LH_BF16;
}

#define STAGE(name, stage)                                                                                   \
    static lh_status name(lh_plan *plan, const lh_tensor *trace, lh_error *error)                            \
    {                                                                                                        \
        return lh_cl_run_stage(plan, stage, trace, error);                                                   \
    }
STAGE(pool, LH_POOL)
STAGE(score, LH_SCORE)
STAGE(select_entries, LH_SELECT)
STAGE(gather, LH_GATHER)
STAGE(attend, LH_ATTEND)
STAGE(scatter, LH_SCATTER)
STAGE(scatter_backward, LH_SCATTER_BACKWARD)
STAGE(attend_backward, LH_ATTEND_BACKWARD)
STAGE(unpool, LH_UNPOOL)
#undef STAGE

const lh_backend lh_backend_opencl = {
    .name = "opencl",
    .device_count = lh_cl_device_count,
    .device_query = lh_cl_device_query,
    .supports = supports,
    .device_memory = true,
    .create = lh_cl_create,
    .destroy = lh_cl_destroy,
    .stage =
        {
            [LH_POOL] = pool,
            [LH_SCORE] = score,
            [LH_SELECT] = select_entries,
            [LH_GATHER] = gather,
            [LH_ATTEND] = attend,
            [LH_SCATTER] = scatter,
            [LH_SCATTER_BACKWARD] = scatter_backward,
            [LH_ATTEND_BACKWARD] = attend_backward,
            [LH_UNPOOL] = unpool,
        },
    .forward = lh_cl_forward,
    .backward = lh_cl_backward,
};
