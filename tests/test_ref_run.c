/*
 * ref/ on tensors: the three widths against each other, whole layers against single stages, and the error table of
 * docs/numerics.md, which this program prints.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const struct {
    const char *name;
    lh_config config;
    double gain; /* of q and k: logits grow with its square */
} cases[] = {
    {"small draw", {2, 2, 2, 48, 3, 3, 2, 8, 4}, 1},
    {"grouped heads, p = 3", {1, 4, 2, 108, 5, 3, 3, 4, 2}, 1},
    {"five levels", {1, 1, 1, 512, 8, 5, 2, 32, 16}, 1},
    {"p = 4, d = 64", {1, 1, 1, 1024, 64, 3, 4, 32, 32}, 1},
    {"sharp softmax", {1, 1, 1, 256, 16, 3, 2, 32, 16}, 8},
    {"flat softmax", {1, 1, 1, 256, 16, 3, 2, 32, 16}, 0x1p-20},
    {"dense, L = 1", {1, 1, 1, 256, 32, 1, 2, 0, 0}, 1},
};
enum {
    CASES = sizeof cases / sizeof *cases
};

static double at(const lh_tensor *tensor, int64_t i)
{
    return lh_load(tensor->data, tensor->dtype, i);
}

static bool written(int id)
{
    return id != LH_Q && id != LH_K && id != LH_V && id != LH_DOUT;
}

/* Full 24-bit significands, so that next to nothing is exact by luck; the same numbers in F32 and F64. */
static void drawn(struct layer *layer, int i, lh_dtype dtype)
{
    layer_create(layer, &cases[i].config, dtype, 2605);
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        const lh_tensor *t = &layer->trace[id];
        const double gain = id == LH_Q || id == LH_K ? cases[i].gain : 1;
        for (int64_t e = 0; !written(id) && e < lh_tensor_elements(t); e++)
            lh_store(t->data, dtype, e, (double)(float)(gain * 0.9 * lh_load(t->data, dtype, e)));
    }
}

static void run(int bits, const struct layer *layer, unsigned stages, const lh_tensor *residual)
{
    lh_error error;
    expect_status(lh_ref_run(bits, &layer->config, stages, layer->trace, residual, &error), LH_OK, &error,
                  "");
}

static bool floating(const lh_tensor *tensor)
{
    return tensor->dtype != LH_I32 && tensor->dtype != LH_I64;
}

static void expect_same(const struct layer *a, const struct layer *b)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        ck_assert_msg(memcmp(a->trace[id].data, b->trace[id].data, layer_bytes(&a->trace[id])) == 0,
                      "%s differs", lh_tensor_name((lh_tensor_id)id));
}

/* The largest error of `found` and the largest magnitude, against the sum of `high` and `low`. */
static double largest_error(const lh_tensor *found, const lh_tensor *high, const lh_tensor *low,
                            double *magnitude)
{
    double worst = 0;
    *magnitude = 0;
    for (int64_t i = 0; i < lh_tensor_elements(found); i++) {
        const double error = fabs((at(found, i) - at(high, i)) - at(low, i));
        ck_assert(isfinite(error));
        worst = fmax(worst, error);
        *magnitude = fmax(*magnitude, fabs(at(high, i)));
    }
    return worst;
}

/* A quarter of what sums of S terms and logits of d terms may cost, in units of 2^-53 of the largest element; lse is
 * at least the largest logit. */
static double expected_units(const struct layer *layer)
{
    double largest = 0;
    for (int64_t i = 0; i < lh_tensor_elements(&layer->trace[LH_LSE]); i++)
        largest = fmax(largest, fabs(at(&layer->trace[LH_LSE], i)));
    return (double)layer->trace[LH_O_SEL].shape[2] + (double)(layer->config.dim + 2) * (1 + largest);
}

/* Whole layers, nothing rounded between the stages: error of the reference in units of 2^-53, and of the twin in
 * units of 2^-24, of the tensor's largest element. */
