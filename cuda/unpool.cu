/*
 * unpool.cu: pool and gather backward in one pull (SPEC 4).
 *
 *   dx_sel [B,H,S,d], slot [B,H,P] -> dx [B,heads,N,d]: dx[j] = sum over the present levels of dx_sel[slot] / p^l,
 *   added over the query heads of a group, in head order.
 */
#include "cuda/pull.cuh"
#include "cuda/pull_windows.cuh"

static cudaError_t unpool_one(const lh_shape *s, const lh_unpooling *of, const int32_t *slot,
                              cudaStream_t stream)
{
    lh::pull_args a = {};
    a.src = of->dx_sel;
    a.slot = slot;
    a.out = of->dx;
    a.divided = true;
    a.heads = of->heads;
    return lh::pull(s, a, stream);
}

cudaError_t lh_cuda_unpool(const lh_shape *s, const lh_unpooling of[3], const int32_t *slot,
                           cudaStream_t stream)
{
    lh::pull_windows_args w = {};
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 3; i++)
        w.of[i] = {of[i].dx_sel, of[i].dx};
    w.slot = slot;
    w.divided = true;
    /* With fewer key/value heads, dk and dv are sums over the heads of a group, for which pull.cuh is there. */
    const int direct = s->heads == s->kv_heads ? 3 : 1;
    const int windows = lh::has_pull_windows(s, w, direct) ? direct : 0;
    if (windows)
        e = lh::pull_by_windows(s, w, windows, stream);
    for (int i = windows; i < 3 && e == cudaSuccess; i++)
        e = unpool_one(s, &of[i], slot, stream);
    return e;
}
