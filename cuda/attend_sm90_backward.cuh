/* attend_sm90_backward.cuh: what Hopper's backward and the passes before and after it share. */
#ifndef LH_CUDA_ATTEND_SM90_BACKWARD_CUH
#define LH_CUDA_ATTEND_SM90_BACKWARD_CUH

#include "cuda/cuda.h"

namespace lh
{

enum {
    OWNED = 128 /* keys of a block */
};

/* Queries of a tile that a block walks. */
__host__ __device__ constexpr int walked(int dim)
{
    return dim == 64 ? 128 : 64;
}

/* Floats for the lse of a tile: of its queries, and whether any is huge, on 16 bytes. */
__host__ __device__ constexpr int lse_line(int dim)
{
    return walked(dim) + 4;
}

struct backward_args {
    void *dk, *dv;
    float *sums;          /* dq before rounding, [B*H,tiles,2,8,128,4] (below) */
    float *lse;           /* [B*H,tiles,lse_line], for the exponentials (below) */
    float *delta;         /* D, [B*H,tiles,walked], 0 past S */
    unsigned *turns;      /* [B*H,tiles]: how many blocks have added */
    unsigned *ticket;     /* blocks started */
    int64_t rows;         /* S */
    int step;             /* in keys between blocks that start together */
    int64_t heads, tiles; /* B*H; tiles of walked(d) rows that hold S, even in number at d 128 */
    float scale;
};
/* lse: -lse log2 e where all of the tile's are of ordinary size, else lse; past S so that weights are 0. */
/* sums: each computing thread's four accumulators for two rows and two columns lie together: float n,t,i of half g is row
 * 16 (t / 32) + t % 32 / 4 + 8 (i / 2) and column 8 n + t % 4 * 2 + i % 2 of 64 x 64: at d 128 g's half of the
 * columns, at d 64 g's half of the rows. */

backward_args backward_args_of(const lh_shape *s, const lh_attend *t);
/* delta = do . o; lse; nobody has had a turn. */
cudaError_t backward_prepare(const lh_shape *s, const lh_attend *t, const backward_args &a,
                             cudaStream_t stream);
/* dq = scale sums, rounded. */
cudaError_t backward_finish(const lh_shape *s, const lh_attend *t, const backward_args &a,
                            cudaStream_t stream);

} // namespace lh
#endif
