/* The checker: catches and names what is planted, leaves honest ports alone, and survives any dump. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "core/random.h"
#include "tests/honest.h"
#include "tests/plant.h"
#include "tests/suite.h"
#include "check/check.h"

static const verify_case *case_by_id(const char *id)
{
    const verify_case *c;
    for (int i = 0; (c = verify_case_at(i)); i++) {
        if (strcmp(c->id, id) == 0)
            return c;
    }
    ck_abort_msg("no case %s", id);
    return NULL;
}

static bool names(const check_report *report, const lh_fault *fault)
{
    for (int i = 0; i < report->fault_count; i++) {
        if (report->faults[i] == fault)
            return true;
    }
    return false;
}

/* The port without a fault on a case, planted once. */
static const struct planted *honest_port(const verify_case *c, lh_dtype dtype)
{
    static struct {
        const verify_case *c;
        lh_dtype dtype;
        struct planted planted;
    } kept[16];
    lh_error error;
    int i = 0;
    while (kept[i].c && (kept[i].c != c || kept[i].dtype != dtype))
        ck_assert_int_lt(++i, 15);
    if (!kept[i].c) {
        ck_assert_msg(plant(c, dtype, PLANT_FULL, NULL, 0, &kept[i].planted, &error) == LH_OK, "%s",
                      error.text);
        kept[i].c = c;
        kept[i].dtype = dtype;
    }
    return &kept[i].planted;
}

static void check_planted(const char *id, lh_dtype dtype, enum plant_shape shape,
                          const lh_fault *const *faults, int count, check_report *report, bool *shows)
{
    struct planted planted;
    lh_error error;
    const verify_case *c = case_by_id(id);
    const lh_status status = plant(c, dtype, shape, faults, count, &planted, &error);
    ck_assert_msg(status == LH_OK || status == LH_UNSUPPORTED, "%s", error.text);
    *shows = status == LH_OK && plant_shows(&planted, honest_port(c, dtype));
    if (status == LH_OK)
        ck_assert_msg(check_dump(&c->config, planted.present, NULL, report, &error) == LH_OK, "%s",
                      error.text);
    verify_free(&planted.trace);
}

/* On one of a few small draws every fault is caught, marked at its stage, and named. */
START_TEST(every_fault_is_caught_and_named)
{
    static const char *const ids[] = {"small", "small-ties", "groups", "p3", "sharpest"};
    const lh_dtype dtypes[] = {LH_F32, LH_BF16};
    const lh_fault *fault;
    for (int i = 0; (fault = lh_fault_at(i)); i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof ids / sizeof *ids && !found; k++) {
            check_report report;
            bool shows;
            check_planted(ids[k], dtypes[_i], PLANT_FULL, &fault, 1, &report, &shows);
            if (!shows || report.first_wrong < 0)
                continue;
            found = names(&report, fault);
            bool writes = false;
            for (const lh_tensor_id *id = lh_stage_writes(fault->stage); *id != LH_TENSOR_COUNT; id++)
                writes = writes || *id == report.rows[report.first_wrong].tensor;
            ck_assert_msg(writes, "%s: first wrong is %s", fault->name,
                          lh_tensor_name(report.rows[report.first_wrong].tensor));
        }
        ck_assert_msg(found, "%s is not caught and named", fault->name);
    }
}
END_TEST

