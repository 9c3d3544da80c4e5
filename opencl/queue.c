/* A plan's context and queue. */
#include "opencl/opencl.h"

lh_status lh_cl_queue_open(lh_plan *plan, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    cl_command_queue given = plan->options.stream;
    cl_device_id id = NULL;
    cl_int code;
    if (!given && plan->options.memory == LH_ON_DEVICE)
        return lh_fail(
            error, LH_INVALID,
            "stream is NULL, wanted the cl_command_queue whose context the tensors' cl_mem belong to");
    lh_status status = LH_OK;
    if (given)
        code = clGetCommandQueueInfo(given, CL_QUEUE_DEVICE, sizeof id, &id, NULL);
    else {
        code = CL_SUCCESS;
        status = lh_cl_device_find(plan->options.device, &id, error);
    }
    if (code != CL_SUCCESS)
        return lh_cl_fail(&state->device, code, "the given cl_command_queue", error);
    if (status == LH_OK)
        status = lh_cl_device_describe(id, &state->device, error);
    if (status != LH_OK)
        return status;
    if (given) {
        cl_command_queue_properties properties = 0;
        code = clRetainCommandQueue(given);
        if (code == CL_SUCCESS) {
            state->queue = given;
            code = clGetCommandQueueInfo(given, CL_QUEUE_PROPERTIES, sizeof properties, &properties, NULL);
            state->out_of_order = (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
        }
        if (code == CL_SUCCESS)
            code =
                clGetCommandQueueInfo(given, CL_QUEUE_CONTEXT, sizeof state->context, &state->context, NULL);
        if (code == CL_SUCCESS)
            code = clRetainContext(state->context);
        else
            state->context = NULL;
        return code == CL_SUCCESS ? LH_OK
                                  : lh_cl_fail(&state->device, code, "the given cl_command_queue", error);
    }
    state->context = lh_cl_context_share(id, &code);
    if (code != CL_SUCCESS)
        return lh_cl_fail(&state->device, code, "clCreateContext", error);
    state->queue = clCreateCommandQueue(state->context, id,
                                        plan->options.profile ? CL_QUEUE_PROFILING_ENABLE : 0, &code);
    return code == CL_SUCCESS ? LH_OK : lh_cl_fail(&state->device, code, "clCreateCommandQueue", error);
}

cl_int lh_cl_in_order(const struct lh_cl_state *state)
{
    return state->out_of_order ? clEnqueueBarrierWithWaitList(state->queue, 0, NULL, NULL) : CL_SUCCESS;
}

void lh_cl_queue_close(struct lh_cl_state *state)
{
    if (state->queue) {
        clFinish(state->queue);
        clReleaseCommandQueue(state->queue);
    }
    if (state->context)
        clReleaseContext(state->context);
}