START_TEST(own_error)
{
    static const lh_tensor_id shown[] = {LH_Q_PYR,  LH_SCORE_Q, LH_O_SEL,  LH_LSE, LH_OUT, LH_DO_SEL,
                                         LH_DQ_SEL, LH_DK_SEL,  LH_DV_SEL, LH_DQ,  LH_DK,  LH_DV};
    struct layer wide, low, reference, twin;
    drawn(&wide, _i, LH_F64);
    drawn(&low, _i, LH_F64);
    drawn(&reference, _i, LH_F64);
    drawn(&twin, _i, LH_F32);
    for (int id = 0; id < LH_TENSOR_COUNT; id++) /* the same numbers in F32 and F64 */
        for (int64_t e = 0; !written(id) && e < lh_tensor_elements(&twin.trace[id]); e++)
            ck_assert(at(&twin.trace[id], e) == at(&wide.trace[id], e));
    run(113, &wide, LH_REF_ALL, low.trace);
    run(64, &reference, LH_REF_ALL, NULL);
    ck_assert(memcmp(reference.trace[LH_INDEX].data, wide.trace[LH_INDEX].data,
                     layer_bytes(&wide.trace[LH_INDEX])) == 0);
    memcpy(twin.trace[LH_INDEX].data, wide.trace[LH_INDEX].data, layer_bytes(&wide.trace[LH_INDEX]));
    run(32, &twin, LH_REF_ALL & ~LH_REF_STAGE(LH_SELECT), NULL);

    printf("| %s |", cases[_i].name);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        const lh_tensor_id id = shown[i];
        double magnitude;
        const double error = largest_error(&reference.trace[id], &wide.trace[id], &low.trace[id], &magnitude);
        const double twin_error = largest_error(&twin.trace[id], &wide.trace[id], &low.trace[id], &magnitude);
        const double units = error / magnitude * 0x1p53, twin_units = twin_error / magnitude * 0x1p24;
        printf(" %.1f (%.1f) |", units, twin_units);
        ck_assert_msg(units <= 4 * expected_units(&wide), "%s: %g units", lh_tensor_name(id), units);
        ck_assert_msg(twin_units <= 4 * expected_units(&wide), "%s: %g units of the twin", lh_tensor_name(id),
                      twin_units);
    }
    printf("\n");
    layer_free(&wide);
    layer_free(&low);
    layer_free(&reference);
    layer_free(&twin);
}
END_TEST

/* The 113-bit value is trace + residual: the residual is what rounding to F64 left. Of the reference nothing is left. */
START_TEST(residual_is_what_rounding_left)
{
    struct layer wide, low;
    int64_t nonzero = 0;
    drawn(&wide, _i, LH_F64);
    drawn(&low, _i, LH_F64);
    run(113, &wide, LH_REF_ALL, low.trace);
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        if (!written(id) || !floating(&wide.trace[id]))
            continue;
        for (int64_t i = 0; i < lh_tensor_elements(&wide.trace[id]); i++) {
            ck_assert_double_le(fabs(at(&low.trace[id], i)), 0x1p-53 * fabs(at(&wide.trace[id], i)));
            nonzero += at(&low.trace[id], i) != 0;
        }
    }
    ck_assert_int_gt(nonzero, 1000);
    run(64, &wide, LH_REF_ALL, low.trace);
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        for (int64_t i = 0;
             written(id) && floating(&wide.trace[id]) && i < lh_tensor_elements(&wide.trace[id]); i++)
            ck_assert(at(&low.trace[id], i) == 0);
    layer_free(&wide);
    layer_free(&low);
}
END_TEST

/* Stage by stage over F64 tensors is the whole layer to the bit; over BF16 tensors it is not: those round. */
START_TEST(stages_make_the_layer)
{
    struct layer whole, staged, half;
    drawn(&whole, _i, LH_F64);
    drawn(&staged, _i, LH_F64);
    drawn(&half, _i, LH_BF16);
    run(64, &whole, LH_REF_ALL, NULL);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        run(64, &staged, LH_REF_STAGE(stage), NULL);
        run(32, &half, LH_REF_STAGE(stage), NULL);
    }
    expect_same(&whole, &staged);
    for (int id = LH_DQ; id <= LH_DV; id++)
        for (int64_t i = 0; i < lh_tensor_elements(&half.trace[id]); i++) {
            const double x = at(&half.trace[id], i);
            ck_assert(isfinite(x) && lh_bf16_to_f64(lh_f64_to_bf16(x)) == x);
        }
    layer_free(&whole);
    layer_free(&staged);
    layer_free(&half);
}
END_TEST

