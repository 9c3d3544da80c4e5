/* The processor's products: BLAS on slabs, one thread each. */
#include "train/kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum {
    SLAB = 128,            /* rows or columns of a product that one thread owns */
    LITTLE_WORK = 1 << 20, /* multiplications that are not worth waking threads for */
    MOST_BLOCKS = 16,
};

lh_status product_prepare(lh_error *error)
{
#ifdef _OPENMP
    /* OpenBLAS built on OpenMP sets OpenMP's own number of threads along with its own, when it is loaded too. */
    const int threads = omp_get_max_threads();
#endif
    const lh_status status = blas_load(error);
    if (status == LH_OK)
        blas.set_threads(1);
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
    return status;
}

int64_t host_rows(void)
{
#ifdef _OPENMP
    const int64_t blocks = omp_get_max_threads() / 2;
#else
    const int64_t blocks = 1;
#endif
    return HOST_BLOCK * (blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks);
}

/* Within a parallel region, one that `if` has made serial too: OpenBLAS built on OpenMP takes omp_get_max_threads()
 * threads for a product wherever no more than one thread is at work, and the bits would depend on their number. The
 * setting is this region's alone. */
static void product_alone(void)
{
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
}

/* A product, and how it is shared out: rows of op(A) block by block, where they are tokens, each by slabs of its longer side. */
struct shared {
    bool transpose_a, transpose_b;
    int64_t m, n, k;
    const real *a, *b;
    int64_t lda, ldb;
    real beta;
    real *c;
    int64_t ldc;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* C's rows x columns at (row, column). The sum over tokens goes block by block, as if each were a call of its own. */
static void multiply(const struct shared *p, int64_t row, int64_t rows, int64_t column, int64_t columns)
{
    const enum CBLAS_TRANSPOSE ta = p->transpose_a ? CblasTrans : CblasNoTrans;
    const enum CBLAS_TRANSPOSE tb = p->transpose_b ? CblasTrans : CblasNoTrans;
    const int64_t step = p->transpose_a ? HOST_BLOCK : p->k;
    for (int64_t inner = 0; inner < p->k; inner += step)
        REAL_GEMM(CblasRowMajor, ta, tb, (int)rows, (int)columns, (int)least(step, p->k - inner), 1,
                  p->a + (p->transpose_a ? inner * p->lda + row : row * p->lda), (int)p->lda,
                  p->b + (p->transpose_b ? column * p->ldb + inner : inner * p->ldb + column), (int)p->ldb,
                  inner > 0 ? 1 : p->beta, p->c + row * p->ldc + column, (int)p->ldc);
}

void host_product(const lh_arithmetic *on, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                  int64_t k, const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c,
                  int64_t ldc)
{
    const struct shared p = {transpose_a, transpose_b, m, n, k, a, b, lda, ldb, beta, c, ldc};
    const int64_t block = transpose_a ? m : least(m, HOST_BLOCK), blocks = (m + block - 1) / block;
    const int64_t slabs = ((block >= n ? block : n) + SLAB - 1) / SLAB;
    (void)on;
#pragma omp parallel for schedule(dynamic) if (m * n * k > LITTLE_WORK)
    for (int64_t task = 0; task < blocks * slabs; task++) {
        const int64_t row = task / slabs * block, rows = least(block, m - row);
        const int64_t first = task % slabs * SLAB;
        product_alone();
        if (rows >= n && first < rows)
            multiply(&p, row + first, least(SLAB, rows - first), 0, n);
        else if (rows < n && first < n)
            multiply(&p, row, rows, first, least(SLAB, n - first));
    }
}
