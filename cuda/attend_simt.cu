/*
 * attend_simt.cu: causal attention and its backward in float32 arithmetic, for every dtype and every d
 * (SPEC 3.6, 4). The tensor-core kernels take over where they can (attend.cu).
 *
 *   forward: o = softmax(scale q k^T, keys <= query) v, lse = log sum exp: one block for 128 queries, keys in
 *            tiles of 64, 8 x 4 scores and 8 x (D/16) outputs a thread.
 *   backward: dkv_tiles owns 64 keys and walks the queries, dq_tiles owns 64 queries and walks the
 *            keys; P is recomputed from lse. One owner per output: same bits every run.
 *
 * Heads wider than D columns are read in chunks of D; grid z then owns one chunk of the output's columns.
 */
#include <cuda_pipeline.h>

#include "cuda/common.cuh"

namespace
{

enum {
    THREADS = 256,
    KEYS = 64, /* keys of a tile; queries of a tile in backward */
    QUERIES = 128
};

struct args {
    const void *q, *k, *v, *d_o;
    void *out, *dq, *dk, *dv;
    float *lse, *delta;
    lh_dtype dtype;
    bool direct; /* rows are float4 aligned float32 and d is D: copy without a look at the elements */
    int64_t rows, heads, tiles; /* S, B*H, tiles of S */
    int dim, chunks;
    float scale;
};

__device__ float load(const args &a, const void *data, int64_t i)
{
    if (a.dtype == LH_F32)
        return ((const float *)data)[i];
    if (a.dtype == LH_F16)
        return __half2float(((const __half *)data)[i]);
    return __bfloat162float(((const __nv_bfloat16 *)data)[i]);
}

__device__ void store(const args &a, void *data, int64_t i, float x)
{
    if (a.dtype == LH_F32)
        ((float *)data)[i] = x;
    else if (a.dtype == LH_F16)
        ((__half *)data)[i] = __float2half_rn(x);
    else
        ((__nv_bfloat16 *)data)[i] = __float2bfloat16_rn(x);
}

/* ROWS x D columns of one head from row `first` and column `column`, zero outside, into shared rows of D + 4. */
template <int ROWS, int D>
__device__ void load_tile(const args &a, const void *data, int64_t head, int64_t first, int column,
                          float *tile)
{
    const int64_t base = (head * a.rows + first) * a.dim + column;
    if (a.direct) {
#pragma unroll
        for (int i = 0; i < ROWS * D / 4 / THREADS; i++) {
            const int at = i * THREADS + threadIdx.x, row = at / (D / 4), c = at % (D / 4) * 4;
            float *to = tile + row * (D + 4) + c;
            if (first + row < a.rows)
                __pipeline_memcpy_async(to, (const float *)data + base + (int64_t)row * a.dim + c, 16);
            else
                *(float4 *)to = make_float4(0, 0, 0, 0);
        }
    } else {
        for (int at = threadIdx.x; at < ROWS * D; at += THREADS) {
            const int row = at / D, c = at % D;
            const bool inside = first + row < a.rows && column + c < a.dim;
            tile[row * (D + 4) + c] = inside ? load(a, data, base + (int64_t)row * a.dim + c) : 0;
        }
    }
    __pipeline_commit();
}

/* s[i][j] += a[ty + 16i] . b[tx + 16j] over D columns. */
template <int M, int D>
__device__ void multiply_rows(const float *a, const float *b, int ty, int tx, float s[M][4])
{
#pragma unroll 4
    for (int c = 0; c < D; c += 4) {
        float4 x[M], y[4];
#pragma unroll
        for (int i = 0; i < M; i++)
            x[i] = *(const float4 *)(a + (ty + 16 * i) * (D + 4) + c);
#pragma unroll
        for (int j = 0; j < 4; j++)
            y[j] = *(const float4 *)(b + (tx + 16 * j) * (D + 4) + c);
#pragma unroll
        for (int i = 0; i < M; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = fmaf(x[i].x, y[j].x, s[i][j]);
                s[i][j] = fmaf(x[i].y, y[j].y, s[i][j]);
                s[i][j] = fmaf(x[i].z, y[j].z, s[i][j]);
                s[i][j] = fmaf(x[i].w, y[j].w, s[i][j]);
            }
        }
    }
}

