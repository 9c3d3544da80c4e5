/* What half types hide in single elements: a factor common to a head of a gradient, and a row that is lost. Judged whole, and
 * by rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "tests/plant.h"
#include "tests/suite.h"
#include "check/sample.h"
#include "verify/row.h"

static const verify_case factor_case = {.id = "factor",
                                        .config = {.batch = 1,
                                                   .heads = 2,
                                                   .kv_heads = 1,
                                                   .tokens = 96,
                                                   .dim = 16,
                                                   .levels = 3,
                                                   .pool = 2,
                                                   .topk = 8,
                                                   .tile_topk = 4},
                                        .seed = 11,
                                        .exposes = "",
                                        .why = ""};

/* The same layer, longer: of whose rows a part is judged. */
static const verify_case rows_case = {.id = "factor by rows",
                                      .config = {.batch = 1,
                                                 .heads = 2,
                                                 .kv_heads = 1,
                                                 .tokens = 384,
                                                 .dim = 16,
                                                 .levels = 3,
                                                 .pool = 2,
                                                 .topk = 32,
                                                 .tile_topk = 4},
                                      .seed = 12,
                                      .exposes = "",
                                      .why = ""};
static const check_sample by_rows = {.rows = 24, .seed = 1};

static struct planted whole;
static const verify_case *subject;

static void setup_of(const verify_case *c)
{
    lh_error error;
    subject = c;
    ck_assert_msg(plant(c, LH_BF16, PLANT_FULL, NULL, 0, &whole, &error) == LH_OK, "%s", error.text);
    /* Nothing says that lse was kept in more than the half type. */
    whole.present[LH_LSE].data = c == &rows_case ? whole.present[LH_LSE].data : NULL;
}

static void setup(void)
{
    setup_of(&factor_case);
}

static void setup_rows(void)
{
    setup_of(&rows_case);
}

static void teardown(void)
{
    verify_free(&whole.trace);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

/* Multiplies elements [first, end) of a tensor; end -1: all. */
static void scale(lh_tensor_id id, double by, int64_t first, int64_t end)
{
    const lh_tensor *t = &whole.present[id];
    for (int64_t i = first; i < (end < 0 ? lh_tensor_elements(t) : end); i++)
        lh_store(t->data, t->dtype, i, by * lh_load(t->data, t->dtype, i));
}

static void run_stage(lh_stage stage)
{
    lh_error error;
    ck_assert_msg(lh_ref_run(32, &subject->config, LH_REF_STAGE(stage), whole.trace.tensor, NULL, &error) ==
                      LH_OK,
                  "%s", error.text);
}

static void show(const lh_tensor_id *shown)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        if (!lh_listed(shown, (lh_tensor_id)id))
            whole.present[id].data = NULL;
    }
}

/* Leaves the gradients of the sub-sequence, not its rows: by rows, single elements tell more where those are shown. */
static void hide_rows(void)
{
    static const lh_tensor_id shown[] = {LH_Q,     LH_K,   LH_V,           LH_DOUT,   LH_INDEX,
                                         LH_O_SEL, LH_LSE, LH_DQ_SEL,      LH_DK_SEL, LH_DQ,
                                         LH_DK,    LH_DV,  LH_TENSOR_COUNT};
    show(shown);
}

/* Leaves what a fused layer shows. */
static void hide_stages(void)
{
    static const lh_tensor_id shown[] = {LH_Q,   LH_K,   LH_V,  LH_DOUT, LH_INDEX, LH_O_SEL,
                                         LH_LSE, LH_OUT, LH_DQ, LH_DK,   LH_DV,    LH_TENSOR_COUNT};
    show(shown);
}

static const verify_row *judge(check_report *report, lh_tensor_id id)
{
    lh_error error;
    check_source source;
    memset(report, 0, sizeof *report);
    for (int i = 0; i < LH_TENSOR_COUNT; i++)
        report->present |= whole.present[i].data ? 1u << i : 0;
    check_source_memory(whole.present, &source);
    ck_assert_msg((subject == &rows_case
                       ? check_sampled(&subject->config, &source, &by_rows, NULL, report, &error)
                       : check_dump(&subject->config, whole.present, NULL, report, &error)) == LH_OK,
                  "%s", error.text);
    const verify_row *own = check_row(report, id, false);
    return own ? own : check_row(report, id, true);
}

