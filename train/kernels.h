/*
 * kernels.h: the decoder's arithmetic on the processor, which other tables are held against.
 *
 * Every kernel shares its work out over OpenMP threads in pieces whose number depends on the shapes alone, so the bits
 * do not depend on the thread count.
 */
#ifndef TRAIN_KERNELS_H
#define TRAIN_KERNELS_H

#include "train/real.h"

extern const lh_arithmetic host_arithmetic;

enum {
    HOST_BLOCK =
        1024 /* rows whose sums are the unit of all sums over rows: bits do not depend on how many are worked on */
};
/* Rows worth working on at a time with this many threads: a multiple of HOST_BLOCK. Few keep a block in the cache; with many,
 * threads would mostly wait for one another. */
int64_t host_rows(void);

/* Before the first product: loads BLAS, on one thread a call, since the sharing out is ours. */
lh_status product_prepare(lh_error *error);
/* product.c: lh_arithmetic.product */
void host_product(const lh_arithmetic *on, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                  int64_t k, const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c,
                  int64_t ldc);

/* elements.c: those of lh_arithmetic */
void host_to_bf16(const lh_arithmetic *on, int64_t n, const real *from, uint16_t *to);
void host_from_bf16(const lh_arithmetic *on, int64_t n, const uint16_t *from, real *to);
void host_round_bf16(const lh_arithmetic *on, int64_t n, const real *from, real *to);
lh_status host_length(const lh_arithmetic *on, int64_t n, const real *x, double *length, lh_error *error);
void host_adam(const lh_arithmetic *on, int64_t n, const lh_adam_step *step, real *gradient, real *m, real *v,
               real *w);

/* cosines, sines: [tokens, dim/2] of the angle position * base^(-2i/dim) */
void rotary_table(int64_t tokens, int64_t dim, double base, real *cosines, real *sines);

#endif