/* out[i][4jj..] += sum over c of p[ty + 16i][c] * x[c][4tx + 64jj ..]. */
template <int M, int D>
__device__ void multiply_columns(const float *p, const float *x, int ty, int tx, float out[M][D / 16])
{
#pragma unroll 2
    for (int c = 0; c < KEYS; c += 4) {
        float4 w[M];
#pragma unroll
        for (int i = 0; i < M; i++)
            w[i] = *(const float4 *)(p + (ty + 16 * i) * (KEYS + 4) + c);
#pragma unroll
        for (int u = 0; u < 4; u++) {
#pragma unroll
            for (int jj = 0; jj < D / 64; jj++) {
                const float4 y = *(const float4 *)(x + (c + u) * (D + 4) + 4 * tx + 64 * jj);
#pragma unroll
                for (int i = 0; i < M; i++) {
                    const float weight = u == 0 ? w[i].x : u == 1 ? w[i].y : u == 2 ? w[i].z : w[i].w;
                    out[i][4 * jj] = fmaf(weight, y.x, out[i][4 * jj]);
                    out[i][4 * jj + 1] = fmaf(weight, y.y, out[i][4 * jj + 1]);
                    out[i][4 * jj + 2] = fmaf(weight, y.z, out[i][4 * jj + 2]);
                    out[i][4 * jj + 3] = fmaf(weight, y.w, out[i][4 * jj + 3]);
                }
            }
        }
    }
}

/* out[i][4jj..] += sum over r of p[r][4ty + i] * x[r][4tx + 64jj ..]: the transposed product of backward. */
template <int D>
__device__ void multiply_transposed(const float *p, const float *x, int ty, int tx, float out[4][D / 16])
{
#pragma unroll 4
    for (int r = 0; r < KEYS; r++) {
        const float4 w4 = *(const float4 *)(p + r * (KEYS + 4) + 4 * ty);
        const float w[4] = {w4.x, w4.y, w4.z, w4.w};
#pragma unroll
        for (int jj = 0; jj < D / 64; jj++) {
            const float4 y = *(const float4 *)(x + r * (D + 4) + 4 * tx + 64 * jj);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                out[i][4 * jj] = fmaf(w[i], y.x, out[i][4 * jj]);
                out[i][4 * jj + 1] = fmaf(w[i], y.y, out[i][4 * jj + 1]);
                out[i][4 * jj + 2] = fmaf(w[i], y.z, out[i][4 * jj + 2]);
                out[i][4 * jj + 3] = fmaf(w[i], y.w, out[i][4 * jj + 3]);
            }
        }
    }
}

__device__ void wait_tiles()
{
    __pipeline_wait_prior(0);
    __syncthreads();
}

__device__ float across16(float x, bool sum)
{
#pragma unroll
    for (int mask = 8; mask > 0; mask /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, x, mask);
        x = sum ? x + other : fmaxf(x, other);
    }
    return x;
}

template <int D> __global__ void __launch_bounds__(THREADS, 1) forward_tiles(args a)
{
    constexpr int M = QUERIES / 16;
    extern __shared__ float memory[];
    float *q = memory, *k = q + QUERIES * (D + 4), *v = k + KEYS * (D + 4), *p = v + KEYS * (D + 4);
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, column = blockIdx.z * D;
    const int64_t head = blockIdx.x % a.heads,
                  first = (a.tiles - 1 - blockIdx.x / a.heads) * QUERIES; /* long rows first */
    const int64_t last = first + QUERIES < a.rows ? first + QUERIES : a.rows,
                  tiles = (last + KEYS - 1) / KEYS;
    float out[M][D / 16] = {}, most[M], total[M];
#pragma unroll
    for (int i = 0; i < M; i++) {
        most[i] = -INFINITY;
        total[i] = 0;
    }
    if (a.chunks == 1) {
        load_tile<QUERIES, D>(a, a.q, head, first, 0, q);
        load_tile<KEYS, D>(a, a.k, head, 0, 0, k);
    }
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t key = t * KEYS;
        float s[M][4] = {};
        if (a.chunks == 1) {
            wait_tiles();
            load_tile<KEYS, D>(a, a.v, head, key, column, v); /* lands while the scores are computed */
            multiply_rows<M, D>(q, k, ty, tx, s);
            __syncthreads();
            if (t + 1 < tiles)
                load_tile<KEYS, D>(a, a.k, head, key + KEYS, 0, k);
        } else {
            for (int c = 0; c < a.chunks; c++) {
                __syncthreads();
                load_tile<QUERIES, D>(a, a.q, head, first, c * D, q);
                load_tile<KEYS, D>(a, a.k, head, key, c * D, k);
                wait_tiles();
                multiply_rows<M, D>(q, k, ty, tx, s);
            }
            load_tile<KEYS, D>(a, a.v, head, key, column, v);
        }
#pragma unroll
        for (int i = 0; i < M; i++) {
            const int64_t row = first + ty + 16 * i;
            float highest = most[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = key + tx + 16 * j <= row ? __fmul_rn(s[i][j], a.scale) : -INFINITY;
                highest = fmaxf(highest, s[i][j]);
            }
            highest = across16(highest, false);
            const float shrink = expf(most[i] - highest);
            most[i] = highest;
            float sum = 0;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float weight = expf(s[i][j] - highest);
                p[(ty + 16 * i) * (KEYS + 4) + tx + 16 * j] = weight;
                sum += weight;
            }
            total[i] = total[i] * shrink + across16(sum, true);
#pragma unroll
            for (int c = 0; c < D / 16; c++)
                out[i][c] *= shrink;
        }
        if (a.chunks == 1 && t + 1 < tiles)
            __pipeline_wait_prior(1); /* v is here, the next keys may still fly */
        else
            __pipeline_wait_prior(0);
        __syncthreads();
        multiply_columns<M, D>(p, v, ty, tx, out);
    }
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int64_t row = first + ty + 16 * i;
        if (row >= a.rows)
            continue;
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            const int at = column + 4 * tx + 64 * (c / 4) + c % 4;
            if (at < a.dim)
                store(a, a.out, (head * a.rows + row) * a.dim + at, out[i][c] / total[i]);
        }
        if (tx == 0 && blockIdx.z == 0)
            a.lse[head * a.rows + row] = most[i] + logf(total[i]);
    }
}

