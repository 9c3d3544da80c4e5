/*
 * Conversions. The independent method: every value of a half format is listed, in binary64, from the
 * definition of the format (ldexp of an integer), and a rounding is judged by its distances to the neighbours
 * in that list.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "core/convert.h"
#include "core/random.h"
#include "tests/suite.h"

struct format {
    lh_dtype dtype;
    int mantissa, bias, most_exponent; /* most_exponent: the all-ones field */
};

static const struct format formats[] = {{LH_F16, 10, 15, 31}, {LH_BF16, 7, 127, 255}};

/* The value that a bit pattern means by the definition of IEEE 754-2019 section 3.4. */
static double meaning(const struct format *f, uint16_t bits)
{
    const int fraction = bits & ((1 << f->mantissa) - 1);
    const int exponent = bits >> f->mantissa & f->most_exponent;
    const double sign = bits >> 15 ? -1 : 1;
    if (exponent == f->most_exponent)
        return fraction ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, 1 - f->bias - f->mantissa);
    return sign * ldexp(fraction + (1 << f->mantissa), exponent - f->bias - f->mantissa);
}

static uint16_t narrow(const struct format *f, double value)
{
    uint16_t bits;
    lh_store(&bits, f->dtype, 0, value);
    return bits;
}

/* Quiet while all is well: Check writes a line for every assertion that passes, and there are millions here. */
#define expect(condition, ...)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg(__VA_ARGS__);                                                                       \
    } while (0)

static void expect_bits(const struct format *f, double value, uint16_t wanted)
{
    const uint16_t bits = narrow(f, value);
    expect(bits == wanted, "%a became %s %04x, wanted %04x", value, lh_dtype_name(f->dtype), bits, wanted);
}

static uint16_t infinity_of(const struct format *f)
{
    return (uint16_t)(f->most_exponent << f->mantissa);
}

/* All 2^16 patterns: widened to what they mean, and back to the same bits; through F64 and through F32. */
START_TEST(round_trip)
{
    const struct format *f = &formats[_i];
    int nans = 0;
    for (int pattern = 0; pattern < 1 << 16; pattern++) {
        const uint16_t bits = (uint16_t)pattern;
        uint16_t back;
        float single;
        const double value = lh_load(&bits, f->dtype, 0), wanted = meaning(f, bits);
        lh_convert(&single, LH_F32, &bits, f->dtype, 1);
        lh_convert(&back, f->dtype, &single, LH_F32, 1);
        if (isnan(wanted)) {
            expect(isnan(value) && isnan(single), "%04x is no NaN", bits);
            expect(isnan(meaning(f, back)) && isnan(meaning(f, narrow(f, value))), "%04x lost its NaN", bits);
            nans++;
            continue;
        }
        expect(memcmp(&value, &wanted, sizeof value) == 0, "%04x is %a, wanted %a", bits, value, wanted);
        expect((double)single == wanted && !signbit(single) == !signbit(wanted), "%04x is %a as F32", bits,
               (double)single);
        expect_bits(f, value, (uint16_t)(bits));
        expect(back == bits, "%04x came back as %04x", bits, back);
    }
    ck_assert_int_eq(nans, 2 * ((1 << f->mantissa) - 1));
}
END_TEST

/* Halfway points between all neighbours, and the binary64 values just beside them: one rounding, ties to
 * even. */
START_TEST(ties)
{
    const struct format *f = &formats[_i];
    const uint16_t infinity = infinity_of(f);
    for (uint16_t bits = 0; bits < infinity; bits++) {
        const double low = meaning(f, bits);
        const double step =
            ldexp(1, (bits >> f->mantissa > 0 ? bits >> f->mantissa : 1) - f->bias - f->mantissa);
        const double middle = low + step / 2; /* exact: mantissa + 2 bits */
        const uint16_t even = bits % 2 == 0 ? bits : bits + 1;
        for (int negative = 0; negative < 2; negative++) {
            const uint16_t sign = negative ? 0x8000 : 0;
            const double s = negative ? -1 : 1;
            expect_bits(f, s * middle, (uint16_t)(even | sign));
            expect_bits(f, s * nextafter(middle, 0), (uint16_t)(bits | sign));
            expect_bits(f, s * nextafter(middle, INFINITY), (uint16_t)((bits + 1) | sign));
            expect_bits(f, s * nextafter(low + step, 0), (uint16_t)((bits + 1) | sign));
            expect_bits(f, s * nextafter(low, INFINITY), (uint16_t)(bits | sign));
        }
    }
    expect_bits(f, INFINITY, (uint16_t)(infinity));
    expect_bits(f, -INFINITY, (uint16_t)(infinity | 0x8000));
    expect_bits(f, 1.7976931348623157e308, (uint16_t)(infinity));
    expect_bits(f, 5e-324, (uint16_t)(0));
    expect_bits(f, -5e-324, (uint16_t)(0x8000));
    expect_bits(f, -0.0, (uint16_t)(0x8000));
}
END_TEST

