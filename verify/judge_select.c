/*
 * Whether an index that differs from the reference's may do so (SPEC 6).
 *
 * The cascade of SPEC 3.3 is replayed with the choices that the index shows: in every tile and level the
 * candidates C follow from the parents above, and the parents U are those whose children are in the index. U is
 * excused when it splits into A and A', m/2 each, such that with tol = 2 * rounding of a score
 *
 *   every a in A    has  s_q(a)  >= (1 - tol) s_q(c)   for every c in C \ A,
 *   every a' in A'  has  s_k(a') >= (1 - tol) s_k(c)   for every c in C \ U,
 *
 * that is, when some scores within the rounding of the true ones make exactly this choice. Which entries of A
 * were taken by query score does not show; the split is searched: once the lowest query score that A may hold is
 * fixed, what scores clearly above must be in A, and giving A the weakest keys of the rest helps A' most.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/verify.h"

struct candidate {
    int64_t entry;
    double query, key;
    bool parent;
    bool by_query; /* in A */
};

struct replay {
    const lh_config *config;
    const lh_layout *layout;
    const double *score_q, *score_k; /* of this head: [P] */
    unsigned char *present;          /* [P]: in the index */
    struct candidate *c, *order;     /* [candidates of a tile] */
    int64_t count;
    double worst; /* largest relative difference excused so far */
};

static int by_query_falling(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return (x->query < y->query) - (x->query > y->query);
}

