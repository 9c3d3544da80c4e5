/*
 * Gather: the selected rows of the pyramids (SPEC 3.5), as a stage alone; whole-layer calls read them through
 * rows.c and build no pyramid, and so does lh_omp_gather_tokens.
 *
 *   x_pyr: [B,X,P,d] or x: [B,X,N,d]  index: [B,H,S]  ->  x_sel: [B,H,S,d]
 */
#include <string.h>

#include "openmp/openmp.h"

enum {
    PIECE = 256 /* rows per piece of work */
};

struct gathering {
    const lh_tensor *x, *index, *x_sel; /* x: the pyramid or the tokens */
    int64_t pieces;                     /* of a head */
};

static void gather_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    (void)scratch;
    const struct gathering *g = job;
    const int64_t d = plan->config.dim, selected = plan->layout.selected;
    const int64_t head = i / g->pieces, first = i % g->pieces * PIECE;
    const size_t row_bytes = (size_t)d * lh_dtype_size(g->x->dtype);
    const char *pyramid = lh_omp_at(g->x->data, g->x->dtype, lh_omp_head_offset(plan, g->x, head));
    char *to = lh_omp_at(g->x_sel->data, g->x_sel->dtype, head * selected * d);
    for (int64_t s = first; s < lh_omp_least(first + PIECE, selected); s++)
        memcpy(to + s * (int64_t)row_bytes,
               pyramid + lh_index_at(g->index, head * selected + s) * (int64_t)row_bytes, row_bytes);
}

static void gather_tensor(const lh_plan *plan, const lh_tensor *x_pyr, const lh_tensor *index,
                          const lh_tensor *x_sel)
{
    const struct gathering job = {x_pyr, index, x_sel, (plan->layout.selected + PIECE - 1) / PIECE};
    lh_omp_for(plan, plan->config.batch * plan->config.heads * job.pieces, 0, gather_piece, &job);
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

static void mean_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct gathering *g = job;
    const int64_t d = plan->config.dim, selected = plan->layout.selected;
    const int64_t head = i / g->pieces, first = i % g->pieces * PIECE;
    const struct lh_omp_rows rows = lh_omp_rows_of(plan, g->x, head, LH_OMP_MEAN, g->index);
    float *row = scratch;
    for (int64_t s = first; s < lh_omp_least(first + PIECE, selected); s++) {
        lh_omp_write_row(g->x_sel->data, g->x_sel->dtype, (head * selected + s) * d,
                         lh_omp_row(&rows, s, row), d);
    }
}

static void gather_means(const lh_plan *plan, const lh_tensor *x, const lh_tensor *index,
                         const lh_tensor *x_sel)
{
    const struct gathering job = {x, index, x_sel, (plan->layout.selected + PIECE - 1) / PIECE};
    lh_omp_for(plan, plan->config.batch * plan->config.heads * job.pieces, 1, mean_piece, &job);
}

lh_status lh_omp_gather_tokens(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    gather_means(plan, &trace[LH_Q], &trace[LH_INDEX], &trace[LH_Q_SEL]);
    gather_means(plan, &trace[LH_K], &trace[LH_INDEX], &trace[LH_K_SEL]);
    gather_means(plan, &trace[LH_V], &trace[LH_INDEX], &trace[LH_V_SEL]);
    lh_omp_book(plan, LH_GATHER, &since);
    return LH_OK;
}
