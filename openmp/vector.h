/*
 * vector.h: vectors of float32 as wide as the instruction set that this file is compiled for.
 *
 * Compiler vector extensions of gcc and clang, which lower to whatever the target has; only the maximum needs
 * a name of its own. The register tile of product.h follows from the number of registers.
 */
#ifndef LH_OPENMP_VECTOR_H
#define LH_OPENMP_VECTOR_H

#include <math.h>
#include <stdint.h>

#if defined __AVX512F__
#include <immintrin.h>
#define LH_OMP_VECTOR_BYTES 64
#define LH_OMP_REGISTERS 32
#elif defined __AVX2__
#include <immintrin.h>
#define LH_OMP_VECTOR_BYTES 32
#define LH_OMP_REGISTERS 16
#elif defined __SSE2__
#include <emmintrin.h>
#define LH_OMP_VECTOR_BYTES 16
#define LH_OMP_REGISTERS 16
#else
#define LH_OMP_VECTOR_BYTES 16
#define LH_OMP_REGISTERS 32
#endif

typedef float vfloat __attribute__((vector_size(LH_OMP_VECTOR_BYTES), may_alias));
typedef int32_t vint __attribute__((vector_size(LH_OMP_VECTOR_BYTES), may_alias));

enum {
    LANES = LH_OMP_VECTOR_BYTES / 4,
    /* Register tiles: 24 accumulators of 32 registers, or 12 of 16. */
    GROUP = LH_OMP_REGISTERS / 4, /* rows, read as broadcasts, of a tile with a query in each lane */
    VECTORS = 3,                  /* its vectors */
    BLOCK = VECTORS * LANES,      /* its queries; divides LH_OMP_TILE */
    KEY_GROUP = LH_OMP_REGISTERS == 32 ? 6 : 4, /* rows of a tile with a feature in each lane: keys */
    PANEL = 24 / KEY_GROUP * LH_OMP_REGISTERS / 32 * LANES, /* its columns at most */
};

#define LH_OMP_INLINE static inline __attribute__((always_inline))

LH_OMP_INLINE vfloat splat(float x)
{
    return x - (vfloat){0};
}

/* The larger of two; b where either is NaN. */
LH_OMP_INLINE vfloat vector_max(vfloat a, vfloat b)
{
#if defined __AVX512F__
    return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined __AVX2__
    return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined __SSE2__
    return (vfloat)_mm_max_ps((__m128)a, (__m128)b);
#else
    const vint larger = a > b;
    return (vfloat)(((vint)a & larger) | ((vint)b & ~larger));
#endif
}

/* x where keep is all ones, y where it is zero. */
LH_OMP_INLINE vfloat vector_select(vint keep, vfloat x, vfloat y)
{
    return (vfloat)(((vint)x & keep) | ((vint)y & ~keep));
}

/* 0, 1, 2, ... */
LH_OMP_INLINE vint vector_lanes(void)
{
    vint lanes;
    for (int i = 0; i < LANES; i++)
        lanes[i] = i;
    return lanes;
}

/*
 * 2^x for x <= 0 to about one unit in the last place; exactly 0 from -127 on down, NaN for NaN.
 * x = n + f, n the nearest integer: 2^f is a polynomial of degree 6 (minimax on [-1/2,1/2], relative error
 * 2e-9), 2^n is built from its bits. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
 */
LH_OMP_INLINE vfloat vector_exp2(vfloat x)
{
    const float round = 12582912.0f;
    x = vector_max(splat(-127.0f), x);
    const vfloat shifted = x + round;
    const vfloat f = x - (shifted - round);
    vfloat p = f * 1.535336188319500e-4f + 1.339887440266574e-3f;
    p = p * f + 9.618437357674640e-3f;
    p = p * f + 5.550332471162809e-2f;
    p = p * f + 2.402264791363012e-1f;
    p = p * f + 6.931472028550421e-1f;
    p = p * f + 1.0f;
    return p * (vfloat)(((vint)shifted << 23) + 0x3f800000);
}

#endif
