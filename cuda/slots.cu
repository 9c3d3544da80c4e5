/*
 * slots.cu: where in the sub-sequence an entry of the pyramid stands.
 *
 *   index [B,H,S] -> slot [B,H,P], -1 where the entry is absent
 */
#include "cuda/common.cuh"

namespace
{

enum {
    THREADS = 256
};

__global__ void fill_slots(const void *index, bool wide, int64_t selected, int64_t entries, int32_t *slot,
                           int64_t count)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t head = lh::divide(i, selected), entry = lh::index_at(index, wide, i);
        if (entry >= 0 && entry < entries)
            slot[head * entries + entry] = (int32_t)(i - head * selected);
    }
}

} // namespace

cudaError_t lh_cuda_slots(const lh_shape *s, const void *index, int32_t *slot, cudaStream_t stream)
{
    const int64_t selected = s->layout.selected, entries = s->layout.entries;
    const int64_t lines = s->batch * s->heads, count = lines * selected;
    const cudaError_t e = cudaMemsetAsync(slot, 0xff, (size_t)(lines * entries) * sizeof *slot, stream);
    if (e != cudaSuccess)
        return e;
    fill_slots<<<lh::blocks_for(count, THREADS, 65536), THREADS, 0, stream>>>(
        index, s->layout.index_dtype == LH_I64, selected, entries, slot, count);
    return cudaGetLastError();
}
