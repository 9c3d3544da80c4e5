/*
 * Memory that tensors share, and arguments that no call can use: refused by name before any work, by every backend.
 * Whether tensors overlap is also held to a count of every element's place, over drawn shapes and strides.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/overlap.h"
#include "core/random.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const lh_config config = {2, 2, 1, 48, 4, 3, 2, 8, 4};
static const char *backend;
static lh_dtype dtype;
static struct layer work;
static lh_plan *plan;
static lh_error error;

static lh_options options(void)
{
    return (lh_options){.backend = backend, .dtype = dtype, .backward = true, .stages = true, .finite = true};
}

static void setup(void)
{
    const lh_options o = options();
    layer_create(&work, &config, dtype, 11);
    ck_assert_int_eq(lh_plan_create(&config, &o, &plan, &error), LH_OK);
}

static void teardown(void)
{
    lh_plan_destroy(plan);
    layer_free(&work);
}

typedef lh_status call_fn(lh_plan *, const lh_tensor *, lh_error *);

/* Every tensor that a call writes with the memory of every other that it uses, the two as far as they go. */
static void expect_refused(call_fn *call, const lh_tensor_id *writes, const lh_tensor_id *reads)
{
    for (int w = 0; writes[w] != LH_TENSOR_COUNT; w++) {
        for (int list = 0; list < 2; list++) {
            for (const lh_tensor_id *other = list ? writes : reads; *other != LH_TENSOR_COUNT; other++) {
                lh_tensor trace[LH_TENSOR_COUNT];
                if (*other == writes[w])
                    continue;
                memcpy(trace, work.trace, sizeof trace);
                trace[writes[w]].data = trace[*other].data;
                expect_status(call(plan, trace, &error), LH_INVALID, &error, "shares memory with");
                /* A larger one reaches into what lies behind, which may be named instead. */
                if (layer_bytes(&trace[writes[w]]) == layer_bytes(&trace[*other]))
                    ck_assert(strstr(error.text, lh_tensor_name(writes[w])) &&
                              strstr(error.text, lh_tensor_name(*other)));
                /* The last byte of one is the first of the other. */
                trace[writes[w]].data =
                    (char *)trace[*other].data + layer_bytes(&trace[*other]) - lh_dtype_size(dtype);
                expect_status(call(plan, trace, &error), LH_INVALID, &error, "shares memory with");
            }
        }
    }
}

START_TEST(whole_calls)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_TENSOR_COUNT};
    static const lh_tensor_id outputs[] = {LH_OUT, LH_INDEX, LH_O_SEL, LH_LSE, LH_COVERAGE, LH_TENSOR_COUNT};
    static const lh_tensor_id reads[] = {LH_Q,     LH_K,     LH_V,   LH_DOUT,
                                         LH_INDEX, LH_O_SEL, LH_LSE, LH_TENSOR_COUNT};
    static const lh_tensor_id gradients[] = {LH_DQ, LH_DK, LH_DV, LH_TENSOR_COUNT};
    expect_refused(lh_forward, outputs, inputs);
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_refused(lh_backward, gradients, reads);
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
}
END_TEST

static lh_stage stage_now;

static lh_status run_stage(lh_plan *p, const lh_tensor *trace, lh_error *e)
{
    return lh_run_stage(p, stage_now, trace, e);
}

START_TEST(stages)
{
    stage_now = (lh_stage)_i;
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, ""); /* for an index */
    expect_refused(run_stage, lh_stage_writes(stage_now), lh_stage_reads(stage_now));
}
END_TEST

