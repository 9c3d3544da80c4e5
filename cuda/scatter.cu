/*
 * scatter.cu: results of the sub-sequence back to the sequence, shifted so that no position receives a summary of
 * its own future (SPEC 3.7), and its backward (SPEC 4).
 *
 *   o_sel [B,H,S,d], slot [B,H,P] -> out [B,H,N,d], coverage [B,H,N]
 *   dout [B,H,N,d], index [B,H,S] -> do_sel [B,H,S,d]: do_sel[s] = sum of dout over the positions entry s wrote
 */
#include "cuda/pull.cuh"
#include "cuda/pull_windows.cuh"

namespace
{

struct args {
    lh_rows dout;
    const void *index;
    void *do_sel;
    bool wide;
    int dim;
    int64_t selected;
    lh::line_grid grid;
    lh::levels level;
};

/* V: elements moved at once, a 16-byte vector's or one. */
template <class T, int V> __global__ void sum_windows(const __grid_constant__ args a)
{
    constexpr int AHEAD = 4;
    const int words = a.dim / V, lanes = words < 32 ? words : 32, each = blockDim.x / lanes;
    const int lane = threadIdx.x % lanes;
    const unsigned line = blockIdx.x / a.grid.blocks, b = line / a.grid.heads, h = line - b * a.grid.heads;
    const int64_t at_row = (int64_t)(blockIdx.x - line * a.grid.blocks) * each + threadIdx.x / lanes;
    if ((int)threadIdx.x >= each * lanes || at_row >= a.selected)
        return;
    const int64_t row = line * a.selected + at_row, entry = lh::index_at(a.index, a.wide, row);
    int l = 0;
    int64_t window = 1;
    while (l + 1 < a.level.count && entry >= a.level.offset[l + 1]) {
        l++;
        window *= a.level.pool;
    }
    const bool valid = entry >= 0 && entry < a.level.entries;
    const int64_t from = (entry - a.level.offset[l]) * window + window - 1;
    const int64_t to = !valid ? from : from + window < a.level.tokens ? from + window : a.level.tokens;
    const T *dout = (const T *)a.dout.data + b * a.dout.batch_stride + h * a.dout.head_stride;
    for (int c = lane; c < words; c += lanes) {
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++)
            sum[i] = 0;
        for (int64_t j = from; j < to; j += AHEAD) {
            __align__(16) T value[AHEAD][V];
#pragma unroll
            for (int u = 0; u < AHEAD; u++) {
                const T *at = dout + (j + u) * a.dout.row_stride + c * V;
                if constexpr (V > 1)
                    *(uint4 *)value[u] = j + u < to ? __ldg((const uint4 *)at) : make_uint4(0, 0, 0, 0);
                else
                    value[u][0] = j + u < to ? at[0] : lh::from_float<T>(0);
            }
#pragma unroll
            for (int u = 0; u < AHEAD; u++) {
#pragma unroll
                for (int i = 0; i < V; i++)
                    sum[i] += lh::to_float(value[u][i]);
            }
        }
        T *at = (T *)a.do_sel + row * a.dim + c * V;
        if constexpr (V > 1) {
            lh::vec<T> result;
#pragma unroll
            for (int i = 0; i < V; i++)
                result.at[i] = lh::from_float<T>(sum[i]);
            *(uint4 *)at = result.word;
        } else {
            at[0] = lh::from_float<T>(sum[0]);
        }
    }
}

} // namespace

cudaError_t lh_cuda_scatter(const lh_shape *s, const void *o_sel, const int32_t *slot, lh_rows out,
                            int32_t *coverage, cudaStream_t stream)
{
    lh::pull_windows_args w = {};
    w.of[0] = {o_sel, out};
    w.slot = slot;
    w.coverage = coverage;
    w.shift = 1;
    if (lh::has_pull_windows(s, w, 1))
        return lh::pull_by_windows(s, w, 1, stream);
    lh::pull_args a = {};
    a.src = o_sel;
    a.slot = slot;
    a.out = out;
    a.coverage = coverage;
    a.shifted = true;
    a.heads = s->heads;
    return lh::pull(s, a, stream);
}

cudaError_t lh_cuda_scatter_backward(const lh_shape *s, lh_rows dout, const void *index, void *do_sel,
                                     cudaStream_t stream)
{
    constexpr int threads = 256;
    args a = {};
    a.dout = dout;
    a.index = index;
    a.do_sel = do_sel;
    a.wide = s->layout.index_dtype == LH_I64;
    a.dim = (int)s->dim;
    a.selected = s->layout.selected;
    a.level = lh::levels_of(s);
    return lh::with_type(s->dtype, [&](auto *type) {
        typedef typename std::remove_pointer<decltype(type)>::type T;
        const bool vectors = lh::rows_are_vectors(s, &dout) && lh::aligned(do_sel);
        const int words = a.dim / (vectors ? lh::vec<T>::size : 1), lanes = words < 32 ? words : 32;
        a.grid = lh::grid_of(a.selected, threads / lanes, s->heads);
        const unsigned blocks = a.grid.blocks * (unsigned)(s->batch * s->heads);
        if (vectors)
            sum_windows<T, lh::vec<T>::size><<<blocks, threads, 0, stream>>>(a);
        else
            sum_windows<T, 1><<<blocks, threads, 0, stream>>>(a);
    });
}
