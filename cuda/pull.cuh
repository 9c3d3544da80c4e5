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
    bool exact;          /* p is a power of two: a reciprocal divides without rounding */
    int dim;
    int64_t heads, group, selected, count; /* count: B*heads*N */
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
                        sum += a.divided ? quotient(value, window, a.exact) : value;
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
 */
template <class T> __global__ void pull_vectors(pull_args a)
{
    constexpr int V = vec<T>::size, AHEAD = 4;
    extern __shared__ int32_t slots[];
    const int lanes = a.dim / V, lane = threadIdx.x % lanes, first = threadIdx.x - lane, threads = blockDim.x;
    const int64_t chunks = (a.level.tokens + lanes - 1) / lanes;
    const int64_t group = (int64_t)blockIdx.x * (threads / lanes) + threadIdx.x / lanes;
    const int64_t line = divide(group, chunks), j0 = (group - line * chunks) * lanes;
    const bool live = line < a.count / a.level.tokens;
    const int64_t first_head = line * a.group; /* heads * group: query heads */
    int covered = 0;
    for (int h = 0; h < a.group; h++) {
        const int32_t *slot = a.slot + (first_head + h) * a.level.entries;
        int64_t t = j0 + lane + (a.shifted ? 1 : 0);
        for (int l = 0; l < a.level.count; l++) {
            const int64_t entry = a.shifted ? t - 1 : t;
            const bool exists = live && entry >= 0 && a.level.offset[l] + entry < a.level.offset[l + 1];
            const int32_t s = exists ? __ldg(slot + a.level.offset[l] + entry) : -1;
            slots[(h * a.level.count + l) * threads + threadIdx.x] = j0 + lane < a.level.tokens ? s : -1;
            covered += s >= 0;
            t = divide(t, a.level.pool);
        }
    }
    if (a.coverage && live && j0 + lane < a.level.tokens)
        a.coverage[line * a.level.tokens + j0 + lane] = covered;
    __syncwarp();
    if (!live)
        return;
    const int64_t tokens = a.level.tokens - j0 < lanes ? a.level.tokens - j0 : lanes;
    T *out = (T *)a.out.data + line / a.heads * a.out.batch_stride + line % a.heads * a.out.head_stride +
             j0 * a.out.row_stride + lane * V;
    for (int u0 = 0; u0 < tokens; u0 += AHEAD) {
        float sum[AHEAD][V] = {};
        for (int h = 0; h < a.group; h++) {
            const T *src = (const T *)a.src + (first_head + h) * a.selected * a.dim + lane * V;
            float window = 1;
            for (int l = 0; l < a.level.count; l++) {
                const int32_t *s = slots + (h * a.level.count + l) * threads + first + u0;
                vec<T> value[AHEAD];
                bool present[AHEAD];
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    const int32_t at = u0 + u < tokens ? s[u] : -1;
                    present[u] = at >= 0;
                    if (present[u])
                        value[u].word = __ldg((const uint4 *)(src + (int64_t)at * a.dim));
                }
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    if (!present[u])
                        continue;
#pragma unroll
                    for (int i = 0; i < V; i++)
                        sum[u][i] += a.divided ? quotient(to_float(value[u].at[i]), window, a.exact)
                                               : to_float(value[u].at[i]);
                }
                window *= (float)a.level.pool;
            }
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            vec<T> result;
#pragma unroll
            for (int i = 0; i < V; i++)
                result.at[i] = from_float<T>(sum[u][i]);
            if (u0 + u < tokens)
                *(uint4 *)(out + (u0 + u) * a.out.row_stride) = result.word;
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
    a.exact = (s->pool & (s->pool - 1)) == 0;
    const int64_t slot_bytes = s->levels * a.group * threads * (int64_t)sizeof(int32_t);
    return with_type(s->dtype, [&](auto *type) {
        typedef typename std::remove_pointer<decltype(type)>::type T;
        const int lanes = a.dim / vec<T>::size;
        if (rows_are_vectors(s, &a.out) && aligned(a.src) && slot_bytes <= 32 * 1024) {
            const int64_t groups = a.count / s->tokens * ((s->tokens + lanes - 1) / lanes);
            pull_vectors<T><<<blocks_for(groups, threads / lanes), threads, (size_t)slot_bytes, stream>>>(a);
        } else {
            pull_rows<T><<<blocks_for(a.count, threads / (a.dim < 32 ? a.dim : 32)), threads, 0, stream>>>(a);
        }
    });
}

} // namespace lh
#endif
