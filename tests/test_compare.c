/* The comparator itself: it must fail on everything it is there to find, and pass on what is equal. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "tests/suite.h"
#include "verify/verify.h"

static const lh_config config = {.batch = 2,
                                 .heads = 2,
                                 .kv_heads = 1,
                                 .tokens = 12,
                                 .dim = 3,
                                 .levels = 2,
                                 .pool = 2,
                                 .topk = 4,
                                 .tile_topk = 2};
static const lh_dtype floats[] = {LH_F64, LH_F32, LH_F16, LH_BF16};

/* Element i of both tensors is the same small number. */
static void make_pair(verify_trace *got, verify_trace *want, lh_dtype dtype, verify_strides strides)
{
    lh_error error;
    memset(got, 0, sizeof *got);
    memset(want, 0, sizeof *want);
    expect_status(verify_make(got, &config, dtype, LH_OUT, strides, &error), LH_OK, &error, "");
    expect_status(verify_make(want, &config, LH_F64, LH_OUT, VERIFY_PACKED, &error), LH_OK, &error, "");
    double *x = want->tensor[LH_OUT].data;
    for (int64_t i = 0; i < lh_tensor_elements(&want->tensor[LH_OUT]); i++)
        x[i] = (double)(i % 7) - 3;
    expect_status(lh_tensor_convert(&got->tensor[LH_OUT], &want->tensor[LH_OUT], &error), LH_OK, &error, "");
}

static void set(const lh_tensor *t, int64_t i, double value)
{
    lh_store(t->data, t->dtype, verify_offset(t, i), value);
}

START_TEST(equal_tensors_are_exact)
{
    verify_trace got, want;
    make_pair(&got, &want, floats[_i / 2], _i % 2 ? VERIFY_TOKEN_MAJOR : VERIFY_PACKED);
    const verify_result r = verify_compare(&got.tensor[LH_OUT], &want.tensor[LH_OUT], 0);
    ck_assert_int_eq(r.verdict, VERIFY_EXACT);
    ck_assert(r.share == 0 && r.mean == 0 && r.error == 0);
    ck_assert(verify_guards_hold(&got, LH_OUT));
    verify_free(&got);
    verify_free(&want);
}
END_TEST

START_TEST(one_element_decides)
{
    verify_trace got, want;
    const lh_dtype dtype = floats[_i / 2];
    make_pair(&got, &want, dtype, _i % 2 ? VERIFY_TOKEN_MAJOR : VERIFY_PACKED);
    set(&got.tensor[LH_OUT], 77, 4.5);
    const double wanted = (double)(77 % 7) - 3;
    verify_result r = verify_compare(&got.tensor[LH_OUT], &want.tensor[LH_OUT], 1);
    ck_assert_int_eq(r.verdict, VERIFY_WRONG);
    ck_assert_int_eq(r.worst, 77);
    ck_assert(r.got == 4.5 && r.wanted == wanted && r.error == 4.5 - wanted && r.share == r.error);
    ck_assert(r.mean < 0.1 * r.error);
    r = verify_compare(&got.tensor[LH_OUT], &want.tensor[LH_OUT], 4.5 - wanted);
    ck_assert_int_eq(r.verdict, VERIFY_WITHIN);
    ck_assert(r.share == 1);
    verify_free(&got);
    verify_free(&want);
}
END_TEST

START_TEST(not_a_number_fails_whatever_is_allowed)
{
    static const struct {
        double value;
        verify_verdict verdict;
    } bad[] = {{NAN, VERIFY_NAN}, {INFINITY, VERIFY_INF}, {-INFINITY, VERIFY_INF}};
    verify_trace got, want;
    make_pair(&got, &want, floats[_i / 3], VERIFY_TOKEN_MAJOR);
    set(&got.tensor[LH_OUT], 100, bad[_i % 3].value);
    const verify_result r = verify_compare(&got.tensor[LH_OUT], &want.tensor[LH_OUT], INFINITY);
    ck_assert_int_eq(r.verdict, bad[_i % 3].verdict);
    ck_assert_int_eq(r.worst, 100);
    verify_free(&got);
    verify_free(&want);
}
END_TEST

START_TEST(wanted_nan_passes_nothing)
{
    verify_trace got, want;
    make_pair(&got, &want, LH_F32, VERIFY_PACKED);
    set(&want.tensor[LH_OUT], 3, NAN);
    const verify_result r = verify_compare(&got.tensor[LH_OUT], &want.tensor[LH_OUT], INFINITY);
    ck_assert(!verify_passed(r.verdict));
    verify_free(&got);
    verify_free(&want);
}
END_TEST