/* Reading one array three times, or views of one packed array, is no fault. */
START_TEST(legal)
{
    struct layer other;
    lh_tensor trace[LH_TENSOR_COUNT];
    const int64_t d = config.dim, row = d * (config.heads + 2), n = config.tokens;
    char *packed = malloc((size_t)(config.batch * n * row) * lh_dtype_size(dtype));
    ck_assert_ptr_nonnull(packed);
    layer_create(&other, &config, dtype, 11);
    memcpy(trace, work.trace, sizeof trace);
    trace[LH_V] = trace[LH_K];
    expect_status(lh_forward(plan, trace, &error), LH_OK, &error, "");
    memcpy(trace, work.trace, sizeof trace);
    static const lh_tensor_id gradients[] = {LH_DQ, LH_DK, LH_DV};
    const int64_t first[] = {0, config.heads * d, (config.heads + 1) * d};
    for (int i = 0; i < 3; i++) {
        lh_tensor *t = &trace[gradients[i]];
        t->data = packed + first[i] * (int64_t)lh_dtype_size(dtype);
        t->stride[0] = n * row;
        t->stride[1] = d;
        t->stride[2] = row;
    }
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, trace, &error), LH_OK, &error, "");
    for (int i = 0; i < 3; i++) {
        lh_tensor *t = &other.trace[gradients[i]];
        expect_status(lh_tensor_convert(t, &trace[gradients[i]], &error), LH_OK, &error, "");
        ck_assert_mem_eq(t->data, work.trace[gradients[i]].data, layer_bytes(t));
    }
    /* One element further, and dk is in dq's last row. */
    trace[LH_DK].data = (char *)trace[LH_DK].data - lh_dtype_size(dtype);
    expect_status(lh_backward(plan, trace, &error), LH_INVALID, &error, "dq shares memory with dk");
    free(packed);
    layer_free(&other);
}
END_TEST

START_TEST(own_strides)
{
    static const lh_tensor_id ids[] = {LH_DQ, LH_DK, LH_DV};
    lh_tensor trace[LH_TENSOR_COUNT];
    memcpy(trace, work.trace, sizeof trace);
    trace[LH_OUT].stride[2] = config.dim - 1;
    expect_status(lh_forward(plan, trace, &error), LH_INVALID, &error,
                  "out has stride 3 in dimension 2, wanted at least 4: it is written");
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    for (int i = 0; i < 3; i++) {
        memcpy(trace, work.trace, sizeof trace);
        trace[ids[i]].stride[0] = 1;
        expect_status(lh_backward(plan, trace, &error), LH_INVALID, &error, "its elements overlap");
    }
    memcpy(trace, work.trace, sizeof trace);
    trace[LH_Q].stride[0] = 1; /* what is read may */
    expect_status(lh_forward(plan, trace, &error), LH_OK, &error, "");
}
END_TEST

/* ---- overlap against a count -------------------------------------------------------------------- */

enum {
    PLACES = 4096
};

/* Counts t's elements by place; whether two are in one. */
static bool count_places(const lh_tensor *t, const char *base, unsigned char *places)
{
    bool twice = false;
    memset(places, 0, PLACES);
    const int64_t first = ((const char *)t->data - base) / (int64_t)lh_dtype_size(t->dtype);
    for (int64_t a = 0; a < t->shape[0]; a++)
        for (int64_t b = 0; b < t->shape[1]; b++)
            for (int64_t c = 0; c < t->shape[2]; c++)
                for (int64_t e = 0; e < t->shape[3]; e++) {
                    const int64_t at = first + a * t->stride[0] + b * t->stride[1] + c * t->stride[2] + e;
                    ck_assert_int_lt(at, PLACES);
                    twice = twice || places[at];
                    places[at] = 1;
                }
    return twice;
}

static int64_t draw(uint64_t *n, int64_t least, int64_t most)
{
    return least + (int64_t)(lh_random_uniform(77, 5, (*n)++) * (double)(most - least + 1));
}

static lh_tensor draw_tensor(uint64_t *n, char *base)
{
    lh_tensor t = {.dtype = LH_F32, .rank = 4, .data = base + 4 * draw(n, 0, 200)};
    static const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {2, 1, 0}};
    const int *order = orders[draw(n, 0, 3)];
    int64_t stride = 1;
    for (int d = 0; d < 4; d++)
        t.shape[d] = draw(n, 1, 4);
    t.stride[3] = 1;
    stride = t.shape[3];
    for (int k = 2; k >= 0; k--) {
        stride += draw(n, 0, 3) == 0 ? draw(n, 0, 9) : 0;
        t.stride[order[k]] = stride;
        stride *= t.shape[order[k]];
    }
    if (draw(n, 0, 5) == 0)
        t.stride[draw(n, 0, 2)] = draw(n, 1, 20);
    return t;
}

