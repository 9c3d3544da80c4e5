/*
 * pool_windows.cu: levels and norms of q, k and v in one launch, for the shapes that people train with: p 2 or 4, rows of
 * 8, 16 or 32 vectors of 16 bytes, N a multiple of 16 (SPEC 3.1, 3.2).
 *
 *   x [B,heads,N,d] -> pyramid from level 1 up [B,heads,P-N,d], score [B,heads,P]
 *
 * A group of lanes has the 16 rows of a batch on the way at once, and reads each byte once. Levels whose windows fit into a
 * batch are summed in registers, those above in shared memory. Of 16 squared norms the lanes of a group keep one each (two
 * at 8 lanes), by a reduction that halves the rows each lane is about at every step: the maxima of windows are then
 * exchanges between lanes. pool_score.cu takes every other shape, with the same sums in the same order.
 */
#include "cuda/norms.cuh"

namespace
{

enum {
    BATCH = 16, /* rows */
    THREADS = 128,
    LONGEST_RUN = 1 << 16 /* tokens that one group walks */
};

struct args {
    struct source {
        lh_rows x;
        void *pyramid;
        float *score;
        unsigned heads, lines;
    } of[3]; /* the grid's y */
    int dim, run;
    int64_t runs; /* of a line */
    unsigned blocks;
    lh::levels level;
};

__host__ __device__ constexpr int window_of(int pool, int level)
{
    return level == 0 ? 1 : pool * window_of(pool, level - 1);
}

/* The highest level whose windows fit into a batch. */
__host__ __device__ constexpr int top_of(int pool)
{
    return pool == 2 ? 4 : 2;
}

/* A lane's view of one line: entry i of a level above the tokens starts at pyramid + i * dim. */
template <class T> struct line_of {
    T *pyramid;
    int dim, count;
    const int64_t *offset;
    int64_t first; /* token of the batch */
};

template <class T> __device__ void store_pooled(T *to, const float *sum, float reciprocal)
{
    lh::vec<T> pooled;
#pragma unroll
    for (int i = 0; i < lh::vec<T>::size; i++)
        pooled.at[i] = lh::from_float<T>(sum[i] * reciprocal);
    *(uint4 *)to = pooled.word;
}

/* The window of level LEVEL that starts at row AT of the batch, and all within it. */
template <class T, int POOL, int LEVEL, int AT>
__device__ __forceinline__ void pool_window(float (&sum)[lh::vec<T>::size], const lh::vec<T> (&raw)[BATCH],
                                            const line_of<T> &line, bool there)
{
    constexpr int V = lh::vec<T>::size;
    if constexpr (LEVEL == 0) {
#pragma unroll
        for (int i = 0; i < V; i++)
            sum[i] = lh::to_float(raw[AT].at[i]);
    } else {
        constexpr int W = window_of(POOL, LEVEL), CHILD = W / POOL;
        float part[V];
        pool_window<T, POOL, LEVEL - 1, AT>(sum, raw, line, there);
        pool_window<T, POOL, LEVEL - 1, AT + CHILD>(part, raw, line, there);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum[i] += part[i];
        if constexpr (POOL == 4) {
            pool_window<T, POOL, LEVEL - 1, AT + 2 * CHILD>(part, raw, line, there);
#pragma unroll
            for (int i = 0; i < V; i++)
                sum[i] += part[i];
            pool_window<T, POOL, LEVEL - 1, AT + 3 * CHILD>(part, raw, line, there);
#pragma unroll
            for (int i = 0; i < V; i++)
                sum[i] += part[i];
        }
        if (there && LEVEL < line.count)
            store_pooled(line.pyramid + (line.offset[LEVEL] + (line.first + AT) / W) * line.dim, sum,
                         1.0f / W);
    }
}

/* Norms of a batch: this lane's rows are lane % 16, and with 8 lanes lane + 8 too. */
template <class T, int LANES>
__device__ __forceinline__ void norms_of(float (&norm)[2], const lh::vec<T> (&raw)[BATCH], const T *x,
                                         int64_t stride, int lane)
{
    float square[BATCH];
#pragma unroll
    for (int u = 0; u < BATCH; u++) {
        square[u] = 0;
#pragma unroll
        for (int i = 0; i < lh::vec<T>::size; i++) {
            const float value = lh::to_float(raw[u].at[i]);
            square[u] = fmaf(value, value, square[u]);
        }
    }
    /* Rows that differ in bit `mask` are shared out between the lanes that differ in it. */
#pragma unroll
    for (int mask = 1; mask < BATCH && mask < LANES; mask *= 2) {
        const bool odd = lane & mask;
#pragma unroll
        for (int u = 0; u < BATCH; u += 2 * mask) {
            const float given = odd ? square[u] : square[u + mask], kept = odd ? square[u + mask] : square[u];
            square[u] = kept + __shfl_xor_sync(0xffffffffu, given, mask);
        }
    }
    norm[0] = square[0];
    norm[1] = LANES < BATCH ? square[LANES % BATCH] : 0;
    if (LANES > BATCH)
        norm[0] += __shfl_xor_sync(0xffffffffu, norm[0], BATCH);
    const bool far = lh::out_of_range(norm[0]) || (LANES < BATCH && lh::out_of_range(norm[1]));
    norm[0] = sqrtf(norm[0]);
    norm[1] = sqrtf(norm[1]);
    if (__any_sync(0xffffffffu, far)) {
#pragma unroll 1
        for (int u = 0; u < BATCH; u++) {
            lh::vec<T> row;
            row.word = __ldg((const uint4 *)(x + u * stride));
            float square_of_row;
            const float scaled = lh::scaled_norm<T, LANES>(row, &square_of_row);
            if (lane % BATCH == u && lh::out_of_range(square_of_row))
                norm[0] = scaled;
            if (LANES < BATCH && lane + LANES == u && lh::out_of_range(square_of_row))
                norm[1] = scaled;
        }
    }
}

/* Scores of the batch's rows and windows; norm[0] becomes the maximum over the largest window in it. */
template <int POOL, int LANES>
__device__ __forceinline__ void store_scores(float (&norm)[2], float *score, const int64_t *offset, int count,
                                             int64_t first, int lane, bool there)
{
    const bool writes = there && lane < BATCH;
    if (writes) {
        score[first + lane] = norm[0];
        if (LANES < BATCH)
            score[first + LANES + lane] = norm[1];
    }
#pragma unroll
    for (int level = 1; level <= top_of(POOL); level++) {
        const int window = window_of(POOL, level);
#pragma unroll
        for (int mask = window / POOL; mask < window; mask *= 2) {
            if (mask < LANES) {
                norm[0] = fmaxf(norm[0], __shfl_xor_sync(0xffffffffu, norm[0], mask));
                if (LANES < BATCH)
                    norm[1] = fmaxf(norm[1], __shfl_xor_sync(0xffffffffu, norm[1], mask));
            } else {
                norm[0] = fmaxf(norm[0], norm[1]);
            }
        }
        if (!writes || level >= count || lane % window != 0)
            continue;
        score[offset[level] + (first + lane) / window] = norm[0];
        if (LANES < BATCH && window <= LANES)
            score[offset[level] + (first + LANES + lane) / window] = norm[1];
    }
}

template <class T, int POOL, int LANES>
__global__ void __launch_bounds__(THREADS, 4) pool_windows(const __grid_constant__ args a)
{
    constexpr int V = lh::vec<T>::size, TOP = top_of(POOL), W = window_of(POOL, TOP);
    static_assert(W == BATCH, "a batch is one window of the highest level in it");
    extern __shared__ float above[]; /* [L-1-TOP][V+1][threads]: sums and maximum of the levels above */
    const args::source &of = a.of[blockIdx.y];
    const int lane = threadIdx.x % LANES;
    const unsigned line = blockIdx.x / a.blocks;
    if (line >= of.lines)
        return;
    const unsigned b = line / of.heads, h = line - b * of.heads;
    const int64_t r = (int64_t)(blockIdx.x - line * a.blocks) * (THREADS / LANES) + threadIdx.x / LANES;
    const int64_t start = r * a.run;
    const T *x = (const T *)of.x.data + b * of.x.batch_stride + h * of.x.head_stride + lane * V;
    float *score = of.score ? of.score + line * a.level.entries : nullptr;
    line_of<T> at;
    at.pyramid =
        (T *)of.pyramid + (line * (a.level.entries - a.level.tokens) - a.level.tokens) * a.dim + lane * V;
    at.dim = a.dim;
    at.count = a.level.count;
    at.offset = a.level.offset;
    for (int i = threadIdx.x; i < (a.level.count - 1 - TOP) * (V + 1) * THREADS; i += THREADS)
        above[i] = 0; /* read by the thread that writes it */
    for (int j = 0; j < a.run; j += BATCH) {
        const bool there = r < a.runs && start + j < a.level.tokens;
        at.first = there ? start + j : 0;
        const T *row = x + at.first * of.x.row_stride;
        lh::vec<T> raw[BATCH];
#pragma unroll
        for (int u = 0; u < BATCH; u++)
            raw[u].word = __ldg((const uint4 *)(row + u * of.x.row_stride));
        float norm[2] = {0, 0}, sum[V];
        if (score) {
            norms_of<T, LANES>(norm, raw, row, of.x.row_stride, lane);
            store_scores<POOL, LANES>(norm, score, a.level.offset, a.level.count, at.first, lane, there);
        }
        pool_window<T, POOL, TOP, 0>(sum, raw, at, there);
        float most = norm[0], reciprocal = 1.0f / W;
        int64_t entry = at.first / W;                   /* of the level below */
        for (int l = TOP + 1; l < a.level.count; l++) { /* up while an entry's children are complete */
            float *waiting = above + (l - 1 - TOP) * (V + 1) * THREADS + threadIdx.x;
            const int child = (int)(entry % POOL);
            entry /= POOL;
            reciprocal /= POOL;
#pragma unroll
            for (int i = 0; i < V; i++) {
                sum[i] += waiting[i * THREADS];
                waiting[i * THREADS] = child == POOL - 1 ? 0 : sum[i];
            }
            most = child == 0 ? most : fmaxf(most, waiting[V * THREADS]);
            waiting[V * THREADS] = most;
            if (child != POOL - 1)
                break;
            if (!there)
                continue;
            store_pooled(at.pyramid + (at.offset[l] + entry) * a.dim, sum, reciprocal);
            if (score && lane == 0)
                score[at.offset[l] + entry] = most;
        }
    }
}

template <class T, int POOL>
void launch_lanes(const args &a, int lanes, dim3 grid, size_t bytes, cudaStream_t stream)
{
    if (lanes == 8)
        pool_windows<T, POOL, 8><<<grid, THREADS, bytes, stream>>>(a);
    else if (lanes == 16)
        pool_windows<T, POOL, 16><<<grid, THREADS, bytes, stream>>>(a);
    else
        pool_windows<T, POOL, 32><<<grid, THREADS, bytes, stream>>>(a);
}

} // namespace

