/*
 * exp(x) = 2^k exp(r), r = x - k ln 2, k = nearest(x / ln 2), so |r| < 0.35.
 *
 * exp(r) = 1 + r (1 + r/2 (1 + r/3 (1 + r/4 (...)))), Horner's way. Only the three outermost products need
 * twice the precision: an error at depth n reaches the result times r^n/n!.
 */
#include "pair.h"
#include "ref.h"

/* r^terms / terms! lies below 2^-(REAL_DIGITS + 10). */
static const int terms = REF_BITS == 64 ? 16 : REF_BITS == 32 ? 9 : 27;

/* 2^k; 0 or infinity outside the range of `real` */
static real power_of_two(int k)
{
    real power = 1, base = k < 0 ? (real)0.5 : (real)2;
    for (int n = k < 0 ? -k : k; n > 0; n /= 2) {
        if (n % 2)
            power *= base;
        base *= base;
    }
    return power;
}

/*
 * y 2^k rounded once, where that is subnormal. With `big` the power of two whose last place weighs as much as
 * the smallest subnormal number does in the result, big + y rounds y in the right place.
 */
static real scale_to_subnormal(struct pair y, int k)
{
    const real big = power_of_two(REAL_MIN_EXP - 1 - k);
    const struct pair sum = fast_two_sum(big, y.hi);
    const real rounded = (sum.hi + (sum.lo + y.lo)) - big;
    return rounded * power_of_two(k / 2) * power_of_two(k - k / 2);
}

real ref_exp(real x)
{
    if (x != x)
        return x;
    if (x > REAL_MAX_EXP)
        return (real)INFINITY;
    if (x < REAL_MIN_EXP - REAL_DIGITS)
        return 0;

    const real turns = x * (real)1.4426950408889634; /* 1/ln 2; k may miss the nearest by a hair */
    const int k = (int)(turns < 0 ? turns - (real)0.5 : turns + (real)0.5);
    const struct pair r =
        pair_add(pair_add(two_sum(x, -(real)k * LN2_A), -(real)k * LN2_B), -(real)k * LN2_C);

    real tail = 1;
    for (int n = terms; n > 4; n--)
        tail = 1 + r.hi / (real)n * tail;
    struct pair y = fast_two_sum(1, r.hi / 4 * tail);
    y = pair_add(pair_multiply(pair_divide(r, (struct pair){3, 0}), y), 1);
    y = pair_add(pair_multiply((struct pair){r.hi / 2, r.lo / 2}, y), 1);
    y = pair_add(pair_multiply(r, y), 1);

    if (k < REAL_MIN_EXP - 1 || (k == REAL_MIN_EXP - 1 && y.hi < 1))
        return scale_to_subnormal(y, k);
    return (y.hi + y.lo) * power_of_two(k / 2) * power_of_two(k - k / 2);
}
