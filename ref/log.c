/*
 * log(x) = e ln 2 + log(m), x = m 2^e, m in [sqrt(1/2), sqrt(2)].
 *
 * log(m) = 2 atanh(z) = 2 z (1 + w/3 + w^2/5 + ...), z = (m-1)/(m+1), w = z^2 < 0.03. z, w and the first two
 * terms in twice the precision.
 */
#include "pair.h"
#include "ref.h"

/* w^terms / (2 terms + 1) lies below 2^-(REAL_DIGITS + 10). */
static const int terms = REF_BITS == 64 ? 13 : REF_BITS == 32 ? 7 : 25;

real ref_log(real x)
{
    if (x < 0)
        return (real)NAN;
    if (x == 0)
        return -(real)INFINITY;
    if (x - x != 0) /* NaN, infinity */
        return x;
    int e = 0;
    real m = x;
    for (; m > (real)1.4142135623730951; e++)
        m /= 2;
    for (; m < (real)0.7071067811865476; e--)
        m *= 2;

    const struct pair z = pair_divide((struct pair){m - 1, 0}, two_sum(m, 1));
    const struct pair w = pair_multiply(z, z);
    real tail = 0;
    for (int n = terms; n > 1; n--)
        tail = w.hi * (1 / (real)(2 * n + 1) + tail);
    struct pair y = pair_add(pair_divide((struct pair){1, 0}, (struct pair){3, 0}), tail);
    y = pair_add(pair_multiply(w, y), 1);
    y = pair_multiply((struct pair){2 * z.hi, 2 * z.lo}, y);

    y = pair_add(y, (real)e * LN2_C);
    y = pair_add(y, (real)e * LN2_B);
    y = pair_add(y, (real)e * LN2_A);
    return y.hi + y.lo;
}
