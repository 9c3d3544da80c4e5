/*
 * pair.h: numbers of twice the precision for exp and log, as unevaluated sums hi + lo with |lo| <= ulp(hi)/2.
 *
 * Knuth's and Dekker's error-free sums and products (no fused multiply-add, so that the bits do not depend on
 * one), and ln 2 in three pieces. Relative errors of pair operations are a few units of 2^(-2 REAL_DIGITS).
 */
#ifndef REF_PAIR_H
#define REF_PAIR_H

#include "real.h"

struct pair {
    real hi, lo;
};

/* a + b exactly */
static inline struct pair two_sum(real a, real b)
{
    const real sum = a + b, b_part = sum - a;
    return (struct pair){sum, (a - (sum - b_part)) + (b - b_part)};
}

/* a + b exactly, where |a| >= |b| or a is 0 */
static inline struct pair fast_two_sum(real a, real b)
{
    const real sum = a + b;
    return (struct pair){sum, b - (sum - a)};
}

/* a = hi + lo, each of at most half the digits, so that products of halves are exact */
static inline struct pair split(real a)
{
    const real scaled = a * (real)(((int64_t)1 << (REAL_DIGITS + 1) / 2) + 1);
    const real hi = scaled - (scaled - a);
    return (struct pair){hi, a - hi};
}

/* a b exactly, short of overflow and underflow */
static inline struct pair two_product(real a, real b)
{
    const real product = a * b;
    const struct pair x = split(a), y = split(b);
    return (struct pair){product, ((x.hi * y.hi - product) + x.hi * y.lo + x.lo * y.hi) + x.lo * y.lo};
}

/* a + b */
static inline struct pair pair_add(struct pair a, real b)
{
    const struct pair sum = two_sum(a.hi, b);
    return fast_two_sum(sum.hi, sum.lo + a.lo);
}

/* a b */
static inline struct pair pair_multiply(struct pair a, struct pair b)
{
    const struct pair product = two_product(a.hi, b.hi);
    return fast_two_sum(product.hi, product.lo + (a.hi * b.lo + a.lo * b.hi));
}

/* a / b */
static inline struct pair pair_divide(struct pair a, struct pair b)
{
    const real quotient = a.hi / b.hi;
    const struct pair back = two_product(quotient, b.hi);
    return fast_two_sum(quotient, ((a.hi - back.hi) - back.lo + a.lo - quotient * b.lo) / b.hi);
}

/*
 * ln 2 = LN2_A + LN2_B + LN2_C + less than half a unit in the last place of LN2_C. A and B are short enough
 * for their product with any exponent of `real` to be exact.
 */
#if REF_BITS == 64
#define LN2_A ((real)0xB17217F7 * (real)0x1p-32)
#define LN2_B ((real)0xD1CF79AB * (real)0x1p-64)
#define LN2_C ((real)0xC9E3B39803F2F7 * (real)0x1p-120)
#elif REF_BITS == 32
#define LN2_A ((real)0xB172 * (real)0x1p-16)
#define LN2_B ((real)0x17F7 * (real)0x1p-32)
#define LN2_C ((real)0xD1CF7A * (real)0x1p-56)
#else
#define LN2_A ((real)0xB17217F7 * (real)0x1p-32 + (real)0xD1CF79ABC9E3B398 * (real)0x1p-96)
#define LN2_B ((real)0x03F2F6AF40F34326 * (real)0x1p-160 + (real)0x7298B62D * (real)0x1p-192)
#define LN2_C ((real)0x8A0D175B8BAAFA2B * (real)0x1p-256 + (real)0xE7B87620 * (real)0x1p-288)
#endif

#endif
