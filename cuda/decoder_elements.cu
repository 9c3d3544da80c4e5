/* decoder_elements.cu: what a decoder computes element by element, and the length of its gradient. */
#include "cuda/common.cuh"
#include "cuda/decoder.h"

namespace
{

enum {
    THREADS = 256,
    MOST_BLOCKS = 1 << 16
};

/* work(i) for every i below n. */
template <class F> __global__ void each_of(int64_t n, F work)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS)
        work(i);
}

template <class F> cudaError_t for_each(int64_t n, cudaStream_t stream, F work)
{
    each_of<<<lh::blocks_for(n, THREADS, MOST_BLOCKS), THREADS, 0, stream>>>(n, work);
    return cudaGetLastError();
}

/* work(row, i) for every i below width of every row: no division, as each_of would need one. */
template <class F> __global__ void each_in_rows(int64_t width, F work)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < width)
        work((int64_t)blockIdx.y, i);
}

/* At most LH_CUDA_BLOCK rows. */
template <class F> cudaError_t for_rows(int64_t rows, int64_t width, cudaStream_t stream, F work)
{
    const dim3 blocks(lh::blocks_for(width, THREADS), (unsigned)rows);
    each_in_rows<<<blocks, THREADS, 0, stream>>>(width, work);
    return cudaGetLastError();
}

struct rotate {
    int64_t stride, heads, half, first, tokens;
    const float *cosines, *sines;
    float sign, *x;
    __device__ void operator()(int64_t i) const
    {
        const int64_t row = lh::divide(i, half * heads), in_row = i - row * half * heads;
        const int64_t head = lh::divide(in_row, half), pair = in_row - head * half;
        const int64_t token = first + row, angle = (token - lh::divide(token, tokens) * tokens) * half + pair;
        float *low = x + row * stride + head * 2 * half + pair, *high = low + half;
        const float a = *low, b = *high, c = cosines[angle], s = sign * sines[angle];
        *low = a * c - b * s;
        *high = b * c + a * s;
    }
};

struct gate {
    int64_t hidden;
    const float *gate_up;
    float *y;
    __device__ void operator()(int64_t row, int64_t i) const
    {
        const int64_t at = row * 2 * hidden + i;
        const float g = gate_up[at];
        y[row * hidden + i] = g / (1 + expf(-g)) * gate_up[at + hidden];
    }
};

/* With s = sigmoid(gate): d_up = dy gate s, d_gate = dy up s (1 + gate (1 - s)). */
struct gate_backward {
    int64_t hidden;
    const float *dy, *gate_up;
    float *d_gate_up;
    __device__ void operator()(int64_t row, int64_t i) const
    {
        const int64_t at = row * 2 * hidden + i;
        const float g = gate_up[at], s = 1 / (1 + expf(-g)), d = dy[row * hidden + i];
        d_gate_up[at] = d * gate_up[at + hidden] * s * (1 + g * (1 - s));
        d_gate_up[at + hidden] = d * g * s;
    }
};

struct narrow {
    const float *from;
    __nv_bfloat16 *to;
    __device__ void operator()(int64_t i) const
    {
        to[i] = __float2bfloat16_rn(from[i]);
    }
};

struct widen {
    const __nv_bfloat16 *from;
    float *to;
    __device__ void operator()(int64_t i) const
    {
        to[i] = __bfloat162float(from[i]);
    }
};

struct narrow_and_widen {
    const float *from;
    float *to;
    __device__ void operator()(int64_t i) const
    {
        to[i] = __bfloat162float(__float2bfloat16_rn(from[i]));
    }
};

struct descend {
    lh_adam_step s;
    float *gradient, *m, *v, *w;
    __device__ void operator()(int64_t i) const
    {
        const float g = gradient[i] * s.clip;
        m[i] = s.b1 * m[i] + (1 - s.b1) * g;
        v[i] = s.b2 * v[i] + (1 - s.b2) * g * g;
        w[i] = s.keep * w[i] - s.by_first * m[i] / (sqrtf(v[i] * s.by_second) + 1e-8f);
        gradient[i] = 0;
    }
};

/* The block's sum, in thread 0. */
__device__ double sum_of_block(double value)
{
    __shared__ double of[THREADS];
    of[threadIdx.x] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            of[threadIdx.x] += of[threadIdx.x + half];
    }
    return of[0];
}

__global__ void square(int64_t n, const float *x, double *sums)
{
    double sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS)
        sum += (double)x[i] * (double)x[i];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = sum;
}

__global__ void add_up(int count, double *sums)
{
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS)
        sum += sums[i];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0)
        sums[count] = sum;
}

} // namespace

cudaError_t lh_cuda_rotary(int64_t rows, int64_t stride, int64_t heads, int64_t dim, int64_t first,
                           int64_t tokens, const float *cosines, const float *sines, bool backward, float *x,
                           cudaStream_t stream)
{
    return for_each(
        rows * heads * (dim / 2), stream,
        rotate{stride, heads, dim / 2, first, tokens, cosines, sines, backward ? -1.0f : 1.0f, x});
}

cudaError_t lh_cuda_swiglu(int64_t rows, int64_t hidden, const float *gate_up, float *y, cudaStream_t stream)
{
    return for_rows(rows, hidden, stream, gate{hidden, gate_up, y});
}

cudaError_t lh_cuda_swiglu_backward(int64_t rows, int64_t hidden, const float *dy, const float *gate_up,
                                    float *d_gate_up, cudaStream_t stream)
{
    return for_rows(rows, hidden, stream, gate_backward{hidden, dy, gate_up, d_gate_up});
}

cudaError_t lh_cuda_to_bf16(int64_t n, const float *from, uint16_t *to, cudaStream_t stream)
{
    return for_each(n, stream, narrow{from, (__nv_bfloat16 *)to});
}

cudaError_t lh_cuda_from_bf16(int64_t n, const uint16_t *from, float *to, cudaStream_t stream)
{
    return for_each(n, stream, widen{(const __nv_bfloat16 *)from, to});
}

cudaError_t lh_cuda_round_bf16(int64_t n, const float *from, float *to, cudaStream_t stream)
{
    return for_each(n, stream, narrow_and_widen{from, to});
}

cudaError_t lh_cuda_adam(int64_t n, const lh_adam_step *step, float *gradient, float *m, float *v, float *w,
                         cudaStream_t stream)
{
    return for_each(n, stream, descend{*step, gradient, m, v, w});
}

cudaError_t lh_cuda_squares(int64_t n, const float *x, double *sums, cudaStream_t stream)
{
    square<<<LH_CUDA_LENGTH_PARTS, THREADS, 0, stream>>>(n, x, sums);
    add_up<<<1, THREADS, 0, stream>>>(LH_CUDA_LENGTH_PARTS, sums);
    return cudaGetLastError();
}
