/*
 * Backend "openmp" against the reference (twin.h): every stage, whole layers, every instruction set this CPU has, and the
 * promises about threads, strides and memory.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "openmp/openmp.h"
#include "scalar/run.h"
#include "tests/layer.h"
#include "tests/suite.h"
#include "tests/twin.h"

/* B, H, G, N, d, L, p, k, m */
static const lh_config configs[] = {
    {2, 2, 2, 48, 3, 3, 2, 8, 4},     {1, 4, 2, 108, 1, 4, 3, 4, 2},    {1, 2, 1, 512, 7, 3, 4, 16, 8},
    {1, 1, 1, 480, 33, 2, 2, 48, 16}, {1, 2, 2, 256, 64, 3, 2, 16, 16}, {1, 1, 1, 400, 80, 2, 5, 16, 8},
    {1, 4, 1, 192, 128, 3, 4, 12, 4}, {2, 1, 1, 64, 130, 2, 4, 8, 4},   {1, 1, 1, 3000, 12, 3, 5, 96, 24},
    {1, 2, 1, 1, 5, 1, 2, 0, 0},      {1, 3, 1, 97, 64, 1, 2, 0, 0},    {2, 2, 2, 200, 40, 1, 2, 0, 0},
    {1, 1, 1, 1100, 48, 1, 2, 0, 0},  {1, 2, 1, 1600, 8, 1, 2, 0, 0},
};
enum {
    CONFIGS = sizeof configs / sizeof *configs
};

static const lh_dtype dtypes[] = {LH_F32, LH_F16, LH_BF16};

static lh_error error;

static void ok(lh_status status)
{
    ck_assert_msg(status == LH_OK, "%s", error.text);
}

static lh_plan *plan_of(const lh_config *config, lh_dtype dtype, int threads)
{
    const lh_options options = {
        .backend = "openmp", .dtype = dtype, .backward = true, .stages = true, .threads = threads};
    lh_plan *plan;
    ok(lh_plan_create(config, &options, &plan, &error));
    return plan;
}

/* One of the port's calls: a stage, or LH_STAGE_COUNT for forward and backward of a whole layer. */
static void run_port(const struct layer *layer, lh_dtype dtype, int stage)
{
    lh_plan *plan = plan_of(&layer->config, dtype, 2);
    if (stage < LH_STAGE_COUNT) {
        ok(lh_run_stage(plan, (lh_stage)stage, layer->trace, &error));
    } else {
        ok(lh_forward(plan, layer->trace, &error));
        ok(lh_backward(plan, layer->trace, &error));
    }
    lh_plan_destroy(plan);
}

/* Every instruction set's. */
static void port(const struct twin *t, int stage, const lh_tensor_id *ids)
{
    for (int build = 0; lh_omp_build_at(build); build++) {
        lh_omp_build_force(build);
        run_port(&t->got, t->dtype, stage);
        twin_expect(t, ids);
    }
    lh_omp_build_force(0);
}

START_TEST(stages)
{
    for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++)
        twin_stages(&configs[_i], dtypes[t], port);
}
END_TEST

START_TEST(whole_layers)
{
    for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++)
        twin_layer(&configs[_i], dtypes[t], port);
}
END_TEST

/* ---- threads ------------------------------------------------------------------------------------ */

static const lh_tensor_id results[] = {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT, LH_COVERAGE, LH_DQ, LH_DK, LH_DV};

static void run_layer(struct layer *layer, lh_dtype dtype, int threads)
{
    lh_plan *plan = plan_of(&layer->config, dtype, threads);
    ok(lh_forward(plan, layer->trace, &error));
    ok(lh_backward(plan, layer->trace, &error));
    lh_plan_destroy(plan);
}

/* Bits at 1, 2, 3 and 8 threads, and at 8 threads again. */
START_TEST(same_bits)
{
    static const int threads[] = {2, 3, 8, 8};
    const lh_config *config = &configs[_i];
    struct layer one, other;
    layer_create(&one, config, LH_F32, 5);
    run_layer(&one, LH_F32, 1);
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        layer_create(&other, config, LH_F32, 5);
        run_layer(&other, LH_F32, threads[t]);
        for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
            const lh_tensor *a = &one.trace[results[i]], *b = &other.trace[results[i]];
            ck_assert_msg(memcmp(a->data, b->data, layer_bytes(a)) == 0, "%s differs at %d threads",
                          lh_tensor_name(results[i]), threads[t]);
        }
        layer_free(&other);
    }
    layer_free(&one);
}
END_TEST

