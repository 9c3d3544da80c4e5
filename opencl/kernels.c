/* The kernels of a plan: which programs, with which constants. */
#include <stdio.h>
#include <string.h>

#include "opencl/opencl.h"

extern const char lh_cl_source_common[], lh_cl_source_rows[], lh_cl_source_score[], lh_cl_source_select[],
    lh_cl_source_order[], lh_cl_source_gather[], lh_cl_source_scatter[], lh_cl_source_unpool[],
    lh_cl_source_scatter_backward[], lh_cl_source_pull_cpu[], lh_cl_source_pool[], lh_cl_source_pack[],
    lh_cl_source_panel_cpu[], lh_cl_source_attend_cpu[], lh_cl_source_attend_cpu_backward[],
    lh_cl_source_tile_gpu[], lh_cl_source_attend_gpu[], lh_cl_source_attend_gpu_backward[];

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

/* One program for all that is not attention. On CPUs it is the same for every plan of a dtype; on GPUs levels and pooling
 * factor are constants: of an integer division by a variable they make twenty instructions, a row and level. */
static lh_status build_stages(lh_plan *plan, const char *storage, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    const struct lh_cl_tuning *t = &state->tuning;
    static const struct kernel_name names[] = {
        {LH_CL_ROW_PRODUCTS, "row_products"},         {LH_CL_SCORE_ROWS, "score_rows"},
        {LH_CL_SCORE_LEVEL, "score_level"},           {LH_CL_SELECT_PARENTS, "select_parents"},
        {LH_CL_ORDER_ENTRIES, "order_entries"},       {LH_CL_ORDER_TOKENS, "order_tokens"},
        {LH_CL_CLEAR_SLOTS, "clear_slots"},           {LH_CL_FIND_SLOTS, "find_slots"},
        {LH_CL_GATHER_ROWS, "gather_rows"},           {LH_CL_SCATTER_PULL, "scatter_pull"},
        {LH_CL_SCATTER_BACKWARD, "scatter_backward"}, {LH_CL_UNPOOL_PULL, "unpool_pull"},
        {LH_CL_POOL_WINDOWS, "pool_windows"},         {LH_CL_PACK_ROWS, "pack_rows"},
        {LH_CL_PACK_COLUMNS, "pack_columns"},         {LH_CL_WIDEN_ROWS, "widen_rows"},
        {LH_CL_NARROW_ROWS, "narrow_rows"},           {LH_CL_SUM_PARTS, "sum_parts"},
    };
    const char *shared[] = {
        lh_cl_source_common, lh_cl_source_rows,   lh_cl_source_score, lh_cl_source_select,
        lh_cl_source_order,  lh_cl_source_gather, lh_cl_source_pool,  lh_cl_source_scatter_backward};
    const char *bodies[2][2] = {{lh_cl_source_scatter, lh_cl_source_unpool},
                                {lh_cl_source_pull_cpu, lh_cl_source_pack}};
    const char *sources[COUNT(shared) + 2];
    memcpy(sources, shared, sizeof shared);
    memcpy(sources + COUNT(shared), bodies[t->cpu_body], sizeof bodies[0]);
    const lh_config *c = &plan->config;
    /* GPUs read 16 bytes a work-item, whatever the type. */
    const int vec = !t->cpu_body && t->vec > 1 ? 16 / (int)lh_dtype_size(plan->options.dtype) : t->vec;
    char options[OPTIONS_SIZE], of_body[96];
    state->lanes = lanes_for(plan, vec, 32);
    state->score_lanes = lanes_for(plan, vec, 8);
    state->pulled = t->cpu_body ? t->run : 8;
    if (t->cpu_body)
        snprintf(of_body, sizeof of_body, " -D SPAN=%d", 64 / vec);
    else
        snprintf(of_body, sizeof of_body, " -D SPAN=1 -D AHEAD=4 -D WIDE_ACCESS -D LEVELS=%d -D POOL=%lld",
                 (int)c->levels, c->levels > 1 ? (long long)c->pool : 2);
    snprintf(options, sizeof options,
             "%s -D VEC=%d -D GROUP=%d -D RUN=%d -D PULLED=%d -D LANES=%d -D SCORE_LANES=%d%s%s", storage,
             vec, t->group, t->run, state->pulled, state->lanes, state->score_lanes, of_body,
             state->device.exact_division ? " -cl-fp32-correctly-rounded-divide-sqrt" : "");
    /* The last five are of the CPU body: pack.cl. */
    return build(state, sources, COUNT(sources), options, names, COUNT(names) - (t->cpu_body ? 0 : 5), error);
}

