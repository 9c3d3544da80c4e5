/*
 * The CUDA backend against the scalar reference: every stage on the reference's own tensors, then the whole layer
 * with the reference's index, in every dtype, with own and with cuDNN attention. Exits 77 where there is no device.
 *
 * The reference computes in binary64 and rounds once, so what a stage may differ by is a few roundings of the dtype.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "cuda/plan.h"
#include "tests/suite.h"

struct layer {
    const char *why;
    lh_config config;
};

static const struct layer layers[] = {
    {"odd d, three levels", {2, 2, 2, 48, 3, 3, 2, 8, 4}},
    {"grouped heads, vectors", {2, 4, 2, 1024, 64, 3, 4, 32, 8}},
    {"pool 3, d 128", {1, 2, 1, 972, 128, 4, 3, 12, 6}},
    {"dense", {1, 2, 1, 333, 64, 1, 2, 0, 0}},
    {"one global tile, five levels", {1, 2, 2, 1024, 32, 5, 2, 32, 32}},
    {"d between the tiles' widths", {1, 2, 1, 512, 80, 2, 4, 16, 8}},
    {"p 4, d 128, as many heads everywhere", {1, 2, 2, 1024, 128, 3, 4, 32, 16}},
    {"p 4, four levels", {1, 1, 1, 1024, 64, 4, 4, 16, 8}},
    {"p 2, windows longer than a batch", {2, 1, 1, 512, 128, 6, 2, 8, 8}},
    {"d past the tiles' widths", {1, 1, 1, 384, 200, 2, 2, 32, 16}},
};
enum {
    LAYERS = sizeof layers / sizeof *layers
};

static const lh_dtype dtypes[] = {LH_F32, LH_BF16, LH_F16};
enum {
    DTYPES = sizeof dtypes / sizeof *dtypes
};

static void must(lh_status status, const lh_error *error, const char *what)
{
    ck_assert_msg(status == LH_OK, "%s: %s", what, status == LH_OK ? "" : error->text);
}

static void make_trace(const lh_config *config, lh_dtype dtype, lh_tensor *trace)
{
    lh_error error;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        must(lh_tensor_describe(config, dtype, (lh_tensor_id)id, &trace[id], &error), &error, "describe");
        const size_t bytes = (size_t)lh_tensor_elements(&trace[id]) * lh_dtype_size(trace[id].dtype);
        trace[id].data = malloc(bytes + 1);
        ck_assert_ptr_nonnull(trace[id].data);
        memset(trace[id].data, 0xff, bytes); /* NaN, -1: an element nobody writes is seen */
    }
}

static void free_trace(lh_tensor *trace)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        free(trace[id].data);
}

static size_t bytes_of(const lh_tensor *t)
{
    return (size_t)lh_tensor_elements(t) * lh_dtype_size(t->dtype);
}

static void draw(lh_tensor *t, uint64_t stream)
{
    const int64_t n = lh_tensor_elements(t);
    double *values = malloc((size_t)n * sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (int64_t i = 0; i < n; i++)
        values[i] = lh_random_gaussian(7, stream, (uint64_t)i);
    lh_tensor wide = *t;
    wide.dtype = LH_F64;
    wide.data = values;
    lh_error error;
    must(lh_tensor_convert(t, &wide, &error), &error, "convert");
    free(values);
}

static double *widened(const lh_tensor *t)
{
    lh_tensor wide = *t;
    wide.dtype = LH_F64;
    lh_tensor_pack(&wide);
    wide.data = malloc((size_t)lh_tensor_elements(t) * sizeof(double));
    ck_assert_ptr_nonnull(wide.data);
    lh_error error;
    must(lh_tensor_convert(&wide, t, &error), &error, "convert");
    return wide.data;
}

/* Roundings of a tensor's own type that its stage may be away from the correctly rounded result, as a share of the
 * tensor's largest element: none where rows are moved, few where they are added, more where sums are long. */
static double allowed(lh_tensor_id id, lh_dtype dtype)
{
    const double unit = dtype == LH_F32 ? 0x1p-24 : dtype == LH_F16 ? 0x1p-11 : 0x1p-8;
    switch (id) {
    case LH_INDEX:
    case LH_COVERAGE:
    case LH_Q_SEL:
    case LH_K_SEL:
    case LH_V_SEL:
        return 0;
    case LH_SCORE_Q:
    case LH_SCORE_K:
    case LH_LSE:
        return 16 * 0x1p-24;
    case LH_O_SEL:
    case LH_DQ_SEL:
    case LH_DK_SEL:
    case LH_DV_SEL:
        return dtype == LH_F32 ? 64 * unit : 4 * unit;
    case LH_DO_SEL:
    case LH_DQ:
    case LH_DK:
    case LH_DV:
        return dtype == LH_F32 ? 16 * unit : 2 * unit;
    default:
        return 2 * unit;
    }
}

static void compare(const lh_tensor *got, const lh_tensor *want, lh_tensor_id id, double share,
                    const char *why)
{
    const int64_t n = lh_tensor_elements(want);
    if (want->dtype == LH_I32 || want->dtype == LH_I64) {
        for (int64_t i = 0; i < n; i++)
            ck_assert_msg(lh_index_at(got, i) == lh_index_at(want, i), "%s: %s[%lld] is %lld, wanted %lld",
                          why, lh_tensor_name(id), (long long)i, (long long)lh_index_at(got, i),
                          (long long)lh_index_at(want, i));
        return;
    }
    double *g = widened(got), *w = widened(want), largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(w[i]));
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabs(g[i] - w[i]) <= share * largest,
                      "%s: %s %s[%lld] is %.9g, wanted %.9g within %.3g", why, lh_dtype_name(want->dtype),
                      lh_tensor_name(id), (long long)i, g[i], w[i], share * largest);
    free(g);
    free(w);
}

