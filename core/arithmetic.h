/*
 * arithmetic.h: what a decoder computes around its attention, in the memory of the device that computes it.
 *
 * train/ runs on one such table, the processor's or that of a backend that offers one (backend.h), and never follows a
 * pointer that `take` gave. Matrices are row-major [rows, width] of lh_real unless a line says otherwise. Work is done in the
 * order of the calls; a backend's may return before it is done. What fails then is told once, by the next `get` or `wait`,
 * and nothing is computed in between. The same calls give the same bits.
 */
#ifndef LH_ARITHMETIC_H
#define LH_ARITHMETIC_H

#include "core/base.h"

/* double where the gradient test compiles train/ once more: the processor's table alone has that. */
#ifdef LH_DOUBLE
typedef double lh_real;
#else
typedef float lh_real;
#endif

/* A moment in the order of the work; zeroed before its first use. */
typedef struct lh_mark {
    double seconds;
    void *event;
} lh_mark;

/* What a step of AdamW does to a parameter: m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2 of g = clip * gradient, then
 * w = keep w - by_first m / (sqrt(by_second v) + 1e-8). */
typedef struct lh_adam_step {
    lh_real b1, b2, by_first, by_second, keep, clip;
} lh_adam_step;

typedef struct lh_arithmetic lh_arithmetic;
struct lh_arithmetic {
    char products[64]; /* whose products, "cuBLAS 13.1.0"; "": the processor's */
    bool
        host; /* its memory is the host's, and attention's tensors are LH_HOST; else LH_ON_DEVICE, in `stream` */
    void *stream;        /* of lh_options */
    int64_t block;       /* rows that are worked on at a time */
    int64_t norm_groups; /* sums over rows that norm_backward keeps apart, for every `block` of them */
    void *state;         /* the table's own */
    void (*close)(const lh_arithmetic *on);

    /* Memory: contents undefined; `what` for the error. LH_OK, LH_NO_MEMORY, LH_DEVICE. NULL is given back for nothing. */
    lh_status (*take)(const lh_arithmetic *on, size_t bytes, const char *what, void **memory,
                      lh_error *error);
    void (*give)(const lh_arithmetic *on, void *memory);
    /* host: may be written again when put returns, may be read when get does. */
    void (*put)(const lh_arithmetic *on, void *to, const void *host, size_t bytes);
    lh_status (*get)(const lh_arithmetic *on, void *host, const void *from, size_t bytes, lh_error *error);
    void (*copy)(const lh_arithmetic *on, void *to, const void *from, size_t bytes);
    void (*zero)(const lh_arithmetic *on, void *to, size_t bytes);
    /* For all that was called before. */
    lh_status (*wait)(const lh_arithmetic *on, lh_error *error);

    void (*mark)(const lh_arithmetic *on, lh_mark *at);
    /* Seconds from one mark to another, both waited for. */
    double (*between)(const lh_arithmetic *on, const lh_mark *from, const lh_mark *to);
    void (*unmark)(const lh_arithmetic *on, lh_mark *at);

    /* C[m,n] = beta C + op(A) op(B), op(A): [m,k], op(B): [k,n]; leading dimensions as stored. */
    void (*product)(const lh_arithmetic *on, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                    int64_t k, const lh_real *a, int64_t lda, const lh_real *b, int64_t ldb, lh_real beta,
                    lh_real *c, int64_t ldc);

    /* y = w * x / sqrt(mean(x^2) + 1e-5), row by row. x, y: [rows, width], w: [width] */
    void (*norm_forward)(const lh_arithmetic *on, int64_t rows, int64_t width, const lh_real *x,
                         const lh_real *w, lh_real *y);
    /* dx += d(loss)/dx, dw += d(loss)/dw. dy, x, dx: [rows, width], w, dw: [width], partial: scratch
     * [norm_groups, width] for every `block` of rows */
    void (*norm_backward)(const lh_arithmetic *on, int64_t rows, int64_t width, const lh_real *dy,
                          const lh_real *x, const lh_real *w, lh_real *dx, lh_real *dw, lh_real *partial);

    /* Rotates the pairs (i, i + dim/2) of `heads` neighbouring heads in place, by the negative angle in the backward.
     * x: [rows, stride]; row r is token (first + r) mod tokens; cosines, sines: [tokens, dim/2] */
    void (*rotary)(const lh_arithmetic *on, int64_t rows, int64_t stride, int64_t heads, int64_t dim,
                   int64_t first, int64_t tokens, const lh_real *cosines, const lh_real *sines, bool backward,
                   lh_real *x);

    /* y = silu(gate) * up. gate_up: [rows, 2 hidden] (gate first), y: [rows, hidden] */
    void (*swiglu_forward)(const lh_arithmetic *on, int64_t rows, int64_t hidden, const lh_real *gate_up,
                           lh_real *y);
    /* Overwrites d_gate_up. */
    void (*swiglu_backward)(const lh_arithmetic *on, int64_t rows, int64_t hidden, const lh_real *dy,
                            const lh_real *gate_up, lh_real *d_gate_up);

    /* losses[r] = -log softmax(logits[r])[targets[r]]; logits become scale * (softmax - onehot). targets: bytes [rows],
     * logits: [rows, 256], losses: [rows] */
    void (*cross_entropy)(const lh_arithmetic *on, int64_t rows, const uint8_t *targets, lh_real scale,
                          lh_real *logits, double *losses);

    /* x[r] = table[bytes[r]]; table: [256, width], x: [rows, width] */
    void (*embed)(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                  const lh_real *table, lh_real *x);
    /* table[bytes[r]] += dx[r] */
    void (*embed_backward)(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                           const lh_real *dx, lh_real *table);

    /* bfloat16, to nearest, ties to even; finite values only reach here. */
    void (*to_bf16)(const lh_arithmetic *on, int64_t n, const lh_real *from, uint16_t *to);
    void (*from_bf16)(const lh_arithmetic *on, int64_t n, const uint16_t *from, lh_real *to);
    /* to = bf16(from), kept as lh_real. */
    void (*round_bf16)(const lh_arithmetic *on, int64_t n, const lh_real *from, lh_real *to);

    /* Root of the sum of x^2, which is waited for. x: [n] */
    lh_status (*length)(const lh_arithmetic *on, int64_t n, const lh_real *x, double *length,
                        lh_error *error);
    /* A parameter's step; the gradient becomes 0. gradient, m, v, w: [n] */
    void (*adam)(const lh_arithmetic *on, int64_t n, const lh_adam_step *step, lh_real *gradient, lh_real *m,
                 lh_real *v, lh_real *w);
};

#endif