/* What is refused shares a place or is not nested; what is accepted shares none. */
START_TEST(drawn)
{
    static char base[4 * PLACES];
    static unsigned char places[2][PLACES];
    uint64_t n = 0;
    int shared = 0, apart = 0, views = 0;
    for (int i = 0; i < 20000; i++) {
        lh_tensor trace[LH_TENSOR_COUNT] = {[LH_OUT] = draw_tensor(&n, base), [LH_Q] = draw_tensor(&n, base)};
        if (i % 2) { /* of the same strides, as views of one array are */
            char *data = trace[LH_Q].data;
            const int64_t last = trace[LH_Q].shape[3];
            trace[LH_Q] = trace[LH_OUT];
            trace[LH_Q].data = data;
            trace[LH_Q].shape[3] = last;
        }
        const struct lh_use uses[] = {{LH_OUT, true, true}, {LH_Q, true, false}};
        const bool self = count_places(&trace[LH_OUT], base, places[0]);
        count_places(&trace[LH_Q], base, places[1]);
        bool meet = false;
        for (int at = 0; at < PLACES; at++)
            meet = meet || (places[0][at] && places[1][at]);
        const lh_status status = lh_overlap_check(uses, 2, trace, true, &error);
        if (self || (status != LH_OK && strstr(error.text, "elements overlap"))) {
            ck_assert_int_eq(status, LH_INVALID);
            continue;
        }
        ck_assert_msg((status != LH_OK) == meet, "draw %d: %s, wanted %s", i,
                      status == LH_OK ? "accepted" : error.text, meet ? "a refusal" : "none");
        shared += meet;
        apart += !meet;
        const char *a = trace[LH_OUT].data, *b = trace[LH_Q].data;
        views += !meet && labs(a - b) < 40;
    }
    ck_assert_int_gt(shared, 1000);
    ck_assert_int_gt(apart, 1000);
    ck_assert_int_gt(views, 20); /* interleaved */
}
END_TEST

/* ---- arguments ---------------------------------------------------------------------------------- */

START_TEST(unknown_options)
{
    static const struct {
        int memory, attention;
        lh_status wanted;
        const char *part;
    } bad[] = {
        {2, 0, LH_INVALID, "memory is 2, wanted LH_HOST (0) or LH_ON_DEVICE (1)"},
        {-1, 0, LH_INVALID, "memory is -1"},
        {0, 55, LH_INVALID, "attention is 55, wanted 0 to 2"},
        {0, -1, LH_INVALID, "attention is -1"},
    };
    lh_capabilities can;
    lh_plan *none;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lh_options o = options();
        o.memory = (lh_memory)bad[i].memory;
        o.attention = (lh_attention)bad[i].attention;
        expect_status(lh_plan_create(&config, &o, &none, &error), bad[i].wanted, &error, bad[i].part);
        ck_assert_ptr_null(none);
    }
    lh_options o = options();
    o.attention = LH_ATTENTION_CUDNN;
    ck_assert_int_eq(lh_backend_query(backend, &can, &error), LH_OK);
    if ((can.attentions & 1u << LH_ATTENTION_CUDNN) == 0)
        expect_status(lh_plan_create(&config, &o, &none, &error), LH_UNSUPPORTED, &error,
                      "attention is cudnn, which backend");
    o = options();
    o.threads = 100000;
    expect_status(lh_plan_create(&config, &o, &none, &error), LH_INVALID, &error,
                  "threads is 100000, wanted at least 0 and at most 4096");
}
END_TEST

