/*
 * gather.cu: rows of a pyramid in the order of the index (SPEC 3.5).
 *
 *   x [B,heads,N,d] for level 0, upper [B,heads,P-N,d] above it, index [B,H,S] -> selected [B,H,S,d]
 *
 * v is scored by nobody, so that no other kernel has to read it: its rows above the tokens are pooled here. The windows of
 * leaves tile the sequence, and a parent's rows were read a moment before, with its children's: each byte comes from
 * memory once.
 */
#include "cuda/common.cuh"

namespace
{

struct args {
    struct source {
        lh_rows x; /* level 0 */
        const void *upper;
        void *selected;
        int64_t heads;
    } of[3]; /* q, k, v: the grid's y */
    const void *index;
    bool wide;
    int width; /* of a row, in words */
    int64_t heads, selected_rows, upper_from, upper_rows, entries;
    lh::line_grid grid;
    lh::levels level; /* of v's pooling */
};

enum {
    AHEAD = 4 /* rows a thread has on the way */
};

/* Word is uint4 where rows allow it, else one element's bits; strides are in words. */
template <class Word> __device__ void gather_rows_of(const args &a)
{
    const args::source &of = a.of[blockIdx.y];
    const int lanes = a.width < 32 ? a.width : 32, each = blockDim.x / lanes, lane = threadIdx.x % lanes;
    const unsigned line = blockIdx.x / a.grid.blocks, b = line / a.grid.heads, h = line - b * a.grid.heads;
    const unsigned head = h / (unsigned)(a.heads / of.heads);
    const int64_t first = (int64_t)(blockIdx.x - line * a.grid.blocks) * each * AHEAD + threadIdx.x / lanes;
    if ((int)threadIdx.x >= each * lanes)
        return;
    const Word *level0 = (const Word *)of.x.data + b * of.x.batch_stride + head * of.x.head_stride;
    const Word *upper = (const Word *)of.upper + (b * of.heads + head) * a.upper_rows * a.width;
    Word *selected = (Word *)of.selected + line * a.selected_rows * a.width;
    const Word *source[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        const int64_t row = first + u * each;
        source[u] = nullptr;
        if (row >= a.selected_rows)
            continue;
        const int64_t entry = lh::index_at(a.index, a.wide, line * a.selected_rows + row);
        if (entry >= 0 && entry < a.entries)
            source[u] = entry < a.upper_from ? level0 + entry * of.x.row_stride
                                             : upper + (entry - a.upper_from) * a.width;
    }
    for (int c = lane; c < a.width; c += lanes) {
        Word word[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            word[u] = source[u] ? source[u][c] : Word();
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (first + u * each < a.selected_rows)
                selected[(first + u * each) * a.width + c] = word[u];
        }
    }
}

template <class Word> __global__ void gather_rows(const __grid_constant__ args a)
{
    gather_rows_of<Word>(a);
}

/* Rows of v, pooled from their windows, in rising order of the tokens. */
template <class T> __device__ void gather_means(const args &a)
{
    constexpr int V = lh::vec<T>::size, LOADS = 4;
    const args::source &of = a.of[2];
    const int lanes = a.width, each = blockDim.x / lanes, lane = threadIdx.x % lanes;
    const unsigned line = blockIdx.x / a.grid.blocks, b = line / a.grid.heads, h = line - b * a.grid.heads;
    const unsigned head = h / (unsigned)(a.heads / of.heads);
    const int64_t first = (int64_t)(blockIdx.x - line * a.grid.blocks) * each * AHEAD + threadIdx.x / lanes;
    const uint4 *level0 = (const uint4 *)of.x.data + b * of.x.batch_stride + head * of.x.head_stride + lane;
    uint4 *selected = (uint4 *)of.selected + line * a.selected_rows * lanes + lane;
    int64_t entries[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        const int64_t row = first + u * each;
        entries[u] = row < a.selected_rows ? lh::index_at(a.index, a.wide, line * a.selected_rows + row) : -1;
    }
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        const int64_t row = first + u * each;
        if (row >= a.selected_rows)
            continue;
        int level = 0, window = 0;
        if (entries[u] >= 0 && entries[u] < a.entries) {
            window = 1;
            while (level + 1 < a.level.count && entries[u] >= a.level.offset[level + 1]) {
                level++;
                window *= (int)a.level.pool;
            }
        }
        const uint4 *x = level0 + (entries[u] - a.level.offset[level]) * window * of.x.row_stride;
        if (window <= 1) {
            selected[row * lanes] = window ? __ldg(x) : make_uint4(0, 0, 0, 0);
            continue;
        }
        float sum[V] = {0};
        for (int j0 = 0; j0 < window; j0 += LOADS) {
            lh::vec<T> token[LOADS];
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
                if (j0 + j < window)
                    token[j].word = __ldg(x + (j0 + j) * of.x.row_stride);
            }
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
#pragma unroll
                for (int i = 0; i < V; i++)
                    sum[i] += lh::to_float(token[j].at[i]);
            }
        }
        lh::vec<T> mean;
        const bool exact = (window & (window - 1)) == 0; /* then a product rounds as a quotient would */
        const float reciprocal = 1 / (float)window;
