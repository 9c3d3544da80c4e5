/* Dumps that are not all there, or hold what nobody computed: judged as far as they go, and never the end of the program. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "core/random.h"
#include "tests/plant.h"
#include "tests/suite.h"
#include "check/check.h"

static struct planted whole;

static void setup_whole(void)
{
    lh_error error;
    ck_assert_int_eq(plant(plant_case("small"), LH_F32, PLANT_FULL, NULL, 0, &whole, &error), LH_OK);
}

static void teardown_whole(void)
{
    verify_free(&whole.trace);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

static void judge(check_report *report, lh_status wanted, const char *part)
{
    lh_error error;
    const lh_status status = check_dump(&plant_case("small")->config, whole.present, NULL, report, &error);
    expect_status(status, wanted, &error, part);
}

static const verify_row *row_of(const check_report *report, lh_tensor_id id)
{
    for (int i = 0; i < report->row_count; i++) {
        if (report->rows[i].tensor == id)
            return &report->rows[i];
    }
    return NULL;
}

START_TEST(a_dump_without_q_is_refused)
{
    check_report report;
    whole.present[LH_Q].data = NULL;
    judge(&report, LH_INVALID, "tensor q is missing");
}
END_TEST

/* Scores, index and lse need no v: they are judged, what hangs on v is not, and a fault of lse is still named. */
START_TEST(without_v_what_hangs_on_it_is_not_judged)
{
    check_report report;
    whole.present[LH_V].data = NULL;
    judge(&report, LH_OK, "");
    ck_assert_int_eq(report.verdict, CHECK_NOT_JUDGED);
    ck_assert_int_lt(report.first_wrong, 0);
    for (int id = LH_Q_PYR; id < LH_TENSOR_COUNT; id++) {
        const bool counts = id != LH_DOUT && !check_hangs_on_v((lh_tensor_id)id);
        ck_assert_msg((report.judged >> id & 1) == counts, "%s", lh_tensor_name((lh_tensor_id)id));
    }
    ck_assert(strstr(row_of(&report, LH_OUT)->note, "v is not in the dump") != NULL);
    float *lse = whole.present[LH_LSE].data;
    for (int64_t i = 0; i < lh_tensor_elements(&whole.present[LH_LSE]); i++)
        lse[i] *= 1.44269504f;
    judge(&report, LH_OK, "");
    ck_assert_int_eq(report.rows[report.first_wrong].tensor, LH_LSE);
    ck_assert_int_ge(report.fault_count, 1);
    ck_assert_str_eq(report.faults[0]->name, "attend-lse-base-2");
}
END_TEST

/* Leaves nothing of the dump but q k v, dout if wanted, and one tensor, whose element `at` becomes `value`. */
static void leave(lh_tensor_id id, bool with_dout, int64_t at, double value)
{
    const lh_tensor *t = &whole.present[id];
    lh_store(t->data, t->dtype, at, value);
    for (int other = LH_Q_PYR; other < LH_TENSOR_COUNT; other++) {
        if (other != (int)id && !(other == LH_DOUT && with_dout))
            whole.present[other].data = NULL;
    }
}

/* Whatever one tensor alone holds, that tensor is wrong, and nothing is made of what was never computed. */
START_TEST(one_spoilt_tensor_alone_is_wrong)
{
    const double spoilt[] = {NAN, INFINITY, 1e30};
    const struct planted all = whole;
    for (int k = 0; k < 3 * 2 * LH_TENSOR_COUNT; k++) {
        const lh_tensor_id id = (lh_tensor_id)(k / 6);
        check_report report;
        if (check_stage_of(id) == LH_STAGE_COUNT || verify_integer(whole.present[id].dtype))
            continue;
        const double kept = lh_load(whole.present[id].data, whole.present[id].dtype, 17);
        leave(id, k / 3 % 2, 17, spoilt[k % 3]);
        judge(&report, LH_OK, "");
        const bool judged = k / 3 % 2 || check_stage_of(id) < LH_SCATTER_BACKWARD || k % 3 < 2;
        ck_assert_msg((report.verdict == CHECK_WRONG) == judged, "%s, %g: %s", lh_tensor_name(id),
                      spoilt[k % 3], check_verdict_name(report.verdict));
        whole = all;
        lh_store(whole.present[id].data, whole.present[id].dtype, 17, kept);
    }
}
END_TEST

