/* Which indices are excused: those that some scores within the rounding of the true ones would make. */
#include <string.h>

#include "scalar/run.h"
#include "tests/suite.h"
#include "verify/verify.h"

struct selecting {
    const verify_case *subject;
    lh_layout layout;
    verify_trace scored; /* scores and index of the case, F64 */
    verify_trace other;  /* the same with other scores */
};

static const verify_case *named(const char *id)
{
    const verify_case *c;
    for (int i = 0; (c = verify_case_at(i)); i++) {
        if (strcmp(c->id, id) == 0)
            return c;
    }
    ck_abort_msg("no case %s", id);
}

static void select_with(const lh_config *config, verify_trace *t)
{
    lh_error error;
    expect_status(lh_ref_run(64, config, LH_REF_STAGE(LH_SELECT), t->tensor, NULL, &error), LH_OK, &error,
                  "");
}

static void setup(struct selecting *s, const char *id)
{
    lh_error error;
    verify_trace inputs = {0};
    memset(s, 0, sizeof *s);
    s->subject = named(id);
    const lh_config *config = &s->subject->config;
    expect_status(lh_config_check(config, &s->layout, &error), LH_OK, &error, "");
    expect_status(verify_inputs(s->subject, &inputs, &error), LH_OK, &error, "");
    expect_status(verify_make_all(&s->scored, config, LH_F64, VERIFY_PACKED, &error), LH_OK, &error, "");
    expect_status(verify_make_all(&s->other, config, LH_F64, VERIFY_PACKED, &error), LH_OK, &error, "");
    s->scored.tensor[LH_Q] = inputs.tensor[LH_Q];
    s->scored.tensor[LH_K] = inputs.tensor[LH_K];
    expect_status(lh_ref_run(64, config, LH_REF_STAGE(LH_SCORE), s->scored.tensor, NULL, &error), LH_OK,
                  &error, "");
    for (int id_ = LH_SCORE_Q; id_ <= LH_SCORE_K; id_++)
        memcpy(s->other.tensor[id_].data, s->scored.tensor[id_].data,
               (size_t)lh_tensor_elements(&s->scored.tensor[id_]) * sizeof(double));
    select_with(config, &s->scored);
    verify_free(&inputs);
}

static void teardown(struct selecting *s)
{
    verify_free(&s->scored);
    verify_free(&s->other);
}

static verify_selection judge(const struct selecting *s, double rounding)
{
    verify_selection selection;
    lh_error error;
    expect_status(verify_judge_index(&s->subject->config, &s->layout, &s->other.tensor[LH_INDEX],
                                     &s->scored.tensor[LH_INDEX], &s->scored.tensor[LH_SCORE_Q],
                                     &s->scored.tensor[LH_SCORE_K], rounding, &selection, &error),
                  LH_OK, &error, "");
    return selection;
}

/* Multiplies every score by 1 + a few parts in `size`, differently for every entry. */
static void disturb(struct selecting *s, double size)
{
    uint64_t state = 12345;
    for (int id = LH_SCORE_Q; id <= LH_SCORE_K; id++) {
        double *x = s->other.tensor[id].data;
        for (int64_t i = 0; i < lh_tensor_elements(&s->other.tensor[id]); i++) {
            state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
            x[i] *= 1 + size * ((double)(state >> 40) / (1 << 23) - 1);
        }
    }
    select_with(&s->subject->config, &s->other);
}

static const char *const cases[] = {"small", "many-tiles", "five-levels", "p3", "groups", "ramp"};

START_TEST(equal_index_is_equal)
{
    struct selecting s;
    setup(&s, cases[_i]);
    select_with(&s.subject->config, &s.other);
    const verify_selection selection = judge(&s, 0);
    ck_assert(selection.legal && selection.excused && selection.differing == 0 && selection.first == -1);
    teardown(&s);
}
END_TEST

/* What a rounding of 5 % makes differ is excused by 5 %, and not by a tenth of what it needed. */
START_TEST(rounding_excuses_what_it_explains)
{
    struct selecting s;
    setup(&s, cases[_i]);
    disturb(&s, 0.05);
    const verify_selection loose = judge(&s, 0.0501);
    ck_assert_msg(loose.excused, "%s", loose.text);
    if (loose.differing > 0) {
        ck_assert(loose.margin > 0 && loose.margin <= 2 * 0.0501);
        const verify_selection tight = judge(&s, loose.margin / 20);
        ck_assert(tight.legal && !tight.excused && tight.text[0]);
    }
    teardown(&s);
}
END_TEST

START_TEST(disturbed_scores_do_differ)
{
    int64_t differing = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct selecting s;
        setup(&s, cases[i]);
        disturb(&s, 0.05);
        differing += judge(&s, 0.05).differing;
        teardown(&s);
    }
    ck_assert_int_gt(differing, 100);
}
END_TEST

/* Another order of ties needs no rounding at all. */
START_TEST(ties_are_excused_by_nothing)
{
    struct selecting s;
    setup(&s, _i ? "all-ties" : "small-ties");
    disturb(&s, 1e-12);
    const verify_selection selection = judge(&s, 0);
    ck_assert_int_gt(selection.differing, 0);
    ck_assert_msg(selection.excused, "%s", selection.text);
    ck_assert(selection.margin == 0);
    teardown(&s);
}
END_TEST

/* Key scores swapped with query scores, and one score overrated: wrong choices, and said where. */
START_TEST(wrong_choices_are_not_excused)
{
    struct selecting s;
    setup(&s, cases[_i]);
    const lh_config *c = &s.subject->config;
    double *q = s.other.tensor[LH_SCORE_Q].data;
    for (int64_t i = 0; i < lh_tensor_elements(&s.other.tensor[LH_SCORE_Q]); i++)
        q[i] = 1 / (1 + q[i]);
    select_with(c, &s.other);
    const verify_selection selection = judge(&s, 1e-6);
    ck_assert(selection.legal && !selection.excused && selection.differing > 0);
    ck_assert_ptr_nonnull(strstr(selection.text, "tile "));
    teardown(&s);
}
END_TEST

START_TEST(broken_order_is_illegal)
{
    struct selecting s;
    setup(&s, cases[_i]);
    select_with(&s.subject->config, &s.other);
    int32_t *index = s.other.tensor[LH_INDEX].data;
    const int32_t first = index[3];
    index[3] = index[4];
    index[4] = first;
    ck_assert(!judge(&s, 1).legal);
    index[4] = index[3];
    ck_assert(!judge(&s, 1).legal);
    index[4] = -1;
    ck_assert(!judge(&s, 1).legal);
    index[4] = (int32_t)s.layout.entries;
    ck_assert(!judge(&s, 1).legal);
    teardown(&s);
}
END_TEST

int main(void)
{
    const int all = sizeof cases / sizeof *cases;
    Suite *suite = suite_create("selection");
    TCase *tests = suite_case(suite, "selection");
    tcase_add_loop_test(tests, equal_index_is_equal, 0, all);
    tcase_add_loop_test(tests, rounding_excuses_what_it_explains, 0, all);
    tcase_add_test(tests, disturbed_scores_do_differ);
    tcase_add_loop_test(tests, ties_are_excused_by_nothing, 0, 2);
    tcase_add_loop_test(tests, wrong_choices_are_not_excused, 0, all);
    tcase_add_loop_test(tests, broken_order_is_illegal, 0, all);
    return suite_run(suite);
}
