/*
 * Halo: what the scatter and its backward take from across an edge (SPEC 3.7, 4).
 *
 * Of all entries of a rank only the last of each level l >= 1 writes past its tokens: entry n/p^l - 1 writes position
 * n - 1 and the first p^l - 1 of the right neighbour. Those that were selected are the rank's last rows, for their
 * windows end last. So
 *
 *   forward    out[j] += o_sel of the left neighbour's last entry of level l, for levels with p^l > j + 1, fine to coarse
 *   backward   do_sel of this rank's last entry of level l += dout[j] of the right neighbour, j = 0 ... p^l - 2
 *
 * Both continue sums that a stage has begun, in the order they have on one machine: entries of the position's own rank are
 * the finer ones, and position n - 1 comes before the neighbour's. p^(L-1) is at most half a rank's tokens, for a tile
 * has at least two coarsest entries.
 */
#include <string.h>

#include "dist/dist.h"

/* Positions past an edge that an entry can reach. */
static int64_t reach(const lh_dist_plan *plan)
{
    return plan->layout.window[plan->config.levels - 1] - 1;
}

static lh_status create_rows(lh_dist_plan *plan, lh_dtype dtype, int64_t rows, int rank, lh_tensor *t,
                             lh_error *error)
{
    *t = (lh_tensor){.dtype = dtype,
                     .rank = rank,
                     .shape = {plan->piece.batch, plan->piece.heads, rows, rank == 4 ? plan->config.dim : 1}};
    lh_tensor_pack(t);
    return dist_alloc(plan, &t->data, (size_t)lh_tensor_elements(t) * lh_dtype_size(dtype),
                      "rows across an edge", error);
}

lh_status dist_halo_create(lh_dist_plan *plan, lh_error *error)
{
    const int64_t levels = plan->config.levels - 1;
    const int64_t rows = plan->options.backward && reach(plan) > levels ? reach(plan) : levels;
    lh_status status = create_rows(plan, plan->work, rows, 4, &plan->edge_out, error);
    if (status == LH_OK)
        status = create_rows(plan, plan->work, rows, 4, &plan->edge_in, error);
    if (status == LH_OK)
        status = create_rows(plan, LH_I32, levels, 3, &plan->edge_there_out, error);
    if (status == LH_OK)
        status = create_rows(plan, LH_I32, levels, 3, &plan->edge_there_in, error);
    return status;
}

/* The row of the rank's last entry of each level in one head of index, -1 where that was not selected. */
static void last_rows(const lh_dist_plan *plan, const lh_tensor *index, int64_t head,
                      int64_t row[LH_MAX_LEVELS])
{
    const lh_layout *layout = &plan->piece_layout;
    for (int64_t l = 0; l < plan->config.levels; l++)
        row[l] = -1;
    for (int64_t s = layout->selected - 1; s >= 0; s--) {
        const int64_t entry = lh_index_at(index, head * layout->selected + s);
        const int level = lh_level_of(layout, (int)plan->config.levels, entry);
        if (entry != layout->level_offset[level + 1] - 1)
            return;
        row[level] = s;
    }
}

/* to += from, both [d] */
static void add_row(void *to, const void *from, int64_t d, lh_dtype dtype)
{
    if (dtype == LH_F64) {
        for (int64_t c = 0; c < d; c++)
            ((double *)to)[c] += ((const double *)from)[c];
    } else {
        for (int64_t c = 0; c < d; c++)
            ((float *)to)[c] += ((const float *)from)[c];
    }
}

static char *row_at(const lh_tensor *t, int64_t sequence, int64_t row)
{
    const int64_t at = lh_offset(t, sequence / t->shape[1], sequence % t->shape[1], row);
    return (char *)t->data + at * (int64_t)lh_dtype_size(t->dtype);
}

