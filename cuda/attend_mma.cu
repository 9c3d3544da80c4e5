/*
 * attend_mma.cu: causal attention and its backward on the tensor cores of sm_80 and later, F16 and BF16, d 64 and 128
 * (SPEC 3.6, 4). Sums and softmax are float32; P and dS are rounded to the tensors' type for the second products.
 *
 *   forward: 64 queries a block, 16 a warp; keys in tiles of 64, the next one loading meanwhile.
 *   dkv: 128 keys a block, 16 a warp, walking the queries: it forms P^T and dS^T, whose accumulators are already the
 *        left operand of dv += P^T do and dk += dS^T q, so neither passes through memory.
 *   dq: 128 queries a block, 16 a warp, walking the keys.
 * One owner per output: same bits every run.
 */
#include "cuda/mma.cuh"

namespace
{

enum {
    TILE = 64,   /* rows of a walked tile */
    HALF = 32,   /* of which backward weighs so many at a time */
    OWNED = 128, /* rows a backward block owns */
    FORWARD_THREADS = 128,
    BACKWARD_THREADS = 256
};

struct args {
    const void *q, *k, *v, *d_o;
    void *o, *dq, *dk, *dv;
    float *lse;
    const float *delta;
    int64_t rows, heads, tiles;
    float scale, scale_log2; /* 1/sqrt(d), and times log2 e */
};

template <class T, int D> __device__ const T *head_of(const void *data, const args &a, int64_t head)
{
    return (const T *)data + head * a.rows * D;
}

__device__ float across4(float x, bool sum)
{
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, x, mask);
        x = sum ? x + other : fmaxf(x, other);
    }
    return x;
}

template <class T, int D> __global__ void __launch_bounds__(FORWARD_THREADS, 2) forward(args a)
{
    extern __shared__ __align__(128) unsigned char memory[];
    constexpr int BYTES = TILE * D * 2;
    const uint32_t q = lh::shared_address(memory), k = q + BYTES, v = k + 2 * BYTES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t head = blockIdx.x % a.heads, first = (a.tiles - 1 - blockIdx.x / a.heads) * TILE;
    const int64_t tiles = first / TILE + 1, row = first + warp * 16 + lane / 4;
    const T *keys = head_of<T, D>(a.k, a, head), *values = head_of<T, D>(a.v, a, head);
    lh::load_rows<TILE, D, FORWARD_THREADS>(q, head_of<T, D>(a.q, a, head), first, a.rows);
    lh::load_rows<TILE, D, FORWARD_THREADS>(k, keys, 0, a.rows);
    lh::load_rows<TILE, D, FORWARD_THREADS>(v, values, 0, a.rows);
    lh::commit_loads();
    uint32_t query[D / 16][4];
    float out[D / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    for (int64_t t = 0; t < tiles; t++) {
        const uint32_t stage = (uint32_t)(t % 2) * BYTES, other = BYTES - stage;
        lh::wait_loads();
        __syncthreads();
        if (t == 0) {
#pragma unroll
            for (int c = 0; c < D / 16; c++)
                lh::load_a<D>(query[c], q, warp * 16, 2 * c);
        }
        if (t + 1 < tiles) {
            lh::load_rows<TILE, D, FORWARD_THREADS>(k + other, keys, (t + 1) * TILE, a.rows);
            lh::load_rows<TILE, D, FORWARD_THREADS>(v + other, values, (t + 1) * TILE, a.rows);
            lh::commit_loads();
        }
        float s[TILE / 8][4] = {};
        lh::multiply_rows<T, D, TILE / 8>(s, query, k + stage, 0);
        if (t + 1 == tiles) { /* the diagonal */
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
                const int64_t key = t * TILE + 8 * n + lane % 4 * 2;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (key + i % 2 > row + i / 2 * 8)
                        s[n][i] = -INFINITY;
                }
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float highest = most[half];
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
                highest = fmaxf(highest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            highest = across4(highest, false);
            const float shrink = lh::exp2_fast((most[half] - highest) * a.scale_log2);
            float sum = 0;
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s[n][i] = lh::exp2_fast((s[n][i] - highest) * a.scale_log2); /* 1 at the highest */
                    sum += s[n][i];
                }
            }
            most[half] = highest;
            total[half] = total[half] * shrink + sum; /* of this lane's columns; across lanes at the end */
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                out[n][2 * half] *= shrink;
                out[n][2 * half + 1] *= shrink;
            }
        }
        lh::multiply_columns<T, D, TILE / 8>(out, s, v + stage, 0);
    }
    total[0] = across4(total[0], true);
    total[1] = across4(total[1], true);
    lh::store_rows<T, D>((T *)a.o + head * a.rows * D, out, 1 / total[0], 1 / total[1], first + warp * 16,
                         a.rows);
    for (int half = 0; half < 2; half++) {
        if (lane % 4 == 0 && row + 8 * half < a.rows)
            a.lse[head * a.rows + row + 8 * half] = most[half] * a.scale + logf(total[half]);
    }
}

