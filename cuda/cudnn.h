/* cudnn.h: attention by cuDNN's graph API, looked for when a plan is made, never needed to build or load. */
#ifndef LH_CUDA_CUDNN_H
#define LH_CUDA_CUDNN_H

#include "cuda/cuda.h"

typedef struct lh_cudnn lh_cudnn;

/* Plans forward, and backward where asked, for q k v o [B,H,S,d] in F16 or BF16. LH_UNSUPPORTED when cuDNN is
 * not there or has no engine for the shape. Adds the device bytes it takes to *bytes. */
lh_status lh_cudnn_create(const lh_shape *shape, bool backward, lh_cudnn **cudnn, size_t *bytes,
                          lh_error *error);
void lh_cudnn_destroy(lh_cudnn *cudnn);
lh_status lh_cudnn_attend(lh_cudnn *cudnn, const lh_attend *a, cudaStream_t stream, lh_error *error);
lh_status lh_cudnn_attend_backward(lh_cudnn *cudnn, const lh_attend *a, cudaStream_t stream, lh_error *error);

#endif
