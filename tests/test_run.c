/* `lighthouse run`: what it writes is what was computed, whole or stage by stage, by file or by library call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "tests/program.h"
#include "tests/small_layer.h"
#include "tests/suite.h"

static void same_tensor(const lh_file *a, const lh_file *b, const char *name)
{
    const lh_tensor *x = lh_file_find(a, name), *y = lh_file_find(b, name);
    ck_assert_msg(x && y, "%s is absent", name);
    ck_assert_int_eq(x->dtype, y->dtype);
    ck_assert_int_eq(lh_tensor_elements(x), lh_tensor_elements(y));
    ck_assert_msg(memcmp(x->data, y->data, (size_t)lh_tensor_elements(x) * lh_dtype_size(x->dtype)) == 0,
                  "%s differs", name);
}

static const char *const results[] = {"out", "lse", "dq", "dk", "dv"};
enum {
    RESULTS = sizeof results / sizeof *results
};

START_TEST(trace_has_every_tensor_and_whole_agrees)
{
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    program_succeeds("run in out");
    lh_file *trace = read_whole("trace"), *out = read_whole("out");
    ck_assert_int_eq(lh_file_count(trace), LH_TENSOR_COUNT);
    ck_assert_int_eq(lh_file_count(out), RESULTS);
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        const lh_tensor *found = lh_file_find(trace, lh_tensor_name((lh_tensor_id)id));
        lh_tensor want;
        ck_assert_int_eq(lh_tensor_describe(&small, LH_F64, (lh_tensor_id)id, &want, NULL), LH_OK);
        ck_assert_ptr_nonnull(found);
        ck_assert_int_eq(found->dtype, want.dtype);
        ck_assert_mem_eq(found->shape, want.shape, sizeof(int64_t) * (size_t)want.rank);
    }
    for (int i = 0; i < RESULTS; i++)
        same_tensor(trace, out, results[i]);
    static const char *const meta[][2] = {
        {"levels", "3"},   {"pool", "2"},      {"topk", "8"},      {"tile_topk", "4"},
        {"kv_heads", "1"}, {"scorer", "norm"}, {"backend", "ref"}, {"lighthouse", LH_VERSION}};
    for (size_t i = 0; i < sizeof meta / sizeof *meta; i++)
        ck_assert_str_eq(lh_file_metadata(out, meta[i][0]), meta[i][1]);
    lh_file_free(out);
    lh_file_free(trace);
}
END_TEST

/* SPEC 5: the four strings, of dense attention too. */
START_TEST(dense_attention_says_its_whole_configuration)
{
    static const char *const keys[] = {"levels", "pool", "topk", "tile_topk", "kv_heads"};
    write_small("in", NONE);
    program_succeeds("run --levels 1 in out");
    program_succeeds("vectors --levels 1 vector");
    program_succeeds("run --trace vector trace");
    lh_file *files[] = {read_whole("out"), read_whole("vector"), read_whole("trace")};
    for (int f = 0; f < 3; f++) {
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            ck_assert_msg(lh_file_metadata(files[f], keys[i]) != NULL, "no %s", keys[i]);
        lh_file_free(files[f]);
    }
}
END_TEST

START_TEST(its_own_index_changes_nothing)
{
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    program_succeeds("run --index trace in out");
    program_succeeds("run trace again"); /* a trace is itself an input */
    lh_file *trace = read_whole("trace"), *out = read_whole("out"), *again = read_whole("again");
    for (int i = 0; i < RESULTS; i++) {
        same_tensor(trace, out, results[i]);
        same_tensor(trace, again, results[i]);
    }
    lh_file_free(again);
    lh_file_free(out);
    lh_file_free(trace);
}
END_TEST