/* P and dS of a 64 x 64 tile into shared memory, from s = q k^T and dp = do v^T of this thread. */
__device__ void weigh_tile(const args &a, int64_t head, int64_t query, int64_t key, int ty, int tx,
                           const float s[4][4], const float dp[4][4], float *p, float *ds)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t row = query + ty + 16 * i;
        const bool inside = row < a.rows;
        const float lse = inside ? a.lse[head * a.rows + row] : 0;
        const float delta = inside ? a.delta[head * a.rows + row] : 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const bool seen = inside && key + tx + 16 * j <= row;
            /* Rounded as in forward, where the largest score went into lse: its weight, alone, is 1 however huge. */
            const float above = __fmul_rn(s[i][j], a.scale) - lse;
            const float weight = seen ? expf(above > 0 ? 0 : above) : 0;
            const int at = (ty + 16 * i) * (KEYS + 4) + tx + 16 * j;
            if (p)
                p[at] = weight;
            ds[at] = weight * (dp[i][j] - delta);
        }
    }
}

template <int D>
__device__ void store_tile(const args &a, void *data, int64_t head, int64_t first, int column, int row0,
                           int step, int tx, const float x[4][D / 16], float factor)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t row = first + row0 + step * i;
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            const int at = column + 4 * tx + 64 * (c / 4) + c % 4;
            if (row < a.rows && at < a.dim)
                store(a, data, (head * a.rows + row) * a.dim + at, x[i][c] * factor);
        }
    }
}

template <int D> __global__ void __launch_bounds__(THREADS, 1) dkv_tiles(args a)
{
    extern __shared__ float memory[];
    constexpr int TILE = KEYS * (D + 4);
    float *k = memory, *v = k + TILE, *q = v + TILE, *d_o = q + TILE, *p = d_o + TILE,
          *ds = p + KEYS * (KEYS + 4);
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, column = blockIdx.z * D;
    const int64_t head = blockIdx.x % a.heads,
                  key = blockIdx.x / a.heads * (int64_t)KEYS; /* long columns first */
    float dk[4][D / 16] = {}, dv[4][D / 16] = {};
    if (a.chunks == 1) {
        load_tile<KEYS, D>(a, a.k, head, key, 0, k);
        load_tile<KEYS, D>(a, a.v, head, key, 0, v);
    }
    for (int64_t query = key; query < a.rows; query += KEYS) {
        float s[4][4] = {}, dp[4][4] = {};
        for (int c = 0; c < a.chunks; c++) {
            __syncthreads();
            if (a.chunks > 1) {
                load_tile<KEYS, D>(a, a.k, head, key, c * D, k);
                load_tile<KEYS, D>(a, a.v, head, key, c * D, v);
            }
            load_tile<KEYS, D>(a, a.q, head, query, c * D, q);
            load_tile<KEYS, D>(a, a.d_o, head, query, c * D, d_o);
            wait_tiles();
            multiply_rows<4, D>(q, k, ty, tx, s);
            multiply_rows<4, D>(d_o, v, ty, tx, dp);
        }
        weigh_tile(a, head, query, key, ty, tx, s, dp, p, ds);
        if (a.chunks > 1) {
            __syncthreads();
            load_tile<KEYS, D>(a, a.q, head, query, column, q);
            load_tile<KEYS, D>(a, a.d_o, head, query, column, d_o);
        }
        wait_tiles();
        multiply_transposed<D>(p, d_o, ty, tx, dv);
        multiply_transposed<D>(ds, q, ty, tx, dk);
    }
    store_tile<D>(a, a.dv, head, key, column, 4 * ty, 1, tx, dv, 1);
    store_tile<D>(a, a.dk, head, key, column, 4 * ty, 1, tx, dk, a.scale);
}

