/* Making and ending a plan: queue, programs, kernels, memory. */
#include <stdio.h>
#include <string.h>

#include "opencl/opencl.h"

extern const char lh_cl_source_common[], lh_cl_source_rows[], lh_cl_source_score[], lh_cl_source_select[],
    lh_cl_source_order[], lh_cl_source_gather[], lh_cl_source_scatter[], lh_cl_source_unpool[],
    lh_cl_source_pool[], lh_cl_source_panel_cpu[], lh_cl_source_attend_cpu[],
    lh_cl_source_attend_cpu_backward[], lh_cl_source_tile_gpu[], lh_cl_source_attend_gpu[],
    lh_cl_source_attend_gpu_backward[];

enum {
    OPTIONS_SIZE = 512
};

bool lh_cl_has_kv_heads(lh_tensor_id id)
{
    switch (id) {
    case LH_K:
    case LH_V:
    case LH_K_PYR:
    case LH_V_PYR:
    case LH_SCORE_K:
    case LH_DK:
    case LH_DV:
        return true;
    default:
        return false;
    }
}

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
    };
}

/* A context and queue of the plan's own, or the caller's. */
static lh_status open_queue(lh_plan *plan, lh_error *error)
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
        code = clRetainCommandQueue(given);
        if (code == CL_SUCCESS)
            state->queue = given;
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
    state->context = clCreateContext(NULL, 1, &id, NULL, NULL, &code);
    if (code != CL_SUCCESS)
        return lh_cl_fail(&state->device, code, "clCreateContext", error);
    state->queue = clCreateCommandQueue(state->context, id,
                                        plan->options.profile ? CL_QUEUE_PROFILING_ENABLE : 0, &code);
    return code == CL_SUCCESS ? LH_OK : lh_cl_fail(&state->device, code, "clCreateCommandQueue", error);
}

struct kernel_name {
    enum lh_cl_kernel kernel;
    const char *name;
};

/* Builds one program and takes its kernels; the program lives on in them. */
static lh_status build(struct lh_cl_state *state, const char *const *sources, int source_count,
                       const char *options, const struct kernel_name *names, int name_count, lh_error *error)
{
    cl_program program;
    lh_status status =
        lh_cl_program_build(state->context, &state->device, sources, source_count, options, &program, error);
    if (status != LH_OK)
        return status;
    for (int i = 0; i < name_count && status == LH_OK; i++) {
        cl_int code;
        state->kernel[names[i].kernel] = clCreateKernel(program, names[i].name, &code);
        if (code != CL_SUCCESS)
            status = lh_cl_fail(&state->device, code, names[i].name, error);
    }
    clReleaseProgram(program);
    return status;
}

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

/* Work-items that share a row: as many as have a vector of it, up to `most`, a power of two. */
static int lanes_for(const lh_plan *plan, int vec, int most)
{
    const struct lh_cl_tuning *t = &((const struct lh_cl_state *)plan->state)->tuning;
    int lanes = 1;
    while (!t->cpu_body && lanes < most && lanes < t->group && lanes * vec < plan->config.dim)
        lanes *= 2;
    return lanes;
}

static lh_status build_stages(lh_plan *plan, const char *storage, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    struct lh_cl_tuning *t = &state->tuning;
    static const struct kernel_name names[] = {
        {LH_CL_SCORE_ROWS, "score_rows"},
        {LH_CL_SCORE_LEVEL, "score_level"},
        {LH_CL_SELECT_PARENTS, "select_parents"},
        {LH_CL_ORDER_ENTRIES, "order_entries"},
        {LH_CL_ORDER_TOKENS, "order_tokens"},
        {LH_CL_CLEAR_SLOTS, "clear_slots"},
        {LH_CL_FIND_SLOTS, "find_slots"},
        {LH_CL_GATHER_ROWS, "gather_rows"},
        {LH_CL_GATHER_WINDOWS, "gather_windows"},
        {LH_CL_SCATTER_PULL, "scatter_pull"},
        {LH_CL_SCATTER_BACKWARD, "scatter_backward"},
        {LH_CL_UNPOOL_PULL, "unpool_pull"},
    };
    static const struct kernel_name pool_names[] = {{LH_CL_POOL_WINDOWS, "pool_windows"}};
    const char *sources[] = {lh_cl_source_common,  lh_cl_source_rows,  lh_cl_source_score,
                             lh_cl_source_select,  lh_cl_source_order, lh_cl_source_gather,
                             lh_cl_source_scatter, lh_cl_source_unpool};
    const char *pool_sources[] = {lh_cl_source_common, lh_cl_source_rows, lh_cl_source_pool};
    const lh_config *c = &plan->config;
    /* GPUs read 16 bytes a work-item, whatever the type. */
    const int vec = t->cpu_body || lh_dtype_size(plan->options.dtype) > 2 ? t->vec : 2 * t->vec;
    char options[OPTIONS_SIZE];
    state->lanes = lanes_for(plan, vec, 32);
    state->score_lanes = lanes_for(plan, vec, 8);
    snprintf(
        options, sizeof options,
        "%s -D VEC=%d -D GROUP=%d -D RUN=%d -D AHEAD=%d -D LEVELS=%d -D POOL=%lld -D LANES=%d -D SCORE_LANES=%d%s%s",
        storage, vec, t->group, t->run, t->cpu_body ? 1 : t->run, (int)c->levels,
        c->levels > 1 ? (long long)c->pool : 2, state->lanes, state->score_lanes,
        t->cpu_body ? "" : " -D WIDE_ACCESS",
        state->device.exact_division ? " -cl-fp32-correctly-rounded-divide-sqrt" : "");
    lh_status status = build(state, sources, COUNT(sources), options, names, COUNT(names), error);
    if (status == LH_OK && plan->options.stages)
        status =
            build(state, pool_sources, COUNT(pool_sources), options, pool_names, COUNT(pool_names), error);
    return status;
}