START_TEST(a_forced_index_is_obeyed)
{
    write_small("in", NONE);
    write_small("other", OTHER_DRAW);
    program_succeeds("run --trace in trace");
    program_succeeds("run --trace other other_trace");
    program_succeeds("run --trace --index other_trace in forced_trace");
    program_succeeds("run --index other_trace in forced");
    lh_file *trace = read_whole("trace"), *other = read_whole("other_trace");
    lh_file *forced_trace = read_whole("forced_trace"), *forced = read_whole("forced");
    const lh_tensor *own = lh_file_find(trace, "index"), *theirs = lh_file_find(other, "index");
    ck_assert_mem_ne(own->data, theirs->data, (size_t)lh_tensor_elements(own) * lh_dtype_size(own->dtype));
    same_tensor(forced_trace, other, "index");
    same_tensor(forced_trace, trace, "score_q");
    for (int i = 0; i < RESULTS; i++)
        same_tensor(forced_trace, forced, results[i]);
    ck_assert_str_eq(lh_file_metadata(forced, "index"), "given");
    lh_file_free(forced);
    lh_file_free(forced_trace);
    lh_file_free(other);
    lh_file_free(trace);
}
END_TEST

START_TEST(given_scores_select)
{
    write_small("in", NONE);
    write_small("other", OTHER_DRAW);
    program_succeeds("run --trace other other_trace");
    program_succeeds("run --trace --scores other_trace in scored_trace");
    program_succeeds("run --scores other_trace in scored");
    lh_file *other = read_whole("other_trace"), *scored_trace = read_whole("scored_trace");
    lh_file *scored = read_whole("scored");
    same_tensor(scored_trace, other, "score_q");
    same_tensor(scored_trace, other, "index");
    for (int i = 0; i < RESULTS; i++)
        same_tensor(scored_trace, scored, results[i]);
    ck_assert_str_eq(lh_file_metadata(scored, "scorer"), "given");
    ck_assert_ptr_null(lh_file_find(scored, "score_q"));
    lh_file_free(scored);
    lh_file_free(scored_trace);
    lh_file_free(other);
    program_refused("run --scores in in out", "score_q");
    program_refused("run --scores other_trace --index other_trace in out", "--index");
    program_refused("run --levels 2 --scores other_trace in out", "score_q has shape");
}
END_TEST

START_TEST(dense_is_one_level)
{
    write_small("in", NONE);
    program_succeeds("run --dense in dense");
    program_succeeds("run --levels 1 in one");
    lh_file *dense = read_whole("dense"), *one = read_whole("one");
    for (int i = 0; i < RESULTS; i++)
        same_tensor(dense, one, results[i]);
    ck_assert_int_eq(lh_file_find(dense, "lse")->shape[2], small.tokens);
    /* The first token sees itself alone. */
    lh_file *in = read_whole("in");
    const float *v = lh_file_find(in, "v")->data;
    const double *out = lh_file_find(dense, "out")->data;
    for (int64_t c = 0; c < small.dim; c++)
        ck_assert(out[c] == (double)v[c]);
    lh_file_free(in);
    lh_file_free(one);
    lh_file_free(dense);
}
END_TEST

START_TEST(dtype_decides_what_is_written)
{
    static const struct {
        const char *flag;
        lh_dtype out, lse;
    } dtypes[] = {
        {"f64", LH_F64, LH_F64}, {"f32", LH_F32, LH_F32}, {"bf16", LH_BF16, LH_F32}, {"f16", LH_F16, LH_F32}};
    write_small("in", NONE);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char words[64];
        snprintf(words, sizeof words, "run --dtype %s in out", dtypes[i].flag);
        program_succeeds(words);
        lh_file *out = read_whole("out");
        ck_assert_int_eq(lh_file_find(out, "out")->dtype, dtypes[i].out);
        ck_assert_int_eq(lh_file_find(out, "lse")->dtype, dtypes[i].lse);
        lh_file_free(out);
    }
}
END_TEST

static void expect_dtype(const char *backend, const char *in, lh_dtype dtype)
{
    char words[128];
    snprintf(words, sizeof words, "run --backend %s %s out", backend, in);
    program_succeeds(words);
    lh_file *out = read_whole("out");
    ck_assert_int_eq(lh_file_find(out, "out")->dtype, dtype);
    ck_assert_str_eq(lh_file_metadata(out, "backend"), backend);
    lh_file_free(out);
}

