/*
 * attend_sm90_backward.cu: backward of causal attention for Hopper, F16 and BF16, d 64 and 128 (SPEC 4), with the same
 * bits every run.
 *
 * Five products of 2 S^2/2 d operations are needed: S and dP, from which P and dS; dV, dK and dQ. A block that owns keys
 * sums dV and dK, one that owns queries sums dQ. As two kernels each recomputes S and dP: seven products, no traffic. As
 * one kernel, owning keys, five, and S^2/2/128 d float32 sums of dQ go through the cache: added by atomics they come in any order.
 * Here they come in turn: the blocks of one head add to a tile of dq in the order in which they start, each when the one
 * before has said that it is done. No block waits for one that started later (blocks take their keys by ticket), and none
 * waits long: all walk the queries from the last to their own, so that each trails the one before.
 *
 *   block: 128 keys; one warp copies tiles of queries and do (64 at d 128, 128 at d 64) into two stages, two warps send what
 *   is to be added to dq, two groups of four warps compute, 64 keys each:
 *     S^T = K Q^T, dP^T = V dO^T          P^T and dS^T stay in registers, the left operands of
 *     dV += P^T dO, dK += dS^T Q          and dS^T passes through shared memory, for
 *     dQ = dS K                           half of it by each group, one tile behind.
 *
 * prepare sums D = do . o before, finish rounds dq after (attend_sm90_sums.cu). What is left is one kernel whose roles share a layout
 * and its barriers, all to be read together: hence a long file.
 */
#include "cuda/attend_sm90_backward.cuh"
#include "cuda/sm90.cuh"

