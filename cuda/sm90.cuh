/*
 * sm90.cuh: Hopper's building blocks: barriers in shared memory, bulk copies, asynchronous matrix products.
 *
 * Tiles of 16-bit elements in shared memory are panels of 64 columns: rows of 128 bytes whose 16-byte words are swizzled by
 * the row (word w of row r lies at w ^ (r % 8)), 1024-byte aligned, the panels of wider tiles one after another.
 */
#ifndef LH_CUDA_SM90_CUH
#define LH_CUDA_SM90_CUH

#include <cuda.h>

#include "cuda/mma.cuh"

namespace lh
{

/* ---- barriers ----------------------------------------------------------------------------- */

__device__ inline void barrier_init(uint32_t barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/* What was initialised is seen by bulk copies too; before the block's barrier. */
__device__ inline void barriers_ready()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives, and lets the phase wait for so many bytes of bulk copies besides. */
__device__ inline void barrier_expect(uint32_t barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

__device__ inline void barrier_wait(uint32_t barrier, int phase)
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

/* This thread's ordinary accesses of shared memory come before later ones of bulk copies and asynchronous products. */
__device__ inline void fence_shared()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- bulk copies -------------------------------------------------------------------------- */

/* The box of `map` at column, row, head into shared memory. */
__device__ inline void copy_box(uint32_t to, const CUtensorMap *map, int column, int row, int head,
                                uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                 "[%1, {%2, %3, %4}], [%5];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(head), "r"(barrier)
                 : "memory");
}

/* PANELS boxes of 64 columns side by side, each of so many bytes. */
template <int PANELS>
__device__ inline void copy_panels(uint32_t tile, int bytes, const CUtensorMap *map, int row, int head,
                                   uint32_t barrier)
{
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++)
        copy_box(tile + panel * bytes, map, panel * 64, row, head, barrier);
}

__device__ inline void copy_bytes(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}

/* Shared memory to global memory: in place of what is there, or added to it in float32. */
__device__ inline void bulk_store(void *to, uint32_t from, int bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from),
                 "r"(bytes)
                 : "memory");
}

__device__ inline void bulk_add(float *to, uint32_t from, int bytes)
{
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
                 "r"(from), "r"(bytes)
                 : "memory");
}

__device__ inline void bulk_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* This thread's bulk stores have read their shared memory. */
__device__ inline void bulk_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/* They have written. */
__device__ inline void bulk_wait()
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/* Ordinary accesses and bulk copies of this thread, before and after, come in this order. */
__device__ inline void fence_all()
{
    asm volatile("fence.proxy.async;" ::: "memory");
}

__device__ inline unsigned load_acquire(const unsigned *from)
{
    unsigned x;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
    return x;
}

__device__ inline void store_release(unsigned *to, unsigned x)
{
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}

/* ---- asynchronous products ---------------------------------------------------------------- */

/* A matrix in panels: `leading` bytes from one panel to the next where the product runs along the rows of a tile
 * wider than one panel, 1024 between groups of eight rows. */
__device__ inline uint64_t descriptor(uint32_t address, uint32_t leading)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

__device__ inline void products_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void products_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> __device__ inline void products_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Registers that a product still reads or writes: the compiler may not move or reuse them across this. */
template <int N> __device__ inline void hold(float (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(x[i])::"memory");
}

template <int N> __device__ inline void hold(uint32_t (&p)[N][4])
{
#pragma unroll
    for (int i = 0; i < 4 * N; i++)
        asm volatile("" : "+r"(p[i / 4][i % 4])::"memory");
}

/* An asynchronous product names its accumulators one by one; these are their text and their operands. */
#define LH_TEXT64                                                                                            \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "            \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "             \
    "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "             \
    "%56, %57, %58, %59, %60, %61, %62, %63} "
#define LH_OPERANDS64                                                                                        \
    "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),          \
        "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]),             \
        "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]),           \
        "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]),           \
        "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]),           \
        "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]), "+f"(c[42]),           \
        "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]), "+f"(c[49]),           \
        "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]), "+f"(c[56]),           \
        "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