static lh_plan *make_plan(const char *backend, const lh_config *config, lh_dtype dtype, bool index_given,
                          lh_attention attention)
{
    const lh_options options = {.backend = backend,
                                .dtype = dtype,
                                .backward = true,
                                .stages = true,
                                .index_given = index_given,
                                .attention = attention};
    lh_plan *plan;
    lh_error error;
    const lh_status status = lh_plan_create(config, &options, &plan, &error);
    if (status == LH_UNSUPPORTED && attention == LH_ATTENTION_CUDNN)
        return NULL;
    must(status, &error, "plan");
    return plan;
}

/* Draws inputs and runs every stage of the reference into trace. */
static void reference(const struct layer *layer, lh_dtype dtype, lh_tensor *trace)
{
    static const lh_tensor_id drawn[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    lh_error error;
    make_trace(&layer->config, dtype, trace);
    for (int i = 0; i < 4; i++)
        draw(&trace[drawn[i]], (uint64_t)i);
    lh_plan *plan = make_plan("ref", &layer->config, dtype, false, LH_ATTENTION_AUTO);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        must(lh_run_stage(plan, (lh_stage)stage, trace, &error), &error, layer->why);
    lh_plan_destroy(plan);
}

static void check_stages(const struct layer *layer, lh_dtype dtype, lh_attention attention,
                         const lh_tensor *want)
{
    lh_tensor got[LH_TENSOR_COUNT];
    lh_error error;
    lh_plan *plan = make_plan("cuda", &layer->config, dtype, false, attention);
    if (!plan)
        return;
    make_trace(&layer->config, dtype, got);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        lh_tensor trace[LH_TENSOR_COUNT];
        memcpy(trace, want, sizeof trace);
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)stage); *id != LH_TENSOR_COUNT; id++)
            trace[*id] = got[*id];
        must(lh_run_stage(plan, (lh_stage)stage, trace, &error), &error, layer->why);
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)stage); *id != LH_TENSOR_COUNT; id++)
            compare(&got[*id], &want[*id], *id, allowed(*id, dtype), layer->why);
    }
    lh_plan_destroy(plan);
    free_trace(got);
}

/* [B,heads,N,d] stored as [B,N,heads,d]. */
static void interleave(lh_tensor *t)
{
    t->stride[2] = t->shape[1] * t->shape[3];
    t->stride[1] = t->shape[3];
    t->stride[0] = t->shape[2] * t->stride[2];
}

