/* One point: a plan, its tensors, and the clock. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "core/backend.h"
#include "core/convert.h"
#include "core/random.h"

enum {
    MOST_RUNS = 1000,
    FEWEST_RUNS = 3,
    TURNS = 8, /* with the host's product, at most */
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

/* Sorts them. */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* As many as the product's time allows, if they are enough to have a median of. */
static int turns_of(const bench_request *request)
{
    const double rate = request->host ? request->host->product_flops : 0;
    const double turns = request->seconds * rate / bench_product_operations();
    return turns < FEWEST_RUNS ? 0 : turns < TURNS ? (int)turns : TURNS;
}

/* One pass over and over: what it took each time, without transfers, and in all. */
struct sampling {
    lh_plan *plan;
    const lh_tensor *trace;
    lh_execute_fn *execute;
    double seconds; /* that they may take in all */
    double samples[MOST_RUNS], stage[LH_STAGE_COUNT][MOST_RUNS], sum;
    int runs;
};

static lh_status sample(struct sampling *s, double *taken, lh_error *error)
{
    lh_profile before, after;
    lh_plan_profile(s->plan, &before);
    const double since = lh_seconds();
    const lh_status status = s->execute(s->plan, s->trace, error);
    *taken = lh_seconds() - since;
    lh_plan_profile(s->plan, &after);
    s->samples[s->runs] = *taken - (after.transfer - before.transfer);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        s->stage[stage][s->runs] = after.seconds[stage] - before.seconds[stage];
    return status;
}

/* Until `part` of the time or of the runs there may be is spent, once at least; *late: one took four times the time. */
static lh_status sample_part(struct sampling *s, double part, bool *late, lh_error *error)
{
    const int fewest = part == 1 ? FEWEST_RUNS : 0;
    do {
        double taken;
        const lh_status status = sample(s, &taken, error);
        if (status != LH_OK)
            return status;
        s->runs++;
        s->sum += taken;
        *late = taken > 4 * s->seconds;
    } while (!*late && s->runs < MOST_RUNS * part && (s->sum < s->seconds * part || s->runs < fewest));
    return LH_OK;
}

/* Threads that wait for more work spin for a while, and a library's are in the way of another's. */
static void let_threads_sleep(const bench_product *product)
{
    if (product->threads > 1)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

/* Seconds of one product, mean of `seconds` of them. */
static double product_turn(const bench_product *product, double seconds)
{
    double sum = 0;
    int runs = 0;
    let_threads_sleep(product);
    while (sum < seconds || runs == 0) {
        sum += bench_product_run(product);
        runs++;
    }
    let_threads_sleep(product);
    return sum / runs;
}

/* The pass and the host's product in turns, so that what else the machine does meets both alike. */
static lh_status take_turns(struct sampling *s, const bench_product *product, int turns, double operations,
                            bench_time *time, lh_error *error)
{
    double ratios[TURNS], products[TURNS];
    bool late = false;
    int n = 0;
    while (n < turns && !late && (s->sum < s->seconds || s->runs < FEWEST_RUNS)) {
        const double rate = bench_product_operations() / product_turn(product, s->seconds / turns);
        const int first = s->runs;
        double taken = 0;
        const lh_status status = sample_part(s, (double)(n + 1) / turns, &late, error);
        if (status != LH_OK)
            return status;
        for (int i = first; i < s->runs; i++)
            taken += s->samples[i];
        products[n] = rate;
        ratios[n++] = operations * (s->runs - first) / taken / rate;
    }
    time->turns = n;
    time->share = median(ratios, n);
    time->low = ratios[(n - 1) / 4];
    time->high = ratios[n - 1 - (n - 1) / 4];
    time->product_flops = median(products, n);
    return LH_OK;
}

/* Repeats one pass. The first run warms up unless it alone takes four times the time there is. */
static lh_status repeat(lh_plan *plan, const lh_tensor *trace, bench_pass pass, const bench_request *request,
                        const bench_product *product, double operations, bench_time *time, lh_error *error)
{
    static struct sampling s;
    const int turns = turns_of(request);
    double warm;
    bool late;
    s = (struct sampling){.plan = plan,
                          .trace = trace,
                          .execute = pass == BENCH_FORWARD ? lh_forward : lh_backward,
                          .seconds = request->seconds};
    lh_profile_reset(plan);
    lh_status status = sample(&s, &warm, error);
    if (status == LH_OK && warm > 4 * s.seconds) {
        s.sum = warm;
        s.runs = 1;
    } else if (status == LH_OK) {
        lh_profile_reset(plan);
        status = turns > 0 ? take_turns(&s, product, turns, operations, time, error)
                           : sample_part(&s, 1, &late, error);
    }
    if (status != LH_OK)
        return status;
    lh_profile profile;
    lh_plan_profile(plan, &profile);
    time->runs = s.runs;
    time->median = median(s.samples, s.runs);
    time->least = s.samples[0];
    time->transfer = profile.transfer / s.runs;
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        time->stage[stage] = median(s.stage[stage], s.runs);
    return LH_OK;
}

static void scale(bench_time *time, double factor)
{
    time->least *= factor;
    time->median *= factor;
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
    bench_product product = {0};
    memset(trace, 0, sizeof trace);
    lh_status status = LH_OK;
    if (turns_of(request) > 0) /* before what is resident is looked at */
        status = bench_product_begin(request->host->threads, &product, error);
    bench_peak_start();
    if (status == LH_OK)
        status = allocate(config, request->dtype, trace, &point->tensors, error);
    if (status == LH_OK)
        status = lh_plan_create(config, &options, &plan, error);
    const int passes = request->forward_only ? BENCH_FORWARD + 1 : BENCH_PASSES;
    for (int pass = 0; pass < passes && status == LH_OK; pass++)
        status =
            repeat(plan, trace, (bench_pass)pass, request, &product,
                   bench_operations(config, &point->layout, (bench_pass)pass), &point->pass[pass], error);
    if (status == LH_OK) {
        point->workspace = lh_plan_workspace(plan);
        point->peak = bench_peak();
    }
    lh_plan_destroy(plan);
    bench_product_end(&product);
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
