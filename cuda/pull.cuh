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
    levels level;
};

/* Vector: T's 16-byte vector (rows_are_vectors), else one T. */
template <class T, int V> __global__ void pull_rows(pull_args a)
{
    const int words = a.dim / V, lanes = words < 32 ? words : 32, each = blockDim.x / lanes;
    const int lane = threadIdx.x % lanes;
    if ((int)threadIdx.x >= each * lanes)
        return;
    for (int64_t row = (int64_t)blockIdx.x * each + threadIdx.x / lanes; row < a.count;
         row += (int64_t)gridDim.x * each) {
        const int64_t line = divide(row, a.level.tokens), j = row - line * a.level.tokens;
        const int64_t b = line / a.heads, g = line % a.heads;
        const int64_t first_head = (b * a.heads + g) * a.group; /* heads*group: query heads */
        T *out = (T *)a.out.data + b * a.out.batch_stride + g * a.out.head_stride + j * a.out.row_stride;
        int covered = 0;
        for (int c = lane; c < words; c += lanes) {
            float sum[V];
#pragma unroll
            for (int i = 0; i < V; i++)
                sum[i] = 0;
            covered = 0;
            for (int64_t h = 0; h < a.group; h++) {
                const int64_t head = first_head + h;
                const int32_t *slot = a.slot + head * a.level.entries;
                const T *src = (const T *)a.src + head * a.selected * a.dim + c * V;
                int64_t t = a.shifted ? j + 1 : j;
                float window = 1;
                for (int l = 0; l < a.level.count; l++) {
                    const int64_t entry = a.shifted ? t - 1 : t;
                    if (entry < 0)
                        break;
                    const int64_t s = __ldg(slot + a.level.offset[l] + entry);
                    if (s >= 0) {
                        __align__(16) T value[V];
                        if constexpr (V > 1)
                            *(uint4 *)value = __ldg((const uint4 *)(src + s * a.dim));
                        else
                            value[0] = src[s * a.dim];
                        covered++;
#pragma unroll
                        for (int i = 0; i < V; i++)
                            sum[i] += a.divided ? to_float(value[i]) / window : to_float(value[i]);
                    }
                    t = divide(t, a.level.pool);
                    window *= (float)a.level.pool;
                }
            }
            if constexpr (V > 1) {
                vec<T> result;
#pragma unroll
                for (int i = 0; i < V; i++)
                    result.at[i] = from_float<T>(sum[i]);
                *(uint4 *)(out + c * V) = result.word;
            } else {
                out[c] = from_float<T>(sum[0]);
            }
        }
        if (a.coverage && lane == 0)
            a.coverage[row] = covered;
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
    return with_type(s->dtype, [&](auto *type) {
        typedef typename std::remove_pointer<decltype(type)>::type T;
        constexpr int V = vec<T>::size;
        if (rows_are_vectors(s, &a.out))
            pull_rows<T, V><<<blocks_for(a.count, threads / (a.dim / V)), threads, 0, stream>>>(a);
        else
            pull_rows<T, 1>
                <<<blocks_for(a.count, threads / (a.dim < 32 ? a.dim : 32)), threads, 0, stream>>>(a);
    });
}

} // namespace lh
#endif
