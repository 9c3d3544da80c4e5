/* What a plan holds on the device: how much a unit needs, how many units fit, and taking it. */
#include <stdio.h>
#include <stdlib.h>

#include "opencl/launch.h"

struct needs {
    int64_t buffer[LH_TENSOR_COUNT]; /* bytes a unit */
    int64_t scratch[LH_CL_SCRATCH_COUNT];
    int64_t kept[3]; /* index, o_sel, lse */
    int64_t largest, largest_long, total, total_kept;
};

static const lh_tensor_id kept_ids[3] = {LH_INDEX, LH_O_SEL, LH_LSE};

static int64_t tensor_bytes(const lh_plan *plan, lh_tensor_id id)
{
    const struct lh_cl_state *state = plan->state;
    lh_tensor t;
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, &t);
    const int64_t heads = lh_has_kv_heads(id) ? 1 : state->group;
    const int64_t rows = lh_cl_is_long(id) ? lh_cl_rows_held(plan, id, state->segment) : t.shape[2];
    return heads * rows * (t.rank == 4 ? t.shape[3] : 1) * (int64_t)lh_dtype_size(t.dtype);
}

/* Whether the plan itself holds a chunk of this tensor. */
static bool is_needed(const lh_plan *plan, lh_tensor_id id)
{
    const lh_options *o = &plan->options;
    const bool host = o->memory == LH_HOST;
    switch (id) {
    case LH_Q:
    case LH_K:
    case LH_V:
    case LH_OUT:
        return host;
    case LH_DOUT:
    case LH_DQ:
    case LH_DK:
    case LH_DV:
        return host && o->backward;
    case LH_Q_PYR:
    case LH_K_PYR:
    case LH_V_PYR:
        return host && o->stages;
    case LH_SCORE_Q:
    case LH_SCORE_K:
        return (host && o->stages) || !o->index_given;
    case LH_DO_SEL:
    case LH_DQ_SEL:
    case LH_DK_SEL:
    case LH_DV_SEL:
        return o->backward;
    case LH_Q_SEL:
    case LH_K_SEL:
    case LH_V_SEL:
    case LH_COVERAGE:
        return true;
    default: /* index, o_sel, lse: kept */
        return false;
    }
}

static void find_needs(const lh_plan *plan, struct needs *n)
{
    const struct lh_cl_state *state = plan->state;
    const lh_config *c = &plan->config;
    const struct lh_cl_tuning *t = &state->tuning;
    const int64_t index_size = (int64_t)lh_dtype_size(plan->layout.index_dtype);
    const int64_t rows = state->group * plan->layout.selected;
    *n = (struct needs){0};
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        n->buffer[id] = is_needed(plan, (lh_tensor_id)id) ? tensor_bytes(plan, (lh_tensor_id)id) : 0;
    for (int i = 0; i < 3; i++)
        n->kept[i] = tensor_bytes(plan, kept_ids[i]);
    n->scratch[LH_CL_PARENTS] = c->levels > 1 ? state->group * (c->levels - 1) * c->topk * index_size : 0;
    n->scratch[LH_CL_SLOT] = state->group * plan->layout.entries * index_size;
    n->scratch[LH_CL_DELTA] = plan->options.backward ? rows * 4 : 0;
    if (t->cpu_body) {
        int64_t packed = state->group * state->padded * lh_cl_packed_width(state, false) * 4;
        const int64_t wide = plan->options.dtype == LH_F32 ? 0 : rows * c->dim * 4;
        if (plan->options.backward) {
            const int64_t back = state->group * state->padded_backward * lh_cl_packed_width(state, true) * 4;
            packed = back > packed ? back : packed;
            for (int i = LH_CL_PACK_2; i <= LH_CL_PACK_4; i++)
                n->scratch[i] = packed;
            n->scratch[LH_CL_DQ_PARTS] = back * state->parts;
        }
        n->scratch[LH_CL_TURNS] = sizeof(cl_uint);
        n->scratch[LH_CL_WIDE_0] = n->scratch[LH_CL_WIDE_1] = wide;
        n->scratch[LH_CL_PACK_0] = n->scratch[LH_CL_PACK_1] = packed;
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        n->total += n->buffer[id];
        n->largest = n->buffer[id] > n->largest ? n->buffer[id] : n->largest;
        if (lh_cl_is_long((lh_tensor_id)id) && n->buffer[id] > n->largest_long)
            n->largest_long = n->buffer[id];
    }
    for (int i = 0; i < LH_CL_SCRATCH_COUNT; i++) {
        n->total += n->scratch[i];
        n->largest = n->scratch[i] > n->largest ? n->scratch[i] : n->largest;
    }
    for (int i = 0; i < 3; i++) {
        n->total_kept += n->kept[i];
        n->largest = n->kept[i] > n->largest ? n->kept[i] : n->largest;
    }
}

static double largest_allocation(const struct lh_cl_state *state)
{
    const char *limit =
        getenv("LIGHTHOUSE_OPENCL_BUFFER"); /* bytes; lets a test see many chunks and segments */
    return limit ? strtod(limit, NULL) : (double)state->device.largest_allocation;
}

