/*
 * ref/ on layers small enough to work by hand; docs/algorithm.md walks through the first one.
 *
 * Twelve tokens, d = 1, L = 3, p = 2, m = k = 2. Queries are multiples of ln 2 and keys are integers, so that every
 * attention weight is a power of two: outputs are fractions, worked exactly and only then divided.
 */
#include <stdlib.h>

#include "ref/ref.h"
#include "tests/sample.h"
#include "tests/suite.h"

static const double ln2 = 0.69314718055994530942;

/* Units in the last place of the largest element that a handful of roundings may cost. */
static void expect(const char *name, const real *found, const double *wanted, double unit, int64_t n)
{
    double largest = 1;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(wanted[i] * unit));
    const double allowed = largest * (REF_BITS == 32 ? 0x1p-21 : 0x1p-50); /* wanted is binary64 */
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabs((double)found[i] - wanted[i] * unit) <= allowed, "%s[%d] is %.17g, wanted %.17g",
                      name, (int)i, (double)found[i], wanted[i] * unit);
}
#define EXPECT(name, unit) expect(#name, t->name, name, unit, sizeof name / sizeof *name)

static void fill(real *to, const double *from, double unit, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (real)(from[i] * unit);
}

START_TEST(twelve_tokens)
{
    static const double q[] = {1, 1, -1, -1, 2, 0, 1, 1, 1, -1, 3, 1}; /* times ln 2 */
    static const double k[] = {1, -1, 1, -1, 0, -2, 3, -1, 1, 1, 2, 0};
    static const double v[] = {4, 0, 0, 4, 8, 0, 2, 6, 4, 4, 1, 3};
    static const double dout[] = {1, 2, -1, 0, 3, 1, -2, 2, 0, 1, 2, -1};
    static const int64_t index[] = {18, 14, 6, 7, 15, 19, 16, 10, 11, 17, 20};
    static const int32_t coverage[] = {0, 0, 0, 1, 1, 2, 3, 3, 2, 2, 3, 3};
    static const double q_pyr[] = {1, 1, -1, -1, 2, 0, 1, 1, 1, -1, 3, 1, 1, -1, 1, 1, 0, 2, 0, 1, 1};
    static const double k_pyr[] = {1, -1, 1, -1, 0, -2, 3, -1, 1, 1, 2, 0, 0, 0, -1, 1, 1, 1, 0, 0, 1};
    static const double v_pyr[] = {4, 0, 0, 4, 8, 0, 2, 6, 4, 4, 1, 3, 2, 2, 4, 4, 4, 2, 2, 4, 3};
    static const double score_q[] = {1, 1, 1, 1, 2, 0, 1, 1, 1, 1, 3, 1, 1, 1, 2, 1, 1, 3, 1, 2, 3};
    static const double score_k[] = {1, 1, 1, 1, 0, 2, 3, 1, 1, 1, 2, 0, 1, 1, 2, 3, 1, 2, 1, 3, 2};
    static const double q_sel[] = {0, 1, 1, 1, 1, 1, 0, 3, 1, 2, 1};
    static const double k_sel[] = {0, -1, 3, -1, 1, 0, 1, 2, 0, 1, 1};
    static const double v_sel[] = {2, 4, 2, 6, 4, 4, 4, 1, 3, 2, 3};
    static const double sum[] = {1, 3.0 / 2, 19.0 / 2, 10, 12, 13, 7, 2377.0 / 4, 20, 191.0 / 2, 24};
    static const double o_sel[] = {2,        8.0 / 3,       40.0 / 19, 23.0 / 10,   31.0 / 12, 35.0 / 13,
                                   26.0 / 7, 4637.0 / 2377, 5.0 / 2,   391.0 / 191, 5.0 / 2};
    static const double out[] = {0,
                                 0,
                                 0,
                                 2,
                                 2,
                                 14.0 / 3,
                                 386.0 / 57,
                                 5909.0 / 780,
                                 823.0 / 156,
                                 583.0 / 91,
                                 1807758.0 / 216307,
                                 1346.0 / 191};
    static const double do_sel[] = {2, -1, -2, 2, 2, 5, 3, 2, -1, -1, -1};
    static const double dq_sel[] = {0,           4.0 / 9,         264.0 / 361, -99.0 / 50,
                                    -163.0 / 72, -1060.0 / 169,   -150.0 / 49, -267552.0 / 5650129,
                                    41.0 / 40,   10924.0 / 36481, 41.0 / 48};
    static const double dk_sel[] = {0.09042782588426958736,
                                    -0.1807437701213484358,
                                    -2.5263934844854664296,
                                    1.11481502828515872652,
                                    1.20507138357737350659,
                                    0.34525107923087910613,
                                    -0.2730679984081623250,
                                    0.28648160247553351989,
                                    -576011.0 / 8755440,
                                    39937.0 / 875544,
                                    -1.0 / 24};
    static const double dv_sel[] = {2.20388821341640235111,
                                    0.31758552696320668365,
                                    5.07430739071201837078,
                                    0.75618201819127685909,
                                    1.33284207604196062523,
                                    0.71441452920587603533,
                                    0.23027797347785806113,
                                    -0.3188083737328572760,
                                    -2341.0 / 22920,
                                    -287.0 / 2292,
                                    -1.0 / 12};
    static const double dq[] = {0,
                                0,
                                0,
                                0,
                                -2047.0 / 1521,
                                -2047.0 / 1521,
                                -17295523.0 / 8785296,
                                -2847307.0 / 608400,
                                -12391.0 / 9408,
                                -12391.0 / 9408,
                                0.31591018452401127524,
                                1.38826343964438109335};
    static const double dk[] = {0.02260695647106739684, 0.02260695647106739684, 0.02260695647106739684,
                                0.02260695647106739684, -0.0040591152529544414, -0.0040591152529544414,
                                -1.8375450228890598998, 1.80366348988156525636, -0.1469506658707478292,
                                -0.1469506658707478292, 0.29887189925102395784, -0.0533986298803943605};
    static const double dv[] = {0.55097205335410058777, 0.55097205335410058777, 0.55097205335410058777,
                                0.55097205335410058777, 0.33739639578307235066, 0.33739639578307235066,
                                5.91933206103446769223, 1.60120668851372618054, 0.09430565340559569723,
                                0.09430565340559569723, -0.4022507821098206268, -8507.0 / 45840};

    const struct ref_shape shape = {1, 1, 1, 12, 1, 3, 2, 2, 2};
    struct sample layer = sample_new(&shape);
    const struct ref_trace *t = &layer.trace;
    fill(t->q, q, ln2, 12);
    fill(t->k, k, 1, 12);
    fill(t->v, v, 1, 12);
    fill(t->dout, dout, 1, 12);
    ref_forward(&shape, t);
    ref_backward(&shape, t);

    ck_assert_int_eq(ref_entries(&shape), 21);
    ck_assert_int_eq(ref_selected(&shape), 11);
    EXPECT(q_pyr, ln2);
    EXPECT(k_pyr, 1);
    EXPECT(v_pyr, 1);
    EXPECT(score_q, ln2);
    EXPECT(score_k, 1);
    for (int i = 0; i < 11; i++)
        ck_assert_int_eq(t->index[i], index[i]);
    EXPECT(q_sel, ln2);
    EXPECT(k_sel, 1);
    EXPECT(v_sel, 1);
    EXPECT(o_sel, 1);
    double lse[11];
    for (int i = 0; i < 11; i++)
        lse[i] = log(sum[i]);
    EXPECT(lse, 1);
    EXPECT(out, 1);
    for (int j = 0; j < 12; j++)
        ck_assert_int_eq(t->coverage[j], coverage[j]);
    for (int j = 0; j < 3; j++) /* uncovered: exactly +0.0 */
        ck_assert(t->out[j] == 0 && 1 / t->out[j] > 0);
    EXPECT(do_sel, 1);
    EXPECT(dq_sel, 1);
    EXPECT(dk_sel, ln2);
    EXPECT(dv_sel, 1);
    EXPECT(dq, 1);
    EXPECT(dk, ln2);
    EXPECT(dv, 1);
    sample_free(&layer);
}
END_TEST