namespace
{

using lh::backward_args;
using lh::OWNED;

constexpr float LOG2E = 1.44269504088896341f;

enum {
    STAGES = 2,  /* of queries and do, and of dS */
    SENDERS = 2, /* to dq, a stage of it each */
    THREADS = 384,
    PANEL = OWNED * 128, /* bytes of 64 columns of the block's keys */
    HALF = 64 * 128      /* of which one group's */
};

template <int D> struct sizes {
    enum {
        QUERIES = lh::walked(D),
        WALKED = QUERIES * D * 2,     /* bytes of a tile of queries, or do */
        LINE = QUERIES * 4,           /* of its D, */
        LSE = lh::lse_line(D) * 4,    /* its lse */
        SLOPES = OWNED * QUERIES * 2, /* of dS */
        SUMS = QUERIES * D * 4,       /* of dq */
        EARLY = D == 128,
        OWN = D / 64 * PANEL,
        HEAD = (STAGES * (LINE + LSE) + 128 + 1023) / 1024 * 1024, /* these, the barriers and the ticket */
        BYTES = HEAD + 2 * OWN + STAGES * (2 * WALKED + SLOPES) + SENDERS * SUMS
    };
};

/* Where things are in shared memory; the barriers, by how far they reach. */
struct shared {
    uint32_t k, v, q, d_o, slopes, sums, lse, delta, ticket;
    uint32_t own_here;                 /* keys and values */
    uint32_t here, free;               /* [STAGES] a tile of queries */
    uint32_t slopes_here, slopes_free; /* [STAGES] dS of both groups */
    uint32_t sums_here, sums_free;     /* [SENDERS] dq of both groups */
};

struct block {
    int head, first; /* key */
    int tiles, last; /* tiles walked, from `last` down */
};

/* Which of the head's runs of keys the so-manieth block to start owns: long walks first. Where many start after others have
 * ended (step 2), the even runs come before the odd ones, so that neighbours in time reach a tile two steps apart, not one.
 * Blocks add to a tile in the order in which they start. */
__device__ int keys_of(int started, int runs, int step)
{
    const int even = (runs + 1) / 2;
    if (step == 1)
        return started;
    return started < even ? 2 * started : 2 * (started - even) + 1;
}

/* How many blocks add before that of run `keys` to a tile whose last keys are those of run `last`. */
__device__ unsigned turn_of(int keys, int last, int step)
{
    if (step == 1)
        return (unsigned)keys;
    return (unsigned)(keys % 2 == 0 ? keys / 2 : last / 2 + 1 + keys / 2);
}

template <int D> __device__ shared layout(uint32_t memory)
{
    typedef sizes<D> z;
    shared m;
    m.lse = memory;
    m.delta = m.lse + STAGES * z::LSE;
    m.own_here = m.delta + STAGES * z::LINE;
    m.here = m.own_here + 8;
    m.free = m.here + 8 * STAGES;
    m.slopes_here = m.free + 8 * STAGES;
    m.slopes_free = m.slopes_here + 8 * STAGES;
    m.sums_here = m.slopes_free + 8 * STAGES;
    m.sums_free = m.sums_here + 8 * SENDERS;
    m.ticket = m.sums_free + 8 * SENDERS;
    m.k = memory + z::HEAD;
    m.v = m.k + z::OWN;
    m.q = m.v + z::OWN;
    m.d_o = m.q + STAGES * z::WALKED;
    m.slopes = m.d_o + STAGES * z::WALKED;
    m.sums = m.slopes + STAGES * z::SLOPES;
    return m;
}

/* ---- copying in, and adding to dq --------------------------------------------------------- */

template <int D>
__device__ void produce(const shared &m, const backward_args &a, const block &b, const CUtensorMap *q,
                        const CUtensorMap *k, const CUtensorMap *v, const CUtensorMap *d_o)
{
    typedef sizes<D> z;
    lh::barrier_expect(m.own_here, 2 * z::OWN);
    lh::copy_panels<D / 64>(m.k, PANEL, k, b.first, b.head, m.own_here);
    lh::copy_panels<D / 64>(m.v, PANEL, v, b.first, b.head, m.own_here);
#pragma unroll 1
    for (int i = 0; i < b.tiles; i++) {
        const int stage = i % STAGES, phase = i / STAGES % 2, row = (b.last - i) * z::QUERIES;
        const uint32_t here = m.here + 8 * stage;
        const int64_t tile = b.head * a.tiles + b.last - i;
        lh::barrier_wait(m.free + 8 * stage, phase ^ 1);
        lh::barrier_expect(here, 2 * z::WALKED + z::LSE + z::LINE);
        lh::copy_panels<D / 64>(m.q + stage * z::WALKED, z::QUERIES * 128, q, row, b.head, here);
        lh::copy_bytes(m.lse + stage * z::LSE, a.lse + tile * lh::lse_line(D), z::LSE, here);
        lh::copy_panels<D / 64>(m.d_o + stage * z::WALKED, z::QUERIES * 128, d_o, row, b.head, here);
        lh::copy_bytes(m.delta + stage * z::LINE, a.delta + tile * z::QUERIES, z::LINE, here);
    }
}

/* Every second tile of dq, from that of `sender` on, each in its turn. Two senders, since one addition takes about as long as
 * the products of a tile from its turn to the word that it is done. */
template <int D>
__device__ void add_in_turn(const shared &m, const backward_args &a, const block &b, int sender)
{
    typedef sizes<D> z;
    const uint32_t sums = m.sums + sender * z::SUMS;
#pragma unroll 1
    for (int i = sender; i < b.tiles; i += SENDERS) {
        const int tile = b.last - i;
        const int64_t at = (int64_t)b.head * a.tiles + tile;
        const unsigned turn = turn_of(b.first / OWNED, tile * z::QUERIES / OWNED, a.step);
        while (lh::load_acquire(a.turns + at) != turn)
            ;
        lh::fence_all();
        lh::barrier_wait(m.sums_here + 8 * sender, i / SENDERS % 2);
        if (turn == 0)
            lh::bulk_store(a.sums + at * (z::SUMS / 4), sums, z::SUMS);
        else
            lh::bulk_add(a.sums + at * (z::SUMS / 4), sums, z::SUMS);
        lh::bulk_commit();
        lh::bulk_wait_read();
        lh::barrier_arrive(m.sums_free + 8 * sender);
        lh::bulk_wait();
        lh::store_release(a.turns + at, turn + 1);
    }
}

/* ---- products and weights ----------------------------------------------------------------- */

/* s = own walked^T over d columns, for a group's 64 keys, started. */
template <class T, int D, int N> __device__ void start_scores(float (&s)[N], uint32_t own, uint32_t walked)
{
    lh::hold(s);
    lh::products_begin();
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        const uint32_t column = c % 4 * 32;
        lh::product<T>::rows(s, lh::descriptor(own + c / 4 * PANEL + column, 16),
                             lh::descriptor(walked + c / 4 * sizes<D>::QUERIES * 128 + column, 16), c != 0);
    }
    lh::products_commit();
}

