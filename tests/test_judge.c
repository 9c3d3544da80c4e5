/* The judge of backends: an index that rounding chose is forced on what follows, and what is wrong is wrong in its row alone. */
#include <stdio.h>
#include <string.h>

#include "core/random.h"
#include "scalar/run.h"
#include "tests/suite.h"
#include "verify/verify.h"

static const verify_case judged_case = {.id = "judged",
                                        .config = {.batch = 2,
                                                   .heads = 4,
                                                   .kv_heads = 2,
                                                   .tokens = 48,
                                                   .dim = 5,
                                                   .levels = 3,
                                                   .pool = 2,
                                                   .topk = 8,
                                                   .tile_topk = 4},
                                        .seed = 5,
                                        .exposes = "",
                                        .why = ""};

struct tally {
    int rows, failed, excused;
    int failed_of[LH_TENSOR_COUNT];
    char text[256]; /* of the last that failed */
};

static void count_row(void *context, const verify_row *row)
{
    struct tally *t = context;
    t->rows++;
    t->excused += row->result.verdict == VERIFY_EXCUSED;
    if (verify_passed(row->result.verdict))
        return;
    t->failed++;
    t->failed_of[row->tensor]++;
    snprintf(t->text, sizeof t->text, "%s %s: %s %.150s", row->part, lh_tensor_name(row->tensor),
             verify_verdict_name(row->result.verdict), row->note);
}

static verify_trace inputs;
static verify_expect stages, layer;

static void setup(void)
{
    lh_error error;
    expect_status(verify_inputs(&judged_case, &inputs, &error), LH_OK, &error, "");
}

static void teardown(void)
{
    verify_expect_free(&stages);
    verify_expect_free(&layer);
    verify_free(&inputs);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

static void expect(void)
{
    lh_error error;
    expect_status(verify_expect_both(&stages, &layer, &judged_case.config, LH_F32, &inputs, NULL, 0, &error),
                  LH_OK, &error, "");
}

static struct tally judge(void)
{
    struct tally tally = {0};
    verify_sink sink = {count_row, &tally};
    lh_error error;
    expect_status(
        verify_judge_backend(&judged_case, &stages, &layer, "ref", 0, LH_ATTENTION_AUTO, NULL, &sink, &error),
        LH_OK, &error, "");
    return tally;
}

START_TEST(what_is_right_passes)
{
    expect();
    const struct tally tally = judge();
    ck_assert_msg(tally.failed == 0, "%s", tally.text);
    ck_assert_int_eq(tally.excused, 0);
    ck_assert_int_gt(tally.rows, 24);
}
END_TEST

/* The expectation of a whole layer whose selection scores a hair away from these make. */
static void expect_by_other_scores(void)
{
    verify_trace all = {0};
    lh_error error;
    lh_tensor trace[LH_TENSOR_COUNT];
    expect_status(verify_make_all(&all, &judged_case.config, LH_F32, VERIFY_PACKED, &error), LH_OK, &error,
                  "");
    for (int id = LH_SCORE_Q; id <= LH_SCORE_K; id++) {
        double *score = layer.want.tensor[id].data;
        for (int64_t i = 0; i < lh_tensor_elements(&layer.want.tensor[id]); i++)
            score[i] *= 1 + 1e-9 * lh_random_uniform(4, (uint64_t)id, (uint64_t)i);
    }
    memcpy(trace, layer.want.tensor, sizeof trace);
    trace[LH_INDEX] = all.tensor[LH_INDEX];
    expect_status(lh_ref_run(64, &judged_case.config, LH_REF_STAGE(LH_SELECT), trace, NULL, &error), LH_OK,
                  &error, "");
    verify_expect_free(&layer);
    expect_status(verify_expect_layer(&layer, &judged_case.config, LH_F32, &inputs, all.tensor, 0, &error),
                  LH_OK, &error, "");
    verify_free(&all);
}

/* Rows that are one row with its features in other orders: rounding alone chooses. The backend's choice is excused, and
 * all that follows is judged with it. */
START_TEST(an_index_of_rounding_is_forced_on_what_follows)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K};
    const int64_t d = judged_case.config.dim;
    for (int i = 0; i < 2; i++) {
        double *x = inputs.tensor[ids[i]].data;
        for (int64_t row = 1; row < lh_tensor_elements(&inputs.tensor[ids[i]]) / d; row++) {
            const int64_t turn = (int64_t)(lh_random_uniform(3, (uint64_t)i, (uint64_t)row) * (double)d);
            for (int64_t c = 0; c < d; c++)
                x[row * d + c] = x[(c + turn) % d];
        }
    }
    expect();
    expect_by_other_scores();
    const struct tally tally = judge();
    ck_assert_msg(tally.failed == 0, "%d rows, %s", tally.failed, tally.text);
    ck_assert_msg(tally.excused == 1, "the index is the reference's: the test tests nothing");
}
END_TEST

