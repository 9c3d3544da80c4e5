/*
 * element.h: elements of float32, float16 and bfloat16 arrays as float32 and back.
 *
 * Written without branches so that loops over rows become vector code; core/convert.c does the same through
 * binary64, element by element. Widening is exact, narrowing rounds once, to nearest, ties to even.
 */
#ifndef LH_OPENMP_ELEMENT_H
#define LH_OPENMP_ELEMENT_H

#include <stdint.h>
#include <string.h>

#include "openmp/vector.h"

LH_OMP_INLINE uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

LH_OMP_INLINE float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The exponent's bias is mended by a product, which is exact and turns subnormals into normal numbers. */
LH_OMP_INLINE float float_of_f16(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    const uint32_t value = bits_of(float_of(magnitude) * 0x1p112f);
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    return float_of(value | special | (uint32_t)(half & 0x8000) << 16);
}

/*
 * Two products push what is too large to infinity. Adding a power of two 2^13 units above x makes the
 * addition round at float16's last place; the bits wanted are then at the sum's low end.
 */
LH_OMP_INLINE uint16_t f16_of_float(float x)
{
    const uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    const float clipped = float_of(magnitude) * 0x1p112f * 0x1p-110f;
    uint32_t bias = bits << 1 & 0xff000000u;
    bias = bias < 0x71000000u ? 0x71000000u : bias;
    const uint32_t sum = bits_of(float_of((bias >> 1) + 0x07800000u) + clipped);
    const uint32_t number = (sum >> 13 & 0x7c00u) + (sum & 0x0fffu);
    return (uint16_t)(bits >> 16 & 0x8000u) | (uint16_t)(magnitude > 0x7f800000u ? 0x7e00u : number);
}

LH_OMP_INLINE float float_of_bf16(uint16_t half)
{
    return float_of((uint32_t)half << 16);
}

LH_OMP_INLINE uint16_t bf16_of_float(float x)
{
    const uint32_t bits = bits_of(x);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded);
}

/* `dtype` is F32, F16 or BF16 and a constant where these are inlined. */
LH_OMP_INLINE float load_element(const void *data, lh_dtype dtype, int64_t i)
{
    if (dtype == LH_F16)
        return float_of_f16(((const uint16_t *)data)[i]);
    if (dtype == LH_BF16)
        return float_of_bf16(((const uint16_t *)data)[i]);
    return ((const float *)data)[i];
}

LH_OMP_INLINE void store_element(void *data, lh_dtype dtype, int64_t i, float x)
{
    if (dtype == LH_F16)
        ((uint16_t *)data)[i] = f16_of_float(x);
    else if (dtype == LH_BF16)
        ((uint16_t *)data)[i] = bf16_of_float(x);
    else
        ((float *)data)[i] = x;
}

/* sum += x / window. A power of two divides exactly as its reciprocal multiplies. */
LH_OMP_INLINE void add_mean(float *restrict sum, const void *restrict x, int64_t d, float window, bool power,
                            lh_dtype dtype)
{
    const float weight = 1 / window;
    if (power) {
        for (int64_t c = 0; c < d; c++)
            sum[c] += load_element(x, dtype, c) * weight;
    } else {
        for (int64_t c = 0; c < d; c++)
            sum[c] += load_element(x, dtype, c) / window;
    }
}

/* call(..., dtype) with the dtype as a constant. */
#define WITH_DTYPE(dtype, function, ...)                                                                     \
    do {                                                                                                     \
        if ((dtype) == LH_F16)                                                                               \
            function(__VA_ARGS__, LH_F16);                                                                   \
        else if ((dtype) == LH_BF16)                                                                         \
            function(__VA_ARGS__, LH_BF16);                                                                  \
        else                                                                                                 \
            function(__VA_ARGS__, LH_F32);                                                                   \
    } while (0)

#endif
