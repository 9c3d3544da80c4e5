/*
 * Un-pool: the gradients of the selected rows, back to the tokens that their windows averaged (SPEC 4).
 *
 *   dx[j] = sum over l of dx_sel[slot(l, floor(j/p^l))] / p^l, and over the query heads of a group in head order
 *
 *   dx_sel: [B,H,S,d]  dx: [B,X,N,d]  index: [B,H,S]
 */
#include "openmp/openmp.h"

lh_status lh_omp_unpool(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    static const lh_tensor_id from[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL}, to[] = {LH_DQ, LH_DK, LH_DV};
    lh_omp_slots(plan, &trace[LH_INDEX]);
    for (int i = 0; i < 3; i++) {
        const lh_tensor *src = &trace[from[i]];
        const struct lh_omp_pull pull = {
            .dst = &trace[to[i]],
            .src = src->data,
            .src_dtype = src->dtype,
            .src_head = plan->layout.selected * plan->config.dim,
            .src_row = plan->config.dim,
            .heads = plan->config.batch * plan->config.heads,
            .slot = lh_omp_state(plan)->slot,
            .mean = true,
        };
        lh_omp_pull(plan, &pull);
    }
    lh_omp_book(plan, LH_UNPOOL, &since);
    return LH_OK;
}