/* out[0,1,21] is o_sel of every entry that writes there; a dout is followed to what hangs on it. */
START_TEST(a_nan_is_traced_to_its_rows)
{
    const lh_config *c = &plant_case("small")->config;
    const struct planted all = whole;
    check_report report;
    int64_t terms = 0;
    leave(LH_OUT, false, (c->tokens + 21) * c->dim + 2, NAN);
    judge(&report, LH_OK, "");
    const char *note = strstr(row_of(&report, LH_OUT)->note, "added up there: of o_sel row ");
    ck_assert_ptr_nonnull(note);
    for (const char *at = note; (at = strstr(at, " row ")) != NULL; at++)
        terms++;
    whole = all;
    int64_t bare = 0;
    while (((int32_t *)whole.present[LH_COVERAGE].data)[bare] != 0)
        bare++;
    const float zero = ((float *)whole.present[LH_OUT].data)[bare * c->dim];
    leave(LH_OUT, false, bare * c->dim, NAN);
    judge(&report, LH_OK, "");
    ck_assert(strstr(row_of(&report, LH_OUT)->note, "nothing is added up there") != NULL);
    whole = all;
    ((float *)whole.present[LH_OUT].data)[bare * c->dim] = zero;
    ck_assert_int_eq(terms, ((int32_t *)whole.present[LH_COVERAGE].data)[c->tokens + 21]);
    ((float *)whole.present[LH_DOUT].data)[17] = NAN;
    ((float *)whole.present[LH_DQ].data)[0] = NAN;
    ((float *)whole.present[LH_DV].data)[lh_tensor_elements(&whole.present[LH_DV]) - 1] = NAN;
    judge(&report, LH_OK, "");
    ck_assert(strstr(row_of(&report, LH_DOUT)->note, "dout[0,0,5,2]") != NULL);
    note = row_of(&report, LH_DV)->note; /* of the last batch */
    ck_assert_msg(strstr(note, "leads to some of them, not to all") != NULL, "%s", note);
}
END_TEST

START_TEST(any_subset_of_an_honest_dump_is_right)
{
    for (uint64_t n = 0; n < 24; n++) {
        struct planted all = whole;
        check_report report;
        uint32_t r[4];
        lh_random_block(5, 1, n, r);
        for (int id = LH_Q_PYR; id < LH_TENSOR_COUNT; id++) {
            if (id != LH_DOUT && r[id % 4] >> id & 1)
                whole.present[id].data = NULL;
        }
        judge(&report, LH_OK, "");
        ck_assert_msg(report.first_wrong < 0, "subset %d: %s", (int)n,
                      lh_tensor_name(report.rows[report.first_wrong].tensor));
        whole = all;
    }
}
END_TEST

START_TEST(a_nan_is_its_own_line_and_the_rest_is_judged)
{
    check_report report;
    ((float *)whole.present[LH_K_SEL].data)[17] = NAN;
    judge(&report, LH_OK, "");
    ck_assert_int_ge(report.first_wrong, 0);
    ck_assert_int_eq(report.rows[report.first_wrong].tensor, LH_K_SEL);
    ck_assert(strstr(row_of(&report, LH_K_SEL)->note, "k_sel[") != NULL);
    ck_assert(verify_passed(row_of(&report, LH_OUT)->result.verdict));
    ck_assert(verify_passed(row_of(&report, LH_SCORE_Q)->result.verdict));
}
END_TEST

START_TEST(an_index_out_of_range_or_repeated_is_its_own_line)
{
    const int32_t wrong[] = {-1, 1 << 20, ((int32_t *)whole.present[LH_INDEX].data)[4]};
    int32_t *index = whole.present[LH_INDEX].data, kept = index[5];
    for (int i = 0; i < 3; i++) {
        check_report report;
        index[5] = wrong[i];
        judge(&report, LH_OK, "");
        ck_assert_int_eq(report.rows[report.first_wrong].tensor, LH_INDEX);
        ck_assert(strstr(row_of(&report, LH_INDEX)->note, "index[0,0,5]") != NULL);
        ck_assert(verify_passed(row_of(&report, LH_SCORE_K)->result.verdict));
        ck_assert_int_eq(row_of(&report, LH_Q_SEL)->result.verdict, VERIFY_UNJUDGED);
    }
    index[5] = kept;
}
END_TEST

