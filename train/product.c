/* The processor's products: BLAS on slabs, one thread each. */
#include "train/kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum {
    SLAB = 128,            /* rows or columns of a product that one thread owns */
    LITTLE_WORK = 1 << 20, /* multiplications that are not worth waking threads for */
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

/* Within a parallel region, one that `if` has made serial too: OpenBLAS built on OpenMP takes omp_get_max_threads()
 * threads for a product wherever no more than one thread is at work, and the bits would depend on their number. The
 * setting is this region's alone. */
static void product_alone(void)
{
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
}

void host_product(const lh_arithmetic *on, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                  int64_t k, const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c,
                  int64_t ldc)
{
    (void)on;
    const enum CBLAS_TRANSPOSE ta = transpose_a ? CblasTrans : CblasNoTrans;
    const enum CBLAS_TRANSPOSE tb = transpose_b ? CblasTrans : CblasNoTrans;
    const bool by_rows = m >= n;
    const int64_t slabs = ((by_rows ? m : n) + SLAB - 1) / SLAB;
#pragma omp parallel for schedule(dynamic) if (m * n * k > LITTLE_WORK)
    for (int64_t s = 0; s < slabs; s++) {
        const int64_t first = s * SLAB;
        const int64_t length = (by_rows ? m : n) - first < SLAB ? (by_rows ? m : n) - first : SLAB;
        product_alone();
        if (by_rows)
            REAL_GEMM(CblasRowMajor, ta, tb, (int)length, (int)n, (int)k, 1,
                      a + first * (transpose_a ? 1 : lda), (int)lda, b, (int)ldb, beta, c + first * ldc,
                      (int)ldc);
        else
            REAL_GEMM(CblasRowMajor, ta, tb, (int)m, (int)length, (int)k, 1, a, (int)lda,
                      b + first * (transpose_b ? ldb : 1), (int)ldb, beta, c + first, (int)ldc);
    }
}
