/*
 * pool_score.cu: pooling and scoring in one pass over a tensor (SPEC 3.1, 3.2).
 *
 *   x [B,heads,N,d] -> pyramid: X^(l)[i] = (sum of x over the entry's p^l tokens) / p^l
 *                   -> score [B,heads,P]: |x| at level 0, the maximum over the window above it
 *
 * A row is held by `lanes` lanes of a warp, 16 bytes each; they walk whole coarse windows token by token and carry
 * one running sum and maximum for every level, level 1 in registers and the levels above in shared memory.
 */
#include "cuda/norms.cuh"

namespace
{

struct args {
    lh_rows x;
    void *pyramid;
    float *score;
    int first_level, dim, run;          /* run: tokens walked by one group of lanes */
    int64_t heads, lines, runs;         /* lines: B*heads; runs of a line */
    int64_t run_entries[LH_MAX_LEVELS]; /* run / p^l */
    lh::line_grid grid;
    lh::levels level;
};

template <class T, bool EXACT>
__device__ void store_pooled(T *to, const float *sum, float window, float reciprocal)
{
    lh::vec<T> pooled;
#pragma unroll
    for (int i = 0; i < lh::vec<T>::size; i++)
        pooled.at[i] = lh::from_float<T>(lh::quotient<EXACT>(sum[i], window, reciprocal));
    *(uint4 *)to = pooled.word;
}

/* Sums over the lanes of a group of four values a lane: lane i is left with the sum of value i % 4. */
__device__ float sum_four(const float value[4], int lane, int lanes)
{
    const bool odd = lane & 1, high = lane & 2;
    float a = odd ? value[1] : value[0], b = odd ? value[3] : value[2];
    a += __shfl_xor_sync(0xffffffffu, odd ? value[0] : value[1], 1);
    b += __shfl_xor_sync(0xffffffffu, odd ? value[2] : value[3], 1);
    float sum = high ? b : a;
    sum += __shfl_xor_sync(0xffffffffu, high ? a : b, 2);
    for (int mask = 4; mask < lanes; mask *= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    return sum;
}

/* The norms of four rows again, each scaled first: lane i is left with that of row i % 4. Taken by few warps. */
template <class T, int AHEAD>
__device__ __forceinline__ float scaled_norms(const lh::vec<T> raw[AHEAD], int lane, int lanes)
{
    float square[AHEAD] = {0}, scale[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        float largest = 0;
#pragma unroll
        for (int i = 0; i < lh::vec<T>::size; i++)
            largest = fmaxf(largest, fabsf(lh::to_float(raw[u].at[i])));
        for (int mask = 1; mask < lanes; mask *= 2)
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, mask));
        scale[u] = lh::scale_of(largest);
#pragma unroll
        for (int i = 0; i < lh::vec<T>::size; i++) {
            const float value = lh::to_float(raw[u].at[i]) * scale[u];
            square[u] = fmaf(value, value, square[u]);
        }
    }
    const float mine = lane & 2 ? (lane & 1 ? scale[3] : scale[2]) : (lane & 1 ? scale[1] : scale[0]);
    return sqrtf(sum_four(square, lane, lanes)) / mine;
}

/* EXACT: p is a power of two. */
template <class T, bool EXACT>
__global__ void __launch_bounds__(128, 5) pool_score_vectors(const __grid_constant__ args a)
{
    constexpr int V = lh::vec<T>::size, AHEAD = 4;
    extern __shared__ float above[]; /* [L-2][V+1][threads]: sums and maximum of levels 2.. */
    const int lanes = a.dim / V, lane = threadIdx.x % lanes, threads = blockDim.x, pool = (int)a.level.pool;
    const unsigned line = blockIdx.x / a.grid.blocks, b = line / a.grid.heads, h = line - b * a.grid.heads;
    const int64_t r = (int64_t)(blockIdx.x - line * a.grid.blocks) * (threads / lanes) + threadIdx.x / lanes;
    const int64_t first = r * a.run;
    const int tokens = r >= a.runs                      ? 0
                       : a.level.tokens - first < a.run ? (int)(a.level.tokens - first)
                                                        : a.run;
    const T *x =
        (const T *)a.x.data + b * a.x.batch_stride + h * a.x.head_stride + first * a.x.row_stride + lane * V;
    const int64_t skipped = a.level.offset[a.first_level];
    T *pyramid = a.pyramid
                     ? (T *)a.pyramid + (line * (a.level.entries - skipped) - skipped) * a.dim + lane * V
                     : nullptr; /* entry e of the line is a.dim * e on */
    float *score = a.score ? a.score + line * a.level.entries : nullptr;
    for (int i = threadIdx.x; i < (a.level.count - 2) * (V + 1) * threads; i += threads)
        above[i] = 0;
    __syncthreads();
    float sum[V] = {0}, most = 0;
    int filled = 0;
    int64_t entry = a.level.count > 1 ? a.level.offset[1] + r * a.run_entries[1] : 0; /* next of level 1 */
    unsigned done = 0; /* of them in this run */
    const float window1 = (float)pool, reciprocal1 = 1 / window1;
    lh::vec<T> raw[AHEAD], next_raw[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++, x += a.x.row_stride) {
        if (u < tokens)
            next_raw[u].word = __ldg((const uint4 *)x);
    }
    for (int j0 = 0; j0 < a.run; j0 += AHEAD) {
#pragma unroll
        for (int u = 0; u < AHEAD; u++, x += a.x.row_stride) {
            raw[u] = next_raw[u];
            if (j0 + AHEAD + u < tokens)
                next_raw[u].word = __ldg((const uint4 *)x);
        }
        float norms = 0; /* of token j0 + lane % 4 */
        if (score) {
            float square[AHEAD] = {0};
#pragma unroll
            for (int u = 0; u < AHEAD; u++) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const float value = lh::to_float(raw[u].at[i]);
                    square[u] = fmaf(value, value, square[u]);
                }
            }
            norms = sum_four(square, lane, lanes);
            const bool far = lh::out_of_range(norms) && j0 + lane % AHEAD < tokens;
            norms = sqrtf(norms);
            if (__any_sync(0xffffffffu, far)) {
                const float scaled = scaled_norms<T, AHEAD>(raw, lane, lanes);
                norms = far ? scaled : norms;
            }
            if (lane < AHEAD && j0 + lane < tokens)
                score[first + j0 + lane] = norms;
        }
        if (pyramid && a.first_level == 0) {
#pragma unroll
            for (int u = 0; u < AHEAD; u++) {
                if (j0 + u < tokens)
                    *(uint4 *)(pyramid + (first + j0 + u) * a.dim) = raw[u].word;
            }
        }
        if (a.level.count == 1)
            continue;
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const float norm = score ? __shfl_sync(0xffffffffu, norms, u, lanes) : 0;
            if (j0 + u >= tokens)
                continue;
