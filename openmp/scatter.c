/*
 * Scatter and what shares its shape: every token pulls, level by level, the selected rows that reach it.
 *
 *   scatter           out[j] = sum over l of o_sel[slot(l, floor((j+1)/p^l) - 1)]              SPEC 3.7
 *   unpool            dx[j]  = sum over l of dx_sel[slot(l, floor(j/p^l))] / p^l                SPEC 4
 *   scatter backward  do_sel[s] = sum of dout over the positions that s was written to          SPEC 4
 *
 *   o_sel, do_sel, dx_sel: [B,H,S,d]  out, dout, dx: [B,X,N,d]  index: [B,H,S]  slot: [B,H,P]
 */
#include <string.h>

#include "openmp/openmp.h"
#include "openmp/element.h"

enum {
    PIECE = 256 /* rows per piece of work */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void cpu_slots(const lh_plan *plan, const lh_tensor *index)
{
    const struct cpu_state *state = cpu_state(plan);
    const int64_t selected = plan->layout.selected, entries = plan->layout.entries;
    const int64_t heads = plan->config.batch * plan->config.heads;
#pragma omp parallel num_threads(state->threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < heads * entries; i++)
            state->slot[i] = -1;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < heads * selected; i++)
            state->slot[i / selected * entries + lh_index_at(index, i)] = (int32_t)(i % selected);
    }
}

/* sum += x / window. A power of two divides exactly as its reciprocal multiplies. */
CPU_INLINE void add_mean(float *restrict sum, const void *restrict x, int64_t d, float window, bool power,
                         lh_dtype dtype)
{
    const float weight = 1 / window;
    if (power) {
        for (int64_t c = 0; c < d; c++)
            sum[c] += load_element(x, dtype, c) * weight;
    } else {
        for (int64_t c = 0; c < d; c++)
            sum[c] += load_element(x, dtype, c) / window;
    }
}

/* Where row j stands at each level: the place, and the rows left until the next place. */
struct places {
    int64_t place[LH_MAX_LEVELS], left[LH_MAX_LEVELS];
};

static void places_at(const lh_plan *plan, int64_t j, bool shifted, struct places *at)
{
    for (int64_t l = 0; l < plan->config.levels; l++) {
        const int64_t window = plan->layout.window[l], position = j + shifted;
        at->place[l] = position / window - shifted;
        at->left[l] = window - position % window;
    }
}

static void places_next(const lh_plan *plan, struct places *at)
{
    for (int64_t l = 0; l < plan->config.levels; l++) {
        if (--at->left[l] == 0) {
            at->place[l]++;
            at->left[l] = plan->layout.window[l];
        }
    }
}

/* Rows [first, end) of head `to` of dst. sum: [d] scratch */
static void pull_rows(const lh_plan *plan, const struct cpu_pull *pull, int64_t to, int64_t first,
                      int64_t end, float *sum)
{
    const lh_layout *layout = &plan->layout;
    const int64_t d = plan->config.dim, levels = pull->slot ? plan->config.levels : 1;
    const int64_t group = plan->config.heads / pull->dst->shape[1];
    const bool power = (plan->config.pool & (plan->config.pool - 1)) == 0;
    const int64_t row0 = cpu_head_offset(plan, pull->dst, to * group);
    struct places at;
    places_at(plan, first, pull->shifted, &at);
    for (int64_t j = first; j < end; j++) {
        int32_t covered = 0;
        memset(sum, 0, sizeof *sum * (size_t)d);
        for (int64_t head = to * group; head < (to + 1) * group; head++) {
            const char *x = cpu_at(pull->src, pull->src_dtype, (head - pull->first_head) * pull->src_head);
            for (int64_t l = 0; l < levels; l++) {
                int64_t s = j;
                if (pull->slot) {
                    if (at.place[l] < 0)
                        continue;
                    s = pull->slot[head * layout->entries + layout->level_offset[l] + at.place[l]];
                    if (s < 0)
                        continue;
                }
                const char *row = cpu_at(x, pull->src_dtype, s * pull->src_row);
                const float window = pull->mean ? (float)layout->window[l] : 1;
                WITH_DTYPE(pull->src_dtype, add_mean, sum, row, d, window, power || window == 1);
                covered++;
            }
        }
        cpu_write_row(pull->dst->data, pull->dst->dtype, row0 + j * pull->dst->stride[2], sum, d);
        if (pull->coverage)
            pull->coverage[to * pull->dst->shape[2] + j] = covered;
        places_next(plan, &at);
    }
}