/* There is no level above the coarsest, and no token behind the last. */
START_TEST(what_an_index_should_have_held_exists)
{
    const lh_config *c = &plant_case("small")->config;
    int32_t *index = whole.present[LH_INDEX].data;
    for (int64_t s = 1; s < whole.present[LH_INDEX].shape[2]; s++) {
        check_report report;
        char above[32], behind[32];
        const int32_t kept = index[s];
        index[s] = index[0];
        judge(&report, LH_OK, "");
        index[s] = kept;
        const char *note = row_of(&report, LH_INDEX)->note;
        snprintf(above, sizeof above, "above level %d", (int)c->levels - 1);
        snprintf(behind, sizeof behind, "a leaf from token %d", (int)c->tokens);
        ck_assert_msg(strstr(note, above) == NULL && strstr(note, behind) == NULL &&
                          strstr(note, "wanted") != NULL,
                      "%s", note);
    }
}
END_TEST

START_TEST(a_wrong_shape_or_kind_is_its_own_line)
{
    check_report report;
    whole.present[LH_LSE].shape[2]--;
    judge(&report, LH_OK, "");
    ck_assert_int_eq(row_of(&report, LH_LSE)->result.verdict, VERIFY_SHAPE);
    ck_assert(strstr(row_of(&report, LH_LSE)->note, "wanted [2,2,") != NULL);
    ck_assert(verify_passed(row_of(&report, LH_O_SEL)->result.verdict));
    whole.present[LH_LSE].shape[2]++;
    whole.present[LH_Q].rank = 3;
    judge(&report, LH_INVALID, "q has shape");
}
END_TEST

/* A report on one change to an honest dump of "small" in F32. */
static const verify_row *judged(check_report *report, lh_tensor_id id)
{
    judge(report, LH_OK, "");
    return row_of(report, id);
}

static void note_has(const verify_row *row, const char *part)
{
    ck_assert_ptr_nonnull(row);
    ck_assert_msg(strstr(row->note, part) != NULL, "no \"%s\" in %s", part, row->note);
}

/* tf32 has no say in scatter and un-pooling, and none where nobody asked for it. */
START_TEST(no_allowance_of_attention_hides_a_fault_elsewhere)
{
    const lh_tensor_id ids[] = {LH_OUT, LH_O_SEL, LH_DQ, LH_DQ_SEL};
    for (size_t k = 0; k < sizeof ids / sizeof *ids; k++) {
        check_report report;
        float *x = whole.present[ids[k]].data;
        const int64_t n = lh_tensor_elements(&whole.present[ids[k]]);
        float *kept = malloc((size_t)n * sizeof *kept);
        ck_assert_ptr_nonnull(kept);
        memcpy(kept, x, (size_t)n * sizeof *kept);
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)lh_f16_to_f64(lh_f64_to_f16((double)x[i]));
        ck_assert_int_eq(judged(&report, ids[k])->result.verdict, VERIFY_WRONG);
        ck_assert_int_eq(report.rows[report.first_wrong].tensor, ids[k]);
        ck_assert(strstr(row_of(&report, ids[k])->note, " elements") != NULL);
        memcpy(x, kept, (size_t)n * sizeof *kept);
        free(kept);
    }
}
END_TEST

/* +0.0 where nothing covers, and nothing else: not -0.0, not the smallest number. */
START_TEST(an_uncovered_position_is_exactly_zero)
{
    const float wrong[] = {-0.0f, 0x1p-149f, 0.004f};
    const int32_t *coverage = whole.present[LH_COVERAGE].data;
    float *out = whole.present[LH_OUT].data;
    int64_t row = 0, rows = lh_tensor_elements(&whole.present[LH_COVERAGE]);
    while (row < rows && coverage[row] != 0)
        row++;
    ck_assert_msg(row < rows, "every position is covered: the test tests nothing");
    for (int i = 0; i < 3; i++) {
        check_report report;
        out[row * whole.present[LH_OUT].shape[3]] = wrong[i];
        ck_assert(verify_failed(judged(&report, LH_OUT)->result.verdict));
        ck_assert_int_eq(report.verdict, CHECK_WRONG);
    }
    out[row * whole.present[LH_OUT].shape[3]] = 0;
}
END_TEST

