/*
 * attend_sm90.cu: causal attention forward for Hopper, F16 and BF16, d 64 and 128 (SPEC 3.6).
 *
 * A block owns 128 queries. One warp copies tiles of 128 keys and values by the bulk tensor engine into two stages;
 * two groups of four warps compute, 64 queries each, with asynchronous matrix products: while the scores of one
 * tile are turned into weights, those of the next are multiplied. Tiles go from the diagonal down, so that only the
 * first is masked. Sums and softmax are float32, weights are rounded to the tensors' type.
 */
#include "cuda/sm90.cuh"

namespace
{

enum {
    QUERIES = 128,
    KEYS = 128,
    STAGES = 2,
    THREADS = 384,             /* the copying group and two computing ones */
    PANEL = 128 * 128,         /* bytes of 128 rows by 64 columns: what one copy brings */
    BARRIERS = 1 + 4 * STAGES, /* queries here; keys here, values here, keys free, values free */
};

/* Bytes of 128 rows by d, and of everything in shared memory. */
__host__ __device__ constexpr int tile_bytes(int d)
{
    return d / 64 * PANEL;
}
__host__ __device__ constexpr int shared_bytes(int d)
{
    return 1024 + (1 + 2 * STAGES) * tile_bytes(d) + BARRIERS * 8;
}

struct args {
    void *o;
    float *lse;
    int64_t rows, heads, tiles;
    float scale, scale_log2;
};

/* 128 rows of one head into a tile. */
template <int D>
__device__ void copy_tile(uint32_t tile, const CUtensorMap *map, int row, int head, uint32_t barrier)
{
    lh::barrier_expect(barrier, tile_bytes(D));
    lh::copy_panels<D / 64>(tile, PANEL, map, row, head, barrier);
}

/* s = q k^T for 64 queries and 128 keys, started. */
template <class T, int D> __device__ void start_scores(float (&s)[64], uint32_t q, uint32_t k)
{
    lh::hold(s);
    lh::products_begin();
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        const uint32_t at = c / 4 * PANEL + c % 4 * 32;
        lh::product<T>::rows(s, lh::descriptor(q + at, 16), lh::descriptor(k + at, 16), c != 0);
    }
    lh::products_commit();
}

/* o += p v for 128 keys, started; p may not change until it is done. */
template <class T, int N> __device__ void start_outputs(float (&o)[N], uint32_t (&p)[8][4], uint32_t v)
{
    lh::hold(o);
    lh::hold(p);
    lh::products_begin();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++)
        lh::product<T>::columns(o, p[k], lh::descriptor(v + k * 2048, PANEL));
    lh::products_commit();
}

/* ---- softmax ------------------------------------------------------------------------------ */

__device__ float across4(float x, bool sum)
{
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, x, mask);
        x = sum ? x + other : fmaxf(x, other);
    }
    return x;
}

/* Scores to weights, relative to the new maximum; shrink is what older sums are to be multiplied by. Both rows of a thread
 * in one piece: exponentials of one overlap with what is left of the other. */
__device__ void weigh(float s[64], float most[2], float total[2], float shrink[2], float scale_log2)
{
    float offset[2], sum[2] = {0, 0};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float highest = most[half];
#pragma unroll
        for (int n = 0; n < 16; n++)
            highest = fmaxf(highest, fmaxf(s[4 * n + 2 * half], s[4 * n + 2 * half + 1]));
        highest = across4(highest, false);
        shrink[half] = lh::exp2_fast((most[half] - highest) * scale_log2);
        most[half] = highest;
        offset[half] = highest * scale_log2;
    }
    /* The highest is to weigh 1: of huge scores the products' rounding alone would say otherwise. */
    if (__any_sync(0xffffffffu, fmaxf(fabsf(offset[0]), fabsf(offset[1])) > 2048)) {
#pragma unroll
        for (int i = 0; i < 64; i++)
            s[i] = lh::exp2_fast((s[i] - most[i / 2 % 2]) * scale_log2);
    } else {
#pragma unroll
        for (int i = 0; i < 64; i++)
            s[i] = lh::exp2_fast(fmaf(s[i], scale_log2, -offset[i / 2 % 2]));
    }
