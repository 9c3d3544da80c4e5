/*
 * kernels.h: the row-wise operations of the decoder, each forward and backward.
 *
 * Matrices are row-major [rows, width]. Every kernel shares its work out over OpenMP threads in
 * pieces whose number depends on the shapes alone, so the bits do not depend on the thread count.
 */
#ifndef TRAIN_KERNELS_H
#define TRAIN_KERNELS_H

#include "train/real.h"

/* Before the first product: loads BLAS, on one thread a call, since the sharing out is ours. */
lh_status product_prepare(lh_error *error);
/* C[m,n] = beta C + op(A) op(B), op(A): [m,k], op(B): [k,n]; leading dimensions as stored. */
void product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const real *a, int64_t lda,
             const real *b, int64_t ldb, real beta, real *c, int64_t ldc);

/* y = w * x / sqrt(mean(x^2) + 1e-5), row by row. x, y: [rows, width], w: [width] */
void norm_forward(int64_t rows, int64_t width, const real *x, const real *w, real *y);
/* dx += d(loss)/dx, dw += d(loss)/dw. dy, x, dx: [rows, width], w, dw: [width],
 * partial: scratch [NORM_GROUPS, width] */
enum {
    NORM_GROUPS = 8
}; /* partial sums over rows: a fixed number, whatever the threads */
void norm_backward(int64_t rows, int64_t width, const real *dy, const real *x, const real *w, real *dx,
                   real *dw, real *partial);

/* cosines, sines: [tokens, dim/2] of the angle position * base^(-2i/dim) */
void rotary_table(int64_t tokens, int64_t dim, double base, real *cosines, real *sines);
/* Rotates the pairs (i, i + dim/2) of `heads` neighbouring heads in place, by the negative angle in the
 * backward. x: [rows, stride]; row r is token (first + r) mod tokens. */
void rotary(int64_t rows, int64_t stride, int64_t heads, int64_t dim, int64_t first, int64_t tokens,
            const real *cosines, const real *sines, bool backward, real *x);

/* y = silu(gate) * up. gate_up: [rows, 2 hidden] (gate first), y: [rows, hidden] */
void swiglu_forward(int64_t rows, int64_t hidden, const real *gate_up, real *y);
/* Overwrites d_gate_up. */
void swiglu_backward(int64_t rows, int64_t hidden, const real *dy, const real *gate_up, real *d_gate_up);

/* losses[r] = -log softmax(logits[r])[targets[r]]; logits become
 * scale * (softmax - onehot). logits: [rows, width] */
void cross_entropy(int64_t rows, int64_t width, const uint8_t *targets, real scale, real *logits,
                   double *losses);

/* bfloat16, to nearest, ties to even; finite values only reach here. */
void to_bf16(int64_t n, const real *from, uint16_t *to);
void from_bf16(int64_t n, const uint16_t *from, real *to);
/* to = bf16(from), kept as real. */
void round_bf16(int64_t n, const real *from, real *to);

#endif
