/* attend.cu: which of the own kernels attends. */
#include "cuda/common.cuh"

bool lh_cuda_attend_aligned(const lh_attend *a)
{
    for (const void *data : {a->q, a->k, a->v, (const void *)a->o, a->d_o, (const void *)a->dq,
                             (const void *)a->dk, (const void *)a->dv}) {
        if (!lh::aligned(data))
            return false;
    }
    return true;
}

cudaError_t lh_cuda_attend(const lh_shape *s, const lh_attend *a, cudaStream_t stream)
{
    if (!lh_cuda_has_mma(s) || !lh_cuda_attend_aligned(a))
        return lh_cuda_attend_simt(s, a, stream);
    return lh_cuda_has_sm90(s) ? lh_cuda_attend_sm90(s, a, stream) : lh_cuda_attend_mma(s, a, stream);
}

cudaError_t lh_cuda_attend_backward(const lh_shape *s, const lh_attend *a, cudaStream_t stream)
{
    const bool mma = lh_cuda_has_mma(s) && lh_cuda_attend_aligned(a);
    return mma ? lh_cuda_attend_mma_backward(s, a, stream) : lh_cuda_attend_simt_backward(s, a, stream);
}
