/*
 * attend_sm90.cu: causal attention forward for Hopper, F16 and BF16, d 128 (SPEC 3.6).
 *
 * A block owns 128 queries. One warp copies tiles of 128 keys and values by the bulk tensor engine into two stages;
 * two groups of four warps compute, 64 queries each, with asynchronous matrix products: while the scores of one
 * tile are turned into weights, those of the next are multiplied. Tiles go from the diagonal down, so that only the
 * first is masked. Sums and softmax are float32, weights are rounded to the tensors' type.
 */
#include <cuda.h>

#include "cuda/mma.cuh"

namespace
{

enum {
    D = 128,
    QUERIES = 128,
    KEYS = 128,
    STAGES = 2,
    THREADS = 384,             /* the copying group and two computing ones */
    PANEL = 128 * 128,         /* bytes of 128 rows by 64 columns: what one copy brings */
    TILE = 2 * PANEL,          /* 128 rows by d */
    BARRIERS = 1 + 4 * STAGES, /* queries here; keys here, values here, keys free, values free */
    BYTES = 1024 + (1 + 2 * STAGES) * TILE + BARRIERS * 8
};

struct args {
    void *o;
    float *lse;
    int64_t rows, heads, tiles;
    float scale, scale_log2;
};

/* ---- barriers and copies ------------------------------------------------------------------ */

__device__ void barrier_init(uint32_t barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

__device__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ void barrier_expect(uint32_t barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

__device__ void barrier_wait(uint32_t barrier, int phase)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra done;\n"
                 "bra again;\n"
                 "done:\n"
                 "}" ::"r"(barrier),
                 "r"(phase)
                 : "memory");
}

/* 128 rows of one head, both panels, into a tile. */
__device__ void copy_tile(uint32_t tile, const CUtensorMap *map, int row, int head, uint32_t barrier)
{
    barrier_expect(barrier, TILE);
#pragma unroll
    for (int panel = 0; panel < 2; panel++)
        asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                     "[%1, {%2, %3, %4}], [%5];" ::"r"(tile + panel * PANEL),
                     "l"(map), "r"(panel * 64), "r"(row), "r"(head), "r"(barrier)
                     : "memory");
}

/* ---- asynchronous products ---------------------------------------------------------------- */

/* A matrix of 128-byte swizzled rows: `leading` between its 64-column panels (where the product runs along the rows),
 * 1024 bytes between groups of eight rows. */
__device__ uint64_t descriptor(uint32_t address, uint32_t leading)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

__device__ void products_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ void products_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> __device__ void products_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Registers that a product still reads or writes: the compiler may not move or reuse them across this. */
__device__ void hold(float x[64])
{
#pragma unroll
    for (int i = 0; i < 64; i++)
        asm volatile("" : "+f"(x[i])::"memory");
}

__device__ void hold(uint32_t p[8][4])
{
#pragma unroll
    for (int i = 0; i < 32; i++)
        asm volatile("" : "+r"(p[i / 4][i % 4])::"memory");
}

/* An asynchronous product names its 64 accumulators one by one; these are their text and their operands. */
#define ACCUMULATORS                                                                                         \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "                      \
    "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "                       \
    "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "                       \
    "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63} "
#define OPERANDS                                                                                             \
    "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),          \
        "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]),             \
        "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]),           \
        "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]),           \
        "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]),           \
        "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]), "+f"(c[42]),           \
        "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]), "+f"(c[49]),           \
        "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]), "+f"(c[56]),           \
        "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])

template <class T> struct product;

