/*
 * pull.cuh: out[j] = sum over heads of a group, then levels fine to coarse, of src[slot(l, entry covering j)] * weight(l).
 * scatter.cu (the shifted window of SPEC 3.7) and unpool.cu (SPEC 4) are this with different numbers. One owner per
 * position: no atomics, one order of additions.
 */
#ifndef LH_CUDA_PULL_CUH
#define LH_CUDA_PULL_CUH

#include "cuda/common.cuh"

namespace lh
{

struct pull_args {
    const void *src;     /* [B,H,S,d] */
    const int32_t *slot; /* [B,H,P], -1 where absent */
    lh_rows out;         /* [B,heads,N,d] */
    int32_t *coverage;   /* [B,heads,N] or NULL */
    bool shifted;        /* entry floor((j+1)/p^l) - 1 of level l, else floor(j/p^l) */
    bool divided;        /* by p^l */
    int dim;
    int64_t heads, group, selected, count; /* count: B*heads*N */
    line_grid grid;
    levels level;
};

/* Any d, any stride: up to 32 lanes a row, one element at a time. */
template <class T> __global__ void pull_rows(pull_args a)
{
    const int lanes = a.dim < 32 ? a.dim : 32, each = blockDim.x / lanes, lane = threadIdx.x % lanes;
    if ((int)threadIdx.x >= each * lanes)
        return;
    for (int64_t row = (int64_t)blockIdx.x * each + threadIdx.x / lanes; row < a.count;
         row += (int64_t)gridDim.x * each) {
        const int64_t line = divide(row, a.level.tokens), j = row - line * a.level.tokens;
        T *out = (T *)a.out.data + line / a.heads * a.out.batch_stride + line % a.heads * a.out.head_stride +
                 j * a.out.row_stride;
        int covered = 0;
        for (int c = lane; c < a.dim; c += lanes) {
            float sum = 0;
            covered = 0;
            for (int64_t h = 0; h < a.group; h++) {
                const int64_t head = line * a.group + h;
                const int32_t *slot = a.slot + head * a.level.entries;
                const T *src = (const T *)a.src + head * a.selected * a.dim + c;
                int64_t t = a.shifted ? j + 1 : j;
                float window = 1;
                for (int l = 0; l < a.level.count; l++) {
                    const int64_t entry = a.shifted ? t - 1 : t;
                    if (entry < 0)
                        break;
                    const int64_t s = __ldg(slot + a.level.offset[l] + entry);
                    if (s >= 0) {
                        const float value = to_float(src[s * a.dim]);
                        sum += a.divided ? value / window : value;
                        covered++;
                    }
                    t = divide(t, a.level.pool);
                    window *= (float)a.level.pool;
                }
            }
            out[c] = from_float<T>(sum);
        }
        if (a.coverage && lane == 0)
            a.coverage[row] = covered;
    }
}

/*
 * The same for rows of 16-byte vectors, a power-of-two number of lanes each. A group of lanes owns as many tokens: each
 * lane looks up one token's slots (consecutive lanes, consecutive addresses), then all lanes add row by row, AHEAD
 * rows at a time so that loads overlap. Slots wait in shared memory: [heads of the group][levels][threads].
 * EXACT: p is a power of two, or nothing is divided.
 */
template <class T, bool EXACT>
__global__ void __launch_bounds__(256, 3) pull_vectors(const __grid_constant__ pull_args a)
{
    constexpr int V = vec<T>::size, AHEAD = 4;
    extern __shared__ int32_t slots[];
    const int lanes = a.dim / V, lane = threadIdx.x % lanes, first = threadIdx.x - lane, threads = blockDim.x;
    const unsigned line = blockIdx.x / a.grid.blocks, b = line / a.grid.heads, g = line - b * a.grid.heads;
    const int64_t j0 =
        ((int64_t)(blockIdx.x - line * a.grid.blocks) * (threads / lanes) + threadIdx.x / lanes) * lanes;
    const int64_t left = a.level.tokens - j0;
    const int tokens = left < 0 ? 0 : left < lanes ? (int)left : lanes;
    const int64_t first_head = line * a.group; /* heads * group: query heads */
    const int shift = a.shifted ? 1 : 0;
    int covered = 0;
    for (int h = 0; h < a.group; h++) {
        const int32_t *slot = a.slot + (first_head + h) * a.level.entries;
        int64_t t = j0 + lane + shift;
        for (int l = 0; l < a.level.count; l++) {
            const int64_t entry = t - shift;
            const int32_t s = lane < tokens && entry >= 0 ? __ldg(slot + a.level.offset[l] + entry) : -1;
            slots[(h * a.level.count + l) * threads + threadIdx.x] = s;
            covered += s >= 0;
            t = divide(t, a.level.pool);
        }
    }
    if (a.coverage && lane < tokens)
        a.coverage[line * a.level.tokens + j0 + lane] = covered;
    __syncwarp();
    T *out =
        (T *)a.out.data + b * a.out.batch_stride + g * a.out.head_stride + j0 * a.out.row_stride + lane * V;
    for (int u0 = 0; u0 < tokens; u0 += AHEAD) {
        float sum[AHEAD][V] = {};
        for (int h = 0; h < a.group; h++) {
            const T *src = (const T *)a.src + (first_head + h) * a.selected * a.dim + lane * V;
            float window = 1, factor = 1;
            for (int l = 0; l < a.level.count; l++) {
                const int4 four = *(const int4 *)(slots + (h * a.level.count + l) * threads + first + u0);
                const int32_t s[AHEAD] = {four.x, four.y, four.z, four.w};
                vec<T> value[AHEAD];
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    if (s[u] >= 0)
                        value[u].word = __ldg((const uint4 *)(src + (int64_t)s[u] * a.dim));
                }
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    if (s[u] < 0)
                        continue;
#pragma unroll
                    for (int i = 0; i < V; i++) /* a factor 2^-n rounds nothing, so the fma is a sum */
                        sum[u][i] = EXACT ? fmaf(to_float(value[u].at[i]), factor, sum[u][i])
                                          : sum[u][i] + to_float(value[u].at[i]) / window;
                }
                window *= (float)a.level.pool;
                factor = a.divided ? 1 / window : 1;
            }
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++, out += a.out.row_stride) {
            vec<T> result;
#pragma unroll
            for (int i = 0; i < V; i++)
                result.at[i] = from_float<T>(sum[u][i]);
            if (u0 + u < tokens)
                *(uint4 *)out = result.word;
        }
    }
}

