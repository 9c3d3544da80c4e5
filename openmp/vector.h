/*
 * vector.h: vectors of float32 as wide as the instruction set that this file is compiled for.
 *
 * Compiler vector extensions of gcc and clang, which lower to whatever the target has; only the maximum needs
 * a name of its own. The register tiles of product.h follow from the numbers of registers and accumulators.
 */
#ifndef LH_OPENMP_VECTOR_H
#define LH_OPENMP_VECTOR_H

#include <math.h>
#include <stdint.h>

#if defined __AVX512F__
#include <immintrin.h>
#define LH_OMP_VECTOR_BYTES 64
#define LH_OMP_REGISTERS 32
#define LH_OMP_ACCUMULATORS 24
#elif defined __AVX2__
#include <immintrin.h>
#define LH_OMP_VECTOR_BYTES 32
#define LH_OMP_REGISTERS 16
#define LH_OMP_ACCUMULATORS 12
#elif defined __SSE2__
#include <emmintrin.h>
#define LH_OMP_VECTOR_BYTES 16
#define LH_OMP_REGISTERS 16
/* Not fused with its sum, a product takes a register too: of twelve one would be kept in memory. */
#define LH_OMP_ACCUMULATORS 8
#else
#define LH_OMP_VECTOR_BYTES 16
#define LH_OMP_REGISTERS 32
#define LH_OMP_ACCUMULATORS 24
#endif

typedef float vfloat __attribute__((vector_size(LH_OMP_VECTOR_BYTES), may_alias));
typedef int32_t vint __attribute__((vector_size(LH_OMP_VECTOR_BYTES), may_alias));

enum {
    LANES = LH_OMP_VECTOR_BYTES / 4,
    GROUP = LH_OMP_REGISTERS / 4,          /* rows, read as broadcasts, of a tile with a query in each lane */
    VECTORS = LH_OMP_ACCUMULATORS / GROUP, /* its vectors */
    BLOCK = VECTORS * LANES,               /* its queries; divides LH_OMP_TILE */
    KEY_GROUP = LH_OMP_REGISTERS == 32 ? 6 : 4,      /* rows of a tile with a feature in each lane: keys */
    PANEL = LH_OMP_ACCUMULATORS / KEY_GROUP * LANES, /* its columns at most */
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

/* The smaller of two; b where either is NaN. */
LH_OMP_INLINE vfloat vector_min(vfloat a, vfloat b)
{
#if defined __AVX512F__
    return (vfloat)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined __AVX2__
    return (vfloat)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined __SSE2__
    return (vfloat)_mm_min_ps((__m128)a, (__m128)b);
#else
    const vint smaller = a < b;
    return (vfloat)(((vint)a & smaller) | ((vint)b & ~smaller));
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
 * 2^(x scale / EXP2_STEPS) for x <= 0 < scale to about one unit in the last place; 0 for exponents from -127 on down, at most
 * 2^-126 for those below -126, NaN for NaN.
 *
 * x scale = n + f, n the nearest integer: adding 1.5 * 2^23 rounds to it and leaves it in the low bits. 2^(f / EXP2_STEPS) is 1 plus
 * a polynomial p f, minimax on |f| <= 1/2 (relative error 2e-9, AVX2 3e-8). 2^(n / EXP2_STEPS) is made of its bits: n shifted
 * into the exponent, and the fraction from a table that one register holds, less what n's low bits put in its place.
 */
#if defined __AVX512F__
enum {
    EXP2_STEPS = 16
};
#elif defined __AVX2__
enum {
    EXP2_STEPS = 8
};
#else
enum {
    EXP2_STEPS = 1
};
#endif

LH_OMP_INLINE vfloat vector_exp2(vfloat x, float scale)
{
    const float round = 12582912.0f;
    x = vector_max(splat(-127.0f * EXP2_STEPS / scale), x);
    const vfloat shifted = x * scale + round;
    const vfloat f = x * scale - (shifted - round);
#if defined __AVX512F__
    static const vint step = {0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532,
                              0x3f75fed7, 0x3f75583f, 0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                              0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
    const vint whole =
        ((vint)shifted << 19) + (vint)_mm512_permutexvar_epi32((__m512i)shifted, (__m512i)step);
    vfloat p = f * 1.355032629e-5f + 9.384151876e-4f;
    p = p * f + 4.332169892e-2f;
#elif defined __AVX2__
    static const vint step = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                              0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
    const vint whole =
        ((vint)shifted << 20) + (vint)_mm256_permutevar8x32_epi32((__m256i)step, (__m256i)shifted);
    vfloat p = f * 1.083910582e-4f + 3.754025465e-3f;
    p = p * f + 8.664340178e-2f;
#else
    const vint whole = ((vint)shifted << 23) + 0x3f800000;
    vfloat p = f * 1.535336188777849e-4f + 1.339887442235215e-3f;
    p = p * f + 9.618437357824455e-3f;
    p = p * f + 5.550332471099871e-2f;
    p = p * f + 2.402264791362654e-1f;
    p = p * f + 6.931472028550824e-1f;
#endif
    return (vfloat)whole * (p * f) + (vfloat)whole;
}

#endif