/* SPEC 9: selection looks ahead. A larger q[5] takes the first window's place, and out[0] goes from 1 to nothing. */
START_TEST(six_tokens_look_ahead)
{
    static const double q[] = {3, .5, 2, .5, 1, .5}, k[] = {1, .5, 2, .5, 1.5, .5}, v[] = {1, 2, 3, 4, 5, 6};
    static const int64_t before[] = {0, 1, 6, 2, 3, 7, 8}, after[] = {6, 2, 3, 7, 4, 5, 8};
    const struct ref_shape shape = {1, 1, 1, 6, 1, 2, 2, 2, 2};
    struct sample layer = sample_new(&shape);
    const struct ref_trace *t = &layer.trace;
    fill(t->q, q, 1, 6);
    fill(t->k, k, 1, 6);
    fill(t->v, v, 1, 6);
    ref_forward(&shape, t);
    for (int i = 0; i < 7; i++)
        ck_assert_int_eq(t->index[i], before[i]);
    ck_assert(t->out[0] == 1);
    t->q[5] = 9;
    ref_forward(&shape, t);
    for (int i = 0; i < 7; i++)
        ck_assert_int_eq(t->index[i], after[i]);
    ck_assert(t->out[0] == 0);
    sample_free(&layer);
}
END_TEST