/* Attention of the CPU body is float32 and the same for every d of a width. */
static void cpu_options(const struct lh_cl_state *state, bool backward, const char *index,
                        char options[OPTIONS_SIZE])
{
    const struct lh_cl_tuning *t = &state->tuning;
    const struct lh_cl_tile *tile = backward ? &t->backward : &t->forward;
    const int length =
        snprintf(options, OPTIONS_SIZE,
                 "-cl-std=CL1.2 -D STORE_F32%s -D VEC=%d -D WIDTH=%d -D BM=%d -D BN=%d -D MR=%d -D NR=%d",
                 index, t->vec, state->width, tile->rows, tile->columns, tile->row_block, tile->column_block);
    if (!backward)
        snprintf(options + length, OPTIONS_SIZE - (size_t)length, " -D PANEL=%d", tile->row_block);
}

/* Of the GPU body, d is a constant where models have it. */
static void gpu_options(const lh_plan *plan, bool backward, const char *storage, char options[OPTIONS_SIZE])
{
    const struct lh_cl_state *state = plan->state;
    const struct lh_cl_tuning *t = &state->tuning;
    const struct lh_cl_tile *tile = backward ? &t->backward : &t->forward;
    const int64_t dim = plan->config.dim;
    const int length = snprintf(
        options, OPTIONS_SIZE,
        "%s -D VEC=%d -D WIDE_ACCESS -D ROWS=%d -D COLUMNS=%d -D RM=%d -D RN=%d -D KC=%d -D SLICE=%d",
        storage, t->vec, tile->rows, tile->columns, tile->row_block, tile->column_block, tile->chunk,
        state->slice);
    if (dim == 64 || dim == 96 || dim == 128 || dim == 192 || dim == 256)
        snprintf(options + length, OPTIONS_SIZE - (size_t)length, " -D DIM=%d", (int)dim);
}

static lh_status build_attention(lh_plan *plan, const char *storage, const char *index, lh_error *error)
{
    struct lh_cl_state *state = plan->state;
    const bool cpu = state->tuning.cpu_body;
    static const struct kernel_name forward[] = {{LH_CL_ATTEND_FORWARD, "attend_forward"}};
    static const struct kernel_name cpu_backward[] = {{LH_CL_ATTEND_BACKWARD, "attend_backward"}};
    static const struct kernel_name gpu_backward[] = {{LH_CL_BACKWARD_QUERIES, "backward_queries"},
                                                      {LH_CL_BACKWARD_KEYS, "backward_keys"}};
    lh_status status = LH_OK;
    for (int backward = 0; backward <= plan->options.backward && status == LH_OK; backward++) {
        const char *body = cpu ? (backward ? lh_cl_source_attend_cpu_backward : lh_cl_source_attend_cpu)
                               : (backward ? lh_cl_source_attend_gpu_backward : lh_cl_source_attend_gpu);
        const char *sources[] = {lh_cl_source_common, cpu ? lh_cl_source_panel_cpu : lh_cl_source_tile_gpu,
                                 body};
        char options[OPTIONS_SIZE];
        if (cpu)
            cpu_options(state, backward, index, options);
        else
            gpu_options(plan, backward, storage, options);
        status = build(state, sources, COUNT(sources), options,
                       !backward ? forward
                       : cpu     ? cpu_backward
                                 : gpu_backward,
                       backward && !cpu ? COUNT(gpu_backward) : 1, error);
    }
    return status;
}

lh_status lh_cl_kernels_build(lh_plan *plan, lh_error *error)
{
    char storage[OPTIONS_SIZE / 2];
    const char *index = plan->layout.index_dtype == LH_I64 ? " -D INDEX_64" : "";
    snprintf(storage, sizeof storage, "-cl-std=CL1.2 -D STORE_%s%s", lh_dtype_name(plan->options.dtype),
             index);
    const lh_status status = build_stages(plan, storage, error);
    return status == LH_OK ? build_attention(plan, storage, index, error) : status;
}

void lh_cl_kernels_release(struct lh_cl_state *state)
{
    for (int i = 0; i < LH_CL_KERNEL_COUNT; i++) {
        if (state->kernel[i])
            clReleaseKernel(state->kernel[i]);
    }
}