template <class T, int D> __global__ void __launch_bounds__(BACKWARD_THREADS, 1) dkv(args a)
{
    extern __shared__ __align__(128) unsigned char memory[];
    constexpr int OWN = OWNED * D * 2, WALK = TILE * D * 2;
    const uint32_t k = lh::shared_address(memory), v = k + OWN, q = v + OWN, d_o = q + 2 * WALK;
    float *lse = (float *)(memory + 2 * OWN + 4 * WALK), *delta = lse + 2 * TILE; /* two stages each */
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t head = blockIdx.x % a.heads, first = blockIdx.x / a.heads * OWNED; /* long columns first */
    const int64_t from = first / TILE, tiles = (a.rows + TILE - 1) / TILE;
    const int64_t key = first + warp * 16 + lane / 4;
    const T *queries = head_of<T, D>(a.q, a, head), *gradients = head_of<T, D>(a.d_o, a, head);
    const auto load = [&](int64_t t, int stage) {
        lh::load_rows<TILE, D, BACKWARD_THREADS>(q + stage * WALK, queries, t * TILE, a.rows);
        lh::load_rows<TILE, D, BACKWARD_THREADS>(d_o + stage * WALK, gradients, t * TILE, a.rows);
        lh::commit_loads();
        const int64_t row = t * TILE + threadIdx.x % TILE;
        if (threadIdx.x < 2 * TILE) {
            const float *of = threadIdx.x < TILE ? a.lse : a.delta;
            float *to = (threadIdx.x < TILE ? lse : delta) + stage * TILE;
            /* past the end lse is infinite: weights there are zero */
            to[threadIdx.x % TILE] = row < a.rows         ? of[head * a.rows + row]
                                     : threadIdx.x < TILE ? INFINITY
                                                          : 0;
        }
    };
    lh::load_rows<OWNED, D, BACKWARD_THREADS>(k, head_of<T, D>(a.k, a, head), first, a.rows);
    lh::load_rows<OWNED, D, BACKWARD_THREADS>(v, head_of<T, D>(a.v, a, head), first, a.rows);
    load(from, 0);
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int64_t t = from; t < tiles; t++) {
        const int stage = (int)((t - from) % 2);
        lh::wait_loads();
        __syncthreads();
        if (t + 1 < tiles)
            load(t + 1, 1 - stage);
        const bool diagonal = t * TILE < first + OWNED;
#pragma unroll 1
        for (int half = 0; half < TILE; half += HALF) {
            float p[HALF / 8][4] = {}, ds[HALF / 8][4] = {};
            lh::multiply_tiles<T, D, HALF / 8>(p, k, warp * 16, q + stage * WALK, half);
            lh::multiply_tiles<T, D, HALF / 8>(ds, v, warp * 16, d_o + stage * WALK, half);
#pragma unroll
            for (int n = 0; n < HALF / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int column = half + 8 * n + lane % 4 * 2 + i % 2;
                    const bool seen = !diagonal || key + i / 2 * 8 <= t * TILE + column;
                    p[n][i] = seen ? lh::weight_of(p[n][i], a.scale, lse[stage * TILE + column]) : 0;
                    ds[n][i] = p[n][i] * (ds[n][i] - delta[stage * TILE + column]);
                }
            }
            lh::multiply_columns<T, D, HALF / 8>(dv, p, d_o + stage * WALK, half);
            lh::multiply_columns<T, D, HALF / 8>(dk, ds, q + stage * WALK, half);
        }
    }
    lh::store_rows<T, D>((T *)a.dk + head * a.rows * D, dk, a.scale, a.scale, first + warp * 16, a.rows);
    lh::store_rows<T, D>((T *)a.dv + head * a.rows * D, dv, 1, 1, first + warp * 16, a.rows);
}

