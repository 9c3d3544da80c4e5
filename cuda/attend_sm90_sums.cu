/* attend_sm90_sums.cu: the passes before and after Hopper's backward (attend_sm90_backward.cu), and their scratch. */
#include "cuda/attend_sm90_backward.cuh"
#include "cuda/mma.cuh"

namespace
{

using lh::backward_args;

/* Beyond this a rounded lse log2 e is off by too much. */
constexpr float ORDINARY = 2048;

/* A block a tile, D/8 threads a row. */
template <class T, int D>
__global__ void __launch_bounds__(1024)
    prepare(const T *d_o, const T *o, const float *lse, const backward_args a)
{
    constexpr int LANES = D / 8;
    const unsigned head = blockIdx.x / (unsigned)a.tiles, lane = threadIdx.x % LANES,
                   of = threadIdx.x / LANES;
    const int64_t row = (int64_t)(blockIdx.x - head * (unsigned)a.tiles) * lh::walked(D) + of;
    const bool inside = row < a.rows;
    if (threadIdx.x == 0)
        a.turns[blockIdx.x] = 0;
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *a.ticket = 0;
    float sum = 0;
    if (inside) {
        const int64_t word = (head * a.rows + row) * LANES + lane;
        lh::vec<T> x, y;
        x.word = __ldg((const uint4 *)d_o + word);
        y.word = __ldg((const uint4 *)o + word);
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum = fmaf(lh::to_float(x.at[i]), lh::to_float(y.at[i]), sum);
    }
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    const float mine = inside ? lse[head * a.rows + row] : 0;
    const bool huge = __syncthreads_or(!(fabsf(mine) <= ORDINARY));
    float *to = a.lse + (int64_t)blockIdx.x * lh::lse_line(D);
    if (lane == 0) {
        const float past = huge ? INFINITY : -INFINITY;
        to[of] = !inside ? past : huge ? mine : -mine * 1.44269504088896341f;
        a.delta[(int64_t)blockIdx.x * lh::walked(D) + of] = sum;
    }
    if (threadIdx.x < 4)
        to[lh::walked(D) + threadIdx.x] = huge;
}

/* Lane i of four gives x[j] to lane j, and is left with x[i] of all four. */
__device__ void transpose4(uint32_t x[4])
{
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? x[i] : x[i + 1], 1);
        (odd ? x[i] : x[i + 1]) = other;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, high ? x[i] : x[i + 2], 2);
        (high ? x[i] : x[i + 2]) = other;
    }
}

/* 128 threads a half tile: 16 rows by 64 columns a warp. */
template <class T, int D> __global__ void __launch_bounds__(256) finish(T *dq, const backward_args a)
{
    const int64_t half = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 128;
    if (half >= a.heads * a.tiles * 2)
        return;
    const int thread = threadIdx.x % 128, lane = thread % 32, group = (int)(half % 2);
    const int64_t tile = half / 2, head = lh::divide(tile, a.tiles);
    const int64_t row =
        (tile - head * a.tiles) * lh::walked(D) + (D == 64 ? group * 64 : 0) + thread / 32 * 16 + lane / 4;
    const int column = D == 64 ? 0 : group * 64;
    const float4 *from = (const float4 *)a.sums + half * 1024 + thread;
    float4 x[8];
#pragma unroll
    for (int n = 0; n < 8; n++)
        x[n] = row < a.rows ? __ldcs(from + n * 128) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int n = 0; n < 8; n += 4) {
        uint32_t low[4], high[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            low[i] = lh::pack<T>(x[n + i].x * a.scale, x[n + i].y * a.scale);
            high[i] = lh::pack<T>(x[n + i].z * a.scale, x[n + i].w * a.scale);
        }
        transpose4(low);
        transpose4(high);
        T *to = dq + (head * a.rows + row) * D + column + (n + lane % 4) * 8;
        if (row < a.rows)
            *(uint4 *)to = make_uint4(low[0], low[1], low[2], low[3]);
        if (row + 8 < a.rows)
            *(uint4 *)(to + 8 * D) = make_uint4(high[0], high[1], high[2], high[3]);
    }
}

/* Calls `run` with the element type and d of the shape. */
template <class F> void with_kernel(const lh_shape *s, F run)
{
    if (s->dtype == LH_F16)
        s->dim == 64 ? run(__half(), std::integral_constant<int, 64>())
                     : run(__half(), std::integral_constant<int, 128>());
    else
        s->dim == 64 ? run(__nv_bfloat16(), std::integral_constant<int, 64>())
                     : run(__nv_bfloat16(), std::integral_constant<int, 128>());
}

} // namespace

size_t lh_cuda_attend_sm90_scratch(const lh_shape *s)
{
    const backward_args a = lh::backward_args_of(s, nullptr);
    return (size_t)((char *)(a.ticket + 1) - (char *)nullptr);
}

/* What lies in the scratch, largest first; without an lh_attend, as if it began at 0. */
backward_args lh::backward_args_of(const lh_shape *s, const lh_attend *t)
{
    const int64_t padded = (s->layout.selected + 127) / 128 * 128;
    backward_args a = {};
    a.dk = t ? t->dk : nullptr;
    a.dv = t ? t->dv : nullptr;
    a.rows = s->layout.selected;
    a.heads = s->batch * s->heads;
    a.tiles = padded / walked((int)s->dim);
    a.scale = s->scale;
    /* The chips there are run 132 blocks at once: step 2 where half of all are more. By the shape alone, as the order is. */
    a.step = s->ordered * (padded / OWNED) > 264 ? 2 : 1;
    a.sums = t ? (float *)t->scratch : nullptr;
    a.lse = a.sums + a.heads * padded * s->dim;
    a.delta = a.lse + a.heads * a.tiles * lse_line((int)s->dim);
    a.turns = (unsigned *)(a.delta + a.heads * padded);
    a.ticket = a.turns + a.heads * a.tiles;
    return a;
}

cudaError_t lh::backward_prepare(const lh_shape *s, const lh_attend *t, const backward_args &a,
                                 cudaStream_t stream)
{
    with_kernel(s, [&](auto type, auto width) {
        typedef decltype(type) T;
        constexpr int D = decltype(width)::value;
        prepare<T, D><<<(unsigned)(a.heads * a.tiles), walked(D) * (D / 8), 0, stream>>>(
            (const T *)t->d_o, (const T *)t->o, t->lse, a);
    });
    return cudaGetLastError();
}

cudaError_t lh::backward_finish(const lh_shape *s, const lh_attend *t, const backward_args &a,
                                cudaStream_t stream)
{
    with_kernel(s, [&](auto type, auto width) {
        typedef decltype(type) T;
        constexpr int D = decltype(width)::value;
        finish<T, D><<<blocks_for(a.heads * a.tiles, 1), 256, 0, stream>>>((T *)t->dq, a);
    });
    return cudaGetLastError();
}
