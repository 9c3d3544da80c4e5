/*
 * mma.cuh: tensor-core building blocks of sm_80 and later: shared tiles of 16-bit elements, fragments, products.
 *
 * A shared tile is [rows][D], D 64 or 128. The 16-byte word w of row r lies at word w ^ (r % 8), so that the eight
 * rows a fragment load touches lie in different banks.
 */
#ifndef LH_CUDA_MMA_CUH
#define LH_CUDA_MMA_CUH

#include "cuda/common.cuh"

namespace lh
{

/* Two neighbours of an accumulator, rounded to T, the first in the low half. */
template <class T> __device__ inline uint32_t pack(float low, float high);
template <> __device__ inline uint32_t pack<__half>(float low, float high)
{
    const __half2 both = __floats2half2_rn(low, high);
    return *(const uint32_t *)&both;
}
template <> __device__ inline uint32_t pack<__nv_bfloat16>(float low, float high)
{
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&both;
}

/* 2^x, to 2 units in the last place; x may be -inf. */
__device__ inline float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* e^(score scale - lse), at most 1. The product is rounded as forward rounded the largest score before it went into
 * lse, so that the weight of a huge score that stands alone is 1, not e to the power of a rounding error. */
__device__ inline float weight_of(float score, float scale, float lse)
{
    float x = __fmul_rn(score, scale) - lse;
    asm("min.NaN.f32 %0, %0, 0f00000000;" : "+f"(x));
    return exp2_fast(x * 1.44269504088896341f);
}

template <int D> __device__ inline uint32_t word_at(uint32_t tile, int row, int word)
{
    return tile + (uint32_t)(row * D * 2 + (word ^ (row & 7)) * 16);
}

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ROWS rows of [rows,D] from row `first` on into a shared tile, zeros past `rows`, asynchronously. */
template <int ROWS, int D, int THREADS>
__device__ inline void load_rows(uint32_t tile, const void *data, int64_t first, int64_t rows)
{
    constexpr int WORDS = D / 8;
#pragma unroll
    for (int i = 0; i < ROWS * WORDS / THREADS; i++) {
        const int at = i * THREADS + threadIdx.x, row = at / WORDS, word = at % WORDS;
        const bool inside = first + row < rows;
        const uint4 *from = (const uint4 *)data + (inside ? first + row : 0) * WORDS + word;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(word_at<D>(tile, row, word)),
                     "l"(from), "r"(inside ? 16 : 0));
    }
}

__device__ inline void commit_loads()
{
    asm volatile("cp.async.commit_group;");
}

__device__ inline void wait_loads()
{
    asm volatile("cp.async.wait_group 0;");
}

/* A fragment, 16 rows by 16 columns, from row `row` and 16-byte word `word` (even). */
template <int D> __device__ inline void load_a(uint32_t a[4], uint32_t tile, int row, int word)
{
    const int lane = threadIdx.x % 32;
    const uint32_t from = word_at<D>(tile, row + lane % 16, word + lane / 16);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(from));
}

/* B fragments of x^T for 16 rows of x (two products' columns), 16 deep along x's columns from `word`. */
template <int D> __device__ inline void load_b_rows(uint32_t b[4], uint32_t tile, int row, int word)
{
    const int lane = threadIdx.x % 32;
    const uint32_t from = word_at<D>(tile, row + lane / 16 * 8 + lane % 8, word + lane / 8 % 2);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(from));
}

/* B fragments of x for 16 of its columns from `word`, 16 deep along its rows. */
template <int D> __device__ inline void load_b_columns(uint32_t b[4], uint32_t tile, int row, int word)
{
    const int lane = threadIdx.x % 32;
    const uint32_t from = word_at<D>(tile, row + lane % 16, word + lane / 16);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(from));
}

/* c += a b, 16 x 8 x 16. */
template <class T> __device__ inline void multiply(float c[4], const uint32_t a[4], const uint32_t *b);
template <> __device__ inline void multiply<__half>(float c[4], const uint32_t a[4], const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> __device__ inline void multiply<__nv_bfloat16>(float c[4], const uint32_t a[4], const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* c[16 x 8N] += a[16 rows of the warp, D] x^T, x the N*8 rows of `tile` from `row`. */
template <class T, int D, int N>
__device__ inline void multiply_rows(float c[N][4], const uint32_t a[D / 16][4], uint32_t tile, int row)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4];
            load_b_rows<D>(b, tile, row + 8 * n, 2 * k);
            multiply<T>(c[n], a[k], b);
            multiply<T>(c[n + 1], a[k], b + 2);
        }
    }
}

/* The same with a's rows in shared memory. */
template <class T, int D, int N>
__device__ inline void multiply_tiles(float c[N][4], uint32_t a_tile, int a_row, uint32_t tile, int row)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4];
        load_a<D>(a, a_tile, a_row, 2 * k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4];
            load_b_rows<D>(b, tile, row + 8 * n, 2 * k);
            multiply<T>(c[n], a, b);
            multiply<T>(c[n + 1], a, b + 2);
        }
    }
}

/* out[16 x D] += p[16 x 8N] x, x the 8N rows of `tile` from `row`; p's accumulators become the A operand. */
template <class T, int D, int N>
__device__ inline void multiply_columns(float out[D / 8][4], const float p[N][4], uint32_t tile, int row)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        const uint32_t a[4] = {pack<T>(p[2 * k][0], p[2 * k][1]), pack<T>(p[2 * k][2], p[2 * k][3]),
                               pack<T>(p[2 * k + 1][0], p[2 * k + 1][1]),
                               pack<T>(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_b_columns<D>(b, tile, row + 16 * k, n);
            multiply<T>(out[n], a, b);
            multiply<T>(out[n + 1], a, b + 2);
        }
    }
}

/* 16 rows of accumulators times row factors, rounded, to rows first.. of data [rows,D]. */
template <class T, int D>
__device__ inline void store_rows(void *data, const float x[D / 8][4], float factor0, float factor1,
                                  int64_t first, int64_t rows)
{
    const int lane = threadIdx.x % 32;
    const int64_t row = first + lane / 4;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        uint32_t *at = (uint32_t *)((T *)data + row * D + 8 * n + lane % 4 * 2);
        if (row < rows)
            at[0] = pack<T>(x[n][0] * factor0, x[n][1] * factor0);
        if (row + 8 < rows)
            at[8 * D / 2] = pack<T>(x[n][2] * factor1, x[n][3] * factor1);
    }
}

} // namespace lh
#endif