void cpu_pull(const lh_plan *plan, const struct cpu_pull *pull)
{
    const struct cpu_state *state = cpu_state(plan);
    const int64_t group = plan->config.heads / pull->dst->shape[1], rows = pull->dst->shape[2];
    const int64_t pieces = (rows + PIECE - 1) / PIECE;
#pragma omp parallel for collapse(2) num_threads(state->threads) schedule(static)
    for (int64_t to = pull->first_head / group; to < (pull->first_head + pull->heads) / group; to++) {
        for (int64_t piece = 0; piece < pieces; piece++)
            pull_rows(plan, pull, to, piece * PIECE, least((piece + 1) * PIECE, rows), cpu_scratch(state));
    }
}

lh_status cpu_scatter(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    const lh_tensor *o_sel = &trace[LH_O_SEL];
    cpu_slots(plan, &trace[LH_INDEX]);
    const struct cpu_pull pull = {
        .dst = &trace[LH_OUT],
        .coverage = trace[LH_COVERAGE].data,
        .src = o_sel->data,
        .src_dtype = o_sel->dtype,
        .src_head = plan->layout.selected * plan->config.dim,
        .src_row = plan->config.dim,
        .heads = plan->config.batch * plan->config.heads,
        .slot = cpu_state(plan)->slot,
        .shifted = true,
    };
    cpu_pull(plan, &pull);
    cpu_book(plan, LH_SCATTER, &since);
    return LH_OK;
}

lh_status cpu_scatter_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    const struct cpu_state *state = cpu_state(plan);
    const lh_tensor *do_sel = &trace[LH_DO_SEL];
    const int64_t d = plan->config.dim, selected = plan->layout.selected;
    const int64_t heads = plan->config.batch * plan->config.heads, pieces = (selected + PIECE - 1) / PIECE;
#pragma omp parallel for collapse(2) num_threads(state->threads) schedule(static)
    for (int64_t head = 0; head < heads; head++) {
        for (int64_t piece = 0; piece < pieces; piece++) {
            const struct cpu_rows rows =
                cpu_rows_of(plan, &trace[LH_DOUT], head, CPU_SPREAD, &trace[LH_INDEX]);
            float *row = cpu_scratch(state);
            for (int64_t s = piece * PIECE; s < least((piece + 1) * PIECE, selected); s++) {
                cpu_read_row(&rows, s, row);
                cpu_write_row(do_sel->data, do_sel->dtype, (head * selected + s) * d, row, d);
            }
        }
    }
    cpu_book(plan, LH_SCATTER_BACKWARD, &since);
    return LH_OK;
}

lh_status cpu_unpool(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    static const lh_tensor_id from[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL}, to[] = {LH_DQ, LH_DK, LH_DV};
    cpu_slots(plan, &trace[LH_INDEX]);
    for (int i = 0; i < 3; i++) {
        const lh_tensor *src = &trace[from[i]];
        const struct cpu_pull pull = {
            .dst = &trace[to[i]],
            .src = src->data,
            .src_dtype = src->dtype,
            .src_head = plan->layout.selected * plan->config.dim,
            .src_row = plan->config.dim,
            .heads = plan->config.batch * plan->config.heads,
            .slot = cpu_state(plan)->slot,
            .mean = true,
        };
        cpu_pull(plan, &pull);
    }
    cpu_book(plan, LH_UNPOOL, &since);
    return LH_OK;
}