/* Rows of edge_out (and edge_there_out) go to rank + step, those of rank - step come in. */
static lh_status pass_on(lh_dist_plan *plan, int step, int64_t rows, bool there, lh_error *error)
{
    const int to = plan->exchange.rank + step, from = plan->exchange.rank - step;
    const int64_t sequences = plan->piece.batch * plan->piece.heads;
    dist_clear(&plan->edge);
    if (to >= 0 && to < plan->exchange.ranks) {
        dist_send(&plan->edge, to, &plan->edge_out, 0, sequences, 0, rows);
        if (there)
            dist_send(&plan->edge, to, &plan->edge_there_out, 0, sequences, 0, rows);
    }
    if (from >= 0 && from < plan->exchange.ranks) {
        dist_receive(&plan->edge, from, &plan->edge_in, 0, sequences, 0, rows);
        if (there)
            dist_receive(&plan->edge, from, &plan->edge_there_in, 0, sequences, 0, rows);
    }
    const lh_status status = dist_begin(plan, &plan->edge, error);
    return status == LH_OK ? dist_finish(plan, &plan->edge, error) : status;
}

static void add_from_left(const lh_dist_plan *plan, const lh_tensor *out, int32_t *coverage, int64_t sequence)
{
    const int64_t levels = plan->config.levels - 1, d = plan->config.dim, n = plan->part.tokens;
    const int32_t *there = (const int32_t *)plan->edge_there_in.data + sequence * levels;
    for (int64_t l = 1; l <= levels; l++) {
        if (!there[l - 1])
            continue;
        for (int64_t j = 0; j < plan->layout.window[l] - 1; j++) {
            add_row(row_at(out, sequence, j), row_at(&plan->edge_in, sequence, l - 1), d, plan->work);
            if (coverage)
                coverage[sequence * n + j]++;
        }
    }
}

lh_status dist_halo_forward(lh_dist_plan *plan, const lh_tensor *trace, lh_error *error)
{
    const int64_t levels = plan->config.levels - 1, sequences = plan->piece.batch * plan->piece.heads;
    const lh_tensor *o_sel = &trace[LH_O_SEL];
    const size_t bytes = (size_t)dist_row_bytes(o_sel);
    int64_t row[LH_MAX_LEVELS];
    if (levels == 0 || plan->exchange.ranks == 1)
        return LH_OK;
    for (int64_t i = 0; i < sequences; i++) {
        last_rows(plan, &trace[LH_INDEX], i, row);
        for (int64_t l = 1; l <= levels; l++) {
            ((int32_t *)plan->edge_there_out.data)[i * levels + l - 1] = row[l] >= 0;
            if (row[l] >= 0)
                memcpy(row_at(&plan->edge_out, i, l - 1), row_at(o_sel, i, row[l]), bytes);
        }
    }
    const lh_status status = pass_on(plan, 1, levels, true, error);
    if (status != LH_OK || plan->exchange.rank == 0)
        return status;
    for (int64_t i = 0; i < sequences; i++)
        add_from_left(plan, &trace[LH_OUT], trace[LH_COVERAGE].data, i);
    return LH_OK;
}

lh_status dist_halo_backward(lh_dist_plan *plan, const lh_tensor *dout, lh_error *error)
{
    lh_tensor from = *dout, to = plan->edge_out;
    if (plan->config.levels == 1 || plan->exchange.ranks == 1)
        return LH_OK;
    from.shape[2] = to.shape[2] = reach(plan);
    const lh_status status = lh_tensor_convert(&to, &from, error);
    return status == LH_OK ? pass_on(plan, -1, reach(plan), false, error) : status;
}

void dist_halo_add(const lh_dist_plan *plan, const lh_tensor *index, const lh_tensor *do_sel, int64_t first)
{
    const int64_t levels = plan->config.levels - 1, sequences = plan->piece.batch * plan->piece.heads;
    int64_t row[LH_MAX_LEVELS];
    if (levels == 0 || plan->exchange.rank == plan->exchange.ranks - 1)
        return;
    for (int64_t i = 0; i < sequences; i++) {
        last_rows(plan, index, i, row);
        for (int64_t l = 1; l <= levels; l++) {
            const bool here = row[l] >= first && row[l] < first + do_sel->shape[2];
            for (int64_t j = 0; here && j < plan->layout.window[l] - 1; j++)
                add_row(row_at(do_sel, i, row[l] - first), row_at(&plan->edge_in, i, j), plan->config.dim,
                        plan->work);
        }
    }
}
