/*
 * Score: how strong a window is (SPEC 3.2). No gradient flows through it.
 *
 *   score[i]             = sqrt(sum over c of x[i][c]^2)                        level 0
 *   score[offset(l) + i] = max over j < p^l of score[i p^l + j]                level l: not the pooled
 * vector's norm
 */
#include "ref.h"

/* 2^n, a normal number of `real` */
static real power_of_two(int n)
{
    real power = 1;
    for (; n > 0; n--)
        power *= 2;
    for (; n < 0; n++)
        power /= 2;
    return power;
}

/* sum over c of (x[c] factor)^2.  x: [d]; factor: a power of two */
static real sum_of_squares(const real *x, int64_t d, real factor)
{
    real sum = 0;
    for (int64_t c = 0; c < d; c++)
        sum += (x[c] * factor) * (x[c] * factor);
    return sum;
}

/* What a plain sum of squares must reach: below it, squares that were lost could show. The bits that stand for binary32
 * are those of the plain sum however small, so the twin's scores underflow where its squares do. */
static real least_sum(void)
{
    return REF_BITS == 32 ? 0 : power_of_two(REAL_MIN_EXP + REAL_DIGITS);
}

/* The norm of x: [d] whose plain sum of squares overflowed, or is so small that squares were lost. The factors keep
 * the square of the smallest number of `real` normal and that of the largest far below overflow, so a norm is rounded
 * as any other wherever it can be represented. */
static real scaled_norm(const real *x, int64_t d, real sum, real least)
{
    const real factor = power_of_two(sum < least ? REAL_DIGITS - REAL_MIN_EXP / 2 : -(REAL_MAX_EXP / 2 + 16));
    return real_sqrt(sum_of_squares(x, d, factor)) / factor;
}

/* x: [N,d]  ->  score: [P].  A maximum rounds nothing, so level l may be taken from level l-1. */
void ref_score(const struct ref_shape *s, const real *x, real *score)
{
    const real least = least_sum();
    for (int64_t i = 0; i < s->tokens; i++) {
        const real sum = sum_of_squares(x + i * s->dim, s->dim, 1);
        if (sum >= least && sum - sum == 0)
            score[i] = real_sqrt(sum);
        else
            score[i] = scaled_norm(x + i * s->dim, s->dim, sum, least);
    }
    for (int64_t l = 1; l < s->levels; l++) {
        const real *finer = score + ref_offset(s, l - 1);
        real *level = score + ref_offset(s, l);
        for (int64_t i = 0; i < s->tokens / ref_window(s, l); i++) {
            level[i] = finer[i * s->pool];
            for (int64_t j = 1; j < s->pool; j++)
                if (finer[i * s->pool + j] > level[i])
                    level[i] = finer[i * s->pool + j];
        }
    }
}
