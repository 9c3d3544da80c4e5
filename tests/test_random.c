/* Philox4x32-10 against its authors' known answers, and the draws made from it against their distributions.
 */
#include <math.h>
#include <stdlib.h>

#include "core/hash.h"
#include "core/random.h"
#include "tests/suite.h"

enum {
    DRAWS = 1 << 18
};

/* kat_vectors of Random123 1.14: counter[4], key[2], output[4]. */
static const uint32_t known[][10] = {
    {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
    {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e,
     0xa20bc7c6, 0x6d5451fd},
    {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb,
     0x5001e420, 0x24126ea1},
};

START_TEST(known_answers)
{
    const uint32_t *row = known[_i];
    uint32_t out[4];
    lh_random_block((uint64_t)row[5] << 32 | row[4], (uint64_t)row[3] << 32 | row[2],
                    (uint64_t)row[1] << 32 | row[0], out);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(out[i], row[6 + i]);
}
END_TEST

START_TEST(uniform_words)
{
    uint32_t block[4];
    for (uint64_t i = 0; i < 64; i++) {
        lh_random_block(7, 3, i / 4, block);
        ck_assert(lh_random_uniform(7, 3, i) == ldexp((double)block[i % 4], -32));
    }
}
END_TEST

START_TEST(uniform_distribution)
{
    double sum = 0, squares = 0;
    int outside = 0; /* counted, since Check writes a line for every assertion */
    for (uint64_t i = 0; i < DRAWS; i++) {
        const double u = lh_random_uniform(1, 0, i);
        outside += !(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
    }
    ck_assert_int_eq(outside, 0);
    /* 5 standard errors */
    ck_assert_double_le(fabs(sum / DRAWS - 0.5), 5 * sqrt(1.0 / 12 / DRAWS));
    ck_assert_double_le(fabs(squares / DRAWS - 1.0 / 3), 5 * sqrt(4.0 / 45 / DRAWS));
}
END_TEST

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

START_TEST(gaussian_distribution)
{
    double *x = malloc(DRAWS * sizeof *x);
    double moment[5] = {0};
    int outside = 0, inexact = 0;
    ck_assert_ptr_nonnull(x);
    for (uint64_t i = 0; i < DRAWS; i++) {
        x[i] = lh_random_gaussian(2, 9, i);
        inexact += (double)(float)x[i] != x[i];
        outside += !(fabs(x[i]) <= 6);
        for (int n = 1; n <= 4; n++)
            moment[n] += pow(x[i], n) / DRAWS;
    }
    ck_assert_int_eq(inexact, 0);
    ck_assert_int_eq(outside, 0);
    /* The fourth moment of a sum of 12 uniforms is 3 - 1/10. */
    ck_assert_double_le(fabs(moment[1]), 5 * sqrt(1.0 / DRAWS));
    ck_assert_double_le(fabs(moment[2] - 1), 5 * sqrt(2.0 / DRAWS));
    ck_assert_double_le(fabs(moment[3]), 5 * sqrt(15.0 / DRAWS));
    ck_assert_double_le(fabs(moment[4] - 2.9), 5 * sqrt(96.0 / DRAWS));
    /* Kolmogorov and Smirnov: this sum is within 0.0025 of the Gaussian; 1.95/sqrt(n) is the 0.1 % point. */
    qsort(x, DRAWS, sizeof *x, ascending);
    double worst = 0;
    for (int i = 0; i < DRAWS; i++)
        worst = fmax(worst, fabs(0.5 * erfc(-x[i] / sqrt(2)) - (i + 0.5) / DRAWS));
    ck_assert_double_le(worst, 0.0025 + 1.95 / sqrt(DRAWS));
    free(x);
}
END_TEST

/* Draws with other seeds, streams and neighbours have nothing to do with each other. */
START_TEST(independence)
{
    double products[4] = {0};
    for (uint64_t i = 0; i < DRAWS; i++) {
        const double x = lh_random_gaussian(5, 1, i);
        products[0] += x * lh_random_gaussian(5, 2, i) / DRAWS;
        products[1] += x * lh_random_gaussian(6, 1, i) / DRAWS;
        products[2] += x * lh_random_gaussian(5, 1, i + 1) / DRAWS;
        products[3] += x * lh_random_gaussian(5, UINT64_C(1) << 32 | 1, i) / DRAWS;
    }
    for (int i = 0; i < 4; i++)
        ck_assert_double_le(fabs(products[i]), 5 / sqrt(DRAWS));
}
END_TEST

/* Test vectors are drawn with these functions: what they give may never change. */
START_TEST(pinned)
{
    float draws[4096];
    char hash[65];
    for (uint64_t i = 0; i < 4096; i++)
        draws[i] = (float)lh_random_gaussian(UINT64_C(0x0123456789abcdef), 42, i);
    const lh_tensor tensor = {draws, LH_F32, 1, {4096}, {1}};
    lh_tensor_sha256(&tensor, hash);
    ck_assert_str_eq(hash, "80d6f17ce2600fccf84574fbfd7efb40e6d43cc7c23c15a59dc47c3dd34a2b52");
}
END_TEST

START_TEST(sha256)
{
    char hash[65];
    lh_sha256_hex("abc", 3, hash); /* FIPS 180-2, appendix B.1 */
    ck_assert_str_eq(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const int32_t abba[2][3] = {{1, 2, 3}, {4, 5, 6}};
    const unsigned char columns[] = {1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0};
    char wanted[65];
    lh_sha256_hex(columns, sizeof columns, wanted);
    const lh_tensor left = {(void *)abba, LH_I32, 2, {2, 2}, {3, 1}};
    lh_tensor_sha256(&left, hash);
    ck_assert_str_eq(hash, wanted);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random");
    TCase *philox = suite_case(suite, "philox");
    tcase_add_loop_test(philox, known_answers, 0, sizeof known / sizeof *known);
    tcase_add_test(philox, uniform_words);
    tcase_add_test(philox, pinned);
    TCase *distribution = suite_case(suite, "distribution");
    tcase_add_test(distribution, uniform_distribution);
    tcase_add_test(distribution, gaussian_distribution);
    tcase_add_test(distribution, independence);
    tcase_add_test(suite_case(suite, "hash"), sha256);
    return suite_run(suite);
}
