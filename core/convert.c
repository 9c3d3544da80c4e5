/*
 * Conversion between element types with one rounding, and the search for NaN and Inf.
 *
 * A narrow format has M mantissa bits and least normal exponent emin. A binary64 x with |x| = m * 2^(e-52),
 * 2^52 <= m < 2^53, lands on the grid of step 2^(max(e,emin)-M): shift m right by 52-M, further by emin-e
 * below emin, round to even, and add (e-emin) << M. A carry out of the mantissa then raises the exponent, up
 * to the pattern of infinity.
 */
#include <inttypes.h>
#include <string.h>

#include "core/base.h"
#include "core/convert.h"

/* Elements converted at a time through binary64, small enough to stay in the first-level cache. */
enum {
    BLOCK = 256
};

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double from_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t narrow(double value, int mantissa, int emin)
{
    const uint64_t bits = bits_of(value);
    const uint64_t infinity = (uint64_t)(3 - 2 * emin)
                              << mantissa; /* emin = 2 - 2^(w-1), exponent field 2^w - 1 */
    const uint64_t quiet = UINT64_C(1) << (mantissa - 1);
    const uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    const int e = (int)(bits >> 52 & 0x7ff);
    const int above = e - 1023 - emin;
    int shift = 52 - mantissa + (above < 0 ? -above : 0);
    shift = shift > 63 ? 63 : shift; /* the result is zero from 54 on */
    const uint64_t m = fraction | UINT64_C(1) << 52;
    const uint64_t half = UINT64_C(1) << (shift - 1);
    uint64_t result = (m + half - 1 + (m >> shift & 1)) >> shift;
    result += above > 0 ? (uint64_t)above << mantissa : 0;
    result = result > infinity ? infinity : result;
    result = e == 0x7ff && fraction != 0 ? infinity | quiet | fraction >> (52 - mantissa) : result;
    return (uint16_t)(result | bits >> 63 << 15);
}

uint16_t lh_f64_to_f16(double value)
{
    return narrow(value, 10, -14);
}

uint16_t lh_f64_to_bf16(double value)
{
    return narrow(value, 7, -126);
}

double lh_f16_to_f64(uint16_t bits)
{
    const uint64_t sign = (uint64_t)(bits >> 15) << 63;
    const uint64_t exponent = bits >> 10 & 0x1f;
    const uint64_t fraction = bits & 0x3ff;
    const uint64_t normal = (exponent == 31 ? 0x7ff : exponent + 1023 - 15) << 52 | fraction << 42;
    const uint64_t subnormal = bits_of((double)(int)fraction * 0x1p-24);
    return from_bits(sign | (exponent == 0 ? subnormal : normal));
}

double lh_bf16_to_f64(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return (double)value;
}

static void widen(double *dst, const void *src, lh_dtype dtype, int64_t first, int64_t n)
{
    const uint16_t *half = (const uint16_t *)src + (dtype == LH_F16 || dtype == LH_BF16 ? first : 0);
    switch (dtype) {
    case LH_F64:
        memcpy(dst, (const double *)src + first, (size_t)n * sizeof *dst);
        break;
    case LH_F32:
        for (int64_t i = 0; i < n; i++)
            dst[i] = (double)((const float *)src)[first + i];
        break;
    case LH_F16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = lh_f16_to_f64(half[i]);
        break;
    case LH_BF16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = lh_bf16_to_f64(half[i]);
        break;
    default:
        break;
    }
}

static void round_to(void *dst, lh_dtype dtype, int64_t first, const double *src, int64_t n)
{
    uint16_t *half = (uint16_t *)dst + (dtype == LH_F16 || dtype == LH_BF16 ? first : 0);
    switch (dtype) {
    case LH_F64:
        memcpy((double *)dst + first, src, (size_t)n * sizeof *src);
        break;
    case LH_F32:
        for (int64_t i = 0; i < n; i++)
            ((float *)dst)[first + i] = (float)src[i];
        break;
    case LH_F16:
        for (int64_t i = 0; i < n; i++)
            half[i] = narrow(src[i], 10, -14);
        break;
    case LH_BF16:
        for (int64_t i = 0; i < n; i++)
            half[i] = narrow(src[i], 7, -126);
        break;
    default:
        break;
    }
}

double lh_load(const void *data, lh_dtype dtype, int64_t i)
{
    double value = 0;
    widen(&value, data, dtype, i, 1);
    return value;
}

void lh_store(void *data, lh_dtype dtype, int64_t i, double value)
{
    round_to(data, dtype, i, &value, 1);
}

void lh_convert(void *dst, lh_dtype dst_dtype, const void *src, lh_dtype src_dtype, int64_t n)
{
    if (dst_dtype == src_dtype) {
        memcpy(dst, src, (size_t)n * lh_dtype_size(dst_dtype));
        return;
    }
    double block[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t count = n - i < BLOCK ? n - i : BLOCK;
        widen(block, src, src_dtype, i, count);
        round_to(dst, dst_dtype, i, block, count);
    }
}

void lh_swap_bytes(void *data, int64_t n, size_t element_size)
{
    unsigned char *element = data;
    for (int64_t i = 0; i < n; i++, element += element_size)
        for (size_t low = 0, high = element_size - 1; low < high; low++, high--) {
            const unsigned char byte = element[low];
            element[low] = element[high];
            element[high] = byte;
        }
}

void lh_little_endian(void *data, int64_t n, size_t element_size)
{
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    if (first == 0)
        lh_swap_bytes(data, n, element_size);
}