/* `row` is wrong, and its worst element does not tell. */
static void is_wrong(const check_report *report, const verify_row *row, const char *note)
{
    ck_assert_ptr_nonnull(row);
    ck_assert_int_eq(report->verdict, CHECK_WRONG);
    ck_assert_msg(row->result.verdict == VERIFY_WRONG, "%s: %.0f %%", lh_tensor_name(row->tensor),
                  100 * row->result.share);
    ck_assert_msg(row->result.error < row->result.allowed, "%s: an element tells: the test tests nothing",
                  lh_tensor_name(row->tensor));
    ck_assert_msg(strstr(row->note, note) != NULL, "%s", row->note);
    char text[VERIFY_TEXT];
    ck_assert_msg(!strstr(verify_row_text(row, text), "times the allowance"), "%s",
                  text); /* of that element */
}

START_TEST(the_honest_dump_is_right)
{
    check_report report;
    judge(&report, LH_DQ_SEL);
    ck_assert_int_eq(report.verdict, CHECK_RIGHT);
    hide_stages();
    judge(&report, LH_DQ);
    ck_assert_int_eq(report.verdict, CHECK_RIGHT);
}
END_TEST

static const struct {
    lh_tensor_id selected, unpooled;
    double by;
    const char *note;
} factors[] = {{LH_DQ_SEL, LH_DQ, 1.06, "is 1.06"},
               {LH_DK_SEL, LH_DK, 1.1, "is 1.1"},
               {LH_DK_SEL, LH_DK, 0.9, "is 0.9"}};

START_TEST(a_factor_common_to_a_tensor_is_found)
{
    check_report report;
    scale(factors[_i].selected, factors[_i].by, 0, -1);
    run_stage(LH_UNPOOL);
    is_wrong(&report, judge(&report, factors[_i].selected), factors[_i].note);
    hide_stages();
    is_wrong(&report, judge(&report, factors[_i].unpooled), factors[_i].note);
}
END_TEST

/* dS = P (dP - 0.9 D): neither dq nor dk is off by a factor. */
START_TEST(a_factor_of_D_is_found)
{
    check_report report;
    scale(LH_O_SEL, 0.9, 0, -1);
    run_stage(LH_ATTEND_BACKWARD);
    scale(LH_O_SEL, 1 / 0.9, 0, -1);
    run_stage(LH_UNPOOL);
    is_wrong(&report, judge(&report, LH_DQ_SEL), "the part of D");
    hide_stages();
    is_wrong(&report, judge(&report, LH_DQ), "the part of D");
}
END_TEST

/* The last row of dk and dv is the smallest: one key that one query sees. */
START_TEST(a_row_that_is_lost_is_found)
{
    static const lh_tensor_id ids[] = {LH_DK_SEL, LH_DV_SEL};
    check_report report;
    const int64_t elements = lh_tensor_elements(&whole.present[ids[_i]]), d = factor_case.config.dim;
    scale(ids[_i], 0, elements - d, elements);
    is_wrong(&report, judge(&report, ids[_i]), "is off by 1 times what it holds");
}
END_TEST

/* Every pooled value, cut off behind the bits that are stored. */
START_TEST(what_is_cut_off_is_not_rounded)
{
    const lh_config *c = &factor_case.config;
    const lh_tensor *pyramid = &whole.present[LH_V_PYR];
    check_report report;
    verify_trace exact = {0};
    lh_error error;
    ck_assert_int_eq(verify_make_all(&exact, c, LH_F64, VERIFY_PACKED, &error), LH_OK);
    for (int id = LH_Q; id <= LH_V; id++)
        ck_assert_int_eq(lh_tensor_convert(&exact.tensor[id], &whole.present[id], &error), LH_OK);
    ck_assert_int_eq(lh_ref_run(64, c, LH_REF_STAGE(LH_POOL), exact.tensor, NULL, &error), LH_OK);
    for (int64_t i = 0; i < lh_tensor_elements(pyramid); i++) {
        const double want = verify_element(&exact.tensor[LH_V_PYR], i);
        uint16_t *bits = (uint16_t *)pyramid->data + i;
        lh_store(pyramid->data, LH_BF16, i, want);
        *bits = (uint16_t)(*bits - (fabs(lh_load(pyramid->data, LH_BF16, i)) > fabs(want)));
    }
    is_wrong(&report, judge(&report, LH_V_PYR), "cut off to BF16");
    verify_free(&exact);
}
END_TEST

