/* Making and ending a plan: queue, programs, kernels, memory. */
#include <string.h>

#include "opencl/opencl.h"

void lh_cl_chunk_at(lh_plan *plan, int64_t number, struct lh_cl_chunk *chunk)
{
    struct lh_cl_state *state = plan->state;
    const int64_t unit = number * state->chunk_units, left = state->units - unit;
    const int64_t units = left < state->chunk_units ? left : state->chunk_units;
    *chunk = (struct lh_cl_chunk){
        .plan = plan,
        .state = state,
        .number = number,
        .first = unit * state->group,
        .heads = units * state->group,
        .first_kv = unit,
        .kv_heads = units,
        .end = plan->config.tokens,
    };
}

/* The least multiple of both that is at least `least`. */
static int64_t round_up(int64_t least, int64_t a, int64_t b)
{
    int64_t both = a;
    while (both % b != 0)
        both += a;
    return (least + both - 1) / both * both;
}

/* Columns of the head dimension that a GPU work-group handles: 64 or 128, so that its sums stay in registers. A
 * wider head is handled in slices, which compute the scores again. */
static int slice_for(int64_t dim)
{
    return dim <= 64 ? 64 : 128;
}

/* Parts of dq that key tiles are dealt to: work-items for many cores, and the shape alone decides, so that the bits are
 * the same on any number of them. */
static int parts_for(const lh_plan *plan, const struct lh_cl_state *state)
{
    const int64_t heads = plan->config.batch * plan->config.heads;
    const int64_t tiles =
        (plan->layout.selected + state->tuning.backward.columns - 1) / state->tuning.backward.columns;
    int64_t parts = (32 + heads - 1) / heads;
    parts = parts > 16 ? 16 : parts;
    return (int)(parts < tiles ? parts : tiles);
}

/* CPU body: the columns that products work on; d is made up to few widths because each is a program of its own. */
static int width_for(int64_t dim)
{
    static const int widths[] = {16, 32, 64, 96, 128, 192, 256};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        if (dim <= widths[i])
            return widths[i];
    }
    return (int)((dim + 127) / 128 * 128);
}

lh_status lh_cl_create(lh_plan *plan, lh_error *error)
{
    struct lh_cl_state *state;
    const lh_config *c = &plan->config;
    if (plan->layout.tile_coarse > UINT32_MAX || c->dim > INT32_MAX / 2)
        return lh_fail(
            error, LH_UNSUPPORTED,
            "a tile has %lld coarse entries, dim is %lld, wanted fewer than 2^32 and 2^30 in OpenCL",
            (long long)plan->layout.tile_coarse, (long long)c->dim);
    if (c->heads > INT32_MAX / c->batch)
        return lh_fail(error, LH_UNSUPPORTED,
                       "batch %lld times heads %lld is 2^31 or more, wanted fewer in OpenCL",
                       (long long)c->batch, (long long)c->heads);
    lh_status status = lh_alloc((void **)&state, sizeof *state, "OpenCL plan", error);
    if (status != LH_OK)
        return status;
    memset(state, 0, sizeof *state);
    plan->state = state;
    plan->workspace_bytes += sizeof *state;
    state->group = c->heads / c->kv_heads;
    state->units = c->batch * c->kv_heads;
    status = lh_cl_queue_open(plan, error);
    if (status == LH_OK)
        status =
            lh_cl_tuning_find(&state->device, plan->options.tiles, width_for(c->dim), &state->tuning, error);
    if (status == LH_OK) {
        const struct lh_cl_tuning *t = &state->tuning;
        state->padded = round_up(plan->layout.selected, t->forward.columns, t->forward.columns);
        state->padded_backward = round_up(plan->layout.selected, t->backward.columns, t->backward.rows);
        state->parts = parts_for(plan, state);
        state->width = width_for(c->dim);
        state->slice = t->cpu_body ? 0 : slice_for(c->dim);
        state->small_group = !t->cpu_body ? t->group : state->device.group_size < 64 ? 1 : 64;
        status = lh_cl_kernels_build(plan, error);
    }
    if (status == LH_OK)
        status = lh_cl_memory_take(plan, error);
    if (status != LH_OK)
        lh_cl_destroy(plan);
    return status;
}

void lh_cl_destroy(lh_plan *plan)
{
    struct lh_cl_state *state = plan->state;
    if (state->queue)
        clFinish(state->queue);
    lh_cl_memory_release(state);
    lh_cl_kernels_release(state);
    lh_cl_queue_close(state);
    lh_free(state);
    plan->state = NULL;
}
