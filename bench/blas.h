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
} blas_calls;

/* LH_UNSUPPORTED where there is no OpenBLAS to load. The first call is not made by two threads at once. */
lh_status blas_load(lh_error *error);
/* Of a library that was loaded. */
extern blas_calls blas;
/* What it says of itself, or NULL when it is not loaded. */
const char *blas_version(void);

#endif