START_TEST(two_faults_in_different_stages_are_both_found)
{
    static const char *const pairs[][2] = {{"score-mean", "scatter-no-shift"},
                                           {"pool-query-first-token", "backward-without-scale"},
                                           {"select-global", "unpool-leaves-only"},
                                           {"attend-unscaled", "scatter-backward-mean"},
                                           {"order-by-start", "pool-sum"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const lh_fault *faults[] = {lh_fault_by_name(pairs[i][0]), lh_fault_by_name(pairs[i][1])};
        check_report report;
        bool shows;
        ck_assert(faults[0] && faults[1]);
        check_planted("small", LH_F32, PLANT_FULL, faults, 2, &report, &shows);
        ck_assert(shows);
        for (int f = 0; f < 2; f++)
            ck_assert_msg(names(&report, faults[f]), "%s is not named", faults[f]->name);
    }
}
END_TEST

/* ---- honest ports --------------------------------------------------------------------------- */

enum {
    HONEST_BATCHES = 8
};

/* Drawn in one run: HONEST_PORTS says how many. */
static uint64_t honest_ports(void)
{
    const char *text = getenv("HONEST_PORTS");
    const long n = text ? strtol(text, NULL, 10) : 160;
    ck_assert_msg(n >= HONEST_BATCHES, "HONEST_PORTS is '%s', wanted at least %d", text, HONEST_BATCHES);
    return (uint64_t)n;
}

static struct honest draw_port(uint64_t n)
{
    static const int parts[] = {1, 2, 4, 8, 16}, blocks[] = {0, 5, 16, 32, 64};
    static const lh_dtype storage[] = {LH_F32, LH_F32, LH_BF16, LH_F16};
    uint32_t r[4], s[4];
    lh_random_block(11, 1, n, r);
    lh_random_block(11, 2, n, s);
    const lh_dtype dtype = storage[r[0] % 4];
    return (struct honest){.storage = dtype,
                           .parts = parts[r[1] % 5],
                           .reversed = r[2] % 2,
                           .fused = r[3] % 2,
                           .block = blocks[s[0] % 5],
                           .operand_bits = dtype == LH_F32 && s[1] % 4 == 0 ? 11 : 24,
                           .squared_norms = s[2] % 2,
                           .level_by_level = s[3] % 2,
                           .d_from_p = s[3] / 2 % 2};
}

static verify_case draw_case(uint64_t n)
{
    static const lh_config configs[] = {
        {2, 2, 2, 48, 3, 3, 2, 8, 4},   {1, 4, 2, 48, 16, 3, 2, 8, 4}, {1, 2, 1, 54, 5, 3, 3, 4, 2},
        {1, 1, 1, 64, 64, 2, 4, 8, 8},  {1, 2, 2, 96, 8, 4, 2, 8, 4},  {1, 1, 1, 80, 33, 2, 2, 16, 8},
        {1, 1, 1, 64, 128, 3, 2, 8, 8},
    };
    static const verify_pattern patterns[] = {VERIFY_GAUSSIAN, VERIFY_GAUSSIAN, VERIFY_SHARP,   VERIFY_FLAT,
                                              VERIFY_RAMP,     VERIFY_OFFSET,   VERIFY_INTEGERS};
    uint32_t r[4];
    lh_random_block(11, 3, n, r);
    return (verify_case){.id = "honest",
                         .config = configs[r[0] % 7],
                         .seed = 1000 + n,
                         .pattern = patterns[r[1] % 7],
                         .exposes = "",
                         .why = ""};
}

static void check_honest(uint64_t n)
{
    const struct honest port = draw_port(n);
    const verify_case c = draw_case(n);
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    verify_trace drawn = {0}, dump = {0};
    check_report report;
    lh_error error;
    char *text = NULL;
    ck_assert_msg(verify_inputs(&c, &drawn, &error) == LH_OK, "%s", error.text);
    ck_assert_msg(verify_make_all(&dump, &c.config, port.storage, VERIFY_PACKED, &error) == LH_OK, "%s",
                  error.text);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(lh_tensor_convert(&dump.tensor[inputs[i]], &drawn.tensor[inputs[i]], &error), LH_OK);
    ck_assert_msg(honest_layer(&port, &c.config, dump.tensor, &error) == LH_OK, "%s", error.text);
    ck_assert_msg(check_dump(&c.config, dump.tensor,
                             &(check_wish){.habits = port.operand_bits < 24 ? VERIFY_TF32 : 0}, &report,
                             &error) == LH_OK,
                  "%s", error.text);
    if (report.first_wrong >= 0)
        check_text(&report, &text, &error);
    ck_assert_msg(
        report.first_wrong < 0,
        "honest port %d is called wrong (%s, %d parts, %s, fma %d, block %d, %d bits, squared %d, stepwise "
        "%d, D from P %d, %s)\n%s",
        (int)n, lh_dtype_name(port.storage), port.parts, port.reversed ? "reversed" : "forward", port.fused,
        port.block, port.operand_bits, port.squared_norms, port.level_by_level, port.d_from_p,
        verify_pattern_name(c.pattern), text);
    verify_free(&drawn);
    verify_free(&dump);
}

START_TEST(honest_ports_raise_no_alarm)
{
    const uint64_t each = honest_ports() / HONEST_BATCHES;
    for (uint64_t n = (uint64_t)_i * each; n < ((uint64_t)_i + 1) * each; n++)
        check_honest(n);
}
END_TEST

/* ---- dumps that are not all there ------------------------------------------------------------ */

static struct planted whole;

static void setup_whole(void)
{
    lh_error error;
    ck_assert_int_eq(plant(case_by_id("small"), LH_F32, PLANT_FULL, NULL, 0, &whole, &error), LH_OK);
}

static void teardown_whole(void)
{
    verify_free(&whole.trace);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

static void judge(check_report *report, lh_status wanted, const char *part)
{
    lh_error error;
    const lh_status status = check_dump(&case_by_id("small")->config, whole.present, NULL, report, &error);
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

START_TEST(no_memory_is_a_status)
{
    lh_error error;
    for (int64_t n = 1;; n++) {
        char *text = NULL;
        lh_alloc_fail_at(n);
        const lh_status status = lh_check(&case_by_id("small")->config, whole.present, &text, &error);
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
    Suite *suite = suite_create("check");
    TCase *planted = suite_case(suite, "planted faults");
    tcase_add_loop_test(planted, every_fault_is_caught_and_named, 0, 2);
    tcase_add_test(planted, two_faults_in_different_stages_are_both_found);
    TCase *honest = suite_case(suite, "honest ports");
    tcase_add_loop_test(honest, honest_ports_raise_no_alarm, 0, HONEST_BATCHES);
    TCase *partial = suite_case(suite, "partial dumps");
    tcase_add_checked_fixture(partial, setup_whole, teardown_whole);
    tcase_add_test(partial, a_dump_without_q_is_refused);
    tcase_add_test(partial, any_subset_of_an_honest_dump_is_right);
    tcase_add_test(partial, a_nan_is_its_own_line_and_the_rest_is_judged);
    tcase_add_test(partial, an_index_out_of_range_or_repeated_is_its_own_line);
    tcase_add_test(partial, a_wrong_shape_or_kind_is_its_own_line);
    tcase_add_test(partial, no_allowance_of_attention_hides_a_fault_elsewhere);
    tcase_add_test(partial, an_uncovered_position_is_exactly_zero);
    tcase_add_test(partial, the_extent_of_an_error_is_said);
    tcase_add_test(partial, what_follows_of_a_wrong_tensor_is_not_blamed);
    tcase_add_test(partial, squared_scores_are_noted_and_right);
    tcase_add_test(partial, late_rows_are_judged_by_their_own_size);
    tcase_add_test(partial, no_memory_is_a_status);
    return suite_run(suite);
}
