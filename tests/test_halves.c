/* The two halves of a layer by heads, as a caller with a transport of its own puts them together. */
#include <stdio.h>
#include <string.h>

#include "lighthouse_dist.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const char *backend;

/* With one rank nothing crosses an edge, and all rows are at hand. The last has more heads than a piece of it, and rows enough, for
 * the order in which dq is added up to depend on how many heads there are (openmp: over 21 heads and 96 rows). */
static const lh_config layers[] = {{1, 4, 2, 240, 16, 3, 2, 48, 4},
                                   {1, 6, 6, 192, 16, 3, 4, 12, 4},
                                   {2, 2, 1, 96, 5, 4, 2, 8, 4},
                                   {4, 8, 2, 216, 8, 3, 2, 36, 4}};

static lh_options options_of(void)
{
    lh_capabilities can;
    ck_assert_int_eq(lh_backend_query(backend, &can, NULL), LH_OK);
    const lh_dtype dtype =
        can.dtypes & 1u << LH_F64 ? LH_F64 : LH_F32; /* what is computed in: no stage rounds */
    return (lh_options){.backend = backend, .dtype = dtype, .backward = true, .threads = 1};
}

static void run(lh_plan *plan, lh_stage stage, const lh_tensor *trace)
{
    lh_error error;
    ck_assert_msg(lh_run_stage(plan, stage, trace, &error) == LH_OK, "%s", error.text);
}

/* Sequences [at, at + count) of a [B,H,S,(d)] tensor as [1,count,S,(d)]. */
static lh_tensor sequences(const lh_tensor *t, int64_t at, int64_t count)
{
    lh_tensor some = *t;
    some.data = (char *)t->data + at * t->stride[1] * (int64_t)lh_dtype_size(t->dtype);
    some.shape[0] = 1;
    some.shape[1] = count;
    some.stride[0] = count * t->stride[1];
    return some;
}

static void attend(const lh_config *config, int64_t piece, lh_tensor *trace, bool backward)
{
    static const lh_tensor_id ids[] = {LH_Q_SEL,  LH_K_SEL,  LH_V_SEL,  LH_O_SEL, LH_LSE,
                                       LH_DO_SEL, LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    const lh_options o = options_of();
    lh_plan *plan;
    lh_error error;
    lh_tensor part[LH_TENSOR_COUNT] = {{0}};
    ck_assert_msg(lh_dist_attention(config, &o, piece, &plan, &error) == LH_OK, "%s", error.text);
    for (int64_t at = 0; at < config->batch * config->heads; at += piece) {
        for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
            part[ids[i]] = sequences(&trace[ids[i]], at, piece);
        run(plan, backward ? LH_ATTEND_BACKWARD : LH_ATTEND, part);
    }
    lh_plan_destroy(plan);
}

START_TEST(halves_have_the_bits_of_the_whole)
{
    static const lh_tensor_id results[] = {LH_INDEX,    LH_O_SEL, LH_LSE, LH_OUT,
                                           LH_COVERAGE, LH_DQ,    LH_DK,  LH_DV};
    const lh_config *config = &layers[_i / 2];
    const int64_t piece = _i % 2 ? 1 : config->batch * config->heads;
    const lh_options o = options_of();
    struct layer want, got;
    lh_plan *whole, *local;
    lh_error error;
    layer_create(&want, config, o.dtype, 3);
    layer_create(&got, config, o.dtype, 3);
    ck_assert_msg(lh_plan_create(config, &o, &whole, &error) == LH_OK, "%s", error.text);
    ck_assert_int_eq(lh_forward(whole, want.trace, &error), LH_OK);
    ck_assert_int_eq(lh_backward(whole, want.trace, &error), LH_OK);
    lh_plan_destroy(whole);
    ck_assert_msg(lh_dist_local(config, &o, 1, &local, &error) == LH_OK, "%s", error.text);
    const lh_status selected = lh_dist_select(local, got.trace, &error);
    if (selected == LH_UNSUPPORTED) {
        expect_status(selected, LH_UNSUPPORTED, &error, "does not select rows alone");
    } else {
        ck_assert_msg(selected == LH_OK, "%s", error.text);
        attend(config, piece, got.trace, false);
        run(local, LH_SCATTER, got.trace);
        run(local, LH_SCATTER_BACKWARD, got.trace);
        attend(config, piece, got.trace, true);
        run(local, LH_UNPOOL, got.trace);
        for (size_t i = 0; i < sizeof results / sizeof *results; i++)
            ck_assert_msg(memcmp(got.trace[results[i]].data, want.trace[results[i]].data,
                                 layer_bytes(&want.trace[results[i]])) == 0,
                          "%s differs", lh_tensor_name(results[i]));
    }
    lh_plan_destroy(local);
    layer_free(&want);
    layer_free(&got);
}
END_TEST

START_TEST(refused)
{
    const lh_config *config = &layers[0];
    const lh_options o = options_of();
    struct layer layer;
    lh_plan *plan;
    lh_error error;
    expect_status(lh_dist_local(config, &o, 2, NULL, &error), LH_INVALID, &error, "plan is NULL");
    expect_status(lh_dist_local(config, NULL, 2, &plan, &error), LH_INVALID, &error, "options is NULL");
    expect_status(lh_dist_local(config, &o, 5, &plan, &error), LH_INVALID, &error,
                  "ranks is 5, wanted a divisor of the 12 tiles");
    expect_status(lh_dist_attention(config, &o, 0, &plan, &error), LH_INVALID, &error, "sequences is 0");
    expect_status(lh_dist_select(NULL, NULL, &error), LH_INVALID, &error, "plan is NULL");
    layer_create(&layer, config, o.dtype, 3);
    ck_assert_int_eq(lh_plan_create(config, &o, &plan, &error), LH_OK);
    expect_status(lh_dist_select(plan, layer.trace, &error), LH_INVALID, &error, "options.stages false");
    lh_plan_destroy(plan);
    ck_assert_int_eq(lh_dist_local(config, &o, 1, &plan, &error), LH_OK);
    lh_tensor trace[LH_TENSOR_COUNT];
    memcpy(trace, layer.trace, sizeof trace);
    trace[LH_SCORE_K].data = NULL;
    const lh_status status = lh_dist_select(plan, trace, &error);
    if (status != LH_UNSUPPORTED)
        expect_status(status, LH_INVALID, &error, "score_k is NULL");
    lh_plan_destroy(plan);
    layer_free(&layer);
}
END_TEST

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    snprintf(name, sizeof name, "halves %s", backend);
    Suite *suite = suite_create(name);
    tcase_add_loop_test(suite_case(suite, "bits"), halves_have_the_bits_of_the_whole, 0,
                        2 * sizeof layers / sizeof *layers);
    tcase_add_test(suite_case(suite, "refused"), refused);
    return suite_run(suite);
}