/* A place for the result that is not there. */
START_TEST(null_places)
{
    expect_status(lh_device_count(backend, NULL, &error), LH_INVALID, &error, "count is NULL");
    expect_status(lh_device_query(backend, 0, NULL, &error), LH_INVALID, &error, "info is NULL");
    expect_status(lh_backend_query(backend, NULL, &error), LH_INVALID, &error, "can is NULL");
    expect_status(lh_dtype_parse("f32", NULL, &error), LH_INVALID, &error, "dtype is NULL");
    expect_status(lh_tensor_describe(&config, dtype, LH_Q, NULL, &error), LH_INVALID, &error,
                  "tensor is NULL");
    expect_status(lh_plan_create(&config, &(lh_options){.backend = backend}, NULL, &error), LH_INVALID,
                  &error, "plan is NULL");
    expect_status(lh_check(&config, work.trace, NULL, &error), LH_INVALID, &error, "report is NULL");
    expect_status(lh_tensor_convert(NULL, &work.trace[LH_Q], &error), LH_INVALID, &error, "dst is NULL");
    lh_plan_profile(plan, NULL);
    lh_plan_profile(NULL, &(lh_profile){0});
    lh_profile_reset(NULL);
    ck_assert_ptr_null(lh_plan_config(NULL));
    ck_assert_ptr_null(lh_plan_layout(NULL));
    ck_assert_uint_eq(lh_plan_workspace(NULL), 0);
    ck_assert_int_eq(lh_tensor_elements(NULL), 0);
    ck_assert_int_eq(lh_tensor_by_name(NULL), LH_TENSOR_COUNT);
}
END_TEST

START_TEST(no_such_stage)
{
    static const int numbers[] = {99, -1, LH_STAGE_COUNT, INT32_MAX};
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(lh_stage_reads((lh_stage)numbers[i])[0], LH_TENSOR_COUNT);
        ck_assert_int_eq(lh_stage_writes((lh_stage)numbers[i])[0], LH_TENSOR_COUNT);
    }
}
END_TEST

/* At one level neither pool nor topk is read, whatever they are. */
START_TEST(pool_of_one_level)
{
    const lh_config dense = {1, 1, 1, 6, 4, 1, INT64_MAX, INT64_MAX, INT64_MAX};
    struct layer layer, plain;
    lh_config usual = dense;
    const lh_options o = {.backend = backend, .dtype = dtype, .backward = true};
    usual.pool = usual.topk = usual.tile_topk = 2;
    const lh_config *const both[] = {&dense, &usual};
    struct layer *const layers[] = {&layer, &plain};
    for (int i = 0; i < 2; i++) {
        lh_plan *made;
        layer_create(layers[i], both[i], dtype, 5);
        expect_status(lh_plan_create(both[i], &o, &made, &error), LH_OK, &error, "");
        expect_status(lh_forward(made, layers[i]->trace, &error), LH_OK, &error, "");
        expect_status(lh_backward(made, layers[i]->trace, &error), LH_OK, &error, "");
        lh_plan_destroy(made);
    }
    ck_assert_mem_eq(layer.trace[LH_DQ].data, plain.trace[LH_DQ].data, layer_bytes(&plain.trace[LH_DQ]));
    layer_free(&layer);
    layer_free(&plain);
}
END_TEST

START_TEST(strided_integers)
{
    char *report;
    lh_tensor trace[LH_TENSOR_COUNT];
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    memcpy(trace, work.trace, sizeof trace);
    trace[LH_INDEX].stride[2] = 2;
    expect_status(lh_check(&config, trace, &report, &error), LH_INVALID, &error,
                  "index is strided, wanted a contiguous tensor");
    ck_assert_ptr_null(report);
}
END_TEST

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    dtype = dtype_under_test(backend);
    snprintf(name, sizeof name, "overlap %s", backend);
    Suite *suite = suite_create(name);
    TCase *overlap = suite_case(suite, "overlap"), *arguments = suite_case(suite, "arguments");
    tcase_add_checked_fixture(overlap, setup, teardown);
    tcase_add_test(overlap, whole_calls);
    tcase_add_loop_test(overlap, stages, 0, LH_STAGE_COUNT);
    tcase_add_test(overlap, legal);
    tcase_add_test(overlap, own_strides);
    tcase_add_checked_fixture(arguments, setup, teardown);
    tcase_add_test(arguments, unknown_options);
    tcase_add_test(arguments, null_places);
    tcase_add_test(arguments, pool_of_one_level);
    if (strcmp(backend, lh_backend_name(0)) == 0) {
        tcase_add_test(suite_case(suite, "drawn"), drawn);
        tcase_add_test(arguments, no_such_stage);
        tcase_add_test(arguments, strided_integers);
    }
    return suite_run(suite);
}