/* Twice, sixty-four times, another tensor's values: the extent says so. */
START_TEST(the_extent_of_an_error_is_said)
{
    check_report report;
    float *dv = whole.present[LH_DV].data;
    const int64_t n = lh_tensor_elements(&whole.present[LH_DV]);
    for (int64_t i = 0; i < n; i++)
        dv[i] *= 64;
    ck_assert(strstr(judged(&report, LH_DV)->note, "64 times what is wanted throughout") != NULL);
    for (int64_t i = 0; i < n; i++)
        dv[i] /= 64;
    float *k_sel = whole.present[LH_K_SEL].data;
    const int64_t d = whole.present[LH_K_SEL].shape[3], rows = whole.present[LH_K_SEL].shape[2];
    float *before = malloc((size_t)(rows * d) * sizeof *before);
    ck_assert_ptr_nonnull(before);
    memcpy(before, k_sel, (size_t)(rows * d) * sizeof *before);
    memmove(k_sel + 3 * d, k_sel, (size_t)((rows - 3) * d) * sizeof *k_sel);
    note_has(judged(&report, LH_K_SEL), "rows of head [0,0] are those wanted 3 before");
    memcpy(k_sel, before, (size_t)(rows * d) * sizeof *before);
    memmove(k_sel, k_sel + d, (size_t)((rows - 1) * d) * sizeof *k_sel);
    note_has(judged(&report, LH_K_SEL), "rows of head [0,0] are those wanted 1 behind");
    memcpy(k_sel, before, (size_t)(rows * d) * sizeof *before);
    free(before);
    lh_tensor kept = whole.present[LH_K_SEL];
    whole.present[LH_K_SEL] = whole.present[LH_V_SEL];
    ck_assert(strstr(judged(&report, LH_K_SEL)->note, "the values of v_sel") != NULL);
    ck_assert_int_eq(report.rows[report.first_wrong].tensor, LH_K_SEL);
    whole.present[LH_K_SEL] = kept;
}
END_TEST

/* With a wrong lse that was dumped, what follows of it is right on it. */
START_TEST(what_follows_of_a_wrong_tensor_is_not_blamed)
{
    static const lh_tensor_id hidden[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR,  LH_SCORE_Q, LH_SCORE_K, LH_Q_SEL,
                                          LH_K_SEL, LH_V_SEL, LH_DO_SEL, LH_DQ_SEL,  LH_DK_SEL,  LH_DV_SEL};
    check_report report;
    float *lse = whole.present[LH_LSE].data;
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        whole.present[hidden[i]].data = NULL;
    lse[7] += 0.25f;
    judge(&report, LH_OK, "");
    ck_assert_int_eq(report.rows[report.first_wrong].tensor, LH_LSE);
    ck_assert_int_eq((int)report.suspects, 1 << LH_POOL | 1 << LH_GATHER | 1 << LH_ATTEND);
    ck_assert_int_eq(report.fault_count, 0);
}
END_TEST

START_TEST(squared_scores_are_noted_and_right)
{
    check_report report;
    for (int id = LH_SCORE_Q; id <= LH_SCORE_K; id++) {
        float *x = whole.present[id].data;
        for (int64_t i = 0; i < lh_tensor_elements(&whole.present[id]); i++)
            x[i] *= x[i];
    }
    ck_assert_int_eq(judged(&report, LH_SCORE_Q)->result.verdict, VERIFY_EXCUSED);
    ck_assert_int_eq(report.verdict, CHECK_RIGHT);
}
END_TEST

