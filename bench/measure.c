/* One point: a plan, its tensors, and the clock. */
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "core/backend.h"
#include "core/convert.h"
#include "core/random.h"

enum {
    MOST_RUNS = 1000,
    FEWEST_RUNS = 3
};

double bench_operations(const lh_config *c, const lh_layout *layout, bench_pass pass)
{
    const double s = (double)layout->selected;
    return 2.0 * s * s * (double)(c->dim * c->heads * c->batch) * (pass == BENCH_BACKWARD ? 2.5 : 1.0);
}

double bench_stage_bytes(const lh_config *c, const lh_layout *layout, lh_dtype dtype, lh_stage stage)
{
    const double n = (double)c->tokens, s = (double)layout->selected, p = (double)layout->entries;
    const double h = (double)(c->batch * c->heads), g = (double)(c->batch * c->kv_heads);
    const double row = (double)c->dim * (double)lh_dtype_size(dtype),
                 index = (double)lh_dtype_size(layout->index_dtype);
    const double score = dtype == LH_F64 ? 8 : 4;
    switch (stage) {
    case LH_SCORE: /* q, k; score_q, score_k */
        return (h + g) * (n * row + p * score);
    case LH_SELECT: /* score_q, score_k; index */
        return (h + g) * p * score + h * s * index;
    case LH_GATHER: /* q, k, v, index; q_sel, k_sel, v_sel */
        return (h + 2 * g) * n * row + h * s * index + 3 * h * s * row;
    case LH_SCATTER:          /* o_sel, index; out */
    case LH_SCATTER_BACKWARD: /* dout, index; do_sel */
        return h * (s * (row + index) + n * row);
    case LH_UNPOOL: /* dq_sel, dk_sel, dv_sel, index; dq, dk, dv */
        return h * s * (3 * row + index) + (h + 2 * g) * n * row;
    default:
        return 0;
    }
}

lh_status bench_choose_topk(lh_config *config, int64_t tile_topk, lh_error *error)
{
    lh_config c = *config;
    lh_layout layout;
    c.topk = c.tile_topk = 2;
    lh_status status = lh_config_check(&c, &layout, error);
    if (status != LH_OK || c.levels == 1)
        return status;
    const int64_t least_tile = layout.coarse < tile_topk ? layout.coarse : tile_topk;
    c.tile_topk = least_tile - least_tile % 2;
    for (int64_t tiles = config->tokens / 64 / c.tile_topk; tiles > 1; tiles--) {
        c.topk = tiles * c.tile_topk;
        if (lh_config_check(&c, NULL, NULL) == LH_OK) {
            *config = c;
            return LH_OK;
        }
    }
    c.topk = c.tile_topk;
    status = lh_config_check(&c, NULL, error);
    if (status == LH_OK)
        *config = c;
    return status;
}

/* Uniform draws on [-1,1): no ties among scores, no sharp softmax. */
static void fill(const lh_tensor *t, uint64_t stream)
{
    const int64_t elements = lh_tensor_elements(t);
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
    for (int64_t i = 0; i < elements; i++)
        lh_store(t->data, t->dtype, i, 2.0 * lh_random_uniform(1, stream, (uint64_t)i) - 1.0);
}