template <class T, int D> __global__ void __launch_bounds__(BACKWARD_THREADS, 1) dq(args a)
{
    extern __shared__ __align__(128) unsigned char memory[];
    constexpr int OWN = OWNED * D * 2, WALK = TILE * D * 2;
    const uint32_t q = lh::shared_address(memory), d_o = q + OWN, k = d_o + OWN, v = k + 2 * WALK;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t head = blockIdx.x % a.heads, first = (a.tiles - 1 - blockIdx.x / a.heads) * OWNED;
    const int64_t last = first + OWNED < a.rows ? first + OWNED : a.rows, tiles = (last + TILE - 1) / TILE;
    const int64_t row = first + warp * 16 + lane / 4;
    const T *keys = head_of<T, D>(a.k, a, head), *values = head_of<T, D>(a.v, a, head);
    lh::load_rows<OWNED, D, BACKWARD_THREADS>(q, head_of<T, D>(a.q, a, head), first, a.rows);
    lh::load_rows<OWNED, D, BACKWARD_THREADS>(d_o, head_of<T, D>(a.d_o, a, head), first, a.rows);
    lh::load_rows<TILE, D, BACKWARD_THREADS>(k, keys, 0, a.rows);
    lh::load_rows<TILE, D, BACKWARD_THREADS>(v, values, 0, a.rows);
    lh::commit_loads();
    float lse[2], delta[2], sum[D / 8][4] = {};
    for (int i = 0; i < 2; i++) {
        const bool inside = row + 8 * i < a.rows;
        lse[i] = inside ? a.lse[head * a.rows + row + 8 * i] : INFINITY;
        delta[i] = inside ? a.delta[head * a.rows + row + 8 * i] : 0;
    }
    for (int64_t t = 0; t < tiles; t++) {
        const uint32_t stage = (uint32_t)(t % 2) * WALK, other = WALK - stage;
        lh::wait_loads();
        __syncthreads();
        if (t + 1 < tiles) {
            lh::load_rows<TILE, D, BACKWARD_THREADS>(k + other, keys, (t + 1) * TILE, a.rows);
            lh::load_rows<TILE, D, BACKWARD_THREADS>(v + other, values, (t + 1) * TILE, a.rows);
            lh::commit_loads();
        }
        const bool diagonal = (t + 1) * TILE > first;
#pragma unroll 1
        for (int half = 0; half < TILE; half += HALF) {
            float p[HALF / 8][4] = {}, ds[HALF / 8][4] = {};
            lh::multiply_tiles<T, D, HALF / 8>(p, q, warp * 16, k + stage, half);
            lh::multiply_tiles<T, D, HALF / 8>(ds, d_o, warp * 16, v + stage, half);
#pragma unroll
            for (int n = 0; n < HALF / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int64_t key = t * TILE + half + 8 * n + lane % 4 * 2 + i % 2;
                    const bool seen = !diagonal || key <= row + i / 2 * 8;
                    const float weight = lh::weight_of(p[n][i], a.scale, lse[i / 2]);
                    ds[n][i] = seen ? weight * (ds[n][i] - delta[i / 2]) : 0;
                }
            }
            lh::multiply_columns<T, D, HALF / 8>(sum, ds, k + stage, half);
        }
    }
    lh::store_rows<T, D>((T *)a.dq + head * a.rows * D, sum, a.scale, a.scale, first + warp * 16, a.rows);
}

args args_of(const lh_shape *s, const lh_attend *t)
{
    args a = {};
    a.q = t->q;
    a.k = t->k;
    a.v = t->v;
    a.o = t->o;
    a.d_o = t->d_o;
    a.dq = t->dq;
    a.dk = t->dk;
    a.dv = t->dv;
    a.lse = t->lse;
    a.delta = t->delta;
    a.rows = s->layout.selected;
    a.heads = s->batch * s->heads;
    a.scale = s->scale;
    a.scale_log2 = s->scale * 1.44269504088896341f;
    return a;
}

/* A block for every `each` rows of every head. */
template <class Kernel>
cudaError_t launch(Kernel kernel, args a, int64_t each, int threads, int bytes, cudaStream_t stream)
{
    a.tiles = (a.rows + each - 1) / each;
    const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess)
        return e;
    kernel<<<(unsigned)(a.tiles * a.heads), threads, (size_t)bytes, stream>>>(a);
    return cudaGetLastError();
}

/* Calls `run` with the element type and d of the shape. */
template <class F> cudaError_t with_kernel(const lh_shape *s, F run)
{
    if (s->dtype == LH_F16)
        return s->dim == 64 ? run(__half(), std::integral_constant<int, 64>())
                            : run(__half(), std::integral_constant<int, 128>());
    return s->dim == 64 ? run(__nv_bfloat16(), std::integral_constant<int, 64>())
                        : run(__nv_bfloat16(), std::integral_constant<int, 128>());
}

} // namespace

bool lh_cuda_has_mma(const lh_shape *s)
{
    return (s->dtype == LH_F16 || s->dtype == LH_BF16) && (s->dim == 64 || s->dim == 128);
}

cudaError_t lh_cuda_attend_mma(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    return with_kernel(s, [&](auto type, auto width) {
        constexpr int D = decltype(width)::value;
        return launch(forward<decltype(type), D>, args_of(s, t), TILE, FORWARD_THREADS, 5 * TILE * D * 2,
                      stream);
    });
}

cudaError_t lh_cuda_attend_mma_backward(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    const cudaError_t before = lh_cuda_delta(s, t, stream);
    if (before != cudaSuccess)
        return before;
    return with_kernel(s, [&](auto type, auto width) {
        constexpr int D = decltype(width)::value, tiles = (2 * OWNED + 4 * TILE) * D * 2;
        const args a = args_of(s, t);
        const cudaError_t e = launch(dkv<decltype(type), D>, a, OWNED, BACKWARD_THREADS,
                                     tiles + 4 * TILE * (int)sizeof(float), stream);
        return e == cudaSuccess ? launch(dq<decltype(type), D>, a, OWNED, BACKWARD_THREADS, tiles, stream)
                                : e;
    });
}
