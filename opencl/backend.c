/* The row of backend "opencl". Arithmetic is float32 on every device. */
#include "opencl/opencl.h"

const lh_backend lh_backend_opencl = {
    .name = "opencl",
    .can =
        {
            .dtypes = 1u << LH_F32 | 1u << LH_F16 | 1u << LH_BF16,
            .attentions = 1u << LH_ATTENTION_AUTO | 1u << LH_ATTENTION_OWN,
            .stages = true,
            .device_memory = true,
            .numbered_devices = true,
        },
    .compiles = true,
    .device_count = lh_cl_device_count,
    .device_query = lh_cl_device_query,
    .create = lh_cl_create,
    .destroy = lh_cl_destroy,
    .run_stage = lh_cl_run_stage,
    .forward = lh_cl_forward,
    .backward = lh_cl_backward,
    .tuner = &lh_cl_tuner,
    .ceilings = lh_cl_ceilings,
};