#pragma unroll
            for (int i = 0; i < V; i++)
                sum[i] += lh::to_float(raw[u].at[i]);
            most = filled == 0 || norm > most ? norm : most;
            if (++filled < pool)
                continue;
            filled = 0;
            if (pyramid)
                store_pooled<T, EXACT>(pyramid + entry * a.dim, sum, window1, reciprocal1);
            if (score && lane == 0)
                score[entry] = most;
            entry++;
            done++;
            unsigned finished = done;
            float window = window1;
            for (int l = 2; l < a.level.count; l++) { /* up while an entry's children are complete */
                float *waiting = above + (l - 2) * (V + 1) * threads + threadIdx.x;
                const unsigned child = EXACT ? finished & (unsigned)(pool - 1) : finished % (unsigned)pool;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    sum[i] += waiting[i * threads];
                    waiting[i * threads] = child == 0 ? 0 : sum[i];
                }
                const float before = waiting[V * threads];
                most = child == 1 || most > before ? most : before;
                waiting[V * threads] = most;
                if (child != 0)
                    break;
                finished /= (unsigned)pool;
                window *= window1;
                const int64_t at = a.level.offset[l] + r * a.run_entries[l] + finished - 1;
                if (pyramid)
                    store_pooled<T, EXACT>(pyramid + at * a.dim, sum, window, 1 / window);
                if (score && lane == 0)
                    score[at] = most;
            }
#pragma unroll
            for (int i = 0; i < V; i++)
                sum[i] = 0;
        }
    }
}

/* Any d, any stride: one thread for each pooled element. */
template <class T> __global__ void pool_elements(args a)
{
    const int64_t skipped = a.level.offset[a.first_level], rows = a.level.entries - skipped;
    const int64_t count = a.lines * rows * a.dim;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = lh::divide(i, a.dim), head = lh::divide(row, rows);
        const int64_t entry = row - head * rows + skipped;
        int l = 0;
        int64_t window = 1;
        while (l + 1 < a.level.count && entry >= a.level.offset[l + 1]) {
            l++;
            window *= a.level.pool;
        }
        const T *x = (const T *)a.x.data + head / a.heads * a.x.batch_stride +
                     head % a.heads * a.x.head_stride +
                     (entry - a.level.offset[l]) * window * a.x.row_stride + (i - row * a.dim);
        float sum = 0;
        for (int64_t j = 0; j < window; j++)
            sum += lh::to_float(x[j * a.x.row_stride]);
        ((T *)a.pyramid)[i] = lh::from_float<T>(sum / (float)window);
    }
}

