/*
 * unpool.cu: pool and gather backward in one pull (SPEC 4).
 *
 *   dx_sel [B,H,S,d], slot [B,H,P] -> dx [B,heads,N,d]: dx[j] = sum over the present levels of dx_sel[slot] / p^l,
 *   added over the query heads of a group, in head order.
 */
#include "cuda/pull.cuh"

cudaError_t lh_cuda_unpool(const lh_shape *s, int64_t heads, const void *dx_sel, const int32_t *slot,
                           lh_rows dx, cudaStream_t stream)
{
    lh::pull_args a = {};
    a.src = dx_sel;
    a.slot = slot;
    a.out = dx;
    a.divided = true;
    a.heads = heads;
    return lh::pull(s, a, stream);
}
