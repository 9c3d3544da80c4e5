/*
 * pull_windows.cuh: pull.cuh's sums for the shapes that people train with: p 2 or 4, two to four levels, as many heads as
 * key/value heads, rows of 16-byte vectors. Up to three tensors in one launch.
 *
 * A group of lanes owns a batch of 16 places t (position t, or t - 1 where the windows are shifted), so that a window of p^l
 * places begins at a multiple of p^l whatever the shift. The rows of all levels are on their way before the first is added.
 * Where no entry of level 0 is present, as in most places, the places of a level-1 window receive one sum.
 */
#ifndef LH_CUDA_PULL_WINDOWS_CUH
#define LH_CUDA_PULL_WINDOWS_CUH

#include "cuda/common.cuh"

namespace lh
{

struct pull_windows_args {
    struct target {
        const void *src; /* [B,H,S,d] */
        lh_rows out;     /* [B,H,N,d] */
    } of[3];             /* the grid's y */
    const int32_t *slot; /* [B,H,P], -1 where absent */
    int32_t *coverage;   /* [B,H,N] or NULL */
    int shift;           /* 1: entry floor((j+1)/p^l) - 1 of level l, 0: floor(j/p^l) */
    bool divided;        /* by p^l */
    int dim;
    int64_t selected;
    line_grid grid;
    levels level;
};

enum {
    PULL_BATCH = 16,
    PULL_THREADS = 128
};

template <class T> __device__ inline void add_row(float (&sum)[vec<T>::size], const vec<T> &row, float factor)
{
#pragma unroll
    for (int i = 0; i < vec<T>::size; i++) /* a factor 2^-n rounds nothing, so the fma is a sum */
        sum[i] = fmaf(to_float(row.at[i]), factor, sum[i]);
}

template <class T> __device__ inline uint4 rounded(const float (&sum)[vec<T>::size])
{
    vec<T> result;
#pragma unroll
    for (int i = 0; i < vec<T>::size; i++)
        result.at[i] = from_float<T>(sum[i]);
    return result.word;
}

template <class T, int POOL, int LEVELS>
__global__ void __launch_bounds__(PULL_THREADS, 4) pull_windows(const __grid_constant__ pull_windows_args a)
{
    constexpr int V = vec<T>::size, W1 = PULL_BATCH / POOL, W2 = (W1 + POOL - 1) / POOL,
                  W3 = (W2 + POOL - 1) / POOL;       /* windows of levels 1, 2, 3 in a batch */
    extern __shared__ __align__(16) int32_t slots[]; /* [levels][places of the block] */
    const pull_windows_args::target &of = a.of[blockIdx.y];
    const int lanes = a.dim / V, lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
    const int places = PULL_THREADS / lanes * PULL_BATCH;
    const unsigned line = blockIdx.x / a.grid.blocks, b = line / a.grid.heads, h = line - b * a.grid.heads;
    const int64_t t0 = (int64_t)(blockIdx.x - line * a.grid.blocks) * places;
    const int32_t *slot = a.slot + line * a.level.entries;
    for (int i = threadIdx.x; i < places; i += PULL_THREADS) {
        const int64_t t = t0 + i, j = t - a.shift;
        const bool there = j >= 0 && j < a.level.tokens;
        int covered = 0;
        int64_t window = t;
#pragma unroll
        for (int l = 0; l < LEVELS; l++) {
            const int64_t entry = window - a.shift;
            const int32_t s = there && entry >= 0 ? __ldg(slot + a.level.offset[l] + entry) : -1;
            slots[l * places + i] = s;
            covered += s >= 0;
            window /= POOL;
        }
        if (a.coverage && there)
            a.coverage[line * a.level.tokens + j] = covered;
    }
    __syncthreads();
    const T *src = (const T *)of.src + line * a.selected * a.dim + lane * V;
    const int32_t *mine = slots + group * PULL_BATCH;
    const int64_t j0 = t0 + group * PULL_BATCH - a.shift;
    const auto row_at = [&](int32_t s) {
        vec<T> row;
        if (s >= 0)
            row.word = __ldg((const uint4 *)(src + (int64_t)s * a.dim));
        return row;
    };
    vec<T> row1[W1], row2[W2], row3[W3];
    int32_t s1[W1], s2[W2], s3[W3];
#pragma unroll
    for (int w = 0; w < W3; w++) {
        s3[w] = LEVELS > 3 ? mine[3 * places + w * 8] : -1;
        row3[w] = row_at(s3[w]);
    }
#pragma unroll
    for (int w = 0; w < W2; w++) {
        s2[w] = LEVELS > 2 ? mine[2 * places + w * POOL * POOL] : -1;
        row2[w] = row_at(s2[w]);
    }
#pragma unroll
    for (int w = 0; w < W1; w++) {
        s1[w] = mine[places + w * POOL];
        row1[w] = row_at(s1[w]);
    }
    const float factor1 = a.divided ? 1.0f / POOL : 1, factor2 = factor1 * factor1,
                factor3 = factor2 * factor1;
    T *out = (T *)of.out.data + b * of.out.batch_stride + h * of.out.head_stride + j0 * of.out.row_stride +
             lane * V;
#pragma unroll
    for (int w = 0; w < W1; w++) {
        const int w2 = w / POOL, w3 = w2 / POOL;
        vec<T> row0[POOL];
        int32_t s0[POOL];
#pragma unroll
        for (int u = 0; u < POOL; u++) {
            s0[u] = mine[w * POOL + u];
            row0[u] = row_at(s0[u]);
        }
        float above[V] = {0};
        add_row(above, row1[w], factor1);
        if (LEVELS > 2)
            add_row(above, row2[w2], factor2);
        if (LEVELS > 3)
            add_row(above, row3[w3], factor3);
        const uint4 shared_by_all = rounded<T>(above);
#pragma unroll
        for (int u = 0; u < POOL; u++) {
            const int64_t j = j0 + w * POOL + u;
            uint4 result = shared_by_all;
            if (s0[u] >= 0) { /* fine to coarse, as everywhere */
                float sum[V] = {0};
                add_row(sum, row0[u], 1);
                add_row(sum, row1[w], factor1);
                if (LEVELS > 2)
                    add_row(sum, row2[w2], factor2);
                if (LEVELS > 3)
                    add_row(sum, row3[w3], factor3);
                result = rounded<T>(sum);
            }
            if (j >= 0 && j < a.level.tokens)
                *(uint4 *)(out + (w * POOL + u) * of.out.row_stride) = result;
        }
    }
}

inline bool has_pull_windows(const lh_shape *s, const pull_windows_args &a, int count)
{
    const int64_t lanes = s->dim * (int64_t)lh_dtype_size(s->dtype) / 16;
    for (int i = 0; i < count; i++) {
        if (!rows_are_vectors(s, &a.of[i].out) || !aligned(a.of[i].src))
            return false;
    }
    return (s->pool == 2 || s->pool == 4) && s->levels >= 2 && s->levels <= 4 && lanes >= 4;
}

template <class T, int POOL>
void launch_pull_windows(const lh_shape *s, const pull_windows_args &a, dim3 grid, size_t bytes,
                         cudaStream_t stream)
{
    if (s->levels == 2)
        pull_windows<T, POOL, 2><<<grid, PULL_THREADS, bytes, stream>>>(a);
    else if (s->levels == 3)
        pull_windows<T, POOL, 3><<<grid, PULL_THREADS, bytes, stream>>>(a);
    else
        pull_windows<T, POOL, 4><<<grid, PULL_THREADS, bytes, stream>>>(a);
}

inline cudaError_t pull_by_windows(const lh_shape *s, pull_windows_args a, int count, cudaStream_t stream)
{
    const int lanes = (int)(s->dim * (int64_t)lh_dtype_size(s->dtype) / 16);
    const int places = PULL_THREADS / lanes * PULL_BATCH;
    a.dim = (int)s->dim;
    a.selected = s->layout.selected;
    a.level = levels_of(s);
    a.grid = grid_of(s->tokens + a.shift, places, s->heads);
    const dim3 grid(a.grid.blocks * (unsigned)(s->batch * s->heads), (unsigned)count);
    const size_t bytes = (size_t)(s->levels * places) * sizeof(int32_t);
    return with_type(s->dtype, [&](auto *type) {
        typedef typename std::remove_pointer<decltype(type)>::type T;
        if (s->pool == 2)
            launch_pull_windows<T, 2>(s, a, grid, bytes, stream);
        else
            launch_pull_windows<T, 4>(s, a, grid, bytes, stream);
    });
}

} // namespace lh
#endif