/* A tensor of which one element was never written, in every dtype. */
START_TEST(unwritten_elements_fail)
{
    static const lh_tensor_id ids[] = {LH_OUT, LH_OUT, LH_OUT, LH_OUT, LH_INDEX, LH_COVERAGE};
    const lh_tensor_id id = ids[_i];
    lh_error error;
    verify_trace got = {0}, want = {0};
    expect_status(verify_make(&got, &config, floats[_i % 4], id, VERIFY_PACKED, &error), LH_OK, &error, "");
    expect_status(verify_make(&want, &config, LH_F64, id, VERIFY_PACKED, &error), LH_OK, &error, "");
    const lh_tensor *t = &got.tensor[id], *w = &want.tensor[id];
    const int64_t elements = lh_tensor_elements(t);
    memset(w->data, 0, (size_t)elements * lh_dtype_size(w->dtype));
    for (int64_t i = 0; i < elements; i++) {
        if (i != elements / 2)
            memset((unsigned char *)t->data + (size_t)i * lh_dtype_size(t->dtype), 0,
                   lh_dtype_size(t->dtype));
    }
    const verify_result r = verify_compare(t, w, INFINITY);
    ck_assert_int_eq(r.verdict, VERIFY_UNWRITTEN);
    ck_assert_int_eq(r.worst, elements / 2);
    verify_free(&got);
    verify_free(&want);
}
END_TEST

START_TEST(shapes_and_kinds_must_agree)
{
    verify_trace got, want;
    make_pair(&got, &want, LH_F32, VERIFY_PACKED);
    lh_tensor other = got.tensor[LH_OUT];
    other.shape[1] = 1;
    other.shape[0] = 4;
    ck_assert_int_eq(verify_compare(&other, &want.tensor[LH_OUT], INFINITY).verdict, VERIFY_SHAPE);
    other = got.tensor[LH_OUT];
    other.rank = 3;
    ck_assert_int_eq(verify_compare(&other, &want.tensor[LH_OUT], INFINITY).verdict, VERIFY_SHAPE);
    other = got.tensor[LH_OUT];
    other.dtype = LH_I32;
    ck_assert_int_eq(verify_compare(&other, &want.tensor[LH_OUT], INFINITY).verdict, VERIFY_KIND);
    verify_free(&got);
    verify_free(&want);
}
END_TEST

/* A byte written before, after or between the rows is seen; rewriting the payload is not. */
START_TEST(guards_tell)
{
    const verify_strides strides = _i % 2 ? VERIFY_TOKEN_MAJOR : VERIFY_PACKED;
    verify_trace got, want;
    make_pair(&got, &want, floats[_i / 2], strides);
    const lh_tensor *t = &got.tensor[LH_OUT];
    const int64_t size = (int64_t)lh_dtype_size(t->dtype);
    unsigned char *data = t->data, *last = data + verify_offset(t, lh_tensor_elements(t) - 1) * size;
    unsigned char *const outside[] = {data - 1, last + size,
                                      strides == VERIFY_TOKEN_MAJOR ? data + (t->stride[2] - 1) * size
                                                                    : last + size};
    for (size_t i = 0; i < 3; i++) {
        const unsigned char before = *outside[i];
        *outside[i] = 0;
        ck_assert_msg(!verify_guards_hold(&got, LH_OUT), "guard %zu slept", i);
        *outside[i] = before;
    }
    verify_poison(&got, LH_OUT);
    ck_assert(verify_guards_hold(&got, LH_OUT));
    verify_free(&got);
    verify_free(&want);
}
END_TEST

START_TEST(bits_are_compared_as_bits)
{
    verify_trace a, b;
    make_pair(&a, &b, LH_F64, VERIFY_TOKEN_MAJOR);
    ck_assert_int_eq(verify_first_difference(&a.tensor[LH_OUT], &b.tensor[LH_OUT]), -1);
    set(&a.tensor[LH_OUT], 3, -0.0); /* element 3 is +0.0 */
    ck_assert_int_eq(verify_first_difference(&a.tensor[LH_OUT], &b.tensor[LH_OUT]), 3);
    ck_assert(verify_distance(&a.tensor[LH_OUT], &b.tensor[LH_OUT]) == 0);
    set(&a.tensor[LH_OUT], 5, NAN);
    ck_assert(isinf(verify_distance(&a.tensor[LH_OUT], &b.tensor[LH_OUT])));
    verify_free(&a);
    verify_free(&b);
}
END_TEST

