/*
 * Faults of selection and of the order of the sub-sequence: SPEC 3.3 and 3.4.
 *
 * A faulty port that keeps fewer than S entries leaves the rest of its buffer empty: -1 here.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "check/faults.h"

enum select_fault {
    ROLES_SWAPPED,
    QUERY_ONLY,
    KEY_ONLY,
    MAX_OF_BOTH,
    SUM_OF_BOTH,
    KEY_FROM_ALL,
    GLOBAL,
    MERGED_FINER,
    FLAT,
    REJECTED_DROPPED,
    PARENTS_DROPPED,
    PRE_ORDER,
    ORDER_BY_START,
    LEVEL_MAJOR,
    LEVEL_SKIPPED,
    TIES_HIGH,
    HEAD_0,
    BATCH_0,
    HEAD_MODULO,
};

/* One head being selected. */
struct selection {
    const lh_config *config;
    const lh_layout *layout;
    enum select_fault how;
    const double *score_q, *score_k; /* [P] */
    /* Scratch, each for all entries of one level. */
    struct ranked *ranked;
    int64_t *candidates, *next;
    char *parent; /* per candidate: 0 leaf, 1 parent */
    struct keyed *found;
    int64_t count;
};

struct ranked {
    double score;
    int64_t tie; /* candidates rise, so their position decides; negated for TIES_HIGH */
    int64_t candidate;
};

struct keyed {
    int64_t place, rank, entry;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->tie < y->tie ? -1 : x->tie > y->tie;
}

static int by_place(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static double score_of(const struct selection *f, int64_t entry, bool query)
{
    const double q = f->score_q[entry], k = f->score_k[entry];
    switch (f->how) {
    case MAX_OF_BOTH:
        return fmax(q, k);
    case SUM_OF_BOTH:
        return q + k;
    case QUERY_ONLY:
        return q;
    case KEY_ONLY:
        return k;
    case ROLES_SWAPPED:
        return query ? k : q;
    default:
        return query ? q : k;
    }
}

/* Marks the `keep` best of the candidates as parents; those already marked stand aside unless `all`. */
static void mark(struct selection *f, int level, int64_t count, int64_t keep, bool query, bool all)
{
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++) {
        if (f->parent[i] && !all)
            continue;
        const int64_t entry = f->layout->level_offset[level] + f->candidates[i];
        f->ranked[n++] = (struct ranked){score_of(f, entry, query), f->how == TIES_HIGH ? -i : i, i};
    }
    qsort(f->ranked, (size_t)n, sizeof *f->ranked, by_rank);
    for (int64_t i = 0; i < keep && i < n; i++)
        f->parent[f->ranked[i].candidate] = 1;
}

static void keep_entry(struct selection *f, int level, int64_t i, bool parent)
{
    const int64_t window = f->layout->window[level];
    const int64_t first = i * window, last = first + window - 1;
    struct keyed key = {parent ? 2 * last + 1 : 2 * first, parent ? level : 0,
                        f->layout->level_offset[level] + i};
    if (f->how == PRE_ORDER)
        key = (struct keyed){first, -level, key.entry};
    else if (f->how == ORDER_BY_START)
        key = (struct keyed){first, level, key.entry};
    else if (f->how == LEVEL_MAJOR)
        key = (struct keyed){key.entry, 0, key.entry};
    const bool dropped = (f->how == REJECTED_DROPPED && !parent && level > 0) ||
                         (f->how == PARENTS_DROPPED && parent) || (f->how == LEVEL_SKIPPED && level == 1);
    if (!dropped && f->count < f->layout->selected)
        f->found[f->count++] = key;
}

/* Splits the `count` candidates of a level into parents and leaves; the parents' children go to next. */
static int64_t split(struct selection *f, int level, int64_t count, int64_t budget)
{
    const int64_t pool = f->config->pool;
    const bool one_score =
        f->how == MAX_OF_BOTH || f->how == SUM_OF_BOTH || f->how == QUERY_ONLY || f->how == KEY_ONLY;
    memset(f->parent, 0, (size_t)count);
    mark(f, level, count, one_score ? budget : budget / 2, true, false);
    if (!one_score)
        mark(f, level, count, budget / 2, false, f->how == KEY_FROM_ALL);
    int64_t children = 0;
    for (int64_t i = 0; i < count; i++) {
        keep_entry(f, level, f->candidates[i], f->parent[i]);
        for (int64_t j = 0; j < pool && f->parent[i]; j++)
            f->next[children++] = f->candidates[i] * pool + j;
    }
    return children;
}

static void swap_candidates(struct selection *f)
{
    int64_t *next = f->candidates;
    f->candidates = f->next;
    f->next = next;
}

/* The cascade over one range of coarse entries down to level `stop`, whose candidates stay in f->candidates.
 */
