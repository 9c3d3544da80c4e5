/* cudnn.h: attention by cuDNN's graph API, looked for when a plan is made, never needed to build or load. */
#ifndef LH_CUDA_CUDNN_H
#define LH_CUDA_CUDNN_H

#include "core/arena.h"
#include "cuda/cuda.h"

typedef struct lh_cudnn lh_cudnn;

/* Plans forward, and backward where asked, for q k v o [B,H,S,d] in F16 or BF16. LH_UNSUPPORTED when cuDNN is
 * not there or has no engine for the shape. */
lh_status lh_cudnn_create(const lh_shape *shape, bool backward, lh_cudnn **cudnn, lh_error *error);
/* Its device memory for forward, for backward, or for both. NULL: takes none. */
void lh_cudnn_take(lh_cudnn *cudnn, bool forward, bool backward, lh_arena *arena);
void lh_cudnn_destroy(lh_cudnn *cudnn);
lh_status lh_cudnn_attend(lh_cudnn *cudnn, const lh_attend *a, cudaStream_t stream, lh_error *error);
lh_status lh_cudnn_attend_backward(lh_cudnn *cudnn, const lh_attend *a, cudaStream_t stream, lh_error *error);

#endif