template <int D> __global__ void __launch_bounds__(THREADS, 1) dq_tiles(args a)
{
    extern __shared__ float memory[];
    constexpr int TILE = KEYS * (D + 4);
    float *k = memory, *v = k + TILE, *q = v + TILE, *d_o = q + TILE, *ds = d_o + TILE;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, column = blockIdx.z * D;
    const int64_t head = blockIdx.x % a.heads, query = (a.tiles - 1 - blockIdx.x / a.heads) * KEYS;
    float dq[4][D / 16] = {};
    if (a.chunks == 1) {
        load_tile<KEYS, D>(a, a.q, head, query, 0, q);
        load_tile<KEYS, D>(a, a.d_o, head, query, 0, d_o);
    }
    for (int64_t key = 0; key <= query; key += KEYS) {
        float s[4][4] = {}, dp[4][4] = {};
        for (int c = 0; c < a.chunks; c++) {
            __syncthreads();
            if (a.chunks > 1) {
                load_tile<KEYS, D>(a, a.q, head, query, c * D, q);
                load_tile<KEYS, D>(a, a.d_o, head, query, c * D, d_o);
            }
            load_tile<KEYS, D>(a, a.k, head, key, c * D, k);
            load_tile<KEYS, D>(a, a.v, head, key, c * D, v);
            wait_tiles();
            multiply_rows<4, D>(q, k, ty, tx, s);
            multiply_rows<4, D>(d_o, v, ty, tx, dp);
        }
        weigh_tile(a, head, query, key, ty, tx, s, dp, nullptr, ds);
        if (a.chunks > 1) {
            __syncthreads();
            load_tile<KEYS, D>(a, a.k, head, key, column, k);
        }
        wait_tiles();
        multiply_columns<4, D>(ds, k, ty, tx, dq);
    }
    store_tile<D>(a, a.dq, head, query, column, ty, 16, tx, dq, a.scale);
}

args args_of(const lh_shape *s, const lh_attend *t, int width)
{
    args a = {};
    a.q = t->q;
    a.k = t->k;
    a.v = t->v;
    a.out = t->o;
    a.d_o = t->d_o;
    a.dq = t->dq;
    a.dk = t->dk;
    a.dv = t->dv;
    a.lse = t->lse;
    a.delta = t->delta;
    a.dtype = s->dtype;
    a.rows = s->layout.selected;
    a.heads = s->batch * s->heads;
    a.dim = (int)s->dim;
    a.chunks = (int)((s->dim + width - 1) / width);
    a.scale = s->scale;
    a.direct = s->dtype == LH_F32 && s->dim % width == 0;
    for (const void *data : {t->q, t->k, t->v, t->d_o})
        a.direct = a.direct && (uintptr_t)data % 16 == 0;
    return a;
}

/* Blocks of rows_each rows for every head and chunk of columns, each with `floats` of shared memory. */
template <class Kernel>
cudaError_t launch(Kernel kernel, args a, int64_t rows_each, int floats, cudaStream_t stream)
{
    a.tiles = (a.rows + rows_each - 1) / rows_each;
    const dim3 grid((unsigned)(a.tiles * a.heads), 1, (unsigned)a.chunks);
    const int bytes = floats * (int)sizeof(float);
    const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess)
        return e;
    kernel<<<grid, THREADS, (size_t)bytes, stream>>>(a);
    return cudaGetLastError();
}

template <int D> cudaError_t forward(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    const args a = args_of(s, t, D);
    return launch(forward_tiles<D>, a, QUERIES, (QUERIES + 2 * KEYS) * (D + 4) + QUERIES * (KEYS + 4),
                  stream);
}

template <int D> cudaError_t backward(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    const args a = args_of(s, t, D);
    cudaError_t e = lh_cuda_delta(s, t, stream);
    if (e == cudaSuccess)
        e = launch(dkv_tiles<D>, a, KEYS, 4 * KEYS * (D + 4) + 2 * KEYS * (KEYS + 4), stream);
    if (e == cudaSuccess)
        e = launch(dq_tiles<D>, a, KEYS, 4 * KEYS * (D + 4) + KEYS * (KEYS + 4), stream);
    return e;
}

} // namespace

cudaError_t lh_cuda_attend_simt(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    return s->dim <= 64 ? forward<64>(s, t, stream) : forward<128>(s, t, stream);
}

cudaError_t lh_cuda_attend_simt_backward(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    return s->dim <= 64 ? backward<64>(s, t, stream) : backward<128>(s, t, stream);
}
