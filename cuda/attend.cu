/* attend.cu: which of the own kernels attends, and D = sum over the columns of do * o, which backward starts with. */
#include "cuda/common.cuh"

namespace
{

/* One warp a row. */
template <class T> __global__ void delta_rows(const T *d_o, const T *o, float *delta, int64_t rows, int dim)
{
    const int64_t row = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows)
        return;
    float sum = 0;
    for (int c = threadIdx.x % 32; c < dim; c += 32)
        sum = fmaf(lh::to_float(d_o[row * dim + c]), lh::to_float(o[row * dim + c]), sum);
    for (int mask = 16; mask > 0; mask /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (threadIdx.x % 32 == 0)
        delta[row] = sum;
}

} // namespace

cudaError_t lh_cuda_delta(const lh_shape *s, const lh_attend *a, cudaStream_t stream)
{
    constexpr int threads = 256;
    const int64_t rows = s->batch * s->heads * s->layout.selected;
    return lh::with_type(s->dtype, [&](auto *type) {
        typedef typename std::remove_pointer<decltype(type)>::type T;
        delta_rows<<<lh::blocks_for(rows, threads / 32), threads, 0, stream>>>(
            (const T *)a->d_o, (const T *)a->o, a->delta, rows, (int)s->dim);
    });
}

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
    if (!lh_cuda_has_mma(s) || !lh_cuda_attend_aligned(a))
        return lh_cuda_attend_simt_backward(s, a, stream);
    return lh_cuda_has_sm90(s) && a->scratch ? lh_cuda_attend_sm90_backward(s, a, stream)
                                             : lh_cuda_attend_mma_backward(s, a, stream);
}