/* ref computes in F64 whatever it is given; the ports in F32, or in the halves they are given. */
START_TEST(dtype_follows_backend_and_file)
{
    const char *backend;
    int devices;
    write_small("f32", NONE);
    program_succeeds("run --trace f32 f64");
    program_succeeds("run --trace --dtype bf16 f32 bf16");
    for (int i = 0; (backend = lh_backend_name(i)); i++) {
        const bool ref = i == 0;
        if (lh_device_count(backend, &devices, NULL) != LH_OK)
            continue;
        expect_dtype(backend, "f32", ref ? LH_F64 : LH_F32);
        expect_dtype(backend, "f64", ref ? LH_F64 : LH_F32);
        expect_dtype(backend, "bf16", ref ? LH_F64 : LH_BF16);
    }
}
END_TEST

/* The library over [B,N,H,d] callers' memory writes what the program writes over [B,H,N,d] files. */
START_TEST(strided_callers_get_the_same)
{
    lh_tensor trace[LH_TENSOR_COUNT] = {0};
    lh_error error;
    write_small("in", NONE);
    program_succeeds("run --dtype f32 in out");
    lh_file *in = read_whole("in"), *out = read_whole("out");
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor *t = &trace[id];
        ck_assert_int_eq(lh_tensor_describe(&small, LH_F32, (lh_tensor_id)id, t, NULL), LH_OK);
        const lh_tensor *given = lh_file_find(in, lh_tensor_name((lh_tensor_id)id));
        if (!given && id != LH_OUT && id < LH_DQ)
            continue;
        const int64_t heads = t->shape[1];
        t->stride[1] = t->shape[3];
        t->stride[2] = heads * t->shape[3];
        t->data = calloc((size_t)lh_tensor_elements(t), sizeof(float));
        ck_assert_ptr_nonnull(t->data);
        if (given)
            ck_assert_int_eq(lh_tensor_convert(t, given, &error), LH_OK);
    }
    lh_plan *plan;
    const lh_options options = {.dtype = LH_F32, .backward = true};
    ck_assert_int_eq(lh_plan_create(&small, &options, &plan, &error), LH_OK);
    ck_assert_int_eq(lh_forward(plan, trace, &error), LH_OK);
    ck_assert_int_eq(lh_backward(plan, trace, &error), LH_OK);
    lh_plan_destroy(plan);
    static const lh_tensor_id written[] = {LH_OUT, LH_DQ, LH_DK, LH_DV};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        const lh_tensor *t = &trace[written[i]], *want = lh_file_find(out, lh_tensor_name(written[i]));
        for (int64_t b = 0; b < t->shape[0]; b++)
            for (int64_t h = 0; h < t->shape[1]; h++)
                for (int64_t n = 0; n < t->shape[2]; n++)
                    ck_assert_mem_eq((float *)t->data + lh_offset(t, b, h, n),
                                     (float *)want->data + lh_offset(want, b, h, n),
                                     sizeof(float) * (size_t)t->shape[3]);
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        free(trace[id].data);
    lh_file_free(out);
    lh_file_free(in);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("run");
    TCase *tests = suite_case(suite, "run");
    tcase_add_checked_fixture(tests, program_start, program_finish);
    tcase_add_test(tests, trace_has_every_tensor_and_whole_agrees);
    tcase_add_test(tests, dense_attention_says_its_whole_configuration);
    tcase_add_test(tests, its_own_index_changes_nothing);
    tcase_add_test(tests, a_forced_index_is_obeyed);
    tcase_add_test(tests, given_scores_select);
    tcase_add_test(tests, dense_is_one_level);
    tcase_add_test(tests, dtype_decides_what_is_written);
    tcase_add_test(tests, dtype_follows_backend_and_file);
    tcase_add_test(tests, strided_callers_get_the_same);
    return suite_run(suite);
}