static int by_key_rising(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

/* How far, relative to `out`, a chosen score lies below one that was passed over. */
static double shortfall(double chosen, double out)
{
    return out > chosen ? (out - chosen) / out : 0;
}

/* Marks A, given that A holds no query score below `floor`. False when no A does. */
static bool split_at(struct replay *r, double floor, double tol)
{
    const int64_t half = r->config->tile_topk / 2;
    int64_t certain = 0, open = 0;
    for (int64_t i = 0; i < r->count; i++) {
        struct candidate *c = &r->c[i];
        c->by_query = (1 - tol) * c->query > floor;
        if (c->by_query && !c->parent)
            return false;
        certain += c->by_query;
        if (c->parent && !c->by_query && c->query >= floor) {
            r->order[open] = *c;
            r->order[open++].entry = i;
        }
    }
    if (certain > half || certain + open < half)
        return false;
    qsort(r->order, (size_t)open, sizeof *r->order, by_key_rising);
    for (int64_t i = 0; i < half - certain; i++)
        r->c[r->order[i].entry].by_query = true;
    return true;
}

/* The largest shortfall of the split that is marked. */
static double split_margin(const struct replay *r)
{
    double least_a = INFINITY, most_q = 0, least_k = INFINITY, most_k = 0;
    for (int64_t i = 0; i < r->count; i++) {
        const struct candidate *c = &r->c[i];
        if (c->by_query)
            least_a = fmin(least_a, c->query);
        else
            most_q = fmax(most_q, c->query);
        if (c->parent && !c->by_query)
            least_k = fmin(least_k, c->key);
        else if (!c->parent)
            most_k = fmax(most_k, c->key);
    }
    return fmax(shortfall(least_a, most_q), shortfall(least_k, most_k));
}

/* True when the tile's parents split within tol; *margin is what the split that was found needed. */
static bool excused(struct replay *r, double tol, double *margin)
{
    const int64_t half = r->config->tile_topk / 2;
    double floors[2] = {INFINITY, 0};
    /* Floors worth trying are the parents' own query scores, from the m/2-th down. */
    for (int64_t j = half - 1; j < 2 * half; j++) {
        int64_t parents = 0;
        for (int64_t i = 0; i < r->count; i++) {
            if (r->c[i].parent)
                r->order[parents++] = r->c[i];
        }
        qsort(r->order, (size_t)parents, sizeof *r->order, by_query_falling);
        floors[1] = r->order[j].query;
        if (floors[1] == floors[0])
            continue;
        floors[0] = floors[1];
        if (!split_at(r, floors[1], tol))
            return false; /* a lower floor only makes more entries certain */
        *margin = split_margin(r);
        if (*margin <= tol)
            return true;
    }
    return false;
}

/* The tile's parents at this level, seen by their children; false when the index cannot come from a cascade. */
static bool find_parents(struct replay *r, int64_t level)
{
    int64_t parents = 0;
    for (int64_t i = 0; i < r->count; i++) {
        struct candidate *c = &r->c[i];
        const int64_t at = c->entry - r->layout->level_offset[level];
        if (!r->present[c->entry])
            return false;
        c->query = r->score_q[c->entry];
        c->key = r->score_k[c->entry];
        c->parent = r->present[r->layout->level_offset[level - 1] + at * r->config->pool];
        parents += c->parent;
    }
    return parents == r->config->tile_topk;
}

static void descend(struct replay *r, int64_t level)
{
    int64_t next = 0;
    for (int64_t i = 0; i < r->count; i++) {
        if (r->c[i].parent)
            r->order[next++] = r->c[i];
    }
    r->count = 0;
    for (int64_t i = 0; i < next; i++) {
        const int64_t at = r->order[i].entry - r->layout->level_offset[level];
        for (int64_t j = 0; j < r->config->pool; j++)
            r->c[r->count++].entry = r->layout->level_offset[level - 1] + at * r->config->pool + j;
    }
}

/* Replays one tile; false, with the reason in text, when its choices are not excused. */
static bool replay_tile(struct replay *r, int64_t tile, double tol, char *text, size_t size)
{
    r->count = r->layout->tile_coarse;
    for (int64_t i = 0; i < r->count; i++)
        r->c[i].entry = r->layout->level_offset[r->config->levels - 1] + tile * r->count + i;
    for (int64_t level = r->config->levels - 1; level > 0; level--) {
        double margin = 0;
        if (!find_parents(r, level)) {
            snprintf(text, size, "tile %" PRId64 " does not keep %" PRId64 " parents at level %" PRId64, tile,
                     r->config->tile_topk, level);
            return false;
        }
        if (!excused(r, tol, &margin)) {
            double needed = 0x1p-52;
            while (needed < 1 && !excused(r, needed, &margin))
                needed *= 2;
            snprintf(text, size,
                     "tile %" PRId64 ", level %" PRId64
                     ": scores would have to be off by %.1e of themselves, "
                     "rounding explains %.1e",
                     tile, level, needed < 1 ? margin : 1, tol);
            return false;
        }
        r->worst = fmax(r->worst, margin);
        descend(r, level);
    }
    return true;
}

static void mark_present(struct replay *r, const lh_tensor *got, int64_t head)
{
    const int64_t selected = r->layout->selected;
    memset(r->present, 0, (size_t)r->layout->entries);
    for (int64_t s = 0; s < selected; s++)
        r->present[lh_index_at(got, head * selected + s)] = 1;
}

static int64_t count_absent(const struct replay *r, const lh_tensor *want, int64_t head)
{
    int64_t absent = 0;
    for (int64_t s = 0; s < r->layout->selected; s++)
        absent += !r->present[lh_index_at(want, head * r->layout->selected + s)];
    return absent;
}

/* Replays the head that is marked present. */
static bool replay_head(struct replay *r, double tol, char *text, size_t size)
{
    for (int64_t tile = 0; tile < r->layout->tiles; tile++) {
        if (!replay_tile(r, tile, tol, text, size))
            return false;
    }
    return true;
}

static void count_differences(const lh_tensor *got, const lh_tensor *want, verify_selection *selection)
{
    const int64_t elements = lh_tensor_elements(want);
    selection->first = -1;
    for (int64_t i = 0; i < elements; i++) {
        if (lh_index_at(got, i) == lh_index_at(want, i))
            continue;
        selection->differing++;
        if (selection->first < 0)
            selection->first = i;
    }
}

static bool head_differs(const lh_tensor *got, const lh_tensor *want, int64_t head, int64_t selected)
{
    for (int64_t s = 0; s < selected; s++) {
        if (lh_index_at(got, head * selected + s) != lh_index_at(want, head * selected + s))
            return true;
    }
    return false;
}

lh_status verify_judge_index(const lh_config *config, const lh_layout *layout, const lh_tensor *got,
                             const lh_tensor *want, const lh_tensor *score_q, const lh_tensor *score_k,
                             double rounding, verify_selection *selection, lh_error *error)
{
    lh_error reason;
    memset(selection, 0, sizeof *selection);
    count_differences(got, want, selection);
    selection->legal = lh_index_check(config, layout, got, &reason) == LH_OK;
    if (!selection->legal)
        snprintf(selection->text, sizeof selection->text, "%.150s", reason.text);
    selection->excused = selection->legal;
    if (!selection->legal || selection->differing == 0 || config->levels == 1)
        return LH_OK;
    const int64_t inner = config->tile_topk * config->pool;
    const int64_t most = layout->tile_coarse > inner ? layout->tile_coarse : inner;
    struct replay r = {.config = config, .layout = layout};
    lh_status status = lh_alloc((void **)&r.present, (size_t)layout->entries, "replayed index", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&r.c, (size_t)most * sizeof *r.c, "replayed candidates", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&r.order, (size_t)most * sizeof *r.order, "replayed candidates", error);
    for (int64_t i = 0; i < config->batch * config->heads && status == LH_OK && selection->excused; i++) {
        const int64_t b = i / config->heads, h = i % config->heads;
        r.score_q = (const double *)score_q->data + lh_offset(score_q, b, h, 0);
        r.score_k =
            (const double *)score_k->data + lh_offset(score_k, b, h / (config->heads / config->kv_heads), 0);
        if (!head_differs(got, want, i, layout->selected))
            continue;
        mark_present(&r, got, i);
        selection->others += count_absent(&r, want, i);
        selection->excused = replay_head(&r, 2 * rounding, selection->text, sizeof selection->text);
    }
    selection->margin = r.worst;
    lh_free(r.present);
    lh_free(r.c);
    lh_free(r.order);
    return status;
}