#define PRODUCT(TYPE, NAME)                                                                                  \
    template <> struct product<TYPE> {                                                                       \
        /* c (+)= a b^T: a [64,16], b [128,16] */                                                            \
        static __device__ void scores(float c[64], uint64_t a, uint64_t b, int add)                          \
        {                                                                                                    \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                        \
                         "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " " ACCUMULATORS       \
                         ", %64, %65, p, 1, 1, 0, 0;\n}"                                                     \
                         : OPERANDS                                                                          \
                         : "l"(a), "l"(b), "r"(add));                                                        \
        }                                                                                                    \
        /* c += a b: a [64,16] in registers, b [16,128] */                                                   \
        static __device__ void outputs(float c[64], const uint32_t a[4], uint64_t b)                         \
        {                                                                                                    \
            asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " " ACCUMULATORS       \
                         ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"                                        \
                         : OPERANDS                                                                          \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
        }                                                                                                    \
    };
PRODUCT(__half, "f16")
PRODUCT(__nv_bfloat16, "bf16")

/* s = q k^T for 64 queries and 128 keys, started. */
template <class T> __device__ void start_scores(float s[64], uint32_t q, uint32_t k)
{
    hold(s);
    products_begin();
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        const uint32_t at = c / 4 * PANEL + c % 4 * 32;
        product<T>::scores(s, descriptor(q + at, 16), descriptor(k + at, 16), c != 0);
    }
    products_commit();
}

/* o += p v for 128 keys, started; p may not change until it is done. */
template <class T> __device__ void start_outputs(float o[64], uint32_t p[8][4], uint32_t v)
{
    hold(o);
    hold(p);
    products_begin();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++)
        product<T>::outputs(o, p[k], descriptor(v + k * 2048, PANEL));
    products_commit();
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

/* Scores to weights, relative to the new maximum; shrink is what older sums are to be multiplied by. */
__device__ void weigh(float s[64], float most[2], float total[2], float shrink[2], float scale_log2)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float highest = most[half];
#pragma unroll
        for (int n = 0; n < 16; n++)
            highest = fmaxf(highest, fmaxf(s[4 * n + 2 * half], s[4 * n + 2 * half + 1]));
        highest = across4(highest, false);
        shrink[half] = lh::exp2_fast((most[half] - highest) * scale_log2);
        const float offset = highest * scale_log2;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < 16; n++) {
#pragma unroll
            for (int i = 4 * n + 2 * half; i < 4 * n + 2 * half + 2; i++) {
                s[i] = lh::exp2_fast(fmaf(s[i], scale_log2, -offset));
                sum += s[i];
            }
        }
        most[half] = highest;
        total[half] = total[half] * shrink[half] + sum;
    }
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

__device__ void produce(const shared &m, const CUtensorMap *q, const CUtensorMap *k, const CUtensorMap *v,
                        int tile, int head)
{
    copy_tile(m.q, q, tile * QUERIES, head, m.q_here);
    for (int i = 0; i <= tile; i++) {
        const int stage = i % STAGES, phase = i / STAGES % 2, row = (tile - i) * KEYS;
        barrier_wait(m.k_free + 8 * stage, phase ^ 1);
        copy_tile(m.k + stage * TILE, k, row, head, m.k_here + 8 * stage);
        barrier_wait(m.v_free + 8 * stage, phase ^ 1);
        copy_tile(m.v + stage * TILE, v, row, head, m.v_here + 8 * stage);
    }
}