/* Random binary64 bits over the whole range of exponents: the result is the nearest value there is. */
START_TEST(nearest)
{
    const struct format *f = &formats[_i];
    const uint16_t infinity = infinity_of(f);
    const int span = 2 * f->bias + f->mantissa + 8;
    for (uint64_t i = 0; i < 1000000; i++) {
        const double scale = ldexp(1, (int)(lh_random_uniform(3, 1, i) * span) - f->bias - f->mantissa - 4);
        const double value = scale * (1 + lh_random_uniform(3, 2, i) + lh_random_uniform(3, 3, i) * 0x1p-32);
        const uint16_t bits = narrow(f, value);
        expect(bits <= infinity, "%a became %04x", value, bits);
        const double top = meaning(f, infinity - 1), step = top - meaning(f, infinity - 2);
        /* For the distances, infinity stands one step above the largest finite value (IEEE 754
         * section 4.3.1). */
        const double got = bits == infinity ? top + step : meaning(f, bits);
        const double above = bits + 1 >= infinity ? top + step : meaning(f, bits + 1);
        const double below = bits == 0 ? 0 : meaning(f, bits - 1);
        if (value < top + step) {
            expect(fabs(got - value) <= fabs(above - value), "%a became %a", value, got);
            expect(fabs(got - value) <= fabs(below - value), "%a became %a", value, got);
        } else {
            expect(bits == infinity, "%a became %04x", value, bits);
        }
    }
}
END_TEST

/* Values that two roundings, F64 to F32 to the half, would get wrong. */
START_TEST(no_double_rounding)
{
    const struct format *f = &formats[_i];
    const double tie = 1 + ldexp(1, -f->mantissa - 1); /* between 1 (even) and its neighbour */
    const double value = tie + 0x1p-40;                /* F32 would drop 2^-40 and make it a tie */
    ck_assert((double)(float)value == tie);
    ck_assert(meaning(f, narrow(f, value)) == 1 + ldexp(1, -f->mantissa));
    ck_assert(meaning(f, narrow(f, tie)) == 1);
}
END_TEST

/* F64 to F32 by the same definition, over normal, subnormal and overflowing values. */
START_TEST(to_single)
{
    for (uint64_t i = 0; i < 1000000; i++) {
        const double scale = ldexp(1, (int)(lh_random_uniform(4, 1, i) * 290) - 155);
        const double value = scale * (1 + lh_random_uniform(4, 2, i) + lh_random_uniform(4, 3, i) * 0x1p-32);
        float got;
        lh_convert(&got, LH_F32, &value, LH_F64, 1);
        if (isinf(got)) {
            expect(value >= 0x1.ffffffp127, "%a became infinite", value);
            continue;
        }
        const double below = (double)nextafterf(got, 0), above = (double)nextafterf(got, INFINITY);
        expect(fabs((double)got - value) <= fabs(below - value), "%a became %a", value, (double)got);
        expect(isinf(above) || fabs((double)got - value) <= fabs(above - value), "%a became %a", value,
               (double)got);
    }
}
END_TEST

/* Long arrays go through blocks: every element lands in its place, in every pair of dtypes. */
START_TEST(arrays)
{
    enum {
        COUNT = 1000
    };
    static double source[COUNT], got[COUNT];
    static unsigned char a[COUNT * 8], b[COUNT * 8];
    for (int i = 0; i < COUNT; i++)
        source[i] = i % 113 - 56; /* exact in all four, and no period that blocks could share */
    for (int from = 0; from < 4; from++) {
        for (int to = 0; to < 4; to++) {
            lh_convert(a, (lh_dtype)from, source, LH_F64, COUNT);
            lh_convert(b, (lh_dtype)to, a, (lh_dtype)from, COUNT);
            lh_convert(got, LH_F64, b, (lh_dtype)to, COUNT);
            ck_assert_int_eq(memcmp(source, got, sizeof got), 0);
            for (int i = 0; i < COUNT; i += 37)
                ck_assert(lh_load(b, (lh_dtype)to, i) == source[i]);
        }
    }
}
END_TEST