static int64_t cascade(struct selection *f, int64_t first, int64_t count, int64_t budget, int stop)
{
    for (int64_t i = 0; i < count; i++)
        f->candidates[i] = first + i;
    for (int level = (int)f->config->levels - 1; level > stop; level--) {
        count = split(f, level, count, budget);
        swap_candidates(f);
    }
    return count;
}

static void select_tiles(struct selection *f)
{
    const int64_t tiles = f->how == GLOBAL ? 1 : f->layout->tiles, budget = f->config->topk / tiles;
    const int64_t coarse = f->layout->coarse / tiles;
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t leaves = cascade(f, t * coarse, coarse, budget, 0);
        for (int64_t i = 0; i < leaves; i++)
            keep_entry(f, 0, f->candidates[i], false);
    }
}

/* The coarsest level per tile, all finer ones over the whole head. */
static lh_status select_merged(struct selection *f, lh_error *error)
{
    const int top = (int)f->config->levels - 1;
    const int64_t most = f->config->topk * f->config->pool;
    int64_t *gathered, count = 0;
    lh_status status =
        lh_alloc((void **)&gathered, sizeof *gathered * (size_t)most, "candidates of merged tiles", error);
    if (status != LH_OK)
        return status;
    for (int64_t t = 0; t < f->layout->tiles; t++) {
        const int64_t c = f->layout->tile_coarse;
        const int64_t children = cascade(f, t * c, c, f->config->tile_topk, top - 1);
        memcpy(gathered + count, f->candidates, sizeof *gathered * (size_t)children);
        count += children;
    }
    memcpy(f->candidates, gathered, sizeof *gathered * (size_t)count);
    lh_free(gathered);
    for (int level = top - 1; level > 0; level--) {
        count = split(f, level, count, f->config->topk);
        swap_candidates(f);
    }
    for (int64_t i = 0; i < count; i++)
        keep_entry(f, 0, f->candidates[i], false);
    return LH_OK;
}

/* One joint choice of (L-1) m parents over all levels of the tile: a coarse entry scores at least what lies in
 * its window does, so nothing is chosen without its parent. */
static lh_status select_flat(struct selection *f, lh_error *error)
{
    const lh_layout *layout = f->layout;
    const int top = (int)f->config->levels - 1;
    const int64_t half = top * f->config->tile_topk / 2;
    char *chosen; /* per pyramid entry */
    const lh_status status = lh_alloc((void **)&chosen, (size_t)layout->entries, "chosen entries", error);
    if (status != LH_OK)
        return status;
    memset(chosen, 0, (size_t)layout->entries);
    for (int64_t t = 0; t < layout->tiles; t++) {
        int64_t count = 0;
        for (int level = top; level > 0; level--) {
            const int64_t tile = layout->level_size[level] / layout->tiles;
            for (int64_t i = 0; i < tile; i++)
                f->candidates[count++] = layout->level_offset[level] + t * tile + i;
        }
        memset(f->parent, 0, (size_t)count);
        mark(f, 0, count, half, true, false);
        mark(f, 0, count, half, false, false);
        for (int64_t i = 0; i < count; i++)
            chosen[f->candidates[i]] = f->parent[i];
    }
    for (int level = top; level >= 0; level--) {
        for (int64_t i = 0; i < layout->level_size[level]; i++) {
            if (level == top || chosen[layout->level_offset[level + 1] + i / f->config->pool])
                keep_entry(f, level, i, chosen[layout->level_offset[level] + i]);
        }
    }
    lh_free(chosen);
    return LH_OK;
}

static lh_status select_head(struct selection *f, const lh_tensor *index, int64_t row, lh_error *error)
{
    lh_status status = LH_OK;
    f->count = 0;
    if (f->how == MERGED_FINER)
        status = select_merged(f, error);
    else if (f->how == FLAT)
        status = select_flat(f, error);
    else
        select_tiles(f);
    if (status != LH_OK)
        return status;
    qsort(f->found, (size_t)f->count, sizeof *f->found, by_place);
    for (int64_t s = 0; s < f->layout->selected; s++) {
        const int64_t entry = s < f->count ? f->found[s].entry : -1;
        if (index->dtype == LH_I64)
            ((int64_t *)index->data)[row * f->layout->selected + s] = entry;
        else
            ((int32_t *)index->data)[row * f->layout->selected + s] = (int32_t)entry;
    }
    return LH_OK;
}

static lh_status cannot_act(const lh_config *config, const lh_layout *layout, enum select_fault how)
{
    const bool tiles = how == GLOBAL || how == MERGED_FINER;
    const bool finer = how == MERGED_FINER || how == FLAT || how == LEVEL_SKIPPED;
    return config->levels == 1 || (tiles && layout->tiles == 1) || (finer && config->levels < 3) ||
                   (how == HEAD_0 && config->heads == 1) || (how == BATCH_0 && config->batch == 1) ||
                   (how == HEAD_MODULO && (config->kv_heads == 1 || config->kv_heads == config->heads))
               ? LH_UNSUPPORTED
               : LH_OK;
}