static void check_whole(const struct layer *layer, lh_dtype dtype, lh_attention attention,
                        const lh_tensor *want)
{
    static const lh_tensor_id results[] = {LH_OUT, LH_DQ, LH_DK, LH_DV};
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    lh_tensor got[LH_TENSOR_COUNT], again[LH_TENSOR_COUNT];
    lh_error error;
    lh_plan *plan = make_plan("cuda", &layer->config, dtype, true, attention);
    if (!plan)
        return;
    make_trace(&layer->config, dtype, got);
    make_trace(&layer->config, dtype, again);
    for (int i = 0; i < 4; i++) { /* strided in the first run, contiguous in the second */
        interleave(&got[inputs[i]]);
        interleave(&got[results[i]]);
        must(lh_tensor_convert(&got[inputs[i]], &want[inputs[i]], &error), &error, "convert");
        memcpy(again[inputs[i]].data, want[inputs[i]].data, bytes_of(&want[inputs[i]]));
    }
    memcpy(got[LH_INDEX].data, want[LH_INDEX].data, bytes_of(&want[LH_INDEX]));
    must(lh_forward(plan, got, &error), &error, layer->why);
    must(lh_backward(plan, got, &error), &error, layer->why);
    for (int i = 0; i < 4; i++)
        compare(&got[results[i]], &want[results[i]], results[i], 3 * allowed(LH_O_SEL, dtype), layer->why);
    compare(&got[LH_COVERAGE], &want[LH_COVERAGE], LH_COVERAGE, 0, layer->why);

    /* Backward from what forward kept, and a stage in between, change no bit. */
    lh_tensor trace[LH_TENSOR_COUNT];
    memcpy(trace, again, sizeof trace);
    lh_tensor between[LH_TENSOR_COUNT];
    memcpy(between, want, sizeof between);
    between[LH_O_SEL] = got[LH_O_SEL];
    between[LH_LSE] = got[LH_LSE];
    memcpy(again[LH_INDEX].data, want[LH_INDEX].data, bytes_of(&want[LH_INDEX]));
    trace[LH_O_SEL].data = trace[LH_LSE].data = NULL;
    must(lh_forward(plan, trace, &error), &error, layer->why);
    must(lh_run_stage(plan, LH_ATTEND, between, &error), &error, layer->why);
    must(lh_backward(plan, trace, &error), &error, layer->why);
    for (int i = 0; i < 4 && attention == LH_ATTENTION_OWN; i++) {
        lh_tensor packed = again[results[i]];
        packed.data = malloc(bytes_of(&packed));
        must(lh_tensor_convert(&packed, &got[results[i]], &error), &error, "convert");
        ck_assert_msg(memcmp(packed.data, again[results[i]].data, bytes_of(&packed)) == 0,
                      "%s: %s differs between two runs", layer->why, lh_tensor_name(results[i]));
        free(packed.data);
    }
    lh_plan_destroy(plan);
    free_trace(got);
    free_trace(again);
}

START_TEST(agrees_with_the_reference)
{
    const struct layer *layer = &layers[_i / DTYPES];
    const lh_dtype dtype = dtypes[_i % DTYPES];
    lh_tensor want[LH_TENSOR_COUNT];
    reference(layer, dtype, want);
    check_stages(layer, dtype, LH_ATTENTION_OWN, want);
    check_whole(layer, dtype, LH_ATTENTION_OWN, want);
    if (dtype != LH_F32) {
        check_stages(layer, dtype, LH_ATTENTION_CUDNN, want);
        check_whole(layer, dtype, LH_ATTENTION_CUDNN, want);
    }
    free_trace(want);
}
END_TEST

/* Scores that tie a lot, negative ones and both zeros among them, in tiles that fit shared memory and one that
 * does not; the last member of a row says how many different scores there are. */
START_TEST(ties_go_to_the_lowest_index)
{
    static const struct {
        lh_config config;
        int different;
    } cases[] = {
        {{1, 2, 1, 4096, 1, 3, 4, 64, 32}, 3},
        {{1, 2, 2, 65536, 1, 2, 2, 2048, 2048}, 40},
        {{2, 2, 1, 19683, 1, 5, 3, 36, 12}, 5},
    };
    const lh_config *config = &cases[_i].config;
    lh_tensor want[LH_TENSOR_COUNT], got[LH_TENSOR_COUNT];
    lh_error error;
    make_trace(config, LH_F32, want);
    make_trace(config, LH_F32, got);
    for (int id = LH_SCORE_Q; id <= LH_SCORE_K; id++) {
        float *scores = want[id].data;
        for (int64_t i = 0; i < lh_tensor_elements(&want[id]); i++) {
            const int draw = (int)(lh_random_uniform(3, (uint64_t)id, (uint64_t)i) * cases[_i].different) - 1;
            scores[i] = draw == 0 && i % 2 == 0 ? -0.0f : (float)draw;
        }
        free(got[id].data);
        got[id] = want[id];
    }
    const char *const backends[] = {"ref", "cuda"};
    for (int i = 0; i < 2; i++) {
        lh_plan *plan = make_plan(backends[i], config, LH_F32, false, LH_ATTENTION_OWN);
        must(lh_run_stage(plan, LH_SELECT, i == 0 ? want : got, &error), &error, backends[i]);
        lh_plan_destroy(plan);
    }
    compare(&got[LH_INDEX], &want[LH_INDEX], LH_INDEX, 0, "ties");
    got[LH_SCORE_Q].data = got[LH_SCORE_K].data = NULL;
    free_trace(got);
    free_trace(want);
}
END_TEST

START_TEST(refusals_leave_nothing_behind)
{
    const lh_config huge = {1, 64, 64, (int64_t)1 << 26, 128, 2, 4, 4096, 128};
    lh_options options = {.backend = "cuda", .dtype = LH_BF16, .backward = true};
    lh_plan *plan;
    lh_error error;
    const int64_t live = lh_alloc_live();
    expect_status(lh_plan_create(&huge, &options, &plan, &error), LH_NO_MEMORY, &error,
                  "bytes of device memory");
    options.dtype = LH_F64;
    expect_status(lh_plan_create(&layers[0].config, &options, &plan, &error), LH_UNSUPPORTED, &error, "F64");
    options.dtype = LH_F32;
    options.attention = LH_ATTENTION_CUDNN;
    expect_status(lh_plan_create(&layers[0].config, &options, &plan, &error), LH_UNSUPPORTED, &error,
                  "cudnn");
    options.attention = LH_ATTENTION_OWN;
    options.device = 999;
    expect_status(lh_plan_create(&layers[0].config, &options, &plan, &error), LH_INVALID, &error,
                  "device is 999");
    ck_assert_int_eq(lh_alloc_live(), live);
}
END_TEST

