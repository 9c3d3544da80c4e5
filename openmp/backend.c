/* Backend "openmp": picks the instruction set, makes and frees plans. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "openmp/openmp.h"

/* Widest first; what a build needs is what its flags in meson.build name. */
#if defined __x86_64__
extern const struct lh_omp_build lh_omp_build_avx512, lh_omp_build_avx2, lh_omp_build_base;

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
extern const struct lh_omp_build lh_omp_build_base;
#endif

static bool has_base(void)
{
    return true;
}

static const struct {
    const struct lh_omp_build *build;
    bool (*here)(void);
} builds[] = {
#if defined __x86_64__
    {&lh_omp_build_avx512, has_avx512},
    {&lh_omp_build_avx2, has_avx2},
#endif
    {&lh_omp_build_base, has_base},
};

const struct lh_omp_build *lh_omp_build_at(int i)
{
    int found = 0;
    for (size_t b = 0; b < sizeof builds / sizeof *builds; b++) {
        if (builds[b].here() && found++ == i)
            return builds[b].build;
    }
    return NULL;
}

static int forced_build;

void lh_omp_build_force(int i)
{
    forced_build = i;
}

static lh_status device_count(int *count, lh_error *error)
{
    (void)error;
    *count = 1;
    return LH_OK;
}

static lh_status device_query(int device, lh_device_info *info, lh_error *error)
{
    (void)device;
    (void)error;
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "CPU");
    snprintf(info->driver, sizeof info->driver, "OpenMP %d", _OPENMP);
    snprintf(info->features, sizeof info->features, "built for %s, %d threads", lh_omp_build_at(0)->name,
             omp_get_max_threads());
    info->compute_units = omp_get_num_procs();
    return LH_OK;
}

static void destroy(lh_plan *plan)
{
    struct lh_omp_state *state = plan->state;
    lh_free(state->memory);
    lh_free(state);
    plan->state = NULL;
}

/* Places in the sub-sequence are int32, candidates of a tile 32-bit numbers. */
static lh_status check_width(const lh_plan *plan, lh_error *error)
{
    /* pool * topk is at most N there; at one level neither is read */
    const int64_t children = plan->config.levels > 1 ? plan->config.pool * plan->config.tile_topk : 0;
    if (plan->layout.selected > INT32_MAX)
        return lh_fail(error, LH_UNSUPPORTED, "the sub-sequence has %" PRId64 " rows, wanted at most %d",
                       plan->layout.selected, INT32_MAX);
    if (plan->config.levels > 1 && (plan->layout.tile_coarse > INT32_MAX || children > INT32_MAX))
        return lh_fail(error, LH_UNSUPPORTED, "a tile has %" PRId64 " candidates, wanted at most %d",
                       plan->layout.tile_coarse > children ? plan->layout.tile_coarse : children, INT32_MAX);
    return LH_OK;
}

static lh_status create(lh_plan *plan, lh_error *error)
{
    struct lh_omp_state *state;
    lh_status status = check_width(plan, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&state, sizeof *state, "openmp plan", error);
    if (status != LH_OK)
        return status;
    memset(state, 0, sizeof *state);
    plan->state = state;
    state->build = lh_omp_build_at(forced_build);
    state->threads =
        lh_omp_threads(plan->options.threads > 0 ? plan->options.threads : omp_get_max_threads());
    const size_t bytes = state->build->arrange(plan, NULL);
    state->bytes = bytes;
    plan->workspace_bytes += sizeof *state;
    if (plan->options.workspace_given)
        return LH_OK;
    status = lh_alloc(&state->memory, bytes, "openmp workspace", error);
    if (status != LH_OK) {
        destroy(plan);
        return status;
    }
    state->build->arrange(plan, state->memory);
    plan->workspace_bytes += bytes;
    return LH_OK;
}

static const struct lh_omp_build *build_of(const lh_plan *plan)
{
    return ((const struct lh_omp_state *)plan->state)->build;
}

static lh_status run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    return build_of(plan)->stage[stage](plan, trace, error);
}

static size_t needs(const lh_plan *plan, bool backward)
{
    (void)backward;
    return ((const struct lh_omp_state *)plan->state)->bytes;
}

/* Lent memory may be another at each call. */
static void settle(const lh_plan *plan)
{
    if (plan->options.workspace_given)
        build_of(plan)->arrange(plan, plan->lent);
}

static lh_status forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    settle(plan);
    return build_of(plan)->forward(plan, trace, error);
}

static lh_status backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    settle(plan);
    return build_of(plan)->backward(plan, trace, error);
}

static lh_status gather_tokens(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return build_of(plan)->gather_tokens(plan, trace, error);
}

/* ---- windows ---- */

static void window_gather(lh_plan *plan, const lh_tensor *trace, int64_t first)
{
    build_of(plan)->windows->gather(plan, trace, first);
}

static void window_unpool(lh_plan *plan, const lh_tensor *trace, int64_t first)
{
    build_of(plan)->windows->unpool(plan, trace, first);
}

static size_t window_bytes(const lh_plan *plan)
{
    return build_of(plan)->windows->bytes(plan);
}

static void window_keys(lh_plan *plan, const lh_tensor *trace, void *memory)
{
    build_of(plan)->windows->keys(plan, trace, memory);
}

static void window_attend(lh_plan *plan, const lh_tensor *trace, void *memory, int64_t first)
{
    build_of(plan)->windows->attend(plan, trace, memory, first);
}

static void window_backward(lh_plan *plan, const lh_tensor *trace, int64_t first)
{
    build_of(plan)->windows->attend_backward(plan, trace, first);
}

static const struct lh_windows windows = {.rows = LH_OMP_ROWS_OF_WINDOWS,
                                          .dim = 16, /* of the widest build: ranks need not have the same */
                                          .gather = window_gather,
                                          .unpool = window_unpool,
                                          .bytes = window_bytes,
                                          .keys = window_keys,
                                          .attend = window_attend,
                                          .attend_backward = window_backward};

const lh_backend lh_backend_openmp = {
    .name = "openmp",
    .can =
        {
            .dtypes = 1u << LH_F32 | 1u << LH_F16 | 1u << LH_BF16,
            .attentions = 1u << LH_ATTENTION_AUTO | 1u << LH_ATTENTION_OWN,
            .stages = true,
        },
    .device_count = device_count,
    .device_query = device_query,
    .create = create,
    .destroy = destroy,
    .run_stage = run_stage,
    .forward = forward,
    .backward = backward,
    .needs = needs,
    .gather_tokens = gather_tokens,
    .windows = &windows,
};