static lh_status allocate(const lh_config *config, lh_dtype dtype, lh_tensor *trace, size_t *bytes,
                          lh_error *error)
{
    lh_status status = LH_OK;
    *bytes = 0;
    for (int i = 0; i < LH_LAYER_STRIDED && status == LH_OK; i++) {
        lh_tensor *t = &trace[lh_layer_strided[i]];
        status = lh_tensor_describe(config, dtype, lh_layer_strided[i], t, error);
        if (status != LH_OK)
            break;
        const size_t size = (size_t)lh_tensor_elements(t) * lh_dtype_size(t->dtype);
        status = lh_alloc(&t->data, size, lh_tensor_name(lh_layer_strided[i]), error);
        *bytes += size;
        if (status == LH_OK && (lh_layer_strided[i] <= LH_V || lh_layer_strided[i] == LH_DOUT))
            fill(t, (uint64_t)lh_layer_strided[i]);
        else if (status == LH_OK)
            memset(t->data, 0, size); /* the pages are there before the clock runs */
    }
    return status;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Repeats one pass. The first run warms up unless it alone takes four times the time there is. */
static lh_status repeat(lh_plan *plan, const lh_tensor *trace, bench_pass pass, double seconds,
                        bench_time *time, lh_error *error)
{
    static double samples[MOST_RUNS];
    lh_execute_fn *const execute = pass == BENCH_FORWARD ? lh_forward : lh_backward;
    lh_profile profile;
    double sum = 0;
    int runs = 0;
    bool warm = false;
    lh_profile_reset(plan);
    while (runs < MOST_RUNS && (sum < seconds || runs < FEWEST_RUNS)) {
        lh_plan_profile(plan, &profile);
        const double transferred = profile.transfer, since = lh_seconds();
        const lh_status status = execute(plan, trace, error);
        if (status != LH_OK)
            return status;
        const double taken = lh_seconds() - since;
        lh_plan_profile(plan, &profile);
        if (!warm && taken < 4 * seconds) {
            warm = true;
            lh_profile_reset(plan);
            continue;
        }
        samples[runs++] = taken - (profile.transfer - transferred);
        sum += taken;
        if (taken > 4 * seconds)
            break;
    }
    qsort(samples, (size_t)runs, sizeof *samples, ascending);
    time->runs = runs;
    time->least = samples[0];
    time->median = runs % 2 ? samples[runs / 2] : 0.5 * (samples[runs / 2 - 1] + samples[runs / 2]);
    time->transfer = profile.transfer / runs;
    time->mean = sum / runs - time->transfer;
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        time->stage[stage] = profile.seconds[stage] / runs;
    return LH_OK;
}

static void scale(bench_time *time, double factor)
{
    time->least *= factor;
    time->median *= factor;
    time->mean *= factor;
    time->transfer *= factor;
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        time->stage[stage] *= factor;
}

static lh_status time_layer(const bench_request *request, const lh_config *config, bench_point *point,
                            lh_error *error)
{
    const lh_options options = {.backend = request->backend,
                                .device = request->device,
                                .dtype = request->dtype,
                                .attention = request->attention,
                                .backward = !request->forward_only,
                                .profile = true,
                                .threads = request->threads,
                                .tiles = request->tiles};
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_plan *plan = NULL;
    memset(trace, 0, sizeof trace);
    bench_peak_start();
    lh_status status = allocate(config, request->dtype, trace, &point->tensors, error);
    if (status == LH_OK)
        status = lh_plan_create(config, &options, &plan, error);
    const int passes = request->forward_only ? BENCH_FORWARD + 1 : BENCH_PASSES;
    for (int pass = 0; pass < passes && status == LH_OK; pass++)
        status = repeat(plan, trace, (bench_pass)pass, request->seconds, &point->pass[pass], error);
    if (status == LH_OK) {
        point->workspace = lh_plan_workspace(plan);
        point->peak = bench_peak();
    }
    lh_plan_destroy(plan);
    for (int i = 0; i < LH_LAYER_STRIDED; i++)
        lh_free(trace[lh_layer_strided[i]].data);
    return status;
}

lh_status bench_measure(const bench_request *request, bench_point *point, lh_error *error)
{
    lh_config timed = request->config;
    memset(point, 0, sizeof *point);
    point->request = *request;
    lh_status status = lh_config_check(&timed, &point->layout, error);
    if (status != LH_OK)
        return status;
    const int64_t heads = timed.batch * timed.heads;
    double expected =
        request->rate > 0 ? bench_operations(&timed, &point->layout, BENCH_BACKWARD) / request->rate : 0;
    if (request->dense && expected > request->patience) {
        timed.batch = timed.heads = timed.kv_heads = 1;
        expected /= (double)heads;
    }
    if (expected > request->patience) {
        point->expected = expected;
        return LH_OK;
    }
    status = time_layer(request, &timed, point, error);
    if (status != LH_OK)
        return status;
    point->timed_heads = timed.batch * timed.heads;
    for (int pass = 0; pass < BENCH_PASSES; pass++)
        scale(&point->pass[pass], (double)heads / (double)point->timed_heads);
    return LH_OK;
}