/* ---- large logits ------------------------------------------------------------------------------- */

/* All queries and keys alike, so large that a logit is 8.1e9 and more: every weight is 1/n, and a row of ones stays one
 * (SPEC 3.6: the largest term is exactly 1). */
START_TEST(large_logits)
{
    static const struct {
        lh_dtype dtype;
        int64_t dim;
        double value;
    } draws[] = {{LH_F32, 1, 90000}, {LH_BF16, 64, 29952}, {LH_F32, 64, 1e9}, {LH_F16, 64, 60000}};
    const lh_config c = {1, 1, 1, 96, draws[_i].dim, 1 + 2 * (_i % 2), 2, 8, 4};
    for (int build = 0; lh_omp_build_at(build); build++) {
        struct layer layer;
        layer_create(&layer, &c, draws[_i].dtype, 5);
        for (int id = LH_Q; id <= LH_V; id++) {
            const lh_tensor *t = &layer.trace[id];
            for (int64_t i = 0; i < lh_tensor_elements(t); i++)
                lh_store(t->data, t->dtype, i, id == LH_V ? 1 : draws[_i].value);
        }
        lh_omp_build_force(build);
        run_layer(&layer, draws[_i].dtype, 2);
        const double value = lh_load(layer.trace[LH_Q].data, draws[_i].dtype, 0);
        const double logit = value * value * sqrt((double)c.dim);
        const lh_tensor *o = &layer.trace[LH_O_SEL], *lse = &layer.trace[LH_LSE];
        for (int64_t i = 0; i < lh_tensor_elements(o) && c.levels > 1; i++)
            ck_assert_msg(fabs(lh_load(o->data, o->dtype, i) - 1) < 4 * twin_unit(o->dtype), "o_sel is %g",
                          lh_load(o->data, o->dtype, i));
        for (int64_t i = 0; i < lh_tensor_elements(lse); i++)
            ck_assert(fabs(lh_load(lse->data, LH_F32, i) / logit - 1) < 1e-5);
        const lh_tensor *out = &layer.trace[LH_OUT];
        for (int64_t i = 0; i < lh_tensor_elements(out) && c.levels == 1; i++)
            ck_assert(fabs(lh_load(out->data, out->dtype, i) - 1) < 4 * twin_unit(out->dtype));
        for (int id = LH_DQ; id <= LH_DV; id++)
            ok(lh_tensor_finite(&layer.trace[id], lh_tensor_name((lh_tensor_id)id), &error));
        layer_free(&layer);
    }
    lh_omp_build_force(0);
}
END_TEST

/* The last row's weights one by one, over that of its largest logit: v's row j has a 1 in column j, and the logits fall from 0 by _i / 1000 a key: all of the
 * exponential's steps at first, then down to where a weight is 0. */
START_TEST(weights)
{
    enum {
        KEYS = 96
    };
    const lh_config c = {1, 1, 1, KEYS, KEYS, 1, 2, 0, 0};
    for (int build = 0; lh_omp_build_at(build); build++) {
        struct layer layer;
        layer_create(&layer, &c, LH_F32, 5);
        float *q = layer.trace[LH_Q].data, *k = layer.trace[LH_K].data, *v = layer.trace[LH_V].data;
        for (int j = 0; j < KEYS; j++) {
            for (int i = 0; i < KEYS; i++) {
                q[j * KEYS + i] = k[j * KEYS + i] = 0;
                v[j * KEYS + i] = i == j;
            }
            q[j * KEYS] = 1;
            k[j * KEYS] = (float)(-sqrt((double)KEYS) * j * _i / 1000);
        }
        lh_omp_build_force(build);
        run_layer(&layer, LH_F32, 2);
        const float *out = (const float *)layer.trace[LH_OUT].data + (KEYS - 1) * KEYS;
        for (int j = 0; j < KEYS; j++) { /* a logit of x has been rounded twice or three times */
            const double logit = k[j * KEYS] / sqrt((double)KEYS), want = exp(logit),
                         got = (double)out[j] / out[0];
            ck_assert_msg(fabs(got - want) <= 0x1p-24 * want * (4 - 3 * logit) + 0x1p-126 * KEYS,
                          "build %d, logit %g: weight %.9g, wanted %.9g", build, logit, got, want);
            ck_assert(out[j] == 0 || logit > -127.1 * 0.6931471805599453);
        }
        layer_free(&layer);
    }
    lh_omp_build_force(0);
}
END_TEST

