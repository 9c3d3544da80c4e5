/*
 * blas.h: OpenBLAS, loaded when a product first needs it: starting it takes threads and memory that most commands
 * never use.
 */
#ifndef LH_BENCH_BLAS_H
#define LH_BENCH_BLAS_H

#include <cblas.h> /* OpenBLAS, for its types */

#include "lighthouse.h"

typedef struct blas_calls {
    __typeof__(cblas_sgemm) *sgemm;
    __typeof__(cblas_dgemm) *dgemm;
    __typeof__(openblas_set_num_threads) *set_threads;
    __typeof__(openblas_get_num_threads) *get_threads;
    __typeof__(openblas_get_config) *config;
    __typeof__(openblas_get_corename) *core;
} blas_calls;

/*
 * OpenBLAS has kernels for each kind of processor, and takes its oldest where it does not know the one it runs on: a tenth of
 * the speed. Then it is loaded once more with kernels that the processor can run, unless the user has chosen
 * (OPENBLAS_CORETYPE). LH_UNSUPPORTED where there is no OpenBLAS to load. The first call is not made by two threads at once.
 */
lh_status blas_load(lh_error *error);
/* Of a library that was loaded. */
extern blas_calls blas;
/* What it says of itself, or NULL when it is not loaded. */
const char *blas_version(void);
/* The processor that its kernels are for, "SkylakeX"; "" when it is not loaded. */
const char *blas_core(void);
/* The kernels to ask for in place of those of `core`: NULL where those are as new as a processor with AVX2 and FMA, or AVX-512 too,
 * can run, or where they are not for x86-64. */
const char *blas_newer(const char *core, bool avx2, bool avx512);

#endif