/* sum += w walked over a tile of queries, started; w may not change until it is done. */
template <class T, int D, int N, int M>
__device__ void start_sums(float (&sum)[N], uint32_t (&w)[M][4], uint32_t walked)
{
    lh::hold(sum);
    lh::hold(w);
    lh::products_begin();
#pragma unroll
    for (int i = 0; i < M; i++)
        lh::product<T>::columns(sum, w[i], lh::descriptor(walked + i * 2048, sizes<D>::QUERIES * 128));
    lh::products_commit();
}

/* dq of tile i, this group's half: at d 128 its columns, at d 64 its queries. */
template <class T, int D> __device__ void start_dq(float (&dq)[32], const shared &m, int i, int group)
{
    typedef sizes<D> z;
    const int stage = i % STAGES;
    const uint32_t slopes = m.slopes + stage * z::SLOPES + (D == 64 ? group * PANEL : 0);
    const uint32_t keys = m.k + (D == 64 ? 0 : group * PANEL);
    lh::hold(dq);
    lh::products_begin();
#pragma unroll
    for (int c = 0; c < OWNED / 16; c++)
        lh::product<T>::across(dq, lh::descriptor(slopes + c * 2048, 16), lh::descriptor(keys + c * 2048, 16),
                               c != 0);
    lh::products_commit();
}

__device__ void store4(uint32_t address, float x, float y, float z, float w)
{
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(x), "f"(y), "f"(z), "f"(w)
                 : "memory");
}

/* The finished half of tile i, to be added; its dS is read. */
template <int D>
__device__ void hand_over(const float (&dq)[32], const shared &m, uint32_t slopes_free, int i, int group)
{
    const int thread = threadIdx.x % 128, stage = i % SENDERS;
    const uint32_t to = m.sums + stage * sizes<D>::SUMS + group * (sizes<D>::SUMS / 2) + thread * 16;
    if (thread % 32 == 0)
        lh::barrier_arrive(slopes_free);
    lh::barrier_wait(m.sums_free + 8 * stage, i / SENDERS % 2 ^ 1);
#pragma unroll
    for (int n = 0; n < 8; n++)
        store4(to + n * 2048, dq[4 * n], dq[4 * n + 1], dq[4 * n + 2], dq[4 * n + 3]);
    lh::fence_shared();
    __syncwarp();
    if (thread % 32 == 0)
        lh::barrier_arrive(m.sums_here + 8 * stage);
}

__device__ float2 load2(uint32_t address)
{
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(address));
    return x;
}

/* exp(s scale - lse); `lse` is what prepare made of it. */
template <bool HUGE> __device__ float weight(float s, float scale, float lse)
{
    return HUGE ? lh::weight_of(s, scale, lse) : lh::exp2_fast(fmaf(s, scale * LOG2E, lse));
}

/* Scores to weights: columns are queries, whose lse lies at `lse`, for this thread's pairs. */
template <bool HUGE, int N> __device__ void weigh(float (&s)[N], uint32_t lse, float scale)
{
#pragma unroll
    for (int n = 0; n < N / 4; n++) {
        const float2 of = load2(lse + n * 32);
        s[4 * n] = weight<HUGE>(s[4 * n], scale, of.x);
        s[4 * n + 1] = weight<HUGE>(s[4 * n + 1], scale, of.y);
        s[4 * n + 2] = weight<HUGE>(s[4 * n + 2], scale, of.x);
        s[4 * n + 3] = weight<HUGE>(s[4 * n + 3], scale, of.y);
    }
}

template <int N> __device__ void slope(float (&dp)[N], const float (&p)[N], uint32_t delta)
{
#pragma unroll
    for (int n = 0; n < N / 4; n++) {
        const float2 of = load2(delta + n * 32);
        dp[4 * n] = p[4 * n] * (dp[4 * n] - of.x);
        dp[4 * n + 1] = p[4 * n + 1] * (dp[4 * n + 1] - of.y);
        dp[4 * n + 2] = p[4 * n + 2] * (dp[4 * n + 2] - of.x);
        dp[4 * n + 3] = p[4 * n + 3] * (dp[4 * n + 3] - of.y);
    }
}