/* The plan of backend ref computes what lh_ref_run does, keeps what it is not given, and takes [B,N,H,d] tensors. */
START_TEST(backend_is_lh_ref_run)
{
    struct layer whole, called;
    lh_plan *plan;
    lh_error error;
    drawn(&whole, _i, LH_F64);
    drawn(&called, _i, LH_F64);
    run(64, &whole, LH_REF_ALL, NULL);

    const lh_options options = {.backend = "ref", .dtype = LH_F64, .backward = true};
    lh_tensor trace[LH_TENSOR_COUNT] = {{0}};
    static const lh_tensor_id given[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_OUT, LH_DQ, LH_DK, LH_DV};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        lh_tensor *t = &trace[given[i]];
        *t = called.trace[given[i]];
        t->stride[0] = t->shape[1] * t->shape[2] * t->shape[3];
        t->stride[1] = t->shape[3];
        t->stride[2] = t->shape[1] * t->shape[3];
        if (!written(given[i]))
            expect_status(lh_tensor_convert(t, &whole.trace[given[i]], &error), LH_OK, &error, "");
    }
    expect_status(lh_plan_create(&called.config, &options, &plan, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, trace, &error), LH_OK, &error, "");
    lh_plan_destroy(plan);
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        lh_tensor packed = whole.trace[given[i]];
        packed.data = malloc(layer_bytes(&packed));
        ck_assert_ptr_nonnull(packed.data);
        expect_status(lh_tensor_convert(&packed, &trace[given[i]], &error), LH_OK, &error, "");
        ck_assert_msg(memcmp(packed.data, whole.trace[given[i]].data, layer_bytes(&packed)) == 0,
                      "%s differs", lh_tensor_name(given[i]));
        free(packed.data);
    }
    layer_free(&whole);
    layer_free(&called);
}
END_TEST

START_TEST(refusals)
{
    struct layer layer;
    lh_error error;
    drawn(&layer, 0, LH_F64);
    expect_status(lh_ref_run(53, &layer.config, LH_REF_ALL, layer.trace, NULL, &error), LH_INVALID, &error,
                  "bits is 53, wanted 32, 64 or 113");
    lh_alloc_fail_at(1);
    expect_status(lh_ref_run(64, &layer.config, LH_REF_ALL, layer.trace, NULL, &error), LH_NO_MEMORY, &error,
                  "reference workspace");
    lh_alloc_fail_at(0);
    layer.config.pool = 1;
    expect_status(lh_ref_run(64, &layer.config, LH_REF_ALL, layer.trace, NULL, &error), LH_INVALID, &error,
                  "pool is 1");
    layer.config = (lh_config){1, 1, 1, (int64_t)1 << 57, 1, 2, 2, 2, 2}; /* valid, and past any memory */
    ck_assert_int_eq(lh_config_check(&layer.config, NULL, &error), LH_OK);
    expect_status(lh_ref_run(113, &layer.config, LH_REF_ALL, layer.trace, NULL, &error), LH_NO_MEMORY, &error,
                  "reference workspace");
    ck_assert_int_eq(lh_alloc_live(), 0);
    layer_free(&layer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ref run");
    TCase *tcase = suite_case(suite, "ref run");
    tcase_add_loop_test(tcase, own_error, 0, CASES);
    tcase_add_loop_test(tcase, residual_is_what_rounding_left, 0, 3);
    tcase_add_loop_test(tcase, stages_make_the_layer, 0, CASES);
    tcase_add_loop_test(tcase, backend_is_lh_ref_run, 0, CASES);
    tcase_add_test(tcase, refusals);
    return suite_run(suite);
}