/* ---- strides ------------------------------------------------------------------------------------ */

/* t as [B,N,X,d] memory with a gap of three elements behind every row; returns the memory. */
static void *stride_out(lh_tensor *t)
{
    const lh_tensor packed = *t;
    const int64_t row = t->shape[3] + 3;
    t->stride[2] = t->shape[1] * row;
    t->stride[1] = row;
    t->stride[0] = t->shape[2] * t->stride[2];
    t->data = calloc((size_t)(t->shape[0] * t->stride[0]), lh_dtype_size(t->dtype));
    ck_assert_ptr_nonnull(t->data);
    ok(lh_tensor_convert(t, &packed, &error));
    return t->data;
}

START_TEST(strided)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_OUT, LH_DOUT, LH_DQ, LH_DK, LH_DV};
    struct layer packed, loose;
    layer_create(&packed, &configs[_i], LH_F32, 5);
    layer_create(&loose, &configs[_i], LH_F32, 5);
    run_layer(&packed, LH_F32, 2);
    const struct layer memory = loose;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        stride_out(&loose.trace[ids[i]]);
    run_layer(&loose, LH_F32, 2);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        ok(lh_tensor_convert(&memory.trace[ids[i]], &loose.trace[ids[i]], &error));
        free(loose.trace[ids[i]].data);
        ck_assert_msg(memcmp(packed.trace[ids[i]].data, memory.trace[ids[i]].data,
                             layer_bytes(&packed.trace[ids[i]])) == 0,
                      "%s differs", lh_tensor_name(ids[i]));
    }
    loose = memory;
    layer_free(&packed);
    layer_free(&loose);
}
END_TEST

/* ---- selection ---------------------------------------------------------------------------------- */

