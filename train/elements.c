/* The decoder's arithmetic on the processor, element by element: see core/arithmetic.h. */
#include <math.h>
#include <string.h>

#include "train/kernels.h"

enum {
    NORM_PIECE = 4096, /* squares summed in float before they join a double */
    PIECES = 1024,     /* of them at a time */
    LITTLE = 1 << 15,  /* elements that are not worth waking threads for */
};

static inline uint16_t bf16_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline float bf16_value(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void host_to_bf16(const lh_arithmetic *on, int64_t n, const real *from, uint16_t *to)
{
    (void)on;
#pragma omp parallel for simd if (n > LITTLE)
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_bits((float)from[i]);
}

void host_from_bf16(const lh_arithmetic *on, int64_t n, const uint16_t *from, real *to)
{
    (void)on;
#pragma omp parallel for simd if (n > LITTLE)
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_value(from[i]);
}

void host_round_bf16(const lh_arithmetic *on, int64_t n, const real *from, real *to)
{
    (void)on;
#pragma omp parallel for simd if (n > LITTLE)
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_value(bf16_bits((float)from[i]));
}

static real piece_squares(int64_t n, const real *x)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

lh_status host_length(const lh_arithmetic *on, int64_t n, const real *x, double *length, lh_error *error)
{
    double squares = 0;
    (void)on, (void)error;
    for (int64_t first = 0; first < n; first += (int64_t)PIECES * NORM_PIECE) {
        const int64_t left = (n - first + NORM_PIECE - 1) / NORM_PIECE,
                      pieces = left < PIECES ? left : PIECES;
        real sums[PIECES];
#pragma omp parallel for if (n > LITTLE)
        for (int64_t p = 0; p < pieces; p++) {
            const int64_t at = first + p * NORM_PIECE;
            sums[p] = piece_squares(n - at < NORM_PIECE ? n - at : NORM_PIECE, x + at);
        }
        for (int64_t p = 0; p < pieces; p++)
            squares += (double)sums[p];
    }
    *length = sqrt(squares);
    return LH_OK;
}

void host_adam(const lh_arithmetic *on, int64_t n, const lh_adam_step *step, real *gradient, real *m, real *v,
               real *w)
{
    const lh_adam_step s = *step;
    (void)on;
#pragma omp parallel for if (n > LITTLE)
    for (int64_t i = 0; i < n; i++) {
        const real g = gradient[i] * s.clip;
        m[i] = s.b1 * m[i] + (1 - s.b1) * g;
        v[i] = s.b2 * v[i] + (1 - s.b2) * g * g;
        w[i] = s.keep * w[i] - s.by_first * m[i] / (sqrtf(v[i] * s.by_second) + (real)1e-8);
        gradient[i] = 0;
    }
}