#pragma unroll
    for (int i = 0; i < 64; i++)
        sum[i / 2 % 2] += s[i];
#pragma unroll
    for (int half = 0; half < 2; half++)
        total[half] = total[half] * shrink[half] + sum[half];
}

template <class T> __device__ void pack_weights(uint32_t p[8][4], const float s[64])
{
#pragma unroll
    for (int k = 0; k < 8; k++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            p[k][i] = lh::pack<T>(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
    }
}

/* ---- the two roles ------------------------------------------------------------------------ */

struct shared {
    uint32_t q, k, v, q_here, k_here, v_here, k_free, v_free;
};

template <int D>
__device__ void produce(const shared &m, const CUtensorMap *q, const CUtensorMap *k, const CUtensorMap *v,
                        int tile, int head)
{
    copy_tile<D>(m.q, q, tile * QUERIES, head, m.q_here);
    for (int i = 0; i <= tile; i++) {
        const int stage = i % STAGES, phase = i / STAGES % 2, row = (tile - i) * KEYS;
        lh::barrier_wait(m.k_free + 8 * stage, phase ^ 1);
        copy_tile<D>(m.k + stage * tile_bytes(D), k, row, head, m.k_here + 8 * stage);
        lh::barrier_wait(m.v_free + 8 * stage, phase ^ 1);
        copy_tile<D>(m.v + stage * tile_bytes(D), v, row, head, m.v_here + 8 * stage);
    }
}

template <class T, int D>
__device__ void consume(const shared &m, const args &a, int tile, int head, int group)
{
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const bool signals = threadIdx.x % 128 == 0;
    const int first = group * 64 + warp * 16 + lane / 4; /* row within the tile */
    const uint32_t q = m.q + group * 64 * 128;
    float s[64], o[D / 2], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, shrink[2];
    uint32_t p[8][4];
#pragma unroll
    for (int i = 0; i < D / 2; i++)
        o[i] = 0;
    lh::barrier_wait(m.q_here, 0);
    lh::barrier_wait(m.k_here, 0);
    start_scores<T, D>(s, q, m.k);
    lh::products_wait<0>();
    lh::hold(s);
    if (signals)
        lh::barrier_arrive(m.k_free);
#pragma unroll
    for (int i = 0; i < 64; i++) {
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 > first + i / 2 % 2 * 8)
            s[i] = -INFINITY;
    }
    weigh(s, most, total, shrink, a.scale_log2);
    pack_weights<T>(p, s);
    for (int i = 1; i <= tile; i++) {
        const int stage = i % STAGES, phase = i / STAGES % 2, old = (i - 1) % STAGES,
                  old_phase = (i - 1) / STAGES % 2;
        lh::barrier_wait(m.k_here + 8 * stage, phase);
        start_scores<T, D>(s, q, m.k + stage * tile_bytes(D));
        lh::barrier_wait(m.v_here + 8 * old, old_phase);
        start_outputs<T>(o, p, m.v + old * tile_bytes(D));
        lh::products_wait<1>();
        lh::hold(s);
        if (signals)
            lh::barrier_arrive(m.k_free + 8 * stage);
        weigh(s, most, total, shrink, a.scale_log2);
        lh::products_wait<0>();
        lh::hold(o);
        lh::hold(p);
        if (signals)
            lh::barrier_arrive(m.v_free + 8 * old);
#pragma unroll
        for (int j = 0; j < D / 2; j++)
            o[j] *= shrink[j / 2 % 2];
        pack_weights<T>(p, s);
    }
    lh::barrier_wait(m.v_here + 8 * (tile % STAGES), tile / STAGES % 2);
    start_outputs<T>(o, p, m.v + tile % STAGES * tile_bytes(D));
    lh::products_wait<0>();
    lh::hold(o);
    lh::hold(p);
    const int64_t row = (int64_t)tile * QUERIES + first;
    total[0] = across4(total[0], true);
    total[1] = across4(total[1], true);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (row + 8 * half >= a.rows)
            continue;
        const int64_t at = head * a.rows + row + 8 * half;
        uint32_t *to = (uint32_t *)((T *)a.o + at * D) + lane % 4;
        const float factor = 1 / total[half];
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            to[4 * n] = lh::pack<T>(o[4 * n + 2 * half] * factor, o[4 * n + 2 * half + 1] * factor);
        if (lane % 4 == 0)
            a.lse[at] = most[half] * a.scale + logf(total[half]);
    }
}