#define LH_TEXT32                                                                                            \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "            \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31} "
#define LH_OPERANDS32                                                                                        \
    "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),          \
        "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]),             \
        "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]),           \
        "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]),           \
        "+f"(c[29]), "+f"(c[30]), "+f"(c[31])

/* c [64,N] (+)= a b by a group of four warps, 16 deep; N is twice the accumulators of a thread.
 *   rows:    a [64,16] and b [N,16], both in tiles whose rows run along the depth: c += a b^T
 *   columns: a [64,16] in registers, b [16,N] in a tile whose rows run along N
 *   across:  a [16,64], b [16,N], both in tiles whose rows run across the depth: c += a^T b */
template <class T> struct product;

#define LH_PRODUCT(TYPE, NAME, N, SIZE, PAST0, PAST1, PAST2, PAST3, PAST4)                                   \
    static __device__ inline void rows(float(&c)[SIZE], uint64_t a, uint64_t b, int add)                     \
    {                                                                                                        \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" PAST2 ", 0;\n"                                     \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." NAME "." NAME " " LH_TEXT##SIZE        \
                     ", %" PAST0 ", %" PAST1 ", p, 1, 1, 0, 0;\n}"                                           \
                     : LH_OPERANDS##SIZE                                                                     \
                     : "l"(a), "l"(b), "r"(add));                                                            \
    }                                                                                                        \
    static __device__ inline void columns(float(&c)[SIZE], const uint32_t(&a)[4], uint64_t b)                \
    {                                                                                                        \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" N "k16.f32." NAME "." NAME " " LH_TEXT##SIZE        \
                     ", {%" PAST0 ", %" PAST1 ", %" PAST2 ", %" PAST3 "}, %" PAST4 ", 1, 1, 1, 1;\n"         \
                     : LH_OPERANDS##SIZE                                                                     \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                  \
    }                                                                                                        \
    static __device__ inline void across(float(&c)[SIZE], uint64_t a, uint64_t b, int add)                   \
    {                                                                                                        \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" PAST2 ", 0;\n"                                     \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." NAME "." NAME " " LH_TEXT##SIZE        \
                     ", %" PAST0 ", %" PAST1 ", p, 1, 1, 1, 1;\n}"                                           \
                     : LH_OPERANDS##SIZE                                                                     \
                     : "l"(a), "l"(b), "r"(add));                                                            \
    }
#define LH_PRODUCTS(TYPE, NAME)                                                                              \
    template <> struct product<TYPE> {                                                                       \
        LH_PRODUCT(TYPE, NAME, "128", 64, "64", "65", "66", "67", "68")                                      \
        LH_PRODUCT(TYPE, NAME, "64", 32, "32", "33", "34", "35", "36")                                       \
    };
LH_PRODUCTS(__half, "f16")
LH_PRODUCTS(__nv_bfloat16, "bf16")

/* ---- host --------------------------------------------------------------------------------- */

typedef CUresult encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                           const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                           CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* [B*H,S,d] in boxes of `box_rows` rows by 64 columns; rows past S read as zeros. */
inline cudaError_t describe(CUtensorMap *map, const lh_shape *s, const void *data, int box_rows)
{
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t e =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    if (e != cudaSuccess)
        return e;
    if (!found)
        return cudaErrorNotSupported;
    const cuuint64_t rows = (cuuint64_t)s->layout.selected, dim = (cuuint64_t)s->dim;
    const cuuint64_t size[3] = {dim, rows, (cuuint64_t)(s->batch * s->heads)},
                     stride[2] = {dim * 2, rows * dim * 2};
    const cuuint32_t box[3] = {64, (cuuint32_t)box_rows, 1}, step[3] = {1, 1, 1};
    const CUtensorMapDataType type =
        s->dtype == LH_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const CUresult failed = ((encode_fn *)found)(
        map, type, 3, (void *)data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return failed == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

} // namespace lh
#endif