/* Two tokens, d = 4: logits are halved. Token 1 weighs token 0 by 1 and itself by 2^(4/2) = 4. */
START_TEST(scale_is_one_over_root_d)
{
    static const double q[] = {1, 0, 0, 0, 1, 0, 0, 0}, k[] = {0, 7, 0, 0, 4, 0, 0, 0};
    static const double v[] = {5, 0, 0, 10, 10, 0, 0, 0}, dout[] = {0, 0, 0, 0, 5, 0, 0, 0};
    /* o = (5 + 4*10)/5 = 9, D = 5*9; P = 1/5, 4/5; dS = (25 - 45)/5, 4(50 - 45)/5 */
    static const double out[] = {5, 0, 0, 10, 9, 0, 0, 2}, lse[] = {0, 5};
    static const double dq[] = {0, 0, 0, 0, 8, -14, 0, 0};
    static const double dk[] = {-2, 0, 0, 0, 2, 0, 0, 0}, dv[] = {1, 0, 0, 0, 4, 0, 0, 0};
    const struct ref_shape shape = {1, 1, 1, 2, 4, 1, 2, 0, 0};
    struct sample layer = sample_new(&shape);
    const struct ref_trace *t = &layer.trace;
    fill(t->q, q, ln2, 8);
    fill(t->k, k, 1, 8);
    fill(t->v, v, 1, 8);
    fill(t->dout, dout, 1, 8);
    ref_forward(&shape, t);
    ref_backward(&shape, t);
    EXPECT(out, 1);
    ck_assert_double_eq_tol((double)t->lse[1], log(lse[1]), REF_BITS == 32 ? 0x1p-22 : 0x1p-51);
    EXPECT(dq, 1);
    EXPECT(dk, ln2);
    EXPECT(dv, 1);
    sample_free(&layer);
}
END_TEST

/* The norm of (3, 4) times a power of two is 5 times it, wherever 5 times it can be represented: SPEC 3.2 is about
 * norms, not about squares that leave the range. */
START_TEST(scores_hold_over_the_whole_range)
{
    const struct ref_shape shape = {1, 1, 1, 1, 2, 1, 2, 0, 0};
    /* The twin's squares may underflow (ref/score.c). */
    const int lowest = REF_BITS == 32 ? REAL_MIN_EXP / 2 : REAL_MIN_EXP - REAL_DIGITS;
    for (int e = lowest; e <= REAL_MAX_EXP - 3; e++) {
        real unit = 1, score;
        for (int i = 0; i < abs(e); i++)
            unit *= e < 0 ? (real)0.5 : (real)2;
        const real x[] = {3 * unit, -4 * unit};
        ref_score(&shape, x, &score);
        ck_assert_msg(score == 5 * unit, "(3, 4) 2^%d has another score than 5 2^%d", e, e);
    }
}
END_TEST

/* Selection by scores whose squares a plain sum loses: the strongest windows still win. */
START_TEST(selection_holds_where_squares_are_lost)
{
    static const double rows[] = {1, 1, 1, 1, 9, 9, 5, 5};
    static const int64_t index[] = {8, 9, 4, 5, 10, 6, 7, 11};
    const struct ref_shape shape = {1, 1, 1, 8, 1, 2, 2, 2, 2};
    for (int sign = -1; sign <= 1; sign += 2) {
        struct sample layer = sample_new(&shape);
        real unit = 1;
        for (int i = 0; i < (REF_BITS == 32 ? 3 : 5) * REAL_MAX_EXP / 8; i++)
            unit *= sign < 0 ? (real)0.5 : (real)2;
        for (int i = 0; i < 8; i++) {
            layer.trace.q[i] = (real)rows[i] * unit;
            layer.trace.k[i] = (real)rows[i] / unit;
        }
        ref_layer_score(&shape, &layer.trace);
        ref_layer_select(&shape, &layer.trace);
        for (int i = 0; i < 8; i++)
            ck_assert_msg(layer.trace.index[i] == index[i], "index[%d] is %d, wanted %d", i,
                          (int)layer.trace.index[i], (int)index[i]);
        sample_free(&layer);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ref hand");
    TCase *tcase = suite_case(suite, "hand-worked");
    tcase_add_test(tcase, twelve_tokens);
    tcase_add_test(tcase, six_tokens_look_ahead);
    tcase_add_test(tcase, scale_is_one_over_root_d);
    tcase_add_test(tcase, scores_hold_over_the_whole_range);
    tcase_add_test(tcase, selection_holds_where_squares_are_lost);
    return suite_run(suite);
}