bool lh_cuda_has_pool_windows(const lh_shape *s, const lh_pooling *of, int count)
{
    const int64_t window = s->layout.window[s->levels - 1], size = (int64_t)lh_dtype_size(s->dtype);
    const int64_t lanes = s->dim * size / 16;
    const int64_t above = s->levels - 1 - top_of((int)s->pool), each = (16 / size + 1) * THREADS;
    for (int i = 0; i < count; i++) {
        if (!lh::rows_are_vectors(s, &of[i].x) || !of[i].pyramid || !lh::aligned(of[i].pyramid))
            return false;
    }
    return s->levels > 1 && (s->pool == 2 || s->pool == 4) && s->tokens % BATCH == 0 && lanes >= 8 &&
           window <= LONGEST_RUN && above * each * (int64_t)sizeof(float) <= 24 * 1024;
}

cudaError_t lh_cuda_pool_windows(const lh_shape *s, const lh_pooling *of, int count, cudaStream_t stream)
{
    const int lanes = (int)(s->dim * (int64_t)lh_dtype_size(s->dtype) / 16);
    const int above = (int)s->levels - 1 - top_of((int)s->pool);
    const int64_t window = s->layout.window[s->levels - 1];
    unsigned lines = 0;
    args a = {};
    for (int i = 0; i < count; i++) {
        a.of[i] = {of[i].x, of[i].pyramid, of[i].score, (unsigned)of[i].heads,
                   (unsigned)(s->batch * of[i].heads)};
        lines = lines > a.of[i].lines ? lines : a.of[i].lines;
    }
    a.dim = (int)s->dim;
    a.run = (int)(window > BATCH ? window : BATCH);
    a.runs = (s->tokens + a.run - 1) / a.run;
    a.blocks = lh::blocks_for(a.runs, THREADS / lanes);
    a.level = lh::levels_of(s);
    return lh::with_type(s->dtype, [&](auto *type) {
        typedef typename std::remove_pointer<decltype(type)>::type T;
        const size_t bytes = above > 0 ? (size_t)above * (lh::vec<T>::size + 1) * THREADS * sizeof(float) : 0;
        const dim3 grid(a.blocks * lines, (unsigned)count);
        if (s->pool == 2)
            launch_lanes<T, 2>(a, lanes, grid, bytes, stream);
        else
            launch_lanes<T, 4>(a, lanes, grid, bytes, stream);
    });
}