inline cudaError_t pull(const lh_shape *s, pull_args a, cudaStream_t stream)
{
    constexpr int threads = 256;
    a.dim = (int)s->dim;
    a.selected = s->layout.selected;
    a.level = levels_of(s);
    a.group = s->heads / a.heads;
    a.count = s->batch * a.heads * s->tokens;
    const bool exact = !a.divided || power_of_two(s->pool);
    const int64_t slot_bytes = s->levels * a.group * threads * (int64_t)sizeof(int32_t);
    return with_type(s->dtype, [&](auto *type) {
        typedef typename std::remove_pointer<decltype(type)>::type T;
        const int lanes = a.dim / vec<T>::size;
        if (!rows_are_vectors(s, &a.out) || !aligned(a.src) || lanes < 4 || slot_bytes > 32 * 1024) {
            pull_rows<T><<<blocks_for(a.count, threads / (a.dim < 32 ? a.dim : 32)), threads, 0, stream>>>(a);
            return;
        }
        a.grid = grid_of(s->tokens, threads, a.heads); /* as many tokens a block as threads */
        const unsigned blocks = a.grid.blocks * (unsigned)(s->batch * a.heads);
        if (exact)
            pull_vectors<T, true><<<blocks, threads, (size_t)slot_bytes, stream>>>(a);
        else
            pull_vectors<T, false><<<blocks, threads, (size_t)slot_bytes, stream>>>(a);
    });
}

} // namespace lh
#endif
