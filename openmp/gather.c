/*
 * Gather: the selected rows of the pyramids (SPEC 3.5), as a stage alone; whole-layer calls read them through
 * rows.c and build no pyramid.
 *
 *   x_pyr: [B,X,P,d]  index: [B,H,S]  ->  x_sel: [B,H,S,d]
 */
#include <string.h>

#include "openmp/openmp.h"

enum {
    PIECE = 256 /* rows per piece of work */
};

static void gather_tensor(const lh_plan *plan, const lh_tensor *x_pyr, const lh_tensor *index,
                          const lh_tensor *x_sel)
{
    const int64_t d = plan->config.dim, selected = plan->layout.selected;
    const int64_t heads = plan->config.batch * plan->config.heads, pieces = (selected + PIECE - 1) / PIECE;
    const size_t row_bytes = (size_t)d * lh_dtype_size(x_pyr->dtype);
#pragma omp parallel for collapse(2) num_threads(lh_omp_state(plan)->threads) schedule(static)
    for (int64_t head = 0; head < heads; head++) {
        for (int64_t piece = 0; piece < pieces; piece++) {
            const char *pyramid = lh_omp_at(x_pyr->data, x_pyr->dtype, lh_omp_head_offset(plan, x_pyr, head));
            char *to = lh_omp_at(x_sel->data, x_sel->dtype, head * selected * d);
            const int64_t end = (piece + 1) * PIECE < selected ? (piece + 1) * PIECE : selected;
            for (int64_t s = piece * PIECE; s < end; s++)
                memcpy(to + s * (int64_t)row_bytes,
                       pyramid + lh_index_at(index, head * selected + s) * (int64_t)row_bytes, row_bytes);
        }
    }
}

lh_status lh_omp_gather(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    gather_tensor(plan, &trace[LH_Q_PYR], &trace[LH_INDEX], &trace[LH_Q_SEL]);
    gather_tensor(plan, &trace[LH_K_PYR], &trace[LH_INDEX], &trace[LH_K_SEL]);
    gather_tensor(plan, &trace[LH_V_PYR], &trace[LH_INDEX], &trace[LH_V_SEL]);
    lh_omp_book(plan, LH_GATHER, &since);
    return LH_OK;
}
