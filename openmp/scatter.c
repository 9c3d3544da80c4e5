/*
 * Scatter and its backward: a token pulls, level by level, the selected rows that reach it.
 *
 *   scatter           out[j] = sum over l of o_sel[slot(l, floor((j+1)/p^l) - 1)]              SPEC 3.7
 *   scatter backward  do_sel[s] = sum of dout over the positions that s was written to          SPEC 4
 *
 *   o_sel, do_sel: [B,H,S,d]  out, dout: [B,H,N,d]  index: [B,H,S]
 */
#include "openmp/openmp.h"

enum {
    PIECE = 256 /* rows per piece of work */
};

lh_status lh_omp_scatter(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    const lh_tensor *o_sel = &trace[LH_O_SEL];
    lh_omp_slots(plan, &trace[LH_INDEX]);
    const struct lh_omp_pull pull = {
        .dst = &trace[LH_OUT],
        .coverage = trace[LH_COVERAGE].data,
        .src = o_sel->data,
        .src_dtype = o_sel->dtype,
        .src_head = plan->layout.selected * plan->config.dim,
        .src_row = plan->config.dim,
        .heads = plan->config.batch * plan->config.heads,
        .slot = lh_omp_state(plan)->slot,
        .shifted = true,
    };
    lh_omp_pull(plan, &pull);
    lh_omp_book(plan, LH_SCATTER, &since);
    return LH_OK;
}

static void spread_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const lh_tensor *trace = job, *do_sel = &trace[LH_DO_SEL];
    const int64_t d = plan->config.dim, selected = plan->layout.selected,
                  pieces = (selected + PIECE - 1) / PIECE;
    const int64_t head = i / pieces, first = i % pieces * PIECE;
    const struct lh_omp_rows rows =
        lh_omp_rows_of(plan, &trace[LH_DOUT], head, LH_OMP_SPREAD, &trace[LH_INDEX]);
    float *row = scratch;
    for (int64_t s = first; s < lh_omp_least(first + PIECE, selected); s++) {
        lh_omp_write_row(do_sel->data, do_sel->dtype, (head * selected + s) * d, lh_omp_row(&rows, s, row),
                         d);
    }
}

lh_status lh_omp_scatter_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    const int64_t pieces = (plan->layout.selected + PIECE - 1) / PIECE;
    lh_omp_for(plan, plan->config.batch * plan->config.heads * pieces, 0, spread_piece, trace);
    lh_omp_book(plan, LH_SCATTER_BACKWARD, &since);
    return LH_OK;
}
