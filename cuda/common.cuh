/* common.cuh: element conversions, 16-byte vectors and launch helpers of the kernels. */
#ifndef LH_CUDA_COMMON_CUH
#define LH_CUDA_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda/cuda.h"

namespace lh
{

__device__ inline float to_float(float x)
{
    return x;
}
__device__ inline float to_float(__half x)
{
    return __half2float(x);
}
__device__ inline float to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

template <class T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x)
{
    return x;
}
template <> __device__ inline __half from_float<__half>(float x)
{
    return __float2half_rn(x);
}
template <> __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* 16 bytes of T, moved as one word. */
template <class T> union vec {
    enum {
        size = 16 / sizeof(T)
    };
    uint4 word;
    T at[size];
    __device__ vec() : word(make_uint4(0, 0, 0, 0))
    {
    }
};

/* 64-bit division that costs 32-bit division where both fit. */
__host__ __device__ inline int64_t divide(int64_t a, int64_t b)
{
    if (((a | b) >> 32) == 0)
        return (int64_t)((uint32_t)a / (uint32_t)b);
    return a / b;
}

/* A grid of `each` items a block that never straddles two lines (b,h): which line, and the first item in it. */
struct line_grid {
    unsigned blocks; /* a line */
    unsigned heads;  /* lines of a batch */
};

inline line_grid grid_of(int64_t items, int64_t each, int64_t heads)
{
    line_grid g = {(unsigned)((items + each - 1) / each), (unsigned)heads};
    return g;
}

/* x / window by multiplication where window is a power of two: the same bits for less. */
template <bool POWER_OF_TWO> __device__ inline float quotient(float x, float window, float reciprocal)
{
    return POWER_OF_TWO ? x * reciprocal : x / window;
}

inline bool power_of_two(int64_t x)
{
    return (x & (x - 1)) == 0;
}

/* Where level l of a pyramid starts and how many tokens an entry covers, in a kernel argument. */
struct levels {
    int count;
    int64_t pool, tokens, entries;
    int64_t offset[LH_MAX_LEVELS + 1];
};

inline levels levels_of(const lh_shape *s)
{
    levels v = {(int)s->levels, s->pool, s->tokens, s->layout.entries, {0}};
    for (int l = 0; l <= v.count; l++)
        v.offset[l] = s->layout.level_offset[l];
    return v;
}

/* An index element, whatever its width. */
__device__ inline int64_t index_at(const void *index, bool wide, int64_t i)
{
    return wide ? ((const int64_t *)index)[i] : ((const int32_t *)index)[i];
}

inline bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Rows can be moved in 16-byte words by a power-of-two number of lanes of one warp. */
inline bool rows_are_vectors(const lh_shape *s, const lh_rows *x)
{
    const int64_t size = (int64_t)lh_dtype_size(s->dtype), lanes = s->dim * size / 16;
    return s->dim * size % 16 == 0 && lanes <= 32 && (lanes & (lanes - 1)) == 0 && aligned(x->data) &&
           x->row_stride * size % 16 == 0 && x->head_stride * size % 16 == 0 &&
           x->batch_stride * size % 16 == 0;
}

/* Contiguous [B,heads,rows,d]. */
inline lh_rows rows_contiguous(const lh_shape *s, void *data, int64_t heads, int64_t rows)
{
    lh_rows x = {data, heads * rows * s->dim, rows * s->dim, s->dim};
    return x;
}

/* Blocks for `work` items, `each` a block, at most `most`: kernels that cap it stride over the rest. */
inline unsigned blocks_for(int64_t work, int64_t each, int64_t most = INT32_MAX)
{
    const int64_t blocks = (work + each - 1) / each;
    return (unsigned)(blocks < 1 ? 1 : blocks > most ? most : blocks);
}

/* Calls `launch` with a null pointer of the dtype's element type. */
template <class F> cudaError_t with_type(lh_dtype dtype, F launch)
{
    switch (dtype) {
    case LH_F32:
        launch((float *)nullptr);
        break;
    case LH_F16:
        launch((__half *)nullptr);
        break;
    case LH_BF16:
        launch((__nv_bfloat16 *)nullptr);
        break;
    default:
        return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

} // namespace lh
#endif