static lh_status select_all(struct selection *f, const lh_tensor *trace, lh_error *error)
{
    const lh_config *c = f->config;
    const int64_t group = c->heads / c->kv_heads;
    lh_status status = LH_OK;
    for (int64_t bh = 0; bh < c->batch * c->heads && status == LH_OK; bh++) {
        const int64_t b = f->how == BATCH_0 ? 0 : bh / c->heads, h = f->how == HEAD_0 ? 0 : bh % c->heads;
        const int64_t kv = f->how == HEAD_MODULO ? h % c->kv_heads : h / group;
        f->score_q = (const double *)trace[LH_SCORE_Q].data + (b * c->heads + h) * f->layout->entries;
        f->score_k = (const double *)trace[LH_SCORE_K].data + (b * c->kv_heads + kv) * f->layout->entries;
        status = select_head(f, &trace[LH_INDEX], bh, error);
    }
    return status;
}

static lh_status select_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                                const lh_tensor *trace, lh_error *error)
{
    struct selection f = {.config = config, .layout = layout, .how = (enum select_fault)fault->variant};
    if (cannot_act(config, layout, f.how) != LH_OK)
        return lh_fail(error, LH_UNSUPPORTED, "%s cannot act on this configuration", fault->name);
    const size_t most = (size_t)config->tokens;
    int64_t *lists = NULL;
    lh_status status = lh_alloc((void **)&f.ranked, most * sizeof *f.ranked, "ranking", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&lists, 2 * most * sizeof *lists, "candidates", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&f.parent, most, "marks", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&f.found, (size_t)layout->selected * sizeof *f.found, "order", error);
    if (status == LH_OK) {
        f.candidates = lists;
        f.next = lists + most;
        status = select_all(&f, trace, error);
    }
    lh_free(f.ranked);
    lh_free(lists);
    lh_free(f.parent);
    lh_free(f.found);
    return status;
}

#define SELECT(family, name, rule, fix, variant)                                                             \
    {                                                                                                        \
        family, LH_SELECT, name, rule, fix, variant, select_wrongly                                          \
    }
const lh_fault lh_faults_select[] = {
    SELECT(7, "select-roles-swapped", "SPEC 3.3",
           "The first half is drawn by query score, the second by key score.", ROLES_SWAPPED),
    SELECT(8, "select-query-only", "SPEC 3.3", "Half of the parents are drawn by key score.", QUERY_ONLY),
    SELECT(8, "select-key-only", "SPEC 3.3", "Half of the parents are drawn by query score.", KEY_ONLY),
    SELECT(9, "select-max-of-scores", "SPEC 3.3", "Draw m/2 by each score; do not rank by their maximum.",
           MAX_OF_BOTH),
    SELECT(9, "select-sum-of-scores", "SPEC 3.3", "Draw m/2 by each score; do not rank by their sum.",
           SUM_OF_BOTH),
    SELECT(10, "select-key-half-from-all", "SPEC 3.3",
           "Draw the key half from the candidates the query half rejected.", KEY_FROM_ALL),
    SELECT(12, "select-global", "SPEC 3.3", "Select m parents in every tile, not k over the whole head.",
           GLOBAL),
    SELECT(13, "select-tiles-merged", "SPEC 3.3", "Keep the tiles apart at finer levels too.", MERGED_FINER),
    SELECT(14, "select-flat", "SPEC 3.3",
           "Every level keeps its own m parents in a tile; do not rank the levels together.", FLAT),
    SELECT(15, "select-rejected-dropped", "SPEC 3.3",
           "Rejected candidates stay in the sub-sequence, as leaves.", REJECTED_DROPPED),
    SELECT(16, "select-parents-dropped", "SPEC 3.3",
           "Parents stay in the sub-sequence, after their children.", PARENTS_DROPPED),
    SELECT(17, "order-pre-order", "SPEC 3.4",
           "A parent stands after everything inside its window, not before.", PRE_ORDER),
    SELECT(17, "order-by-start", "SPEC 3.4",
           "A parent stands after its window's last entry; sort by its end.", ORDER_BY_START),
    SELECT(17, "order-level-major", "SPEC 3.4", "Order the entries along the sequence, not level by level.",
           LEVEL_MAJOR),
    SELECT(19, "select-level-1-skipped", "SPEC 3.3", "Every level's candidates are in the sub-sequence.",
           LEVEL_SKIPPED),
    SELECT(21, "select-ties-high", "SPEC 3.3", "Of equal scores the lower index goes first.", TIES_HIGH),
    SELECT(22, "select-head-0-for-all", "SPEC 3.3", "Every query head selects by its own scores.", HEAD_0),
    SELECT(22, "select-batch-0-for-all", "SPEC 3.3", "Every batch element selects by its own scores.",
           BATCH_0),
    SELECT(26, "select-head-modulo", "SPEC 2",
           "Query head h reads the key scores of kv head h / (H/G), not h % G.", HEAD_MODULO),
    {0, LH_STAGE_COUNT, NULL, NULL, NULL, 0, NULL},
};