/* Any d, any stride: one warp for each token's norm. */
template <class T> __global__ void score_tokens(args a)
{
    const int lane = threadIdx.x % 32;
    const int64_t count = a.lines * a.level.tokens;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32; i < count;
         i += (int64_t)gridDim.x * blockDim.x / 32) {
        const int64_t head = i / a.level.tokens, token = i % a.level.tokens;
        const T *x = (const T *)a.x.data + head / a.heads * a.x.batch_stride +
                     head % a.heads * a.x.head_stride + token * a.x.row_stride;
        float norm = 0;
        for (int c = lane; c < a.dim; c += 32)
            norm = fmaf(lh::to_float(x[c]), lh::to_float(x[c]), norm);
        for (int mask = 16; mask > 0; mask /= 2)
            norm += __shfl_xor_sync(0xffffffffu, norm, mask);
        float scale = 1;
        if (lh::out_of_range(norm)) { /* the same in every lane */
            float largest = 0;
            for (int c = lane; c < a.dim; c += 32)
                largest = fmaxf(largest, fabsf(lh::to_float(x[c])));
            for (int mask = 16; mask > 0; mask /= 2)
                largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, mask));
            scale = lh::scale_of(largest);
            norm = 0;
            for (int c = lane; c < a.dim; c += 32)
                norm = fmaf(lh::to_float(x[c]) * scale, lh::to_float(x[c]) * scale, norm);
            for (int mask = 16; mask > 0; mask /= 2)
                norm += __shfl_xor_sync(0xffffffffu, norm, mask);
        }
        if (lane == 0)
            a.score[head * a.level.entries + token] = sqrtf(norm) / scale;
    }
}

/* Scores of level l from those of the level below. */
__global__ void score_level(args a, int l)
{
    const int64_t size = a.level.offset[l + 1] - a.level.offset[l], count = a.lines * size;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        float *score = a.score + i / size * a.level.entries;
        const float *below = score + a.level.offset[l - 1] + i % size * a.level.pool;
        float most = below[0];
        for (int64_t j = 1; j < a.level.pool; j++)
            most = below[j] > most ? below[j] : most;
        score[a.level.offset[l] + i % size] = most;
    }
}

template <class T> void launch_elements(const args &a, cudaStream_t stream)
{
    constexpr int threads = 256, most = 1 << 20;
    const int64_t pooled = a.lines * (a.level.entries - a.level.offset[a.first_level]) * a.dim;
    if (a.pyramid && pooled > 0)
        pool_elements<T><<<lh::blocks_for(pooled, threads, most), threads, 0, stream>>>(a);
    if (!a.score)
        return;
    score_tokens<T><<<lh::blocks_for(a.lines * a.level.tokens, threads / 32, most), threads, 0, stream>>>(a);
    for (int l = 1; l < a.level.count; l++) {
        const int64_t entries = a.lines * (a.level.offset[l + 1] - a.level.offset[l]);
        score_level<<<lh::blocks_for(entries, threads, most), threads, 0, stream>>>(a, l);
    }
}

/* Whole coarse windows, at least 32 tokens, for each group of lanes. */
template <class T> void launch_vectors(args a, const lh_shape *s, cudaStream_t stream)
{
    constexpr int V = lh::vec<T>::size;
    const int64_t window = s->layout.window[s->levels - 1];
    a.run = (int)((32 + window - 1) / window * window);
    a.runs = (s->tokens + a.run - 1) / a.run;
    for (int l = 0; l < s->levels; l++)
        a.run_entries[l] = a.run / s->layout.window[l];
    const int above = s->levels > 2 ? (int)s->levels - 2 : 0, each = above * (V + 1) * (int)sizeof(float);
    const int threads = each * 128 <= 48 * 1024 ? 128 : 32;
    a.grid = lh::grid_of(a.runs, threads / (a.dim / V), a.heads);
    const unsigned blocks = a.grid.blocks * (unsigned)a.lines;
    if (lh::power_of_two(s->pool))
        pool_score_vectors<T, true><<<blocks, threads, each * threads, stream>>>(a);
    else
        pool_score_vectors<T, false><<<blocks, threads, each * threads, stream>>>(a);
}

} // namespace

cudaError_t lh_cuda_pool_score(const lh_shape *s, const lh_pooling *of, int count, int first_level,
                               cudaStream_t stream)
{
    constexpr int64_t longest_run =
        1 << 20; /* tokens one group may walk; wider windows go element by element */
    cudaError_t e = cudaSuccess;
    if (first_level == 1 && lh_cuda_has_pool_windows(s, of, count))
        return lh_cuda_pool_windows(s, of, count, stream);
    for (int i = 0; i < count && e == cudaSuccess; i++) {
        args a = {};
        a.x = of[i].x;
        a.pyramid =
            first_level < s->levels ? of[i].pyramid : nullptr; /* L = 1 has no level above the tokens */
        a.score = of[i].score;
        a.first_level = first_level;
        a.dim = (int)s->dim;
        a.heads = of[i].heads;
        a.lines = s->batch * a.heads;
        a.level = lh::levels_of(s);
        if (!a.pyramid && !a.score)
            continue;
        const bool vectors = lh::rows_are_vectors(s, &a.x) && lh::aligned(a.pyramid) &&
                             s->layout.window[s->levels - 1] <= longest_run;
        e = lh::with_type(s->dtype, [&](auto *type) {
            typedef typename std::remove_pointer<decltype(type)>::type T;
            if (vectors && s->dim / lh::vec<T>::size >= 4)
                launch_vectors<T>(a, s, stream);
            else
                launch_elements<T>(a, stream);
        });
    }
    return e;
}