static const struct {
    void (*hide)(void);
    lh_tensor_id scaled, judged;
    double by;
    const char *note;
} row_factors[] = {{hide_rows, LH_DQ_SEL, LH_DQ_SEL, 1.06, "is 1.06"},
                   {hide_rows, LH_DK_SEL, LH_DK_SEL, 1.04, "is 1.04"},
                   {hide_rows, LH_DK_SEL, LH_DK_SEL, 0.96, "is 0.96"},
                   {hide_stages, LH_DQ_SEL, LH_DQ, 1.1, "is 1.1"},
                   {hide_stages, LH_DK_SEL, LH_DK, 1.15, "is 1.15"},
                   {hide_stages, LH_DK_SEL, LH_DK, 0.85, "is 0.85"},
                   {hide_rows, LH_O_SEL, LH_DQ_SEL, 0.97, "D"},
                   {hide_rows, LH_O_SEL, LH_DK_SEL, 0.96, "D"},
                   {hide_stages, LH_O_SEL, LH_DK, 0.9, "D"}};

START_TEST(by_rows_a_factor_is_found)
{
    check_report report;
    scale(row_factors[_i].scaled, row_factors[_i].by, 0, -1);
    if (row_factors[_i].scaled == LH_O_SEL) {
        run_stage(LH_ATTEND_BACKWARD);
        scale(LH_O_SEL, 1 / row_factors[_i].by, 0, -1);
    }
    run_stage(LH_UNPOOL);
    row_factors[_i].hide();
    is_wrong(&report, judge(&report, row_factors[_i].judged), row_factors[_i].note);
}
END_TEST

/* What rows hold by themselves, each element held to the sizes of its own terms, needs no rule of its own. */
START_TEST(by_rows_a_row_that_is_lost_is_found)
{
    static const lh_tensor_id ids[] = {LH_DK_SEL, LH_DV_SEL};
    check_report report;
    const int64_t elements = lh_tensor_elements(&whole.present[ids[_i]]), d = rows_case.config.dim;
    scale(ids[_i], 0, elements - d, elements);
    const verify_row *row = judge(&report, ids[_i]);
    ck_assert_ptr_nonnull(row);
    ck_assert_int_eq(row->result.verdict, VERIFY_WRONG);
}
END_TEST

/* Logits of 1e6 and an lse in bfloat16, off by thousands: no weight follows from it, and nothing is called wrong. */
START_TEST(an_lse_that_says_nothing_leaves_gradients_not_judged)
{
    check_report report;
    scale(LH_Q, 512, 0, -1);
    scale(LH_K, 512, 0, -1);
    for (int s = 0; s < LH_STAGE_COUNT; s++)
        run_stage((lh_stage)s);
    lh_tensor lse = whole.trace.tensor[LH_LSE];
    const int64_t rows = lh_tensor_elements(&lse);
    lse.dtype = LH_BF16;
    lse.data = malloc((size_t)rows * sizeof(uint16_t));
    ck_assert_ptr_nonnull(lse.data);
    for (int64_t i = 0; i < rows; i++)
        lh_store(lse.data, LH_BF16, i, verify_element(&whole.trace.tensor[LH_LSE], i));
    whole.present[LH_LSE] = lse;
    const verify_row *row = judge(&report, LH_DQ_SEL);
    ck_assert_msg(report.verdict != CHECK_WRONG, "%s: got %g, wanted %g; %s",
                  lh_tensor_name(report.rows[report.first_wrong].tensor),
                  report.rows[report.first_wrong].result.got, report.rows[report.first_wrong].result.wanted,
                  report.rows[report.first_wrong].note);
    ck_assert(row && (subject == &rows_case || row->result.verdict == VERIFY_UNJUDGED));
    free(lse.data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("factor");
    TCase *tcase = suite_case(suite, "factors");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_honest_dump_is_right);
    tcase_add_loop_test(tcase, a_factor_common_to_a_tensor_is_found, 0, sizeof factors / sizeof *factors);
    tcase_add_test(tcase, a_factor_of_D_is_found);
    tcase_add_loop_test(tcase, a_row_that_is_lost_is_found, 0, 2);
    tcase_add_test(tcase, what_is_cut_off_is_not_rounded);
    tcase_add_test(tcase, an_lse_that_says_nothing_leaves_gradients_not_judged);
    TCase *rows = suite_case(suite, "by rows");
    tcase_add_checked_fixture(rows, setup_rows, teardown);
    tcase_add_test(rows, the_honest_dump_is_right);
    tcase_add_loop_test(rows, by_rows_a_factor_is_found, 0, sizeof row_factors / sizeof *row_factors);
    tcase_add_loop_test(rows, by_rows_a_row_that_is_lost_is_found, 0, 2);
    tcase_add_test(rows, an_lse_that_says_nothing_leaves_gradients_not_judged);
    return suite_run(suite);
}