START_TEST(byte_order)
{
    unsigned char bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
    lh_swap_bytes(bytes, 1, 8);
    ck_assert_mem_eq(bytes, ((unsigned char[]){8, 7, 6, 5, 4, 3, 2, 1}), 8);
    lh_swap_bytes(bytes, 2, 4);
    ck_assert_mem_eq(bytes, ((unsigned char[]){5, 6, 7, 8, 1, 2, 3, 4}), 8);
    lh_swap_bytes(bytes, 4, 2);
    ck_assert_mem_eq(bytes, ((unsigned char[]){6, 5, 8, 7, 2, 1, 4, 3}), 8);
    uint32_t value = 0x01020304;
    lh_little_endian(&value, 1, 4);
    ck_assert_mem_eq(&value, ((unsigned char[]){4, 3, 2, 1}), 4);
}
END_TEST

/* ---- whole tensors -------------------------------------------------------------------------- */

/* [B,H,N,d] out of memory laid out as [B,N,H,d]. */
static lh_tensor tokens_first(void *data, lh_dtype dtype, int64_t b, int64_t h, int64_t n, int64_t d)
{
    return (lh_tensor){data, dtype, 4, {b, h, n, d}, {n * h * d, d, h * d, 1}};
}

START_TEST(strided_copy)
{
    enum {
        B = 2,
        H = 3,
        N = 5,
        D = 7
    };
    float source[B * N * H * D];
    double packed[B * H * N * D];
    uint16_t back[B * N * H * D];
    for (int i = 0; i < B * N * H * D; i++)
        source[i] = (float)(i % 251);
    lh_error error;
    const lh_tensor src = tokens_first(source, LH_F32, B, H, N, D);
    const lh_tensor dst = {packed, LH_F64, 4, {B, H, N, D}, {H * N * D, N * D, D, 1}};
    const lh_tensor again = tokens_first(back, LH_BF16, B, H, N, D);
    expect_status(lh_tensor_convert(&dst, &src, &error), LH_OK, &error, "");
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int n = 0; n < N; n++)
                for (int d = 0; d < D; d++)
                    ck_assert(packed[((b * H + h) * N + n) * D + d] ==
                              (double)source[((b * N + n) * H + h) * D + d]);
    expect_status(lh_tensor_convert(&again, &dst, &error), LH_OK, &error, "");
    for (int i = 0; i < B * N * H * D; i++)
        ck_assert(lh_load(back, LH_BF16, i) == (double)source[i]);
}
END_TEST

START_TEST(integers)
{
    int64_t wide[] = {INT32_MIN, -1, INT32_MAX};
    int32_t narrowed[3] = {7, 7, 7};
    lh_error error;
    lh_tensor src = {wide, LH_I64, 1, {3}, {1}};
    const lh_tensor dst = {narrowed, LH_I32, 1, {3}, {1}};
    expect_status(lh_tensor_convert(&dst, &src, &error), LH_OK, &error, "");
    ck_assert_int_eq(narrowed[0], INT32_MIN);
    ck_assert_int_eq(narrowed[2], INT32_MAX);
    expect_status(lh_tensor_convert(&src, &dst, &error), LH_OK, &error, "");
    ck_assert_int_eq(wide[1], -1);
    wide[0] = 5;
    wide[2] = INT64_C(1) << 31;
    expect_status(lh_tensor_convert(&dst, &src, &error), LH_INVALID, &error,
                  "src[2] is 2147483648, wanted a value that I32 holds");
    ck_assert_int_eq(narrowed[0], INT32_MIN); /* untouched */
    src.dtype = LH_F64;
    expect_status(lh_tensor_convert(&dst, &src, &error), LH_INVALID, &error,
                  "dst is I32, wanted a floating type");
}
END_TEST

