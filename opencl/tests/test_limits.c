/* Buffers smaller than a plan would take: chunks of heads, and segments of a head's tokens. The bits are those of a plan that
 * has all it wants. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl/opencl.h"
#include "tests/layer.h"
#include "tests/suite.h"

/* B H G N d L p k m */
static const lh_config configs[] = {
    {1, 2, 1, 24, 3, 3, 2, 2, 2}, {1, 4, 2, 96, 8, 3, 2, 8, 4},   {2, 2, 2, 48, 3, 3, 2, 8, 4},
    {1, 2, 1, 64, 1, 1, 2, 2, 2}, {2, 3, 1, 162, 17, 4, 3, 6, 2}, {1, 6, 2, 700, 33, 2, 5, 28, 14},
    {1, 1, 1, 1, 5, 1, 2, 2, 2},
};
enum {
    SMALL = 2, /* for oclgrind */
    CONFIGS = sizeof configs / sizeof *configs
};
static const lh_dtype dtypes[] = {LH_F32, LH_F16};

static lh_error error;

/* bytes: LIGHTHOUSE_OPENCL_BUFFER, or NULL */
static lh_plan *make_plan(const lh_config *config, lh_dtype dtype, bool stages, const char *bytes)
{
    const lh_options options = {.backend = "opencl", .dtype = dtype, .backward = true, .stages = stages};
    lh_plan *plan;
    if (bytes)
        setenv("LIGHTHOUSE_OPENCL_BUFFER", bytes, 1);
    expect_status(lh_plan_create(config, &options, &plan, &error), LH_OK, &error, "");
    unsetenv("LIGHTHOUSE_OPENCL_BUFFER");
    return plan;
}

static void expect_bits(const struct layer *wanted, const struct layer *got, const lh_tensor_id *ids,
                        const char *how)
{
    for (; *ids != LH_TENSOR_COUNT; ids++)
        ck_assert_msg(
            memcmp(wanted->trace[*ids].data, got->trace[*ids].data, layer_bytes(&wanted->trace[*ids])) == 0,
            "%s differs in %s (N %d, d %d)", lh_tensor_name(*ids), how, (int)wanted->config.tokens,
            (int)wanted->config.dim);
}

/* The layer with and without what a plan would keep for its backward, which is then by chunk. */
static void expect_same_layer(const lh_config *config, lh_dtype dtype, lh_plan *whole, lh_plan *cut,
                              bool keep)
{
    static const lh_tensor_id outputs[] = {LH_OUT, LH_COVERAGE, LH_DQ, LH_DK, LH_DV, LH_TENSOR_COUNT};
    lh_plan *plans[2] = {whole, cut};
    struct layer layers[2];
    for (int i = 0; i < 2; i++) {
        layer_create(&layers[i], config, dtype, 3);
        for (const lh_tensor_id *id = lh_layer_kept; *id != LH_TENSOR_COUNT && keep; id++)
            layers[i].trace[*id].data = (free(layers[i].trace[*id].data), NULL);
        expect_status(lh_forward(plans[i], layers[i].trace, &error), LH_OK, &error, "");
        expect_status(lh_backward(plans[i], layers[i].trace, &error), LH_OK, &error, "");
    }
    expect_bits(&layers[0], &layers[1], outputs, keep ? "parts that keep" : "parts");
    layer_free(&layers[0]);
    layer_free(&layers[1]);
}

START_TEST(chunks)
{
    const lh_config *config = &configs[1];
    lh_plan *whole = make_plan(config, LH_F32, false, NULL);
    lh_plan *chunked = make_plan(config, LH_F32, false, "12000");
    ck_assert_int_eq(((struct lh_cl_state *)whole->state)->chunks, 1);
    ck_assert_int_eq(((struct lh_cl_state *)chunked->state)->chunks, 2);
    ck_assert_int_eq(((struct lh_cl_state *)chunked->state)->segment, config->tokens);
    expect_same_layer(config, LH_F32, whole, chunked, true);
    expect_same_layer(config, LH_F32, whole, chunked, false);
    lh_plan_destroy(chunked);
    lh_plan_destroy(whole);
}
END_TEST