START_TEST(profile_tells_transfers_apart)
{
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_options options = {.backend = "cuda", .dtype = LH_F32, .profile = true};
    lh_plan *plan;
    lh_error error;
    lh_profile profile;
    make_trace(&layers[1].config, LH_F32, trace);
    for (int id = LH_Q; id <= LH_V; id++)
        draw(&trace[id], (uint64_t)id);
    must(lh_plan_create(&layers[1].config, &options, &plan, &error), &error, "plan");
    must(lh_forward(plan, trace, &error), &error, "forward");
    lh_plan_profile(plan, &profile);
    ck_assert(profile.transfer > 0 && profile.seconds[LH_POOL] > 0 && profile.seconds[LH_ATTEND] > 0);
    ck_assert_int_eq(profile.calls, 1);
    lh_plan_destroy(plan);
    free_trace(trace);
}
END_TEST

/* Last of all: after it no CUDA call of this process succeeds. */
START_TEST(a_lost_context_is_named)
{
    lh_tensor trace[LH_TENSOR_COUNT];
    const lh_options options = {.backend = "cuda",
                                .dtype = LH_F32,
                                .memory = LH_ON_DEVICE,
                                .stream_given = true,
                                .profile = true}; /* which waits */
    lh_plan *plan, *later;
    lh_error error;
    const int64_t live = lh_alloc_live();
    must(lh_plan_create(&layers[1].config, &options, &plan, &error), &error, "plan");
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        must(lh_tensor_describe(&layers[1].config, LH_F32, (lh_tensor_id)id, &trace[id], &error), &error,
             "describe");
    for (int id = LH_Q; id <= LH_V; id++)
        trace[id].data = (void *)((uintptr_t)(id + 1) << 30); /* nobody's memory, and none of it shared */
    trace[LH_OUT].data = (void *)((uintptr_t)(LH_OUT + 1) << 30);
    expect_status(lh_forward(plan, trace, &error), LH_DEVICE, &error, "context is lost");
    expect_status(lh_plan_create(&layers[1].config, &options, &later, &error), LH_DEVICE, &error,
                  "cudaError");
    ck_assert_ptr_null(later);
    lh_plan_destroy(plan);
    ck_assert_int_eq(lh_alloc_live(), live);
}
END_TEST

/* Needs no device. */
START_TEST(cuda_errors_become_what_they_are)
{
    lh_error error;
    expect_status(lh_cuda_fail(cudaErrorMemoryAllocation, "x", &error), LH_NO_MEMORY, &error,
                  "cudaErrorMemory");
    expect_status(lh_cuda_fail(cudaErrorInsufficientDriver, "x", &error), LH_NO_DEVICE, &error, "driver");
    expect_status(lh_cuda_fail(cudaErrorIllegalAddress, "x", &error), LH_DEVICE, &error, "context is lost");
    expect_status(lh_cuda_fail(cudaErrorInvalidValue, "attend", &error), LH_DEVICE, &error, "attend: ");
    ck_assert_ptr_null(strstr(error.text, "lost"));
}
END_TEST

int main(void)
{
    int devices;
    lh_error error;
    setenv("CK_FORK", "no", 1); /* a CUDA context does not survive fork */
    Suite *suite = suite_create("cuda");
    TCase *tcase = suite_case(suite, "errors");
    tcase_add_test(tcase, cuda_errors_become_what_they_are);
    const lh_status found = lh_device_count("cuda", &devices, &error);
    if (found != LH_OK) { /* only a device that is not there is skipped; one that fails is a failure */
        const int failed = suite_run(suite);
        fprintf(stderr, "%s\n", error.text);
        return failed || found != LH_NO_DEVICE ? 1 : 77;
    }
    tcase = suite_case(suite, "against the reference");
    tcase_add_loop_test(tcase, agrees_with_the_reference, 0, LAYERS * DTYPES);
    tcase_add_loop_test(tcase, ties_go_to_the_lowest_index, 0, 3);
    tcase = suite_case(suite, "as a device");
    tcase_add_test(tcase, refusals_leave_nothing_behind);
    tcase_add_test(tcase, profile_tells_transfers_apart);
    tcase_add_test(tcase, a_lost_context_is_named);
    return suite_run(suite);
}
