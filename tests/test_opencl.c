/* The OpenCL backend: every stage and the whole layer against ref, on shapes that leave tiles, panels and
 * vectors ragged; chunks; device memory; the same bits again; and a cache of programs that is not trusted. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "opencl/opencl.h"
#include "tests/layer.h"
#include "tests/suite.h"

/* B H G N d L p k m */
static const lh_config configs[] = {
    {2, 2, 2, 48, 3, 3, 2, 8, 4},      {1, 4, 2, 96, 8, 3, 2, 8, 4},       {1, 2, 1, 64, 1, 1, 2, 2, 2},
    {1, 1, 1, 1, 5, 1, 2, 2, 2},       {2, 3, 1, 162, 17, 4, 3, 6, 2},     {1, 2, 2, 2048, 64, 3, 4, 64, 16},
    {1, 6, 2, 700, 33, 2, 5, 28, 14},  {1, 1, 1, 1024, 128, 4, 2, 32, 32}, {1, 1, 1, 300, 160, 1, 2, 2, 2},
    {1, 2, 1, 4096, 16, 6, 2, 64, 64},
};
/* The first SMALL are also for oclgrind, which is slow. */
enum {
    SMALL = 4,
    CONFIGS = sizeof configs / sizeof *configs
};
static const lh_dtype dtypes[] = {LH_F32, LH_F16, LH_BF16};

static lh_error error;

static lh_plan *make_plan(const char *backend, const lh_config *config, lh_dtype dtype, bool index_given)
{
    const lh_options options = {
        .backend = backend, .dtype = dtype, .backward = true, .stages = true, .index_given = index_given};
    lh_plan *plan;
    expect_status(lh_plan_create(config, &options, &plan, &error), LH_OK, &error, "");
    return plan;
}

/* Half a unit in the last place of what is stored, and what float32 arithmetic may be off by on the way there;
 * inputs have variance 1, so a difference of terms that cancel is measured against 1. */
static double allowed(lh_dtype dtype, double largest)
{
    const double storage = dtype == LH_F16 ? 0x1p-11 : dtype == LH_BF16 ? 0x1p-8 : 0;
    return fmax(largest, 1) * (storage * 1.01 + 0x1p-19);
}

/* `storage`: the least precise type that was rounded to on the way to this tensor. */
static void expect_close(const struct layer *wanted, const struct layer *got, lh_tensor_id id,
                         lh_dtype storage, double slack)
{
    const lh_tensor *w = &wanted->trace[id], *g = &got->trace[id];
    const int64_t elements = lh_tensor_elements(w);
    const lh_config *c = &wanted->config;
    if (id == LH_INDEX || id == LH_COVERAGE) {
        ck_assert_msg(memcmp(w->data, g->data, layer_bytes(w)) == 0, "%s differs (N %d, d %d)",
                      lh_tensor_name(id), (int)c->tokens, (int)c->dim);
        return;
    }
    double largest = 0, worst = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < elements; i++) {
        const double x = lh_load(w->data, w->dtype, i), y = lh_load(g->data, g->dtype, i);
        largest = fmax(largest, fabs(x));
        if (!(fabs(x - y) <= worst)) {
            worst = fabs(x - y);
            at = i;
        }
    }
    ck_assert_msg(worst <= slack * allowed(storage, largest),
                  "%s[%lld] is %g, wanted %g within %g (N %d, d %d, L %d, %s)", lh_tensor_name(id),
                  (long long)at, lh_load(g->data, g->dtype, at), lh_load(w->data, w->dtype, at),
                  slack * allowed(storage, largest), (int)c->tokens, (int)c->dim, (int)c->levels,
                  lh_dtype_name(wanted->trace[LH_Q].dtype));
}

/* Every stage on the reference's own inputs. */
START_TEST(stages)
{
    const lh_config *config = &configs[_i % CONFIGS];
    const lh_dtype dtype = dtypes[_i / CONFIGS];
    struct layer wanted, got;
    layer_create(&wanted, config, dtype, 7);
    layer_create(&got, config, dtype, 7);
    lh_plan *ref = make_plan("ref", config, dtype, false), *plan = make_plan("opencl", config, dtype, false);
    for (int s = 0; s < LH_STAGE_COUNT; s++) {
        const lh_stage stage = (lh_stage)s;
        expect_status(lh_run_stage(ref, stage, wanted.trace, &error), LH_OK, &error, "");
        for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT; id++)
            memcpy(got.trace[*id].data, wanted.trace[*id].data, layer_bytes(&wanted.trace[*id]));
        expect_status(lh_run_stage(plan, stage, got.trace, &error), LH_OK, &error, "");
        for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
            expect_close(&wanted, &got, *id, wanted.trace[*id].dtype, 1);
    }
    lh_plan_destroy(plan);
    lh_plan_destroy(ref);
    layer_free(&got);
    layer_free(&wanted);
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

/* The whole layer on its own index; the reference follows it. And once more: the same bits. */
START_TEST(layers)
{
    const lh_config *config = &configs[_i % CONFIGS];
    const lh_dtype dtype = dtypes[_i / CONFIGS];
    const lh_tensor_id outputs[] = {LH_OUT, LH_COVERAGE, LH_LSE, LH_O_SEL, LH_DQ, LH_DK, LH_DV};
    struct layer wanted, got, again;
    layer_create(&wanted, config, dtype, 9);
    layer_create(&got, config, dtype, 9);
    layer_create(&again, config, dtype, 9);
    lh_plan *ref = make_plan("ref", config, dtype, true), *plan = make_plan("opencl", config, dtype, false);
    expect_status(lh_forward(plan, got.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, got.trace, &error), LH_OK, &error, "");
    memcpy(wanted.trace[LH_INDEX].data, got.trace[LH_INDEX].data, layer_bytes(&got.trace[LH_INDEX]));
    expect_status(lh_forward(ref, wanted.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(ref, wanted.trace, &error), LH_OK, &error, "");
    const double slack = dtype == LH_F32 ? 1 : 4; /* tensors between stages are rounded too */
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        expect_close(&wanted, &got, outputs[i], dtype, slack);
    expect_status(lh_forward(plan, again.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, again.trace, &error), LH_OK, &error, "");
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        ck_assert_msg(memcmp(got.trace[outputs[i]].data, again.trace[outputs[i]].data,
                             layer_bytes(&got.trace[outputs[i]])) == 0,
                      "%s has other bits the second time", lh_tensor_name(outputs[i]));
    lh_plan_destroy(plan);
    lh_plan_destroy(ref);
    layer_free(&again);
    layer_free(&got);
    layer_free(&wanted);
}
END_TEST

int main(int argc, char **argv)
{
    (void)argc;
    char *arguments[] = {argv[0], (char[]){"opencl"}, NULL};
    backend_under_test(2, arguments);
    Suite *suite = suite_create("opencl");
    TCase *small = suite_case(suite, "small");
    tcase_add_loop_test(small, stages, 0, SMALL);
    tcase_add_loop_test(small, layers, 0, SMALL);
    TCase *against_ref = suite_case(suite, "against ref");
    tcase_add_loop_test(against_ref, stages, SMALL, 3 * CONFIGS);
    tcase_add_loop_test(against_ref, layers, SMALL, 3 * CONFIGS);
    return suite_run(suite);
}
