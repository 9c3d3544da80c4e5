/*
 * select.cu: the cascade of SPEC 3.3 and the post-order of 3.4, one block for each tile of each head.
 *
 *   score_q [B,H,P], score_k [B,G,P] -> index [B,H,S], and slot [B,H,P], an entry's place there or -1
 *
 * Candidates of a level are held in rising order, so "score descending, then index ascending" is a threshold on
 * integer keys (radix select) plus a rank among the keys equal to it. An entry's place needs no sort: it is the
 * number of candidates, level by level, whose window ends before it, and those are prefix counts of parents.
 * A tile's arrays live in shared memory, or in global scratch where they do not fit.
 */
#include "cuda/common.cuh"

namespace
{

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    BINS = 256
};

struct args {
    const float *score_q, *score_k;
    void *index;
    int32_t *slot;    /* NULL: not wanted */
    int32_t *scratch; /* NULL: shared memory */
    bool wide;
    int64_t heads, kv_heads, tiles, selected;
    int coarse, half, pool; /* candidates of a tile at the coarsest level, m/2, p */
    lh::levels level;
};

/* int32 words of a tile: two key arrays, then for each level 1..L-1 prefix[n+1], parent[m], parent_rank[m]. */
__host__ __device__ inline int64_t candidates_of(const args &a, int l)
{
    return l + 1 == a.level.count ? a.coarse : (int64_t)2 * a.half * a.pool;
}

__host__ __device__ inline int64_t most_candidates(const args &a)
{
    const int64_t children = a.level.count > 2 ? (int64_t)2 * a.half * a.pool : 0;
    return children > a.coarse ? children : a.coarse;
}

__host__ __device__ inline int64_t level_words(const args &a, int l)
{
    return candidates_of(a, l) + 1 + 4 * (int64_t)a.half;
}

__host__ __device__ inline int64_t tile_words(const args &a)
{
    int64_t words = 2 * most_candidates(a);
    for (int l = 1; l < a.level.count; l++)
        words += level_words(a, l);
    return words;
}

struct tile_level {
    int32_t *prefix, *parent, *parent_rank;
};

__device__ tile_level level_at(const args &a, int32_t *words, int l)
{
    int32_t *at = words + 2 * most_candidates(a);
    for (int j = 1; j < l; j++)
        at += level_words(a, j);
    tile_level v;
    v.prefix = at;
    v.parent = at + candidates_of(a, l) + 1;
    v.parent_rank = v.parent + 2 * a.half;
    return v;
}

/* A score as an integer that rises with it; -0 equals +0, a NaN is below every number; 0 is no score's key. */
__device__ uint32_t key_of(float score)
{
    if (score != score)
        return 1;
    const uint32_t bits = __float_as_uint(score + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* Exclusive prefix over the block of one int a thread; *total is the sum. Every thread must call. */
__device__ int block_prefix(int value, int *total)
{
    __shared__ int sums[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int inclusive = value;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int below = __shfl_up_sync(0xffffffffu, inclusive, step);
        if (lane >= step)
            inclusive += below;
    }
    __syncthreads(); /* sums of the call before have been read */
    if (lane == 31)
        sums[warp] = inclusive;
    __syncthreads();
    int before = 0, all = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        before += w < warp ? sums[w] : 0;
        all += sums[w];
    }
    *total = all;
    return before + inclusive - value;
}

/* Sets chosen[r] for the `want` largest of key[0..n), ties to the smallest r. 1 <= want <= n. */
__device__ void choose(const uint32_t *key, int n, int want, int32_t *chosen)
{
    __shared__ int histogram[BINS];
    __shared__ uint32_t found;
    __shared__ int still, equal;
    uint32_t prefix = 0, mask = 0;
    int need = want;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < BINS; i += THREADS)
            histogram[i] = 0;
        __syncthreads();
        for (int r = threadIdx.x; r < n; r += THREADS) {
            if ((key[r] & mask) == prefix)
                atomicAdd(&histogram[key[r] >> shift & (BINS - 1)], 1);
        }
        __syncthreads();
        if (threadIdx.x < 32) { /* lane i holds the bins 255-8i .. 248-8i, largest first */
            int bins[8], mine = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                bins[i] = histogram[BINS - 1 - (int)threadIdx.x * 8 - i];
                mine += bins[i];
            }
            int above = mine;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const int other = __shfl_up_sync(0xffffffffu, above, step);
                if ((int)threadIdx.x >= step)
                    above += other;
            }
            above -= mine;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (above < need && need <= above + bins[i]) {
                    found = prefix | (uint32_t)(BINS - 1 - (int)threadIdx.x * 8 - i) << shift;
                    still = need - above;
                    equal = bins[i];
                }
                above += bins[i];
            }
        }
        __syncthreads();
        prefix = found;
        need = still;
        mask |= (uint32_t)(BINS - 1) << shift;
    }
    const bool all_equal = need == equal;
    int ties_before = 0;
    for (int base = 0; base < n; base += THREADS) {
        const int r = base + (int)threadIdx.x;
        const bool tie = r < n && key[r] == prefix;
        bool take = r < n && key[r] > prefix;
        if (all_equal) {
            take = take || tie;
        } else {
            int ties;
            const int rank = ties_before + block_prefix(tie, &ties);
            ties_before += ties;
            take = take || (tie && rank < need);
        }
        if (take)
            chosen[r] = 1;
    }
    __syncthreads();
}

