/* decoder_rows.cu: what a decoder computes row by row: norms, the loss, the embedding. */
#include "cuda/common.cuh"
#include "cuda/decoder.h"

namespace
{

enum {
    LANES = 32,
    WARPS = 8, /* of a block: a row each */
    BYTES = 256,
    EMBED_WARPS = 32 /* of a block: every so-manieth 32 rows each */
};

__device__ float sum_of_warp(float value)
{
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, mask);
    return value;
}

__device__ float largest_of_warp(float value)
{
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, mask));
    return value;
}

/* The warp's row; rows past the last leave. */
__device__ int64_t row_of_warp()
{
    return (int64_t)blockIdx.x * WARPS + threadIdx.y;
}

inline dim3 warps()
{
    return dim3(LANES, WARPS);
}

__device__ float inverse_rms(int64_t width, const float *x)
{
    float squares = 0;
    for (int64_t i = threadIdx.x; i < width; i += LANES)
        squares = fmaf(x[i], x[i], squares);
    return (float)(1 / sqrt((double)sum_of_warp(squares) / (double)width + 1e-5));
}

__global__ void norm(int64_t rows, int64_t width, const float *x, const float *w, float *y)
{
    const int64_t r = row_of_warp();
    if (r >= rows)
        return;
    x += r * width;
    y += r * width;
    const float scale = inverse_rms(width, x);
    for (int64_t i = threadIdx.x; i < width; i += LANES)
        y[i] = w[i] * x[i] * scale;
}

/* With s = 1/rms: dx += s (w dy - x s^2 mean(w dy x)). scales: [rows] s */
__global__ void norm_dx(int64_t rows, int64_t width, const float *dy, const float *x, const float *w,
                        float *dx, float *scales)
{
    const int64_t r = row_of_warp();
    if (r >= rows)
        return;
    x += r * width;
    dy += r * width;
    dx += r * width;
    const float scale = inverse_rms(width, x);
    float along = 0;
    for (int64_t i = threadIdx.x; i < width; i += LANES)
        along = fmaf(w[i] * dy[i], x[i], along);
    const float back = sum_of_warp(along) * scale * scale / (float)width;
    for (int64_t i = threadIdx.x; i < width; i += LANES)
        dx[i] += scale * (w[i] * dy[i] - x[i] * back);
    if (threadIdx.x == 0)
        scales[r] = scale;
}

/* partial[g] = sum over the group's rows of dy x s; a block: 32 columns of a group */
__global__ void norm_dw(int64_t rows, int64_t width, const float *dy, const float *x, const float *scales,
                        float *partial)
{
    __shared__ float of[WARPS][LANES];
    const int64_t column = (int64_t)blockIdx.x * LANES + threadIdx.x, group = blockIdx.y;
    const int64_t last = rows * (group + 1) / gridDim.y;
    float sum = 0;
    for (int64_t r = rows * group / gridDim.y + threadIdx.y; r < last && column < width; r += WARPS)
        sum = fmaf(dy[r * width + column] * x[r * width + column], scales[r], sum);
    of[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= width)
        return;
    for (int i = 1; i < WARPS; i++)
        sum += of[i][threadIdx.x];
    partial[group * width + column] = sum;
}

__global__ void add_groups(int groups, int64_t width, const float *partial, float *dw)
{
    const int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
    if (column >= width)
        return;
    for (int g = 0; g < groups; g++)
        sum += partial[g * width + column];
    dw[column] += sum;
}

__global__ void softmax_loss(int64_t rows, const uint8_t *targets, float scale, float *logits, double *losses)
{
    const int64_t r = row_of_warp();
    if (r >= rows)
        return;
    float *row = logits + r * BYTES, value[BYTES / LANES], highest = -INFINITY, sum = 0;
    const int target = targets[r];
    const float wanted = row[target];
#pragma unroll
    for (int i = 0; i < BYTES / LANES; i++) {
        value[i] = row[i * LANES + threadIdx.x];
        highest = fmaxf(highest, value[i]);
    }
    highest = largest_of_warp(highest);
#pragma unroll
    for (int i = 0; i < BYTES / LANES; i++) {
        value[i] = expf(value[i] - highest);
        sum += value[i];
    }
    sum = sum_of_warp(sum);
    __syncwarp(); /* every lane has read `wanted` */
#pragma unroll
    for (int i = 0; i < BYTES / LANES; i++) {
        const int at = i * LANES + (int)threadIdx.x;
        row[at] = value[i] * (scale / sum) - (at == target ? scale : 0);
    }
    if (threadIdx.x == 0)
        losses[r] = log((double)sum) + (double)highest - (double)wanted;
}