template <class T, int N> __device__ void round_pairs(uint32_t (&w)[N / 8][4], const float (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        w[i / 4][i % 4] = lh::pack<T>(x[2 * i], x[2 * i + 1]);
}

/* dS^T of a group, rows are keys: panels of 64 queries. */
template <int M> __device__ void store_slopes(uint32_t slopes, const uint32_t (&w)[M][4], int group)
{
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int row = group * 64 + warp * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < M; i++) {
        const uint32_t to = slopes + i / 4 * PANEL + row * 128 + ((i % 4 * 2 + lane / 16) ^ (row & 7)) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                     "r"(w[i][0]), "r"(w[i][1]), "r"(w[i][2]), "r"(w[i][3])
                     : "memory");
    }
}

template <class T, int D>
__device__ void store_own(void *data, const float (&x)[D / 2], float factor, int row, const backward_args &a,
                          int head)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (row + 8 * half >= a.rows)
            continue;
        uint32_t *to = (uint32_t *)((T *)data + (head * a.rows + row + 8 * half) * D) + lane % 4;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            to[4 * n] = lh::pack<T>(x[4 * n + 2 * half] * factor, x[4 * n + 2 * half + 1] * factor);
    }
}

/* ---- computing ---------------------------------------------------------------------------- */

template <class T, int D>
__device__ void consume(const shared &m, const backward_args &a, const block &b, int group)
{
    typedef sizes<D> z;
    constexpr int N = z::QUERIES / 2;
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int key = b.first + group * 64 + warp * 16 + lane / 4; /* of this thread's first row */
    const uint32_t k = m.k + group * HALF, v = m.v + group * HALF, pair = lane % 4 * 8;
    float dk[D / 2], dv[D / 2], s[N], dp[N], dq[32];
    uint32_t w[N / 8][4], ds[N / 8][4];
#pragma unroll
    for (int i = 0; i < D / 2; i++)
        dk[i] = dv[i] = 0;
#pragma unroll
    for (int i = 0; i < 32; i++)
        dq[i] = 0;
#pragma unroll
    for (int i = 0; i < N; i++)
        s[i] = dp[i] = 0;
    lh::barrier_wait(m.own_here, 0);
    for (int i = 0; i < b.tiles; i++) {
        const int stage = i % STAGES, first = (b.last - i) * z::QUERIES;
        const int slopes = i % STAGES, behind = (i + STAGES - 1) % STAGES;
        const uint32_t q = m.q + stage * z::WALKED, d_o = m.d_o + stage * z::WALKED;
        lh::barrier_wait(m.here + 8 * stage, i / STAGES % 2);
        start_scores<T, D>(s, k, q);
        start_scores<T, D>(dp, v, d_o);
        lh::products_wait<1>();
        lh::hold(s);
        if (first < b.first + group * 64 + 63) { /* the diagonal */
#pragma unroll
            for (int j = 0; j < N; j++) {
                if (key + j / 2 % 2 * 8 > first + j / 4 * 8 + lane % 4 * 2 + j % 2)
                    s[j] = -INFINITY;
            }
        }
        const uint32_t lse = m.lse + stage * z::LSE;
        if (__any_sync(0xffffffffu, load2(lse + z::LINE).x != 0))
            weigh<true>(s, lse + pair, a.scale);
        else
            weigh<false>(s, lse + pair, a.scale);
        if (z::EARLY) { /* dv under way while dS is formed, where registers allow it */
            round_pairs<T>(w, s);
            start_sums<T, D>(dv, w, d_o);
            lh::products_wait<1>();
        } else {
            lh::products_wait<0>();
        }
        lh::hold(dp);
        slope(dp, s, m.delta + stage * z::LINE + pair);
        round_pairs<T>(ds, dp);
        lh::barrier_wait(m.slopes_free + 8 * slopes, i / STAGES % 2 ^ 1);
        store_slopes(m.slopes + slopes * z::SLOPES, ds, group);
        lh::fence_shared();
        __syncwarp();
        if (lane == 0)
            lh::barrier_arrive(m.slopes_here + 8 * slopes);
        if (!z::EARLY) {
            round_pairs<T>(w, s);
            start_sums<T, D>(dv, w, d_o);
        }
        /* Before the first tile too, of what is there: products that a branch starts would not be asynchronous. */
        if (i > 0)
            lh::barrier_wait(m.slopes_here + 8 * behind, (i - 1) / STAGES % 2);
        start_dq<T, D>(dq, m, behind, group);
        start_sums<T, D>(dk, ds, q);
        lh::products_wait<1>();
        lh::hold(dv);
        lh::hold(w);
        lh::hold(dq);
        if (i > 0)
            hand_over<D>(dq, m, m.slopes_free + 8 * behind, i - 1, group);
        lh::products_wait<0>();
        lh::hold(dk);
        lh::hold(ds);
        /* All lanes have read lse and D of the stage, whose values the products above were made of; __syncwarp orders these
         * reads before lane 0's arrival, which releases, and the copying thread acquires before it copies over them. */
        __syncwarp();
        if (lane == 0)
            lh::barrier_arrive(m.free + 8 * stage);
    }
    const int i = b.tiles - 1, stage = i % STAGES;
    lh::barrier_wait(m.slopes_here + 8 * stage, i / STAGES % 2);
    start_dq<T, D>(dq, m, stage, group);
    lh::products_wait<0>();
    lh::hold(dq);
    hand_over<D>(dq, m, m.slopes_free + 8 * stage, i, group);
    store_own<T, D>(a.dk, dk, a.scale, key, a, b.head);
    store_own<T, D>(a.dv, dv, 1, key, a, b.head);
}

