/* However many rows are worked on at a time, and by however many threads: the same bits. */
#ifdef _OPENMP
#include <omp.h>
#endif
#include <string.h>

#include "core/random.h"
#include "tests/suite.h"
#include "train/kernels.h"
#include "train/settings.h"

enum {
    ROWS = 4 * HOST_BLOCK + 77, /* the last block is a part of one */
    WIDE = 300,
    NARROW = 130,
    GROUPS = (ROWS / HOST_BLOCK + 1) * 8
};
static real a[ROWS * WIDE], b[ROWS * NARROW], weights[WIDE * NARROW], partial[GROUPS * WIDE];
static real whole[ROWS * WIDE], pieces[ROWS * WIDE];

static void fill(real *to, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (real)lh_random_gaussian(seed, 0, (uint64_t)i);
}

static void setup(void)
{
#ifdef _OPENMP
    omp_set_num_threads(3);
#endif
    ck_assert_int_eq(product_prepare(NULL), LH_OK);
    fill(a, ROWS * WIDE, 1);
    fill(b, ROWS * NARROW, 2);
    fill(weights, WIDE * NARROW, 3);
    fill(whole, ROWS * WIDE, 4);
    memcpy(pieces, whole, sizeof whole);
}

static int64_t rows_at(int64_t row)
{
    return ROWS - row < HOST_BLOCK ? ROWS - row : HOST_BLOCK;
}

/* Every way round, each also with a sum longer than a block, against sums in double. */
START_TEST(products_are_right)
{
    enum {
        M = 33,
        N = 21,
        LONG = 2 * HOST_BLOCK + 5
    };
    static const int64_t sums[] = {7, LONG};
    const int64_t k = sums[_i / 8];
    const bool ta = _i & 1, tb = _i & 2;
    const int64_t lda = (ta ? M : k) + 3, ldb = (tb ? k : N) + 5, ldc = N + 1;
    const real beta = _i & 4 ? 1 : 0;
    real c[M * (N + 1)];
    fill(c, M * ldc, 5);
    host_arithmetic.product(&host_arithmetic, ta, tb, M, N, k, a, lda, b, ldb, beta, c, ldc);
    fill(whole, M * ldc, 5); /* what was in c */
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            double sum = (double)beta * (double)whole[i * ldc + j];
            for (int64_t t = 0; t < k; t++)
                sum += (double)a[ta ? t * lda + i : i * lda + t] * (double)b[tb ? j * ldb + t : t * ldb + j];
            ck_assert_double_eq_tol(c[i * ldc + j], sum, 1e-3);
        }
    for (int64_t i = 0; i < M; i++) /* and nothing beside it */
        ck_assert(c[i * ldc + N] == whole[i * ldc + N]);
}
END_TEST

START_TEST(products_of_rows_do)
{
    const lh_arithmetic *on = &host_arithmetic;
    ck_assert_int_eq(on->norm_groups * (ROWS / HOST_BLOCK + 1), GROUPS);
    on->product(on, false, false, ROWS, NARROW, WIDE, a, WIDE, weights, NARROW, 1, whole, NARROW);
    for (int64_t row = 0; row < ROWS; row += HOST_BLOCK)
        on->product(on, false, false, rows_at(row), NARROW, WIDE, a + row * WIDE, WIDE, weights, NARROW, 1,
                    pieces + row * NARROW, NARROW);
    ck_assert_mem_eq(whole, pieces, sizeof whole);
    on->product(on, false, true, ROWS, WIDE, NARROW, b, NARROW, weights, NARROW, 0, whole, WIDE);
    for (int64_t row = 0; row < ROWS; row += HOST_BLOCK)
        on->product(on, false, true, rows_at(row), WIDE, NARROW, b + row * NARROW, NARROW, weights, NARROW, 0,
                    pieces + row * WIDE, WIDE);
    ck_assert_mem_eq(whole, pieces, sizeof whole);
}
END_TEST

START_TEST(sums_over_rows_do)
{
    const lh_arithmetic *on = &host_arithmetic;
    on->product(on, true, false, WIDE, NARROW, ROWS, a, WIDE, b, NARROW, 1, whole, NARROW);
    for (int64_t row = 0; row < ROWS; row += HOST_BLOCK)
        on->product(on, true, false, WIDE, NARROW, rows_at(row), a + row * WIDE, WIDE, b + row * NARROW,
                    NARROW, 1, pieces, NARROW);
    ck_assert_mem_eq(whole, pieces, sizeof whole);
    fill(whole, ROWS * NARROW, 5);
    memcpy(pieces, whole, sizeof whole);
    real dw[2][NARROW] = {{0}};
    on->norm_backward(on, ROWS, NARROW, b, a, weights, whole, dw[0], partial);
    for (int64_t row = 0; row < ROWS; row += HOST_BLOCK)
        on->norm_backward(on, rows_at(row), NARROW, b + row * NARROW, a + row * NARROW, weights,
                          pieces + row * NARROW, dw[1], partial);
    ck_assert_mem_eq(whole, pieces, sizeof whole);
    ck_assert_mem_eq(dw[0], dw[1], sizeof dw[0]);
}
END_TEST

#ifdef _OPENMP
/* Gradients of a step, with the rows at a time that so many threads are given. */
static void gradients_of(int threads, real *gradients, int64_t *rows)
{
    settings s;
    model m;
    pass p;
    double loss;
    static uint8_t bytes[2 * 2304];
    settings_default(&s);
    s.width = 24;
    s.layers = 2;
    s.heads = s.kv_heads = 2;
    s.dim = 8;
    s.hidden = 40;
    s.context = 2304;
    s.batch = s.micro_batch = 2;
    s.topk = 64;
    s.tile_topk = 64;
    const model_shape shape = settings_shape(&s);
    bool dense[MAX_LAYERS] = {false};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(lh_random_uniform(9, 0, i) * 256);
    omp_set_num_threads(threads);
    settings_choose_backend(&s);
    const pass_options o = settings_pass(&s, true, dense);
    ck_assert_int_eq(model_create(&shape, 1, true, &m, NULL), LH_OK);
    ck_assert_int_eq(pass_create(&m, &o, &p, NULL), LH_OK);
    ck_assert_int_eq(pass_forward(&p, bytes, NULL), LH_OK);
    ck_assert_int_eq(pass_backward(&p, bytes, 1, &loss, NULL), LH_OK);
    ck_assert_int_le(m.size, ROWS * WIDE);
    memcpy(gradients, m.gradients, (size_t)m.size * sizeof(real));
    *rows = p.block;
    pass_destroy(&p);
    model_destroy(&m);
}

START_TEST(gradients_do)
{
    int64_t few, many;
    memset(whole, 0, sizeof whole);
    memset(pieces, 0, sizeof pieces);
    gradients_of(1, pieces, &few);
    gradients_of(7, whole, &many);
    ck_assert_int_eq(few, HOST_BLOCK);
    ck_assert_int_eq(many, 3 * HOST_BLOCK);
    ck_assert_mem_eq(whole, pieces, sizeof whole);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("train_blocks");
    TCase *blocks = suite_case(suite, "the same bits");
    tcase_add_checked_fixture(blocks, setup, NULL);
    tcase_add_loop_test(blocks, products_are_right, 0, 16);
    tcase_add_test(blocks, products_of_rows_do);
    tcase_add_test(blocks, sums_over_rows_do);
#ifdef _OPENMP
    tcase_add_test(blocks, gradients_do);
#endif
    return suite_run(suite);
}
