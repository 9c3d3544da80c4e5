/*
 * Slots: where in the sub-sequence an entry stands, and the pull that scatter and un-pool share.
 *
 *   slot[entry] = s where index[s] = entry, -1 where the entry was not selected
 *   pull          dst[j] = sum over l of w[l] x[slot(l, place of j at level l)], fine to coarse
 *
 *   index: [B,H,S]  slot: [B,H,P]  x: [B,H,S,d]  dst: [B,X,N,d]
 */
#include <string.h>

#include "openmp/openmp.h"
#include "openmp/element.h"

enum {
    PIECE = 256,   /* rows per piece of work */
    SLOTS = 65536, /* slots per piece */
};

/* The entries [first, end) of a head that stand nowhere so far, and those that the selected rows [first, end) are. */
static void clear_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    (void)job;
    (void)scratch;
    const int64_t entries = plan->config.batch * plan->config.heads * plan->layout.entries;
    int32_t *slot = lh_omp_state(plan)->slot;
    for (int64_t at = i * SLOTS; at < lh_omp_least((i + 1) * SLOTS, entries); at++)
        slot[at] = -1;
}

static void fill_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    (void)scratch;
    const lh_tensor *index = job;
    const int64_t selected = plan->layout.selected, entries = plan->layout.entries;
    const int64_t rows = plan->config.batch * plan->config.heads * selected;
    int32_t *slot = lh_omp_state(plan)->slot;
    for (int64_t at = i * SLOTS; at < lh_omp_least((i + 1) * SLOTS, rows); at++)
        slot[at / selected * entries + lh_index_at(index, at)] = (int32_t)(at % selected);
}

void lh_omp_slots(const lh_plan *plan, const lh_tensor *index)
{
    const int64_t heads = plan->config.batch * plan->config.heads;
    lh_omp_for(plan, (heads * plan->layout.entries + SLOTS - 1) / SLOTS, 0, clear_piece, NULL);
    lh_omp_for(plan, (heads * plan->layout.selected + SLOTS - 1) / SLOTS, 0, fill_piece, index);
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
static void pull_rows(const lh_plan *plan, const struct lh_omp_pull *pull, int64_t to, int64_t first,
                      int64_t end, float *sum)
{
    const lh_layout *layout = &plan->layout;
    const int64_t d = plan->config.dim, levels = pull->slot ? plan->config.levels : 1;
    const int64_t group = plan->config.heads / pull->dst->shape[1];
    const bool power = (plan->config.pool & (plan->config.pool - 1)) == 0;
    const int64_t row0 = lh_omp_head_offset(plan, pull->dst, to * group);
    struct places at;
    places_at(plan, first, pull->shifted, &at);
    for (int64_t j = first; j < end; j++) {
        int32_t covered = 0;
        memset(sum, 0, sizeof *sum * (size_t)d);
        for (int64_t head = to * group; head < (to + 1) * group; head++) {
            const char *x = lh_omp_at(pull->src, pull->src_dtype, (head - pull->first_head) * pull->src_head);
            for (int64_t l = 0; l < levels; l++) {
                int64_t s = j;
                if (pull->slot) {
                    if (at.place[l] < 0)
                        continue;
                    s = pull->slot[head * layout->entries + layout->level_offset[l] + at.place[l]];
                    if (s < 0)
                        continue;
                }
                const char *row = lh_omp_at(x, pull->src_dtype, s * pull->src_row);
                const float window = pull->mean ? (float)layout->window[l] : 1;
                WITH_DTYPE(pull->src_dtype, add_mean, sum, row, d, window, power || window == 1);
                covered++;
            }
        }
        lh_omp_write_row(pull->dst->data, pull->dst->dtype, row0 + j * pull->dst->stride[2], sum, d);
        if (pull->coverage)
            pull->coverage[to * pull->dst->shape[2] + j] = covered;
        places_next(plan, &at);
    }
}

static int64_t pieces_of(const struct lh_omp_pull *pull)
{
    return (pull->dst->shape[2] + PIECE - 1) / PIECE;
}

static void pull_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct lh_omp_pull *pull = job;
    const int64_t group = plan->config.heads / pull->dst->shape[1], pieces = pieces_of(pull);
    const int64_t first = i % pieces * PIECE;
    pull_rows(plan, pull, pull->first_head / group + i / pieces, first,
              lh_omp_least(first + PIECE, pull->dst->shape[2]), scratch);
}

void lh_omp_pull(const lh_plan *plan, const struct lh_omp_pull *pull)
{
    const int64_t group = plan->config.heads / pull->dst->shape[1];
    lh_omp_for(plan, pull->heads / group * pieces_of(pull), 0, pull_piece, pull);
}