static void tile_options(const lh_plan *plan, const struct lh_cl_tuning *t, const struct lh_cl_tile *tile,
                         const char *storage, char options[OPTIONS_SIZE])
{
    if (t->cpu_body)
        snprintf(options, OPTIONS_SIZE, "%s -D VEC=%d -D DIM=%d -D BM=%d -D BN=%d -D MR=%d -D NR=%d", storage,
                 t->vec, (int)plan->config.dim, tile->rows, tile->columns, tile->row_block,
                 tile->column_block);
    else
        snprintf(
            options, OPTIONS_SIZE,
            "%s -D VEC=%d -D WIDE_ACCESS -D DIM=%d -D ROWS=%d -D COLUMNS=%d -D RM=%d -D RN=%d -D KC=%d -D SLICE=%d",
            storage, t->vec, (int)plan->config.dim, tile->rows, tile->columns, tile->row_block,
            tile->column_block, tile->chunk, ((const struct lh_cl_state *)plan->state)->slice);
}

static lh_status build_attention(lh_plan *plan, const char *storage, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    const struct lh_cl_tuning *t = &state->tuning;
    static const struct kernel_name cpu_forward[] = {{LH_CL_PACK_ROWS, "pack_rows"},
                                                     {LH_CL_PACK_COLUMNS, "pack_columns"},
                                                     {LH_CL_ATTEND_FORWARD, "attend_forward"}};
    static const struct kernel_name cpu_backward[] = {{LH_CL_BACKWARD_PACK_ROWS, "pack_rows"},
                                                      {LH_CL_BACKWARD_PACK_COLUMNS, "pack_columns"},
                                                      {LH_CL_ROW_PRODUCTS, "row_products"},
                                                      {LH_CL_ATTEND_BACKWARD, "attend_backward"},
                                                      {LH_CL_SUM_PARTS, "sum_parts"}};
    static const struct kernel_name gpu_forward[] = {{LH_CL_ATTEND_FORWARD, "attend_forward"}};
    static const struct kernel_name gpu_backward[] = {{LH_CL_ROW_PRODUCTS, "row_products"},
                                                      {LH_CL_BACKWARD_QUERIES, "backward_queries"},
                                                      {LH_CL_BACKWARD_KEYS, "backward_keys"}};
    const char *shared = t->cpu_body ? lh_cl_source_panel_cpu : lh_cl_source_tile_gpu;
    const char *forward[] = {lh_cl_source_common, shared,
                             t->cpu_body ? lh_cl_source_attend_cpu : lh_cl_source_attend_gpu};
    const char *backward[] = {lh_cl_source_common, shared,
                              t->cpu_body ? lh_cl_source_attend_cpu_backward
                                          : lh_cl_source_attend_gpu_backward};
    char options[OPTIONS_SIZE];
    tile_options(plan, t, &t->forward, storage, options);
    if (t->cpu_body)
        snprintf(options + strlen(options), OPTIONS_SIZE - strlen(options), " -D PANEL=%d",
                 t->forward.row_block);
    lh_status status =
        t->cpu_body ? build(state, forward, COUNT(forward), options, cpu_forward, COUNT(cpu_forward), error)
                    : build(state, forward, COUNT(forward), options, gpu_forward, COUNT(gpu_forward), error);
    if (status != LH_OK || !plan->options.backward)
        return status;
    tile_options(plan, t, &t->backward, storage, options);
    return t->cpu_body
               ? build(state, backward, COUNT(backward), options, cpu_backward, COUNT(cpu_backward), error)
               : build(state, backward, COUNT(backward), options, gpu_backward, COUNT(gpu_backward), error);
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

/* Parts of dq that key tiles are dealt to: enough work-items for every core, whatever runs beside them. */
static int parts_for(const lh_plan *plan, const struct lh_cl_state *state)
{
    const int64_t heads = plan->config.batch * plan->config.heads;
    const int64_t wanted = (4 * (int64_t)state->device.compute_units + heads - 1) / heads;
    return wanted > 16 ? 16 : (int)wanted;
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
    status = open_queue(plan, error);
    if (status == LH_OK)
        status = lh_cl_tuning_find(&state->device, c->dim, &state->tuning, error);
    if (status == LH_OK) {
        char storage[OPTIONS_SIZE / 2];
        const struct lh_cl_tuning *t = &state->tuning;
        state->padded = round_up(plan->layout.selected, t->forward.columns, t->forward.columns);
        state->padded_backward = round_up(plan->layout.selected, t->backward.columns, t->backward.rows);
        state->parts = parts_for(plan, state);
        state->slice = t->cpu_body ? 0 : slice_for(c->dim);
        state->small_group = !t->cpu_body ? t->group : state->device.group_size < 64 ? 1 : 64;
        snprintf(storage, sizeof storage, "-cl-std=CL1.2 -D STORE_%s%s", lh_dtype_name(plan->options.dtype),
                 plan->layout.index_dtype == LH_I64 ? " -D INDEX_64" : "");
        status = build_stages(plan, storage, error);
        if (status == LH_OK)
            status = build_attention(plan, storage, error);
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
    for (int i = 0; i < LH_CL_KERNEL_COUNT; i++) {
        if (state->kernel[i])
            clReleaseKernel(state->kernel[i]);
    }
    if (state->queue)
        clReleaseCommandQueue(state->queue);
    if (state->context)
        clReleaseContext(state->context);
    lh_free(state);
    plan->state = NULL;
}
