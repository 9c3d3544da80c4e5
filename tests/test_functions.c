/*
 * exp and log of ref/ against MPFR, at most 0.51 units in the last place; built once for each REF_BITS.
 *
 * Prints a table of the largest errors. ARGUMENTS in the environment: how many arguments a function gets;
 * `meson test --benchmark` asks for ten million.
 */
#include <stdio.h>
#include <stdlib.h>

#include <mpfr.h>

#include "core/random.h"
#include "ref/ref.h"
#include "tests/suite.h"

static const double allowed = 0.51;

struct function {
    const char *name;
    real (*own)(real);
    int (*true_value)(mpfr_ptr, mpfr_srcptr, mpfr_rnd_t);
};
static const struct function exponential = {"exp", ref_exp, mpfr_exp}, logarithm = {"log", ref_log, mpfr_log};

/* [0,1) with 64 random bits behind the point, 128 for the widest type */
static real uniform(uint64_t i)
{
    real u = 0;
    for (uint64_t part = 4; part-- > 0;)
        u = (u + (real)lh_random_uniform(113, 0, 4 * i + part)) * (real)0x1p-32;
    return u * (real)0x1p32;
}

static real scaled(real x, int64_t exponent)
{
    for (; exponent > 0; exponent--)
        x *= 2;
    for (; exponent < 0; exponent++)
        x /= 2;
    return x;
}

static int64_t exponent_between(int64_t least, int64_t most, uint64_t i)
{
    return least + (int64_t)(lh_random_uniform(113, 1, i) * (double)(most - least + 1));
}

static const real ln2 = (real)0.6931471805599453;

/* exp: over all that is neither 0 nor infinite; logits less their maximum; near 0; subnormal results; where the
 * reduced argument is largest. */
static real exp_any(uint64_t i)
{
    return (REAL_MIN_EXP - REAL_DIGITS + uniform(i) * (REAL_MAX_EXP - REAL_MIN_EXP + REAL_DIGITS)) * ln2;
}
static real exp_softmax(uint64_t i)
{
    return -40 * uniform(i);
}
static real exp_small(uint64_t i)
{
    return scaled(2 * uniform(i) - 1, exponent_between(-REAL_DIGITS - 5, 0, i));
}
static real exp_subnormal(uint64_t i)
{
    return (REAL_MIN_EXP - 1 - REAL_DIGITS * uniform(i)) * ln2;
}
static real exp_halfway(uint64_t i)
{
    const real turns = (real)exponent_between(REAL_MIN_EXP - REAL_DIGITS, REAL_MAX_EXP - 1, i);
    return (turns + (real)0.5) * ln2 + scaled(uniform(i) - (real)0.5, -10);
}

/* log: over all positive numbers; near 1; sums of up to 2^20 exponentials of which one is 1. */
static real log_any(uint64_t i)
{
    return scaled(1 + uniform(i), exponent_between(REAL_MIN_EXP - REAL_DIGITS, REAL_MAX_EXP - 1, i));
}
static real log_near_one(uint64_t i)
{
    return 1 + scaled(2 * uniform(i) - 1, exponent_between(-REAL_DIGITS - 1, -1, i));
}
static real log_sums(uint64_t i)
{
    return scaled(1 + uniform(i), exponent_between(0, 19, i));
}

static const struct range {
    const struct function *function;
    const char *name;
    real (*argument)(uint64_t);
} ranges[] = {
    {&exponential, "any", exp_any},
    {&exponential, "-40 to 0", exp_softmax},
    {&exponential, "near 0", exp_small},
    {&exponential, "subnormal result", exp_subnormal},
    {&exponential, "near (k+1/2) ln 2", exp_halfway},
    {&logarithm, "any", log_any},
    {&logarithm, "near 1", log_near_one},
    {&logarithm, "1 to 2^20", log_sums},
};

/*
 * The hardest to round in binary64 (Lefevre and Muller, "Worst cases for correct rounding of the elementary
 * functions in double precision", 2001): each value lies next to a number of binary64 or next to the middle of two.
 */
static const struct {
    const struct function *function;
    double argument;
} hard[] = {
    {&exponential, -0x1.ed318efb627eap-27}, {&exponential, 0x1.83d4bcdebb3f4p+2},
    {&exponential, 0x1.fffffffffff8p-46},   {&logarithm, 0x1.ea71d85cee02p-509},
    {&logarithm, 0x1.9476e304cd7c7p-384},   {&logarithm, 0x1.26e9c4d32796p-232},
    {&logarithm, 0x1.613955dc802f8p-35},    {&logarithm, 0x1.62a88613629b6p+678},
};

/* Exactly x, finite: three doubles hold a 113-bit value once it is scaled into their range. */
static void set_real(mpfr_t to, real x)
{
    const real far = (real)0x1p100;
    long exponent = 0;
    for (; REF_BITS == 113 && (x > far || x < -far); exponent += 100)
        x /= far;
    for (; REF_BITS == 113 && x != 0 && x < 1 / far && x > -1 / far; exponent -= 100)
        x *= far;
    mpfr_set_zero(to, 1);
    for (int part = 0; part < 3; part++) {
        mpfr_add_d(to, to, (double)x, MPFR_RNDN);
        x -= (real)(double)x;
    }
    mpfr_mul_2si(to, to, exponent, MPFR_RNDN);
}

