/* norms.cuh: norms whose squares leave the range of float32 on the way (SPEC 3.2). */
#ifndef LH_CUDA_NORMS_CUH
#define LH_CUDA_NORMS_CUH

#include "cuda/common.cuh"

namespace lh
{

/* Whether squares of this sum may have left the range of float32 on the way, so that its root is no norm. */
__device__ inline bool out_of_range(float sum)
{
    return !(sum >= 0x1p-96f && sum <= 0x1p126f);
}

/* The power of two that brings the row's largest magnitude near 1, whatever float32 it is. */
__device__ inline float scale_of(float largest)
{
    const int exponent = largest > 0 && largest < INFINITY ? ilogbf(largest) : 0;
    return scalbnf(1, -max(-126, min(126, exponent)));
}

/* The norm of one row, a vector of it in each lane of a group, scaled first; *plain is the sum of squares without. */
template <class T, int LANES> __device__ inline float scaled_norm(const vec<T> &row, float *plain)
{
    float largest = 0, square = 0;
    *plain = 0;
#pragma unroll
    for (int i = 0; i < vec<T>::size; i++) {
        const float value = to_float(row.at[i]);
        largest = fmaxf(largest, fabsf(value));
        *plain = fmaf(value, value, *plain);
    }
#pragma unroll
    for (int mask = 1; mask < LANES; mask *= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, mask));
        *plain += __shfl_xor_sync(0xffffffffu, *plain, mask);
    }
    const float scale = scale_of(largest);
#pragma unroll
    for (int i = 0; i < vec<T>::size; i++) {
        const float value = to_float(row.at[i]) * scale;
        square = fmaf(value, value, square);
    }
#pragma unroll
    for (int mask = 1; mask < LANES; mask *= 2)
        square += __shfl_xor_sync(0xffffffffu, square, mask);
    return sqrtf(square) / scale;
}

} // namespace lh
#endif