START_TEST(refused)
{
    float data[6];
    lh_error error;
    const lh_tensor good = {data, LH_F32, 2, {2, 3}, {3, 1}};
    expect_status(lh_tensor_convert(NULL, &good, &error), LH_INVALID, &error, "dst is NULL");
    expect_status(lh_tensor_convert(&good, NULL, &error), LH_INVALID, &error, "src is NULL");
    lh_tensor bad = good;
    bad.data = NULL;
    expect_status(lh_tensor_convert(&good, &bad, &error), LH_INVALID, &error, "src has data NULL");
    bad = good, bad.rank = 5;
    expect_status(lh_tensor_convert(&good, &bad, &error), LH_INVALID, &error,
                  "src has rank 5, wanted 0 to 4");
    bad = good, bad.rank = 1, bad.stride[0] = 1;
    expect_status(lh_tensor_convert(&bad, &good, &error), LH_INVALID, &error,
                  "dst has rank 1, wanted src's 2");
    bad = good, bad.shape[1] = 2;
    expect_status(lh_tensor_convert(&bad, &good, &error), LH_INVALID, &error,
                  "dst has size 2 in dimension 1, wanted src's 3");
    bad = good, bad.shape[0] = -1;
    expect_status(lh_tensor_convert(&bad, &good, &error), LH_INVALID, &error,
                  "dst has size -1 in dimension 0");
    bad = good, bad.stride[1] = 2;
    expect_status(lh_tensor_convert(&bad, &good, &error), LH_INVALID, &error,
                  "dst has stride 2 in dimension 1, wanted 1");
    bad = good, bad.stride[0] = -3;
    expect_status(lh_tensor_convert(&bad, &good, &error), LH_INVALID, &error,
                  "dst has stride -3 in dimension 0");
    bad = good, bad.dtype = LH_DTYPE_COUNT;
    expect_status(lh_tensor_convert(&bad, &good, &error), LH_INVALID, &error, "dst has dtype 6");
    bad = good, bad.shape[0] = INT64_MAX / 8;
    expect_status(lh_tensor_finite(&bad, "q", &error), LH_INVALID, &error, "wanted fewer than 2^63 bytes");
}
END_TEST

START_TEST(finite_values)
{
    static unsigned char data[2 * 3 * 5 * 4 * 8];
    static const char *const names[] = {"NaN", "Inf", "-Inf"};
    const double values[] = {NAN, INFINITY, -INFINITY};
    lh_error error;
    const lh_dtype dtype = (lh_dtype)_i;
    lh_tensor tensor = tokens_first(data, dtype, 2, 3, 5, 4);
    for (int64_t i = 0; i < 120; i++) /* largest and subnormal values are finite */
        lh_store(data, dtype, i, i % 2 ? 65504 * 0.99 : 0x1p-24);
    expect_status(lh_tensor_finite(&tensor, "q", &error), LH_OK, &error, "");
    for (int i = 0; i < 3; i++) {
        char wanted[64];
        lh_store(data, dtype, lh_offset(&tensor, 1, 2, 3) + 2, values[i]);
        snprintf(wanted, sizeof wanted, "q[1,2,3,2] is %s, wanted a finite value", names[i]);
        expect_status(lh_tensor_finite(&tensor, "q", &error), LH_INVALID, &error, wanted);
    }
    lh_store(data, dtype, lh_offset(&tensor, 0, 2, 4) + 3, NAN); /* row-major first, though later in memory */
    expect_status(lh_tensor_finite(&tensor, "dout", &error), LH_INVALID, &error, "dout[0,2,4,3] is NaN");
    tensor = (lh_tensor){data, LH_I32, 1, {30}, {1}};
    expect_status(lh_tensor_finite(&tensor, "index", &error), LH_OK, &error, "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("convert");
    TCase *halves = suite_case(suite, "halves");
    tcase_add_loop_test(halves, round_trip, 0, 2);
    tcase_add_loop_test(halves, ties, 0, 2);
    tcase_add_loop_test(halves, nearest, 0, 2);
    tcase_add_loop_test(halves, no_double_rounding, 0, 2);
    TCase *arrays_case = suite_case(suite, "arrays");
    tcase_add_test(arrays_case, to_single);
    tcase_add_test(arrays_case, arrays);
    tcase_add_test(arrays_case, byte_order);
    TCase *whole = suite_case(suite, "tensors");
    tcase_add_test(whole, strided_copy);
    tcase_add_test(whole, integers);
    tcase_add_test(whole, refused);
    tcase_add_loop_test(whole, finite_values, LH_F64, LH_BF16 + 1);
    return suite_run(suite);
}