#pragma unroll
        for (int i = 0; i < V; i++)
            mean.at[i] = lh::from_float<T>(exact ? sum[i] * reciprocal : sum[i] / (float)window);
        selected[row * lanes] = mean.word;
    }
}

template <class T> __global__ void __launch_bounds__(256, 4) gather_and_pool(const __grid_constant__ args a)
{
    if (blockIdx.y == 2)
        gather_means<T>(a);
    else
        gather_rows_of<uint4>(a);
}

/* `dtype` matters where v is pooled here. */
template <class Word>
cudaError_t launch(args a, lh_dtype dtype, int64_t lines, int64_t elements_per_word, cudaStream_t stream)
{
    constexpr int threads = 256;
    for (args::source &of : a.of) {
        of.x.batch_stride /= elements_per_word;
        of.x.head_stride /= elements_per_word;
        of.x.row_stride /= elements_per_word;
    }
    a.width /= (int)elements_per_word;
    const int lanes = a.width < 32 ? a.width : 32;
    a.grid = lh::grid_of(a.selected_rows, AHEAD * (threads / lanes), a.heads);
    const dim3 grid(a.grid.blocks * (unsigned)lines, 3);
    if (!a.of[2].upper && a.upper_rows > 0)
        return lh::with_type(dtype, [&](auto *type) {
            typedef typename std::remove_pointer<decltype(type)>::type T;
            gather_and_pool<T><<<grid, threads, 0, stream>>>(a);
        });
    gather_rows<Word><<<grid, threads, 0, stream>>>(a);
    return cudaGetLastError();
}

} // namespace

bool lh_cuda_gather_pools(const lh_shape *s, const lh_rows x[3], void *const selected[3])
{
    constexpr int64_t longest_window = 64; /* one group of lanes walks it */
    bool vectors = true;
    for (int i = 0; i < 3; i++)
        vectors = vectors && lh::rows_are_vectors(s, &x[i]) && lh::aligned(selected[i]);
    return vectors && s->levels > 1 && s->layout.window[s->levels - 1] <= longest_window;
}

cudaError_t lh_cuda_gather(const lh_shape *s, const lh_rows x[3], const void *const upper[3], int first_level,
                           const void *index, void *const selected[3], cudaStream_t stream)
{
    args a = {};
    const int64_t size = (int64_t)lh_dtype_size(s->dtype);
    bool vectors = s->dim * size % 16 == 0;
    for (int i = 0; i < 3; i++) {
        a.of[i] = {x[i], upper[i], selected[i], i == 0 ? s->heads : s->kv_heads};
        vectors = vectors && lh::aligned(upper[i]) && lh::aligned(selected[i]) &&
                  (first_level == 0 || lh::rows_are_vectors(s, &x[i]));
    }
    a.index = index;
    a.wide = s->layout.index_dtype == LH_I64;
    a.width = (int)s->dim;
    a.heads = s->heads;
    a.selected_rows = s->layout.selected;
    a.upper_from = s->layout.level_offset[first_level];
    a.upper_rows = s->layout.entries - a.upper_from;
    a.entries = s->layout.entries;
    a.level = lh::levels_of(s);
    if (vectors)
        return launch<uint4>(a, s->dtype, s->batch * s->heads, 16 / size, stream);
    return size == 2 ? launch<uint16_t>(a, s->dtype, s->batch * s->heads, 1, stream)
                     : launch<uint32_t>(a, s->dtype, s->batch * s->heads, 1, stream);
}
