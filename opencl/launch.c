/* Kernels: arguments, work sizes, and the time they take. */
#include <math.h>

#include "opencl/launch.h"

/* A view is two arguments of the kernel, the buffer and where the tensor lies in it. */
static cl_int set_argument(cl_kernel kernel, cl_uint *at, const struct lh_cl_arg *arg)
{
    const cl_int narrow = (cl_int)arg->value.integer;
    const cl_long wide = arg->value.integer;
    switch (arg->kind) {
    case LH_CL_MEM:
        return clSetKernelArg(kernel, (*at)++, sizeof(cl_mem), &arg->value.mem);
    case LH_CL_VIEW: {
        const cl_int code = clSetKernelArg(kernel, (*at)++, sizeof(cl_mem), &arg->value.view->mem);
        return code != CL_SUCCESS ? code
                                  : clSetKernelArg(kernel, (*at)++, sizeof(cl_long4), &arg->value.view->at);
    }
    case LH_CL_INT:
        return clSetKernelArg(kernel, (*at)++, sizeof narrow, &narrow);
    case LH_CL_LONG:
        return clSetKernelArg(kernel, (*at)++, sizeof wide, &wide);
    case LH_CL_LOCAL:
        return clSetKernelArg(kernel, (*at)++, (size_t)arg->value.integer, NULL);
    }
    return CL_INVALID_ARG_VALUE;
}

static struct lh_cl_shape shape_of(const struct lh_cl_chunk *k)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    return (struct lh_cl_shape){
        .tokens = c->tokens,
        .entries = layout->entries,
        .selected = layout->selected,
        .coarse = layout->coarse,
        .tiles = layout->tiles,
        .tile_coarse = layout->tile_coarse,
        .tile_topk = c->tile_topk,
        .pool = c->levels > 1 ? c->pool : 2,
        .sel_first = k->sel_first,
        .levels = (cl_int)c->levels,
        .dim = (cl_int)c->dim,
        .heads = (cl_int)c->heads,
        .kv_heads = (cl_int)c->kv_heads,
        .first = (cl_int)k->first,
        .first_kv = (cl_int)k->first_kv,
        .here = (cl_int)k->heads,
        .kv_here = (cl_int)k->kv_heads,
        .scale = (float)(1 / sqrt((double)c->dim)),
        .parts = k->state->parts,
        .begin = k->begin,
        .end = k->end,
    };
}

lh_status lh_cl_launch(struct lh_cl_chunk *chunk, lh_stage stage, enum lh_cl_kernel which, int64_t items,
                       int64_t group, const struct lh_cl_arg *args, int count, lh_error *error)
{
    struct lh_cl_state *state = chunk->state;
    cl_kernel kernel = state->kernel[which];
    cl_uint at = 0;
    cl_int code = CL_SUCCESS;
    for (int i = 0; i < count && code == CL_SUCCESS; i++)
        code = set_argument(kernel, &at, &args[i]);
    const struct lh_cl_shape shape = shape_of(chunk);
    if (code == CL_SUCCESS)
        code = clSetKernelArg(kernel, at, sizeof shape, &shape);
    if (code != CL_SUCCESS)
        return lh_cl_fail(&state->device, code, "clSetKernelArg", error);
    const size_t local = (size_t)group, global = ((size_t)items + local - 1) / local * local;
    code = lh_cl_in_order(state);
    if (code == CL_SUCCESS)
        code = clEnqueueNDRangeKernel(state->queue, kernel, 1, NULL, &global, &local, 0, NULL,
                                      lh_cl_event(chunk->plan, stage));
    return code == CL_SUCCESS ? LH_OK : lh_cl_fail(&state->device, code, lh_stage_name(stage), error);
}

lh_status lh_cl_launch_pieces(struct lh_cl_chunk *k, lh_stage stage, enum lh_cl_kernel kernel, int64_t items,
                              const struct lh_cl_arg *args, int count, lh_error *error)
{
    struct lh_cl_state *state = k->state;
    const cl_uint none = 0;
    cl_int code = lh_cl_in_order(state);
    if (code == CL_SUCCESS)
        code = clEnqueueFillBuffer(state->queue, state->scratch[LH_CL_TURNS], &none, sizeof none, 0,
                                   sizeof none, 0, NULL, lh_cl_event(k->plan, stage));
    return code == CL_SUCCESS ? lh_cl_launch(k, stage, kernel, items, 1, args, count, error)
                              : lh_cl_fail(&state->device, code, lh_stage_name(stage), error);
}

/* Books what the events say; a queue of the caller's that does not profile says nothing. */
static void book_events(lh_plan *plan)
{
    struct lh_cl_state *state = plan->state;
    for (int i = 0; i < state->event_count; i++) {
        cl_event event = state->events[i].event;
        cl_ulong start = 0, end = 0;
        if (!event)
            continue;
        if (clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL) ==
                CL_SUCCESS &&
            clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL) == CL_SUCCESS) {
            const double seconds = 1e-9 * (double)(end - start);
            if (state->events[i].stage == LH_CL_TRANSFER)
                plan->profile.transfer += seconds;
            else
                plan->profile.seconds[state->events[i].stage] += seconds;
        }
        clReleaseEvent(event);
    }
    state->event_count = 0;
}

cl_event *lh_cl_event(lh_plan *plan, int stage)
{
    struct lh_cl_state *state = plan->state;
    if (!plan->options.profile)
        return NULL;
    if (state->event_count == LH_CL_EVENTS) {
        clFinish(state->queue);
        book_events(plan);
    }
    state->events[state->event_count].event = NULL;
    state->events[state->event_count].stage = stage;
    return &state->events[state->event_count++].event;
}

lh_status lh_cl_finish(lh_plan *plan, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    const cl_int code = clFinish(state->queue);
    book_events(plan);
    return code == CL_SUCCESS ? LH_OK : lh_cl_fail(&state->device, code, "clFinish", error);
}

int64_t lh_cl_blocks(const struct lh_cl_state *state, int64_t rows, int lanes, int run)
{
    const int64_t each = (int64_t)(state->tuning.group / lanes) * run;
    return (rows + each - 1) / each;
}

int64_t lh_cl_block_items(const struct lh_cl_state *state, int64_t heads, int64_t blocks)
{
    return heads * blocks * state->tuning.group;
}