/* Candidate r of a level, counted from the tile's first entry there. */
__device__ int64_t relative(const args &a, const tile_level &coarser, bool coarsest, int r)
{
    return coarsest ? r : (int64_t)coarser.parent[r / a.pool] * a.pool + r % a.pool;
}

/* Parents of level l: the m/2 largest query scores, then the m/2 largest key scores of the rest. */
__device__ void choose_parents(const args &a, int32_t *words, int l, const float *score_q,
                               const float *score_k, int64_t tile_entry)
{
    const int n = (int)candidates_of(a, l);
    const bool coarsest = l + 1 == a.level.count;
    const tile_level here = level_at(a, words, l), coarser = coarsest ? here : level_at(a, words, l + 1);
    uint32_t *key_q = (uint32_t *)words, *key_k = key_q + most_candidates(a);
    for (int r = threadIdx.x; r < n; r += THREADS) {
        const int64_t entry = tile_entry + relative(a, coarser, coarsest, r);
        key_q[r] = key_of(score_q[entry]);
        key_k[r] = key_of(score_k[entry]);
        here.prefix[r] = 0;
    }
    __syncthreads();
    choose(key_q, n, a.half, here.prefix);
    for (int r = threadIdx.x; r < n; r += THREADS) {
        if (here.prefix[r])
            key_k[r] = 0;
    }
    __syncthreads();
    choose(key_k, n, a.half, here.prefix);
    int before = 0;
    for (int base = 0; base < n; base += THREADS) {
        const int r = base + (int)threadIdx.x;
        const int parent = r < n ? here.prefix[r] : 0;
        int parents;
        const int rank = before + block_prefix(parent, &parents);
        before += parents;
        if (parent) {
            here.parent[rank] = (int32_t)relative(a, coarser, coarsest, r);
            here.parent_rank[rank] = r;
        }
        if (r < n)
            here.prefix[r] = rank;
    }
    if (threadIdx.x == 0)
        here.prefix[n] = before;
    __syncthreads();
}

/* Entries of the tile that stand before candidate r of level l (SPEC 3.4). */
__device__ int64_t place_of(const args &a, int32_t *words, int l, int r)
{
    int64_t place = r;
    int child = r;
    for (int j = l + 1; j < a.level.count; j++) {
        child = level_at(a, words, j).parent_rank[child / a.pool];
        place += child;
    }
    if (l == 0)
        return place;
    const int32_t *prefix = level_at(a, words, l).prefix;
    int below = r + (prefix[r + 1] - prefix[r]); /* a parent also stands after its own children */
    for (int j = l; j >= 1; j--) {
        below = a.pool * level_at(a, words, j).prefix[below];
        place += below;
    }
    return place;
}