/* The last rows of dv are small beside the first: in bf16 they are less than what the largest element may be off. */
START_TEST(late_rows_are_judged_by_their_own_size)
{
    const verify_case c = {
        .id = "late",
        .config = {.batch = 1, .heads = 2, .kv_heads = 2, .tokens = 512, .dim = 8, .levels = 1, .pool = 2},
        .seed = 77};
    struct planted late;
    check_report report;
    lh_error error;
    ck_assert_msg(plant(&c, LH_BF16, PLANT_FULL, NULL, 0, &late, &error) == LH_OK, "%s", error.text);
    uint16_t *dv = late.present[LH_DV_SEL].data;
    for (int64_t i = (1024 - 16) * 8; i < 1024 * 8; i++)
        dv[i] ^= 0x8000;
    ck_assert_msg(check_dump(&c.config, late.present, NULL, &report, &error) == LH_OK, "%s", error.text);
    const verify_row *row = row_of(&report, LH_DV_SEL);
    ck_assert_int_eq(row->result.verdict, VERIFY_WRONG);
    ck_assert_msg(row->result.error < row->result.allowed,
                  "the largest element tells: the test tests nothing");
    ck_assert_msg(strstr(row->note, "rows 448 to 511 of [0,1]") != NULL, "%s", row->note);
    verify_free(&late.trace);
}
END_TEST

/* Rounding of tensors that are right may add up to more than is allowed end to end: the table says what the verdict does.
 * Behind a stage that is wrong it is wrong. */
START_TEST(table_and_verdict_agree)
{
    for (int wrong = 0; wrong < 2; wrong++) {
        check_report report = {.present = 1u << LH_O_SEL | 1u << LH_DK, .row_count = 3};
        report.rows[0] = (verify_row){.part = "attend", .tensor = LH_O_SEL};
        report.rows[0].result.verdict = wrong ? VERIFY_WRONG : VERIFY_WITHIN;
        report.rows[1] = (verify_row){.part = "nearest", .tensor = LH_DK};
        report.rows[1].result.verdict = VERIFY_WITHIN;
        report.rows[2] = (verify_row){.part = "layer", .tensor = LH_DK};
        report.rows[2].result.verdict = VERIFY_WRONG;
        check_conclude(&report);
        ck_assert_int_eq(report.verdict, wrong ? CHECK_WRONG : CHECK_RIGHT);
        ck_assert_int_eq(report.rows[2].result.verdict, wrong ? VERIFY_WRONG : VERIFY_EXCUSED);
    }
}
END_TEST

START_TEST(no_memory_is_a_status)
{
    lh_error error;
    for (int64_t n = 1;; n++) {
        char *text = NULL;
        lh_alloc_fail_at(n);
        const lh_status status = lh_check(&plant_case("small")->config, whole.present, &text, &error);
        const bool happened = lh_alloc_fail_at(0) == 0;
        lh_text_free(text);
        if (!happened) {
            ck_assert_int_eq(status, LH_OK);
            break;
        }
        ck_assert_int_eq(status, LH_NO_MEMORY);
        n += n / 8; /* thousands of allocations: not each of them */
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("partial");
    TCase *partial = suite_case(suite, "partial dumps");
    tcase_add_checked_fixture(partial, setup_whole, teardown_whole);
    tcase_add_test(partial, a_dump_without_q_is_refused);
    tcase_add_test(partial, without_v_what_hangs_on_it_is_not_judged);
    tcase_add_test(partial, one_spoilt_tensor_alone_is_wrong);
    tcase_add_test(partial, a_nan_is_traced_to_its_rows);
    tcase_add_test(partial, any_subset_of_an_honest_dump_is_right);
    tcase_add_test(partial, a_nan_is_its_own_line_and_the_rest_is_judged);
    tcase_add_test(partial, an_index_out_of_range_or_repeated_is_its_own_line);
    tcase_add_test(partial, what_an_index_should_have_held_exists);
    tcase_add_test(partial, a_wrong_shape_or_kind_is_its_own_line);
    tcase_add_test(partial, no_allowance_of_attention_hides_a_fault_elsewhere);
    tcase_add_test(partial, an_uncovered_position_is_exactly_zero);
    tcase_add_test(partial, the_extent_of_an_error_is_said);
    tcase_add_test(partial, what_follows_of_a_wrong_tensor_is_not_blamed);
    tcase_add_test(partial, squared_scores_are_noted_and_right);
    tcase_add_test(partial, late_rows_are_judged_by_their_own_size);
    tcase_add_test(partial, table_and_verdict_agree);
    tcase_add_test(partial, no_memory_is_a_status);
    return suite_run(suite);
}