/* Units that the device's memory holds. */
static double units_in_memory(const lh_plan *plan, const struct needs *n)
{
    const struct lh_cl_state *state = plan->state;
    const double room = 0.9 * (double)state->device.memory, kept = (double)n->total_kept;
    return plan->options.backward ? (room - kept * (double)state->units) / (double)n->total
                                  : room / ((double)n->total + kept);
}

/* Sets units a chunk: all of them, or as many as the largest allocation and the device's memory allow. Where that is not one,
 * a chunk is one, and its long tensors are cut until they fit. */
static void divide(lh_plan *plan, struct needs *n)
{
    struct lh_cl_state *state = plan->state;
    const double largest = largest_allocation(state);
    state->segment = plan->config.tokens;
    find_needs(plan, n);
    double fit = largest / (double)n->largest;
    if (units_in_memory(plan, n) < fit)
        fit = units_in_memory(plan, n);
    state->chunk_units = fit < 1 ? 1 : fit < (double)state->units ? (int64_t)fit : state->units;
    int64_t windows = plan->layout.coarse;
    while (fit < 1 && windows > 1 && plan->options.memory == LH_HOST &&
           ((double)n->largest_long > largest || units_in_memory(plan, n) < 1)) {
        windows = (windows + 1) / 2;
        state->segment = windows * lh_cl_window(plan);
        find_needs(plan, n);
    }
}

/* Drivers that allocate at the first use, or in the machine's own memory, refuse nothing before it is too late. */
static lh_status check_whole(const lh_plan *plan, const struct needs *n, lh_error *error)
{
    const struct lh_cl_state *state = plan->state;
    const int64_t kept_chunks = plan->options.backward ? state->chunks : 1;
    const double chunk = (double)state->chunk_units;
    const double whole = chunk * ((double)n->total + (double)kept_chunks * (double)n->total_kept);
    if (whole <= (double)state->device.memory)
        return LH_OK;
    return lh_fail(error, LH_NO_MEMORY, "plan takes %.0f bytes on %s, which has %.0f", whole,
                   state->device.name, (double)state->device.memory);
}

static lh_status take(lh_plan *plan, cl_mem *mem, int64_t unit_bytes, int64_t units, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    cl_int code;
    const size_t bytes = (size_t)(unit_bytes * units);
    *mem = NULL;
    if (bytes == 0)
        return LH_OK;
    *mem = clCreateBuffer(state->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    if (code == CL_SUCCESS) { /* drivers put an allocation off until its first use: have the refusal now */
        code = clEnqueueMigrateMemObjects(state->queue, 1, mem, CL_MIGRATE_MEM_OBJECT_CONTENT_UNDEFINED, 0,
                                          NULL, NULL);
        if (code == CL_OUT_OF_RESOURCES)
            code = CL_MEM_OBJECT_ALLOCATION_FAILURE;
    }
    if (code == CL_SUCCESS) {
        plan->workspace_bytes += bytes;
        return LH_OK;
    }
    char what[64];
    snprintf(what, sizeof what, "a buffer of %zu bytes", bytes);
    return lh_cl_fail(&state->device, code, what, error);
}

lh_status lh_cl_memory_take(lh_plan *plan, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    struct needs n;
    divide(plan, &n);
    state->chunks = (state->units + state->chunk_units - 1) / state->chunk_units;
    const int64_t kept_chunks = plan->options.backward ? state->chunks : 1;
    const size_t kept_bytes = sizeof(cl_mem) * 3 * (size_t)kept_chunks;
    lh_status status = check_whole(plan, &n, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&state->kept, kept_bytes, "list of buffers", error);
    if (status != LH_OK)
        return status;
    state->kept_count = 3 * kept_chunks;
    plan->workspace_bytes += kept_bytes;
    for (int64_t i = 0; i < state->kept_count; i++)
        state->kept[i] = NULL;
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++)
        status = take(plan, &state->buffer[id], n.buffer[id], state->chunk_units, error);
    for (int i = 0; i < LH_CL_SCRATCH_COUNT && status == LH_OK; i++)
        status = take(plan, &state->scratch[i], n.scratch[i], state->chunk_units, error);
    for (int64_t i = 0; i < state->kept_count && status == LH_OK; i++)
        status = take(plan, &state->kept[i], n.kept[i % 3], state->chunk_units, error);
    return status;
}

void lh_cl_memory_release(struct lh_cl_state *state)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        if (state->buffer[id])
            clReleaseMemObject(state->buffer[id]);
    }
    for (int i = 0; i < LH_CL_SCRATCH_COUNT; i++) {
        if (state->scratch[i])
            clReleaseMemObject(state->scratch[i]);
    }
    for (int64_t i = 0; i < state->kept_count; i++) {
        if (state->kept[i])
            clReleaseMemObject(state->kept[i]);
    }
    lh_free(state->kept);
}

cl_mem lh_cl_own_buffer(const struct lh_cl_state *state, int64_t chunk, lh_tensor_id id)
{
    for (int i = 0; i < 3; i++) {
        if (kept_ids[i] == id)
            return state->kept[3 * chunk + i < state->kept_count ? 3 * chunk + i : i];
    }
    return state->buffer[id];
}