template <class T, int D>
__global__ void __launch_bounds__(THREADS, 1)
    backward(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
             const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap d_o,
             const backward_args a)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    typedef sizes<D> z;
    const shared m = layout<D>(lh::shared_address(memory));
    if (threadIdx.x == 0) {
        lh::barrier_init(m.own_here, 1);
        for (int stage = 0; stage < 2; stage++) {
            lh::barrier_init(m.here + 8 * stage, 1);
            lh::barrier_init(m.free + 8 * stage, 8); /* one arrival from each computing warp */
            lh::barrier_init(m.slopes_here + 8 * stage, 8);
            lh::barrier_init(m.slopes_free + 8 * stage, 8);
            lh::barrier_init(m.sums_here + 8 * stage, 8);
            lh::barrier_init(m.sums_free + 8 * stage, 1);
        }
        lh::barriers_ready();
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(m.ticket), "r"(atomicAdd(a.ticket, 1)) : "memory");
    }
    __syncthreads();
    unsigned ticket;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(ticket) : "r"(m.ticket));
    block b;
    b.head = (int)(ticket % (unsigned)a.heads);
    b.first = keys_of((int)(ticket / (unsigned)a.heads), (int)((a.rows + OWNED - 1) / OWNED), a.step) * OWNED;
    b.last = (int)((a.rows + z::QUERIES - 1) / z::QUERIES) - 1;
    b.tiles = b.last - b.first / z::QUERIES + 1;
    const int group = threadIdx.x / 128;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0)
            produce<D>(m, a, b, &q, &k, &v, &d_o);
        else if (threadIdx.x == 32 || threadIdx.x == 64)
            add_in_turn<D>(m, a, b, threadIdx.x / 32 - 1);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        consume<T, D>(m, a, b, group - 1);
    }
}

template <class T, int D>
cudaError_t launch(const lh_shape *s, const lh_attend *t, const backward_args &a, cudaStream_t stream)
{
    typedef sizes<D> z;
    CUtensorMap q, k, v, d_o;
    cudaError_t e = lh::describe(&q, s, t->q, z::QUERIES);
    if (e == cudaSuccess)
        e = lh::describe(&k, s, t->k, OWNED);
    if (e == cudaSuccess)
        e = lh::describe(&v, s, t->v, OWNED);
    if (e == cudaSuccess)
        e = lh::describe(&d_o, s, t->d_o, z::QUERIES);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute(backward<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, z::BYTES);
    if (e != cudaSuccess)
        return e;
    const int64_t blocks = (a.rows + OWNED - 1) / OWNED * a.heads;
    backward<T, D><<<(unsigned)blocks, THREADS, z::BYTES, stream>>>(q, k, v, d_o, a);
    return cudaGetLastError();
}

} // namespace

cudaError_t lh_cuda_attend_sm90_backward(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    const backward_args a = lh::backward_args_of(s, t);
    cudaError_t e = lh::backward_prepare(s, t, a, stream);
    if (e != cudaSuccess)
        return e;
    if (s->dtype == LH_F16)
        e = s->dim == 64 ? launch<__half, 64>(s, t, a, stream) : launch<__half, 128>(s, t, a, stream);
    else
        e = s->dim == 64 ? launch<__nv_bfloat16, 64>(s, t, a, stream)
                         : launch<__nv_bfloat16, 128>(s, t, a, stream);
    return e == cudaSuccess ? lh::backward_finish(s, t, a, stream) : e;
}