/* Ties, both zeros, infinities and NaN in every place: the reference's order, whatever the scores are. */
START_TEST(odd_scores)
{
    static const float odd[] = {0, -0.0f, -1, NAN, 1, 1, INFINITY, -INFINITY, -NAN, 1e-45f};
    struct layer got, exact;
    layer_create(&got, &configs[2], LH_F32, 5);
    layer_create(&exact, &configs[2], LH_F64, 5);
    for (int id = LH_SCORE_Q; id <= LH_SCORE_K; id++) {
        const lh_tensor *t = &got.trace[id];
        for (int64_t i = 0; i < lh_tensor_elements(t); i++)
            ((float *)t->data)[i] =
                odd[(i * 7 + i / 3 + id + _i) % (_i < 5 ? 10 : 4)]; /* the last five draw at a zero */
        ok(lh_tensor_convert(&exact.trace[id], t, &error));
    }
    lh_plan *plan = plan_of(&got.config, LH_F32, 2);
    ok(lh_run_stage(plan, LH_SELECT, got.trace, &error));
    ok(lh_ref_run(64, &got.config, LH_REF_STAGE(LH_SELECT), exact.trace, NULL, &error));
    ck_assert_mem_eq(got.trace[LH_INDEX].data, exact.trace[LH_INDEX].data, layer_bytes(&got.trace[LH_INDEX]));
    lh_plan_destroy(plan);
    layer_free(&got);
    layer_free(&exact);
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------- */

/* The plan holds what it says, and executing it takes nothing more. */
START_TEST(workspace_is_what_was_promised)
{
    struct layer layer;
    layer_create(&layer, &configs[_i], LH_BF16, 5);
    lh_plan *plan = plan_of(&configs[_i], LH_BF16, 3);
    const size_t held = lh_alloc_bytes();
    ck_assert_uint_eq(held, lh_plan_workspace(plan));
    ok(lh_forward(plan, layer.trace, &error));
    ok(lh_backward(plan, layer.trace, &error));
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        ok(lh_run_stage(plan, (lh_stage)stage, layer.trace, &error));
    ck_assert_uint_eq(lh_alloc_peak(), held);
    lh_plan_destroy(plan);
    ck_assert_uint_eq(lh_alloc_bytes(), 0);
    layer_free(&layer);
}
END_TEST

/* More than any machine has: a status and the bytes, nothing left behind. */
START_TEST(workspace_too_large)
{
    static const lh_config huge[] = {{1, 1, 1, INT64_C(1) << 30, 1 << 14, 1, 2, 0, 0},
                                     {1, 1, 1, INT64_C(1) << 30, INT64_C(1) << 27, 1, 2, 0, 0}};
    const lh_options options = {.backend = "openmp", .dtype = LH_F32, .backward = true};
    lh_plan *plan;
    const lh_status status = lh_plan_create(&huge[_i], &options, &plan, &error);
    expect_status(status, LH_NO_MEMORY, &error, "openmp workspace: ");
    ck_assert_ptr_nonnull(strstr(error.text, " bytes could not be had"));
    ck_assert_ptr_null(plan);
    ck_assert_uint_eq(lh_alloc_bytes(), 0);
}
END_TEST

START_TEST(other_plans_tensors)
{
    struct layer other;
    layer_create(&other, &configs[1], LH_F32, 5);
    lh_plan *plan = plan_of(&configs[0], LH_F32, 1);
    expect_status(lh_forward(plan, other.trace, &error), LH_INVALID, &error, "q has shape");
    lh_plan_destroy(plan);
    plan = plan_of(&configs[1], LH_BF16, 1);
    expect_status(lh_backward(plan, other.trace, &error), LH_INVALID, &error, "q is F32, wanted BF16");
    lh_plan_destroy(plan);
    layer_free(&other);
}
END_TEST

/* Every stage that ran has time booked under its name, and only with options.profile. */
START_TEST(timers)
{
    struct layer layer;
    lh_profile profile;
    lh_options options = {.backend = "openmp", .dtype = LH_F32, .backward = true, .profile = _i == 1};
    lh_plan *plan;
    layer_create(&layer, &configs[2], LH_F32, 5);
    ok(lh_plan_create(&configs[2], &options, &plan, &error));
    ok(lh_forward(plan, layer.trace, &error));
    ok(lh_backward(plan, layer.trace, &error));
    lh_plan_profile(plan, &profile);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        const bool booked = _i == 1 && stage != LH_POOL; /* fused into gather */
        ck_assert_msg((profile.seconds[stage] > 0) == booked, "%s: %g s", lh_stage_name((lh_stage)stage),
                      profile.seconds[stage]);
    }
    lh_plan_destroy(plan);
    layer_free(&layer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("openmp");
    tcase_add_loop_test(suite_case(suite, "stages"), stages, 0, CONFIGS);
    tcase_add_loop_test(suite_case(suite, "whole layers"), whole_layers, 0, CONFIGS);
    tcase_add_loop_test(suite_case(suite, "same bits"), same_bits, 0, CONFIGS);
    tcase_add_loop_test(suite_case(suite, "large logits"), large_logits, 0, 4);
    TCase *exponential = suite_case(suite, "weights");
    tcase_add_loop_test(exponential, weights, 1, 12);
    tcase_add_loop_test(exponential, weights, 970, 975);
    tcase_add_loop_test(suite_case(suite, "strided"), strided, 0, CONFIGS);
    tcase_add_loop_test(suite_case(suite, "odd scores"), odd_scores, 0, 10);
    TCase *memory = suite_case(suite, "memory");
    tcase_add_loop_test(memory, workspace_is_what_was_promised, 0, CONFIGS);
    tcase_add_loop_test(memory, workspace_too_large, 0, 2);
    tcase_add_test(memory, other_plans_tensors);
    tcase_add_loop_test(suite_case(suite, "timers"), timers, 0, 2);
    return suite_run(suite);
}
