/* plan.h: a CUDA plan's own state, on the host. */
#ifndef LH_CUDA_PLAN_H
#define LH_CUDA_PLAN_H

#include "core/arena.h"
#include "core/backend.h"
#include "cuda/cuda.h"
#include "cuda/cudnn.h"

enum {
    LH_CUDA_TRANSFER = LH_STAGE_COUNT, /* what a mark may end besides a stage */
    LH_CUDA_MARKS = 16
};

typedef struct lh_cuda {
    lh_shape shape;
    cudaStream_t stream;
    bool own_stream;
    size_t lent_forward, lent_backward; /* bytes, in a plan with workspace_given */
    void *own[LH_TENSOR_COUNT];         /* device tensors the plan holds, contiguous, as lh_tensor_describe */
    void *staged[LH_TENSOR_COUNT];      /* instead of own[] for a stage alone, where a forward keeps own[] */
    bool held;                          /* slot, q_sel, k_sel, v_sel are still those of the last forward */
    void *memory;                       /* all of the plan's own; NULL in a plan with workspace_given */
    void *upper[3];                     /* q k v pyramids above the tokens, [B,heads,P-N,d] */
    int32_t *slot;                      /* [B,H,P] */
    float *delta;                       /* [B,H,S] */
    void *sums;                         /* for Hopper's backward */
    void *select_scratch;
    lh_cudnn *cudnn; /* NULL: own attention kernels */
    cudaEvent_t mark[LH_CUDA_MARKS];
    int mark_stage[LH_CUDA_MARKS]; /* stage that ended at the mark; -1 opens an interval */
    int marks;
} lh_cuda;

/* So many bytes of the arena, on LH_WORKSPACE_ALIGNMENT as its base is. */
static inline void *lh_cuda_take(lh_arena *arena, size_t bytes)
{
    return lh_arena_take(arena, bytes / LH_WORKSPACE_ALIGNMENT + (bytes % LH_WORKSPACE_ALIGNMENT != 0),
                         LH_WORKSPACE_ALIGNMENT);
}

/* device.c: `e` as a status, in words: "WHAT: cudaErrorName (its text)". */
lh_status lh_cuda_fail(cudaError_t e, const char *what, lh_error *error);
lh_status lh_cuda_device_count(int *count, lh_error *error);
lh_status lh_cuda_device_query(int device, lh_device_info *info, lh_error *error);

/* ceilings.c */
lh_status lh_cuda_ceilings(int device, lh_dtype dtype, double seconds, lh_ceilings *ceilings,
                           lh_error *error);

/* arithmetic.c */
lh_status lh_cuda_arithmetic(int device, bool bf16, const lh_arithmetic **on, lh_error *error);

/* Makes `device` current; *before is for lh_cuda_leave. */
lh_status lh_cuda_enter(int device, int *before, lh_error *error);
void lh_cuda_leave(int before);

/* plan.c */
lh_status lh_cuda_create(lh_plan *plan, lh_error *error);
void lh_cuda_destroy(lh_plan *plan);
size_t lh_cuda_needs(const lh_plan *plan, bool backward);
/* Before a call: in a plan with workspace_given, what it was lent is laid out and the stream taken up. */
void lh_cuda_settle(const lh_plan *plan, bool backward);

/* layer.c */
lh_status lh_cuda_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error);
lh_status lh_cuda_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error);
lh_status lh_cuda_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error);
lh_status lh_cuda_select_rows(lh_plan *plan, const lh_tensor *trace, lh_error *error);

#endif