template <class T, int D>
__global__ void __launch_bounds__(THREADS, 1)
    forward(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
            const __grid_constant__ CUtensorMap v, const args a)
{
    extern __shared__ unsigned char memory[];
    shared m;
    m.q = (lh::shared_address(memory) + 1023) / 1024 * 1024;
    m.k = m.q + tile_bytes(D);
    m.v = m.k + STAGES * tile_bytes(D);
    m.q_here = m.v + STAGES * tile_bytes(D);
    m.k_here = m.q_here + 8;
    m.v_here = m.k_here + 8 * STAGES;
    m.k_free = m.v_here + 8 * STAGES;
    m.v_free = m.k_free + 8 * STAGES;
    if (threadIdx.x == 0) {
        lh::barrier_init(m.q_here, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            lh::barrier_init(m.k_here + 8 * stage, 1);
            lh::barrier_init(m.v_here + 8 * stage, 1);
            lh::barrier_init(m.k_free + 8 * stage, 2); /* one arrival from each computing group */
            lh::barrier_init(m.v_free + 8 * stage, 2);
        }
        lh::barriers_ready();
    }
    __syncthreads();
    const int head = (int)(blockIdx.x % a.heads), tile = (int)(a.tiles - 1 - blockIdx.x / a.heads);
    const int group = threadIdx.x / 128;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0)
            produce<D>(m, &q, &k, &v, tile, head);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        consume<T, D>(m, a, tile, head, group - 1);
    }
}

/* ---- host --------------------------------------------------------------------------------- */

template <class T, int D> cudaError_t launch(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    CUtensorMap q, k, v;
    cudaError_t e = lh::describe(&q, s, t->q, QUERIES);
    if (e == cudaSuccess)
        e = lh::describe(&k, s, t->k, KEYS);
    if (e == cudaSuccess)
        e = lh::describe(&v, s, t->v, KEYS);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute(forward<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes(D));
    if (e != cudaSuccess)
        return e;
    args a = {};
    a.o = t->o;
    a.lse = t->lse;
    a.rows = s->layout.selected;
    a.heads = s->batch * s->heads;
    a.tiles = (a.rows + QUERIES - 1) / QUERIES;
    a.scale = s->scale;
    a.scale_log2 = s->scale * 1.44269504088896341f;
    forward<T, D><<<(unsigned)(a.tiles * a.heads), THREADS, shared_bytes(D), stream>>>(q, k, v, a);
    return cudaGetLastError();
}

} // namespace

bool lh_cuda_has_sm90(const lh_shape *s)
{
    return s->capability == 90 && (s->dtype == LH_F16 || s->dtype == LH_BF16) &&
           (s->dim == 64 || s->dim == 128);
}

cudaError_t lh_cuda_attend_sm90(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    if (s->dtype == LH_F16)
        return s->dim == 64 ? launch<__half, 64>(s, t, stream) : launch<__half, 128>(s, t, stream);
    return s->dim == 64 ? launch<__nv_bfloat16, 64>(s, t, stream) : launch<__nv_bfloat16, 128>(s, t, stream);
}
