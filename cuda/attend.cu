/* attend.cu: which of the own kernels attends. */
#include "cuda/common.cuh"

cudaError_t lh_cuda_attend(const lh_shape *s, const lh_attend *a, cudaStream_t stream)
{
    return lh_cuda_attend_simt(s, a, stream);
}

cudaError_t lh_cuda_attend_backward(const lh_shape *s, const lh_attend *a, cudaStream_t stream)
{
    return lh_cuda_attend_simt_backward(s, a, stream);
}
