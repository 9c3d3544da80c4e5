/*
 * decoder.h: the kernels of a decoder's arithmetic; core/arithmetic.h has shapes and equations.
 *
 * Every launcher enqueues on `stream` and returns the launch's status. All sums have an order that the shapes alone decide.
 */
#ifndef LH_CUDA_DECODER_H
#define LH_CUDA_DECODER_H

#include "core/arithmetic.h"
#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LH_CUDA_BLOCK = 16384,    /* rows at a time, at most */
    LH_CUDA_NORM_GROUPS = 64, /* sums over rows kept apart */
    LH_CUDA_LENGTH_PARTS = 1024
};

/* decoder_rows.cu */
cudaError_t lh_cuda_norm_forward(int64_t rows, int64_t width, const float *x, const float *w, float *y,
                                 cudaStream_t stream);
/* scales: scratch [rows] */
cudaError_t lh_cuda_norm_backward(int64_t rows, int64_t width, const float *dy, const float *x,
                                  const float *w, float *dx, float *dw, float *partial, float *scales,
                                  cudaStream_t stream);
cudaError_t lh_cuda_cross_entropy(int64_t rows, const uint8_t *targets, float scale, float *logits,
                                  double *losses, cudaStream_t stream);
cudaError_t lh_cuda_embed(int64_t rows, int64_t width, const uint8_t *bytes, const float *table, float *x,
                          cudaStream_t stream);
cudaError_t lh_cuda_embed_backward(int64_t rows, int64_t width, const uint8_t *bytes, const float *dx,
                                   float *table, cudaStream_t stream);

/* decoder_elements.cu */
cudaError_t lh_cuda_rotary(int64_t rows, int64_t stride, int64_t heads, int64_t dim, int64_t first,
                           int64_t tokens, const float *cosines, const float *sines, bool backward, float *x,
                           cudaStream_t stream);
cudaError_t lh_cuda_swiglu(int64_t rows, int64_t hidden, const float *gate_up, float *y, cudaStream_t stream);
cudaError_t lh_cuda_swiglu_backward(int64_t rows, int64_t hidden, const float *dy, const float *gate_up,
                                    float *d_gate_up, cudaStream_t stream);
cudaError_t lh_cuda_to_bf16(int64_t n, const float *from, uint16_t *to, cudaStream_t stream);
cudaError_t lh_cuda_from_bf16(int64_t n, const uint16_t *from, float *to, cudaStream_t stream);
cudaError_t lh_cuda_round_bf16(int64_t n, const float *from, float *to, cudaStream_t stream);
cudaError_t lh_cuda_adam(int64_t n, const lh_adam_step *step, float *gradient, float *m, float *v, float *w,
                         cudaStream_t stream);
/* sums: scratch [LH_CUDA_LENGTH_PARTS + 1], whose last receives the sum of squares. */
cudaError_t lh_cuda_squares(int64_t n, const float *x, double *sums, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