__global__ void look_up(int64_t n, int64_t width, const uint8_t *bytes, const float *table, float *x)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = lh::divide(i, width);
        x[i] = table[bytes[row] * width + (i - row * width)];
    }
}

/* A block adds up 32 columns of one byte's rows. */
__global__ void add_rows(int64_t rows, int64_t width, const uint8_t *bytes, const float *dx, float *table)
{
    __shared__ float of[EMBED_WARPS][LANES];
    const int64_t column = (int64_t)blockIdx.x * LANES + threadIdx.x;
    const int byte = (int)blockIdx.y;
    float sum = 0;
    for (int64_t first = (int64_t)threadIdx.y * LANES; first < rows; first += EMBED_WARPS * LANES) {
        const int64_t mine = first + threadIdx.x;
        unsigned found = __ballot_sync(0xffffffffu, mine < rows && bytes[mine] == byte);
        for (; found; found &= found - 1) {
            const int64_t row = first + __ffs((int)found) - 1;
            sum += column < width ? dx[row * width + column] : 0;
        }
    }
    of[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= width)
        return;
    for (int i = 1; i < EMBED_WARPS; i++)
        sum += of[i][threadIdx.x];
    table[byte * width + column] += sum;
}

} // namespace

cudaError_t lh_cuda_norm_forward(int64_t rows, int64_t width, const float *x, const float *w, float *y,
                                 cudaStream_t stream)
{
    norm<<<lh::blocks_for(rows, WARPS), warps(), 0, stream>>>(rows, width, x, w, y);
    return cudaGetLastError();
}

cudaError_t lh_cuda_norm_backward(int64_t rows, int64_t width, const float *dy, const float *x,
                                  const float *w, float *dx, float *dw, float *partial, float *scales,
                                  cudaStream_t stream)
{
    const dim3 columns(lh::blocks_for(width, LANES), LH_CUDA_NORM_GROUPS);
    norm_dx<<<lh::blocks_for(rows, WARPS), warps(), 0, stream>>>(rows, width, dy, x, w, dx, scales);
    norm_dw<<<columns, warps(), 0, stream>>>(rows, width, dy, x, scales, partial);
    add_groups<<<lh::blocks_for(width, 256), 256, 0, stream>>>(LH_CUDA_NORM_GROUPS, width, partial, dw);
    return cudaGetLastError();
}

cudaError_t lh_cuda_cross_entropy(int64_t rows, const uint8_t *targets, float scale, float *logits,
                                  double *losses, cudaStream_t stream)
{
    softmax_loss<<<lh::blocks_for(rows, WARPS), warps(), 0, stream>>>(rows, targets, scale, logits, losses);
    return cudaGetLastError();
}

cudaError_t lh_cuda_embed(int64_t rows, int64_t width, const uint8_t *bytes, const float *table, float *x,
                          cudaStream_t stream)
{
    look_up<<<lh::blocks_for(rows * width, 256, 1 << 16), 256, 0, stream>>>(rows * width, width, bytes, table,
                                                                            x);
    return cudaGetLastError();
}

cudaError_t lh_cuda_embed_backward(int64_t rows, int64_t width, const uint8_t *bytes, const float *dx,
                                   float *table, cudaStream_t stream)
{
    const dim3 blocks(lh::blocks_for(width, LANES), BYTES);
    add_rows<<<blocks, dim3(LANES, EMBED_WARPS), 0, stream>>>(rows, width, bytes, dx, table);
    return cudaGetLastError();
}
