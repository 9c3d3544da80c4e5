/*
 * run.h: ref/ on tensors, in any of its three widths.
 *
 * lh_ref_run computes a set of stages in `real` of 32 bits (the twin), 64 bits (the reference) or 113 bits,
 * in the order of lh_stage. What the set reads and does not itself produce is converted from trace once; what
 * one of its stages produces is handed to the next as it is, unrounded, and stored to trace, rounded once to
 * the tensor's dtype, where trace has data for it. So
 *
 *   one stage in one run          gives that stage's own rounding on the given inputs
 *   LH_REF_FORWARD in one run     gives a whole layer in that width
 *   stage by stage on a BF16 trace, 32 bits: what a straightforward port with BF16 tensors gets
 */
#ifndef LH_SCALAR_RUN_H
#define LH_SCALAR_RUN_H

#include "core/backend.h"

#define LH_REF_STAGE(stage) (1u << (stage))
enum {
    LH_REF_ALL = (1u << LH_STAGE_COUNT) - 1,
    LH_REF_FORWARD = (1u << LH_SCATTER_BACKWARD) - 1,
    LH_REF_FORWARD_GIVEN = LH_REF_STAGE(LH_POOL) | LH_REF_STAGE(LH_GATHER) | LH_REF_STAGE(LH_ATTEND) |
                           LH_REF_STAGE(LH_SCATTER),                        /* reads q k v index */
    LH_REF_FORWARD_SCORED = LH_REF_FORWARD_GIVEN | LH_REF_STAGE(LH_SELECT), /* reads q k v score_q score_k */
    LH_REF_BACKWARD = LH_REF_STAGE(LH_POOL) | LH_REF_STAGE(LH_GATHER) | LH_REF_STAGE(LH_SCATTER_BACKWARD) |
                      LH_REF_STAGE(LH_ATTEND_BACKWARD) |
                      LH_REF_STAGE(LH_UNPOOL), /* reads q k v dout index o_sel lse */
};

/*
 * bits: 32, 64 or 113. trace: LH_TENSOR_COUNT tensors of the configuration's shapes, floating tensors of any
 * dtype; index entries are in [0,P). residual: NULL, or LH_TENSOR_COUNT tensors of the same shapes, floating ones
 * F64, data NULL where unwanted, integer ones ignored. With a trace of F64 it receives value - trace, rounded once:
 * trace + residual is the 113-bit value to twice the digits of F64 (in the other widths it is 0).
 */
lh_status lh_ref_run(int bits, const lh_config *config, unsigned stages, const lh_tensor *trace,
                     const lh_tensor *residual, lh_error *error);

/* What stands behind lh_ref_run and the plan of backend "ref". */
struct lh_ref_job {
    const lh_config *config; /* checked */
    unsigned stages;
    const lh_tensor *trace, *residual;
    void *workspace;     /* of lh_ref*_bytes */
    lh_profile *profile; /* or NULL */
};
/* SIZE_MAX when it does not fit a size_t. */
size_t lh_ref64_bytes(const lh_config *config, unsigned stages);
size_t lh_ref32_bytes(const lh_config *config, unsigned stages);
size_t lh_ref113_bytes(const lh_config *config, unsigned stages);
lh_status lh_ref64_job(const struct lh_ref_job *job, lh_error *error);
lh_status lh_ref32_job(const struct lh_ref_job *job, lh_error *error);
lh_status lh_ref113_job(const struct lh_ref_job *job, lh_error *error);

#endif
