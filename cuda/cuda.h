/*
 * cuda.h: what the host code and the kernels of the CUDA backend share.
 *
 * Every lh_cuda_* launcher enqueues kernels on `stream` and returns the launch's status; none allocates,
 * none waits. Tensors are device addresses. Sub-sequence tensors ([B,H,S,d], [B,H,S]) are contiguous.
 */
#ifndef LH_CUDA_H
#define LH_CUDA_H

#include <cuda_runtime_api.h>

#include "lighthouse.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A [B,heads,rows,d] tensor on the device; strides in elements. */
typedef struct lh_rows {
    void *data;
    int64_t batch_stride, head_stride, row_stride;
} lh_rows;

/* What every kernel may need to know of a plan. */
typedef struct lh_shape {
    int64_t batch, heads, kv_heads, tokens, dim, levels, pool, topk, tile_topk;
    lh_layout layout;
    lh_dtype dtype;
    float scale;         /* 1/sqrt(d) */
    int multiprocessors; /* of the device */
    int shared_bytes;    /* of shared memory a block may ask for */
    int capability;      /* 80, 90, ... */
    int64_t ordered;     /* B*H of the layer whose sums' order is kept, of which the plan may be a part */
} lh_shape;

/* What is made of x [B,heads,N,d]: pyramid (data NULL: no pooling) receives the levels from a first level up,
 * [B,heads,P - offset(first_level),d]; score [B,heads,P] (NULL: none). */
typedef struct lh_pooling {
    lh_rows x;
    int64_t heads;
    void *pyramid;
    float *score;
} lh_pooling;

/* pool_score.cu: one pass over each of up to three tensors. */
cudaError_t lh_cuda_pool_score(const lh_shape *shape, const lh_pooling *of, int count, int first_level,
                               cudaStream_t stream);
/* pool_windows.cu: the same from level 1 up in one launch, for most shapes that people train with. */
bool lh_cuda_has_pool_windows(const lh_shape *shape, const lh_pooling *of, int count);
cudaError_t lh_cuda_pool_windows(const lh_shape *shape, const lh_pooling *of, int count, cudaStream_t stream);

/* select.cu: score_q [B,H,P], score_k [B,G,P] -> index [B,H,S] and slot [B,H,P] (NULL: none), as lh_cuda_slots makes it.
 * `scratch` holds lh_cuda_select_scratch bytes. */
size_t lh_cuda_select_scratch(const lh_shape *shape);
cudaError_t lh_cuda_select(const lh_shape *shape, const float *score_q, const float *score_k, void *index,
                           int32_t *slot, void *scratch, cudaStream_t stream);
/* slots.cu: index [B,H,S] -> slot [B,H,P]: an entry's place in the sub-sequence, -1 where it is absent. */
cudaError_t lh_cuda_slots(const lh_shape *shape, const void *index, int32_t *slot, cudaStream_t stream);

/* gather.cu: rows of the pyramids of q k v -> selected [B,H,S,d] each. Level 0 is read from x when `upper` holds
 * the levels above it only (first_level 1), else everything from `upper` [B,heads,P,d]. upper[2] NULL: rows of v above the
 * tokens are pooled from x[2], which lh_cuda_gather_pools offers: v needs no scores, so that nobody else reads it whole. */
bool lh_cuda_gather_pools(const lh_shape *shape, const lh_rows x[3], void *const selected[3]);
cudaError_t lh_cuda_gather(const lh_shape *shape, const lh_rows x[3], const void *const upper[3],
                           int first_level, const void *index, void *const selected[3], cudaStream_t stream);

/* scatter.cu and unpool.cu */
cudaError_t lh_cuda_scatter(const lh_shape *shape, const void *o_sel, const int32_t *slot, lh_rows out,
                            int32_t *coverage, cudaStream_t stream);
cudaError_t lh_cuda_scatter_backward(const lh_shape *shape, lh_rows dout, const void *index, void *do_sel,
                                     cudaStream_t stream);
typedef struct lh_unpooling {
    const void *dx_sel; /* [B,H,S,d] */
    lh_rows dx;         /* [B,heads,N,d] */
    int64_t heads;
} lh_unpooling;
/* Of dq, dk and dv. */
cudaError_t lh_cuda_unpool(const lh_shape *shape, const lh_unpooling of[3], const int32_t *slot,
                           cudaStream_t stream);

/* attend*.cu: q k v o [B,H,S,d], lse [B,H,S], delta [B,H,S] scratch for D of SPEC 4. */
typedef struct lh_attend {
    const void *q, *k, *v;
    void *o;
    float *lse;
    const void *d_o;
    void *dq, *dk, *dv;
    float *delta;
    void *scratch; /* of lh_cuda_attend_sm90_scratch bytes, for its backward */
} lh_attend;

/* attend.cu: every tensor starts on 16 bytes, as the tensor cores and cuDNN want it (NULL does). */
bool lh_cuda_attend_aligned(const lh_attend *a);
/* The fastest own kernels for the shape. */
cudaError_t lh_cuda_attend(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
cudaError_t lh_cuda_attend_backward(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
/* attend_simt.cu: any dtype, any d, float32 arithmetic. */
cudaError_t lh_cuda_attend_simt(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
cudaError_t lh_cuda_attend_simt_backward(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
/* delta = sum over the columns of d_o * o, for backward. */
cudaError_t lh_cuda_delta(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
/* attend_mma.cu: tensor cores, where the dtype and d have them. */
bool lh_cuda_has_mma(const lh_shape *shape);
cudaError_t lh_cuda_attend_mma(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
cudaError_t lh_cuda_attend_mma_backward(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
/* attend_sm90*.cu: by Hopper's asynchronous tensor-core products and bulk copies. */
bool lh_cuda_has_sm90(const lh_shape *shape);
cudaError_t lh_cuda_attend_sm90(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);
size_t lh_cuda_attend_sm90_scratch(const lh_shape *shape);
cudaError_t lh_cuda_attend_sm90_backward(const lh_shape *shape, const lh_attend *a, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
