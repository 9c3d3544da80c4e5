/*
 * The tolerance rule, in one place:
 *
 *   allowance = MULTIPLE * twin's error + FLOOR * (u(storage) * size + least(storage))
 *
 * The twin is the reference's own source in binary32, its outputs rounded to the dtype that stores them, run
 * on the same inputs twice: features in their order and reversed, to sample its rounding twice. size is that of the
 * terms that were added up (condition.c); least the smallest number of the storage. allow.c applies it to the worst
 * element and to tiles of rows.
 *
 * Upstream's own tensors, computed on a GPU in another order of everything, use at most half of MULTIPLE = 4.
 * FLOOR covers tensors on which the twin happens to be exact: one unit for storing, one for a sum that another
 * order rounds once more.
 */
#include <math.h>

#include "verify/allow.h"

static const double MULTIPLE = 4;
static const double FLOOR = 2;

double verify_roundoff(lh_dtype dtype)
{
    switch (dtype) {
    case LH_F64:
        return 0x1p-53;
    case LH_F32:
        return 0x1p-24;
    case LH_F16:
        return 0x1p-11;
    case LH_BF16:
        return 0x1p-8;
    default:
        return 0;
    }
}

double verify_arithmetic(lh_dtype dtype)
{
    return dtype == LH_F64 ? 0x1p-53 : 0x1p-24;
}

double verify_allowance(double twin, double roundoff, double size, double least)
{
    return MULTIPLE * twin + FLOOR * (roundoff * size + least);
}

double verify_score_rounding(lh_dtype dtype, double twin)
{
    return MULTIPLE * twin + FLOOR * verify_arithmetic(dtype);
}

bool verify_half(const verify_expect *e)
{
    return verify_arithmetic(e->dtype) < verify_roundoff(e->dtype);
}

double verify_least(lh_dtype dtype)
{
    switch (dtype) {
    case LH_F32:
        return 0x1p-149;
    case LH_F16:
        return 0x1p-24;
    case LH_BF16:
        return 0x1p-133;
    default:
        return 0x1p-1074;
    }
}

double verify_lse_rounding(const verify_expect *e)
{
    return fmax(verify_arithmetic(e->dtype), verify_roundoff(e->stored[LH_LSE]));
}

double verify_habit_rounding(const verify_expect *e, double logit)
{
    const double u = verify_roundoff(e->dtype);
    double rounding = 0;
    if (e->habits & VERIFY_TF32)
        rounding += 2 * 0x1p-10;
    if (e->habits & (VERIFY_ROUNDED_LOGITS | VERIFY_HALF_SUMS)) /* a logit is a sum */
        rounding += 2 * u * fmax(logit, 1);
    if (e->habits & VERIFY_HALF_SUMS)
        rounding += u * (2 + sqrt((double)e->layout.selected));
    return rounding;
}