/* |own(x) - true| in units of the last place of the true value; *hardness (may be NULL): how near that is to 0 or
 * to half a unit. */
static double error_in_units(const struct function *f, real x, double *hardness)
{
    mpfr_t value, difference;
    mpfr_inits2(REAL_DIGITS * 2 + 70, value, difference, (mpfr_ptr)0);
    set_real(difference, x);
    f->true_value(value, difference, MPFR_RNDN);
    const long binade = mpfr_zero_p(value) ? REAL_MIN_EXP : mpfr_get_exp(value);
    const long last = (binade > REAL_MIN_EXP ? binade : REAL_MIN_EXP) - REAL_DIGITS;
    set_real(difference, f->own(x));
    mpfr_sub(difference, difference, value, MPFR_RNDN);
    mpfr_div_2si(difference, difference, last, MPFR_RNDN);
    mpfr_abs(difference, difference, MPFR_RNDN);
    const double error = mpfr_get_d(difference, MPFR_RNDN);
    if (hardness) {
        if (error > 0.25)
            mpfr_sub_d(difference, difference, 0.5, MPFR_RNDN);
        mpfr_abs(difference, difference, MPFR_RNDN);
        *hardness = mpfr_get_d(difference, MPFR_RNDN);
    }
    mpfr_clears(value, difference, (mpfr_ptr)0);
    return error;
}

static long arguments(void)
{
    const char *text = getenv("ARGUMENTS");
    return text ? strtol(text, NULL, 10) : 100000;
}

START_TEST(against_mpfr)
{
    const struct range *range = &ranges[_i];
    const long shares = range->function == &exponential ? 5 : 3, count = (arguments() + shares - 1) / shares;
    long taken = 0;
    double worst = 0;
    real where = 0;
    for (long i = 0; i < count; i++) {
        const real x = range->argument((uint64_t)i);
        const real y = range->function->own(x);
        if (y - y != 0) /* past the largest finite result, or log 0 */
            continue;
        const double error = error_in_units(range->function, x, NULL);
        taken++;
        if (error > worst) {
            worst = error;
            where = x;
        }
    }
    printf("| %d | %s | %s | %ld | %.5f | %a |\n", REF_BITS, range->function->name, range->name, taken, worst,
           (double)where); /* a 113-bit argument may print as inf or 0 */
    ck_assert_int_gt(taken, count / 2);
    ck_assert_double_le(worst, allowed);
}
END_TEST

START_TEST(hard_cases)
{
    double hardness;
    const double error = error_in_units(hard[_i].function, (real)hard[_i].argument, &hardness);
    printf("| %d | %s | hard to round, by 2^%.0f | 1 | %.5f | %a |\n", REF_BITS, hard[_i].function->name,
           log2(hardness), error, hard[_i].argument);
    ck_assert_double_le(error, allowed);
    ck_assert_double_le(hardness, 0x1p-50); /* an easy one was mistyped */
}
END_TEST

START_TEST(ends_of_the_range)
{
    const real infinity = (real)INFINITY, nan = (real)NAN;
    ck_assert(ref_exp(0) == 1 && ref_exp(-(real)0) == 1);
    ck_assert(ref_exp(infinity) == infinity && ref_exp(-infinity) == 0);
    ck_assert(ref_exp(nan) != ref_exp(nan));
    ck_assert(ref_exp((REAL_MAX_EXP + 1) * ln2) == infinity);
    ck_assert(ref_exp((REAL_MIN_EXP - REAL_DIGITS - 2) * ln2) == 0);
    ck_assert(ref_exp((REAL_MIN_EXP - REAL_DIGITS) * ln2 + (real)0.01) > 0);
    ck_assert(ref_exp((real)(4 * REAL_MAX_EXP)) == infinity && ref_exp((real)(-4 * REAL_MAX_EXP)) == 0);
    ck_assert(ref_log(1) == 0);
    ck_assert(ref_log(0) == -infinity && ref_log(-(real)0) == -infinity);
    ck_assert(ref_log(infinity) == infinity);
    ck_assert(ref_log(-1) != ref_log(-1) && ref_log(-infinity) != ref_log(-infinity));
    ck_assert(ref_log(nan) != ref_log(nan));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("functions");
    TCase *tcase = suite_case(suite, "functions");
    tcase_set_timeout(tcase, 3600);
    tcase_add_test(tcase, ends_of_the_range);
    if (REF_BITS == 64)
        tcase_add_loop_test(tcase, hard_cases, 0, sizeof hard / sizeof *hard);
    tcase_add_loop_test(tcase, against_mpfr, 0, sizeof ranges / sizeof *ranges);
    return suite_run(suite);
}
