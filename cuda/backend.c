/* The row of backend "cuda". */
#include "cuda/plan.h"

const lh_backend lh_backend_cuda = {
    .name = "cuda",
    .can =
        {
            .dtypes = 1u << LH_F32 | 1u << LH_F16 | 1u << LH_BF16,
            .attentions = 1u << LH_ATTENTION_AUTO | 1u << LH_ATTENTION_OWN | 1u << LH_ATTENTION_CUDNN,
            .stages = true,
            .device_memory = true,
            .numbered_devices = true,
        },
    .device_count = lh_cuda_device_count,
    .device_query = lh_cuda_device_query,
    .create = lh_cuda_create,
    .destroy = lh_cuda_destroy,
    .run_stage = lh_cuda_run_stage,
    .forward = lh_cuda_forward,
    .backward = lh_cuda_backward,
    .needs = lh_cuda_needs,
    .select_rows = lh_cuda_select_rows,
    .ceilings = lh_cuda_ceilings,
    .arithmetic = lh_cuda_arithmetic,
};