/* Segments of one window, and of some; layers and each stage alone. */
START_TEST(segments)
{
    const lh_config *config = &configs[_i / 2 % CONFIGS];
    const lh_dtype dtype = dtypes[_i / 2 / CONFIGS];
    char bytes[32] = "1";
    if (_i % 2 == 1) /* room for two thirds of q */
        snprintf(bytes, sizeof bytes, "%lld",
                 (long long)(config->heads / config->kv_heads * config->tokens * config->dim *
                             (int64_t)lh_dtype_size(dtype) * 2 / 3));
    struct layer wanted, got;
    lh_plan *whole = make_plan(config, dtype, true, NULL), *cut = make_plan(config, dtype, true, bytes);
    const struct lh_cl_state *state = cut->state;
    const int64_t window = lh_cl_window(cut), coarse = cut->layout.coarse;
    ck_assert_int_eq(((struct lh_cl_state *)whole->state)->segment, config->tokens);
    ck_assert_int_eq(state->segment % window, 0);
    if (_i % 2 == 0)
        ck_assert_int_eq(state->segment, window);
    else if (coarse >= 6)
        ck_assert(state->segment < config->tokens && state->segment > window);
    if (state->buffer[LH_Q]) { /* and no larger than was allowed, where more than one window is there */
        size_t size = 0;
        clGetMemObjectInfo(state->buffer[LH_Q], CL_MEM_SIZE, sizeof size, &size, NULL);
        ck_assert(state->segment == window || (double)size <= strtod(bytes, NULL));
    }
    expect_same_layer(config, dtype, whole, cut, true);
    expect_same_layer(config, dtype, whole, cut, false);
    layer_create(&wanted, config, dtype, 7);
    layer_create(&got, config, dtype, 7);
    for (int s = 0; s < LH_STAGE_COUNT; s++) {
        const lh_stage stage = (lh_stage)s;
        expect_status(lh_run_stage(whole, stage, wanted.trace, &error), LH_OK, &error, "");
        expect_status(lh_run_stage(cut, stage, got.trace, &error), LH_OK, &error, "");
        expect_bits(&wanted, &got, lh_stage_writes(stage), lh_stage_name(stage));
    }
    layer_free(&got);
    layer_free(&wanted);
    lh_plan_destroy(cut);
    lh_plan_destroy(whole);
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

/* A caller's rows with gaps, which are brought row by row: strides of q and dk, in segments. */
START_TEST(strided)
{
    const lh_config *config = &configs[1];
    const lh_tensor_id ids[] = {LH_Q, LH_DK};
    struct layer packed, gaps;
    lh_plan *plan = make_plan(config, LH_F32, false, "1000");
    ck_assert(((struct lh_cl_state *)plan->state)->segment < config->tokens);
    layer_create(&packed, config, LH_F32, 4);
    layer_create(&gaps, config, LH_F32, 4);
    for (int i = 0; i < 2; i++) {
        lh_tensor *t = &gaps.trace[ids[i]];
        const int64_t rows = t->shape[0] * t->shape[1] * t->shape[2], d = config->dim;
        float *wide = calloc((size_t)(rows * (d + 3)), sizeof *wide);
        for (int64_t r = 0; r < rows; r++)
            memcpy(wide + r * (d + 3), (float *)t->data + r * d, (size_t)d * sizeof *wide);
        free(t->data);
        t->data = wide;
        t->stride[2] = d + 3;
        t->stride[1] = t->shape[2] * t->stride[2];
        t->stride[0] = t->shape[1] * t->stride[1];
    }
    for (int i = 0; i < 2; i++) {
        lh_tensor *trace = i ? gaps.trace : packed.trace;
        expect_status(lh_forward(plan, trace, &error), LH_OK, &error, "");
        expect_status(lh_backward(plan, trace, &error), LH_OK, &error, "");
    }
    const lh_tensor *got = &gaps.trace[LH_DK], *wanted = &packed.trace[LH_DK];
    const int64_t rows = wanted->shape[0] * wanted->shape[1] * wanted->shape[2];
    for (int64_t r = 0; r < rows; r++) {
        const float *row = (float *)got->data + r * got->stride[2];
        ck_assert_int_eq(
            memcmp(row, (float *)wanted->data + r * config->dim, (size_t)config->dim * sizeof *row), 0);
        for (int64_t c = config->dim; c < got->stride[2]; c++)
            ck_assert(row[c] == 0);
    }
    expect_bits(&packed, &gaps, (const lh_tensor_id[]){LH_OUT, LH_DQ, LH_DV, LH_TENSOR_COUNT}, "gaps");
    layer_free(&gaps);
    layer_free(&packed);
    lh_plan_destroy(plan);
}
END_TEST

int main(int argc, char **argv)
{
    (void)argc;
    char *arguments[] = {argv[0], (char[]){"opencl"}, NULL};
    backend_under_test(2, arguments);
    Suite *suite = suite_create("opencl-limits");
    TCase *small = suite_case(suite, "small");
    tcase_add_test(small, chunks);
    tcase_add_loop_test(small, segments, 0, 2 * SMALL);
    TCase *rest = suite_case(suite, "rest");
    tcase_add_loop_test(rest, segments, 2 * SMALL, 4 * CONFIGS);
    tcase_add_test(rest, strided);
    return suite_run(suite);
}