template <class T> __device__ void consume(const shared &m, const args &a, int tile, int head, int group)
{
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const bool signals = threadIdx.x % 128 == 0;
    const int first = group * 64 + warp * 16 + lane / 4; /* row within the tile */
    const uint32_t q = m.q + group * 64 * 128;
    float s[64], o[64], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, shrink[2];
    uint32_t p[8][4];
#pragma unroll
    for (int i = 0; i < 64; i++)
        o[i] = 0;
    barrier_wait(m.q_here, 0);
    barrier_wait(m.k_here, 0);
    start_scores<T>(s, q, m.k);
    products_wait<0>();
    hold(s);
    if (signals)
        barrier_arrive(m.k_free);
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
        barrier_wait(m.k_here + 8 * stage, phase);
        start_scores<T>(s, q, m.k + stage * TILE);
        barrier_wait(m.v_here + 8 * old, old_phase);
        start_outputs<T>(o, p, m.v + old * TILE);
        products_wait<1>();
        hold(s);
        if (signals)
            barrier_arrive(m.k_free + 8 * stage);
        weigh(s, most, total, shrink, a.scale_log2);
        products_wait<0>();
        hold(o);
        hold(p);
        if (signals)
            barrier_arrive(m.v_free + 8 * old);
#pragma unroll
        for (int j = 0; j < 64; j++)
            o[j] *= shrink[j / 2 % 2];
        pack_weights<T>(p, s);
    }
    barrier_wait(m.v_here + 8 * (tile % STAGES), tile / STAGES % 2);
    start_outputs<T>(o, p, m.v + tile % STAGES * TILE);
    products_wait<0>();
    hold(o);
    hold(p);
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
        for (int n = 0; n < 16; n++)
            to[4 * n] = lh::pack<T>(o[4 * n + 2 * half] * factor, o[4 * n + 2 * half + 1] * factor);
        if (lane % 4 == 0)
            a.lse[at] = most[half] * a.scale + logf(total[half]);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS, 1)
    forward(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
            const __grid_constant__ CUtensorMap v, const args a)
{
    extern __shared__ unsigned char memory[];
    shared m;
    m.q = (lh::shared_address(memory) + 1023) / 1024 * 1024;
    m.k = m.q + TILE;
    m.v = m.k + STAGES * TILE;
    m.q_here = m.v + STAGES * TILE;
    m.k_here = m.q_here + 8;
    m.v_here = m.k_here + 8 * STAGES;
    m.k_free = m.v_here + 8 * STAGES;
    m.v_free = m.k_free + 8 * STAGES;
    if (threadIdx.x == 0) {
        barrier_init(m.q_here, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(m.k_here + 8 * stage, 1);
            barrier_init(m.v_here + 8 * stage, 1);
            barrier_init(m.k_free + 8 * stage, 2); /* one arrival from each computing group */
            barrier_init(m.v_free + 8 * stage, 2);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    const int head = (int)(blockIdx.x % a.heads), tile = (int)(a.tiles - 1 - blockIdx.x / a.heads);
    const int group = threadIdx.x / 128;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0)
            produce(m, &q, &k, &v, tile, head);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        consume<T>(m, a, tile, head, group - 1);
    }
}

/* ---- host --------------------------------------------------------------------------------- */

typedef CUresult encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                           const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                           CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* [B*H,S,d] in panels of 128 rows by 64 columns; rows past S read as zeros. */
cudaError_t describe(CUtensorMap *map, const lh_shape *s, const void *data)
{
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t e =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    if (e != cudaSuccess)
        return e;
    if (!found)
        return cudaErrorNotSupported;
    const cuuint64_t rows = (cuuint64_t)s->layout.selected;
    const cuuint64_t size[3] = {D, rows, (cuuint64_t)(s->batch * s->heads)},
                     stride[2] = {D * 2, rows * D * 2};
    const cuuint32_t box[3] = {64, 128, 1}, step[3] = {1, 1, 1};
    const CUtensorMapDataType type =
        s->dtype == LH_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const CUresult failed = ((encode_fn *)found)(
        map, type, 3, (void *)data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return failed == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

} // namespace

bool lh_cuda_has_sm90(const lh_shape *s)
{
    return s->capability == 90 && (s->dtype == LH_F16 || s->dtype == LH_BF16) && s->dim == D;
}

cudaError_t lh_cuda_attend_sm90(const lh_shape *s, const lh_attend *t, cudaStream_t stream)
{
    CUtensorMap q, k, v;
    cudaError_t e = describe(&q, s, t->q);
    if (e == cudaSuccess)
        e = describe(&k, s, t->k);
    if (e == cudaSuccess)
        e = describe(&v, s, t->v);
    const auto kernel = s->dtype == LH_F16 ? forward<__half> : forward<__nv_bfloat16>;
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
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
    kernel<<<(unsigned)(a.tiles * a.heads), THREADS, BYTES, stream>>>(q, k, v, a);
    return cudaGetLastError();
}
