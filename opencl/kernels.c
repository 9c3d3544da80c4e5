/* The kernels of a plan: which programs, with which constants. */
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
        {LH_CL_ROW_PRODUCTS, "row_products"},         {LH_CL_SCORE_ROWS, "score_rows"},
        {LH_CL_SCORE_LEVEL, "score_level"},           {LH_CL_SELECT_PARENTS, "select_parents"},
        {LH_CL_ORDER_ENTRIES, "order_entries"},       {LH_CL_ORDER_TOKENS, "order_tokens"},
        {LH_CL_CLEAR_SLOTS, "clear_slots"},           {LH_CL_FIND_SLOTS, "find_slots"},
        {LH_CL_GATHER_ROWS, "gather_rows"},           {LH_CL_SCATTER_PULL, "scatter_pull"},
        {LH_CL_SCATTER_BACKWARD, "scatter_backward"}, {LH_CL_UNPOOL_PULL, "unpool_pull"},
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

lh_status lh_cl_kernels_build(lh_plan *plan, lh_error *error)
{
    char storage[OPTIONS_SIZE / 2];
    snprintf(storage, sizeof storage, "-cl-std=CL1.2 -D STORE_%s%s", lh_dtype_name(plan->options.dtype),
             plan->layout.index_dtype == LH_I64 ? " -D INDEX_64" : "");
    const lh_status status = build_stages(plan, storage, error);
    return status == LH_OK ? build_attention(plan, storage, error) : status;
}

void lh_cl_kernels_release(struct lh_cl_state *state)
{
    for (int i = 0; i < LH_CL_KERNEL_COUNT; i++) {
        if (state->kernel[i])
            clReleaseKernel(state->kernel[i]);
    }
}