START_TEST(integers_are_exact)
{
    lh_error error;
    verify_trace a = {0}, b = {0};
    expect_status(verify_make(&a, &config, LH_F32, LH_INDEX, VERIFY_PACKED, &error), LH_OK, &error, "");
    expect_status(verify_make(&b, &config, LH_F64, LH_INDEX, VERIFY_PACKED, &error), LH_OK, &error, "");
    for (int64_t i = 0; i < lh_tensor_elements(&a.tensor[LH_INDEX]); i++)
        ((int32_t *)a.tensor[LH_INDEX].data)[i] = ((int32_t *)b.tensor[LH_INDEX].data)[i] = (int32_t)i;
    ck_assert_int_eq(verify_compare(&a.tensor[LH_INDEX], &b.tensor[LH_INDEX], 0).verdict, VERIFY_EXACT);
    ((int32_t *)a.tensor[LH_INDEX].data)[7] = -1; /* what upstream leaves where it fails */
    const verify_result r = verify_compare(&a.tensor[LH_INDEX], &b.tensor[LH_INDEX], 0);
    ck_assert_int_eq(r.verdict, VERIFY_WRONG);
    ck_assert_int_eq(r.worst, 7);
    verify_free(&a);
    verify_free(&b);
}
END_TEST

/* What an attention asked for by name does not take is neither compared nor failed, and the reason is printed; a refusal
 * of a backend's own counts as failed. */
START_TEST(skipped_is_not_failed)
{
    static const struct {
        verify_verdict verdict;
        int tensors, failures;
        const char *cell, *line, *summary;
    } cases[] = {
        {VERIFY_SKIPPED, 1, 0, "ok   0 % skip", "skipped: 16 columns are too many", "1 plans skipped"},
        {VERIFY_REFUSED, 2, 1, "1 WRONG", "refused; 16 columns are too many", "1 failed"},
    };
    const verify_wish wish = {.backend = {"lent"}, .backends = 1};
    verify_row row = {.subject = verify_case_at(0),
                      .backend = "lent",
                      .dtype = LH_BF16,
                      .part = "attend",
                      .tensor = LH_O_SEL};
    char *text = NULL;
    size_t size = 0;
    lh_error error;
    verify_report *report = NULL;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    expect_status(verify_report_create(&wish, out, false, &report, &error), LH_OK, &error, "");
    verify_report_case(report, row.subject);
    row.result = (verify_result){.verdict = VERIFY_EXACT, .worst = -1};
    verify_report_row(report, &row);
    row.result.verdict = cases[_i].verdict;
    snprintf(row.note, sizeof row.note, "16 columns are too many");
    verify_report_row(report, &row);
    verify_report_done(report);
    expect_status(verify_report_summary(report, &error), LH_OK, &error, "");
    ck_assert_int_eq(verify_report_tensors(report), cases[_i].tensors);
    ck_assert_int_eq(verify_report_failures(report), cases[_i].failures);
    verify_report_destroy(report);
    fclose(out);
    ck_assert_msg(strstr(text, cases[_i].cell) && strstr(text, cases[_i].line) &&
                      strstr(text, cases[_i].summary),
                  "%s", text);
    ck_assert(!verify_failed(VERIFY_SKIPPED) && !verify_passed(VERIFY_SKIPPED) &&
              verify_failed(VERIFY_REFUSED));
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compare");
    TCase *tests = suite_case(suite, "comparator");
    tcase_add_loop_test(tests, equal_tensors_are_exact, 0, 8);
    tcase_add_loop_test(tests, one_element_decides, 0, 8);
    tcase_add_loop_test(tests, not_a_number_fails_whatever_is_allowed, 0, 12);
    tcase_add_test(tests, wanted_nan_passes_nothing);
    tcase_add_loop_test(tests, unwritten_elements_fail, 0, 6);
    tcase_add_test(tests, shapes_and_kinds_must_agree);
    tcase_add_loop_test(tests, guards_tell, 0, 8);
    tcase_add_test(tests, bits_are_compared_as_bits);
    tcase_add_test(tests, integers_are_exact);
    tcase_add_loop_test(tests, skipped_is_not_failed, 0, 2);
    return suite_run(suite);
}
