/*
 * gather.cu: rows of a pyramid in the order of the index (SPEC 3.5).
 *
 *   x [B,heads,N,d] for level 0, upper [B,heads,P-N,d] above it, index [B,H,S] -> selected [B,H,S,d]
 */
#include "cuda/common.cuh"

namespace
{

struct args {
    lh_rows x; /* level 0 */
    const void *upper;
    const void *index;
    void *selected;
    bool wide;
    int width; /* of a row, in words */
    int64_t heads, group, kv_heads, selected_rows, count, upper_from, upper_rows, entries;
};

/* Word is uint4 where rows allow it, else one element's bits; strides are in words. */
template <class Word> __global__ void gather_rows(args a)
{
    constexpr int AHEAD = 4;
    const int lanes = a.width < 32 ? a.width : 32, each = blockDim.x / lanes, lane = threadIdx.x % lanes;
    const int64_t first = (int64_t)blockIdx.x * each * AHEAD + threadIdx.x / lanes;
    if ((int)threadIdx.x >= each * lanes)
        return;
    const Word *source[AHEAD];
    int64_t row[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        row[u] = first + (int64_t)u * each;
        source[u] = nullptr;
        if (row[u] >= a.count)
            continue;
        const int64_t line = lh::divide(row[u], a.selected_rows),
                      entry = lh::index_at(a.index, a.wide, row[u]);
        const int64_t b = line / a.heads, h = line % a.heads / a.group;
        if (entry < 0 || entry >= a.entries)
            continue;
        if (entry < a.upper_from)
            source[u] =
                (const Word *)a.x.data + b * a.x.batch_stride + h * a.x.head_stride + entry * a.x.row_stride;
        else
            source[u] = (const Word *)a.upper +
                        ((b * a.kv_heads + h) * a.upper_rows + entry - a.upper_from) * a.width;
    }
    for (int c = lane; c < a.width; c += lanes) {
        Word word[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            word[u] = source[u] ? source[u][c] : Word();
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (row[u] < a.count)
                ((Word *)a.selected)[row[u] * a.width + c] = word[u];
        }
    }
}

template <class Word> cudaError_t launch(args a, int64_t elements_per_word, cudaStream_t stream)
{
    constexpr int threads = 256;
    a.x.batch_stride /= elements_per_word;
    a.x.head_stride /= elements_per_word;
    a.x.row_stride /= elements_per_word;
    a.width /= (int)elements_per_word;
    const int lanes = a.width < 32 ? a.width : 32;
    gather_rows<Word><<<lh::blocks_for(a.count, (int64_t)4 * (threads / lanes)), threads, 0, stream>>>(a);
    return cudaGetLastError();
}

} // namespace

cudaError_t lh_cuda_gather(const lh_shape *s, int64_t heads, lh_rows x, const void *upper, int first_level,
                           const void *index, void *selected, cudaStream_t stream)
{
    args a = {};
    a.x = x;
    a.upper = upper;
    a.index = index;
    a.selected = selected;
    a.wide = s->layout.index_dtype == LH_I64;
    a.width = (int)s->dim;
    a.heads = s->heads;
    a.kv_heads = heads;
    a.group = s->heads / heads;
    a.selected_rows = s->layout.selected;
    a.count = s->batch * s->heads * a.selected_rows;
    a.upper_from = s->layout.level_offset[first_level];
    a.upper_rows = s->layout.entries - a.upper_from;
    a.entries = s->layout.entries;
    const int64_t size = (int64_t)lh_dtype_size(s->dtype);
    const bool from_x = first_level > 0;
    if (s->dim * size % 16 == 0 && (!from_x || lh::rows_are_vectors(s, &x)))
        return launch<uint4>(a, 16 / size, stream);
    return size == 2 ? launch<uint16_t>(a, 1, stream) : launch<uint32_t>(a, 1, stream);
}