static void want_more(const lh_tensor *t, int64_t at, int by)
{
    if (t->dtype == LH_F64)
        ((double *)t->data)[at] += by;
    else
        ((int32_t *)t->data)[at] += by;
}

/* Something else wanted of one tensor of a stage: the stage's row fails, and none beside it. */
START_TEST(a_stage_is_wrong_in_its_own_row)
{
    static const lh_tensor_id ids[] = {LH_Q_PYR, LH_SCORE_K, LH_V_SEL, LH_LSE, LH_COVERAGE, LH_DK_SEL, LH_DV};
    expect();
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const lh_tensor *t = &stages.want.tensor[ids[i]];
        want_more(t, 3, 1);
        const struct tally tally = judge();
        want_more(t, 3, -1);
        ck_assert_msg(tally.failed == 1 && tally.failed_of[ids[i]] == 1, "%s: %d rows failed, %s",
                      lh_tensor_name(ids[i]), tally.failed, tally.text);
    }
}
END_TEST

/* The same of the whole layer: in its own run, with its own buffers where they are handed out, with the index given. */
START_TEST(a_layer_is_wrong_in_every_run)
{
    static const struct {
        lh_tensor_id id;
        int runs;
    } tensors[] = {{LH_LSE, 2}, {LH_OUT, 3}, {LH_DQ, 3}};
    expect();
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        const lh_tensor *t = &layer.want.tensor[tensors[i].id];
        want_more(t, 150, 1);
        const struct tally tally = judge();
        want_more(t, 150, -1);
        ck_assert_msg(tally.failed == tensors[i].runs && tally.failed_of[tensors[i].id] == tensors[i].runs,
                      "%s: %d rows failed, %s", lh_tensor_name(tensors[i].id), tally.failed, tally.text);
    }
}
END_TEST

/* The query edge parts two equal scores; one that is kept is a thousandth above them, and rounding may make it their
 * equal, which a lower index then displaces. */
START_TEST(an_edge_among_equals_hangs_on_what_is_near_them)
{
    const lh_config config = {.batch = 1,
                              .heads = 1,
                              .kv_heads = 1,
                              .tokens = 16,
                              .dim = 1,
                              .levels = 2,
                              .pool = 2,
                              .topk = 4,
                              .tile_topk = 4};
    double q[16] = {0.5, 0.5, 1, 1, 1, 1, 0.25, 0.25, 0.125, 0.125, 0, 0, 0, 0, 1.001, 1.001},
           k[16] = {8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1};
    const double near[] = {1e-2, 1e-4};
    lh_tensor tq, tk;
    lh_layout layout;
    lh_error error;
    bool open;
    lh_config_check(&config, &layout, &error);
    expect_status(lh_tensor_describe(&config, LH_F64, LH_Q, &tq, &error), LH_OK, &error, "");
    expect_status(lh_tensor_describe(&config, LH_F64, LH_K, &tk, &error), LH_OK, &error, "");
    tq.data = q;
    tk.data = k;
    for (int i = 0; i < 2; i++) {
        expect_status(verify_undetermined(&config, &layout, &tq, &tk, near[i], &open, &error), LH_OK, &error,
                      "");
        ck_assert_int_eq(open, i == 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("judge");
    TCase *tcase = suite_case(suite, "judge");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, what_is_right_passes);
    tcase_add_test(tcase, an_index_of_rounding_is_forced_on_what_follows);
    tcase_add_test(tcase, a_stage_is_wrong_in_its_own_row);
    tcase_add_test(tcase, a_layer_is_wrong_in_every_run);
    tcase_add_test(tcase, an_edge_among_equals_hangs_on_what_is_near_them);
    return suite_run(suite);
}