__global__ void select_tiles(args a)
{
    extern __shared__ int32_t shared_words[];
    int32_t *words = a.scratch ? a.scratch + blockIdx.x * tile_words(a) : shared_words;
    const int64_t tile = blockIdx.x % a.tiles, head = blockIdx.x / a.tiles;
    const int64_t kv = head / a.heads * a.kv_heads + head % a.heads / (a.heads / a.kv_heads);
    const float *score_q = a.score_q + head * a.level.entries, *score_k = a.score_k + kv * a.level.entries;
    int32_t *slot = a.slot ? a.slot + head * a.level.entries : nullptr;
    int64_t covered = a.coarse; /* entries of a level in one tile */
    for (int l = a.level.count - 1; l >= 0 && slot; l--) {
        for (int64_t i = threadIdx.x; i < covered; i += THREADS)
            slot[a.level.offset[l] + tile * covered + i] = -1;
        covered *= a.pool;
    }
    covered = a.coarse;
    for (int l = a.level.count - 1; l >= 1; l--) {
        const int64_t tile_entry = a.level.offset[l] + tile * covered;
        choose_parents(a, words, l, score_q, score_k, tile_entry);
        covered *= a.pool;
    }
    const int64_t first = head * a.selected + tile * (a.selected / a.tiles);
    covered = a.coarse;
    __syncthreads(); /* slots of the tile are -1 */
    for (int l = a.level.count - 1; l >= 0; l--) {
        const bool coarsest = l + 1 == a.level.count;
        const tile_level coarser = level_at(a, words, coarsest ? l : l + 1);
        const int n = (int)candidates_of(a, l);
        for (int r = threadIdx.x; r < n; r += THREADS) {
            const int64_t entry = a.level.offset[l] + tile * covered + relative(a, coarser, coarsest, r);
            const int64_t at = first + place_of(a, words, l, r);
            if (a.wide)
                ((int64_t *)a.index)[at] = entry;
            else
                ((int32_t *)a.index)[at] = (int32_t)entry;
            if (slot)
                slot[entry] = (int32_t)(at - head * a.selected);
        }
        covered *= a.pool;
    }
}

/* L = 1: the sub-sequence is the sequence. */
__global__ void select_all(args a, int64_t count)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        if (a.wide)
            ((int64_t *)a.index)[i] = i % a.selected;
        else
            ((int32_t *)a.index)[i] = (int32_t)(i % a.selected);
        if (a.slot)
            a.slot[i] = (int32_t)(i % a.selected);
    }
}

args args_of(const lh_shape *s)
{
    args a = {};
    a.wide = s->layout.index_dtype == LH_I64;
    a.heads = s->heads;
    a.kv_heads = s->kv_heads;
    a.tiles = s->layout.tiles;
    a.selected = s->layout.selected;
    a.level = lh::levels_of(s);
    if (s->levels > 1) {
        a.coarse = (int)s->layout.tile_coarse;
        a.half = (int)(s->tile_topk / 2);
        a.pool = (int)s->pool;
    }
    return a;
}

bool fits_shared(const lh_shape *s, const args &a)
{
    return tile_words(a) * (int64_t)sizeof(int32_t) <= s->shared_bytes - 4096; /* the static arrays beside */
}

} // namespace

size_t lh_cuda_select_scratch(const lh_shape *s)
{
    const args a = args_of(s);
    if (s->levels == 1 || fits_shared(s, a))
        return 0;
    return (size_t)(s->batch * s->heads * a.tiles * tile_words(a)) * sizeof(int32_t);
}

cudaError_t lh_cuda_select(const lh_shape *s, const float *score_q, const float *score_k, void *index,
                           int32_t *slot, void *scratch, cudaStream_t stream)
{
    args a = args_of(s);
    a.score_q = score_q;
    a.score_k = score_k;
    a.index = index;
    a.slot = slot;
    if (s->levels == 1) {
        const int64_t count = s->batch * s->heads * a.selected;
        select_all<<<lh::blocks_for(count, THREADS, 65536), THREADS, 0, stream>>>(a, count);
        return cudaGetLastError();
    }
    size_t bytes = 0;
    if (fits_shared(s, a)) {
        bytes = (size_t)tile_words(a) * sizeof(int32_t);
        const cudaError_t e = cudaFuncSetAttribute(select_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   s->shared_bytes - 4096);
        if (e != cudaSuccess)
            return e;
    } else {
        a.scratch = (int32_t *)scratch;
    }
    select_tiles<<<(unsigned)(s->batch * s->heads * a.tiles), THREADS, bytes, stream>>>(a);
    return cudaGetLastError();
}
