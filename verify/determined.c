/*
 * Whether rounding could have chosen otherwise (SPEC 3.3).
 *
 * In every tile and level the choice is made at two edges: between the m/2-th and the next query score, and between
 * the m/2-th and the next key score of the rest. Scores on the two sides of an edge that differ by less than rounding
 * may come out in another order elsewhere. Scores are taken in long double here: rows that tie there tie everywhere,
 * and the lower index goes first, but rows whose norms are equal in binary64 by rounding alone do not.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "verify/verify.h"

struct entry {
    int64_t at;
    long double score;
};

struct tile {
    const lh_config *config;
    const lh_layout *layout;
    const long double *score_q, *score_k; /* [P] */
    struct entry *entries;                /* of this level, rising */
    int64_t count;
};

static int stronger(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Sorts by these scores, strongest first; true when the edge behind the first `half` is too close to call: when there
 * is a kept and a rejected score that differ, and by no more than rounding. Where the edge parts equal scores those are
 * further off. */
static bool close_edge(struct entry *entries, int64_t count, int64_t half, const long double *scores,
                       double tol)
{
    for (int64_t i = 0; i < count; i++)
        entries[i].score = scores[entries[i].at];
    qsort(entries, (size_t)count, sizeof *entries, stronger);
    if (half >= count)
        return false;
    const long double in = entries[half - 1].score, out = entries[half].score;
    int64_t above = half - 1, below = half;
    while (above > 0 && entries[above].score == out)
        above--;
    while (below + 1 < count && entries[below].score == in)
        below++;
    const long double higher = entries[above].score, lower = entries[below].score;
    return (higher > out && higher - out <= tol * higher) || (in > lower && in - lower <= tol * in);
}

static int rising(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static void descend(struct tile *t, int64_t level)
{
    const int64_t parents = t->config->tile_topk, p = t->config->pool;
    qsort(t->entries, (size_t)parents, sizeof *t->entries, rising);
    for (int64_t i = parents - 1; i >= 0; i--) {
        const int64_t at = t->entries[i].at - t->layout->level_offset[level];
        for (int64_t j = p - 1; j >= 0; j--)
            t->entries[i * p + j].at = t->layout->level_offset[level - 1] + at * p + j;
    }
    t->count = parents * p;
}

static bool close_tile(struct tile *t, int64_t tile, double tol)
{
    const int64_t half = t->config->tile_topk / 2, coarse = t->layout->tile_coarse;
    bool close = false;
    t->count = coarse;
    for (int64_t i = 0; i < coarse; i++)
        t->entries[i].at = t->layout->level_offset[t->config->levels - 1] + tile * coarse + i;
    for (int64_t level = t->config->levels - 1; level > 0 && !close; level--) {
        close = close_edge(t->entries, t->count, half, t->score_q, tol) ||
                close_edge(t->entries + half, t->count - half, half, t->score_k, tol);
        descend(t, level);
    }
    return close;
}

/* Scores of head (b,h) of x [B,heads,N,d] F64: [P]. */
static void score_head(const lh_config *config, const lh_layout *layout, const lh_tensor *x, int64_t b,
                       int64_t h, long double *score)
{
    const int64_t d = config->dim;
    const double *rows = (const double *)x->data + lh_offset(x, b, h, 0);
    for (int64_t i = 0; i < config->tokens; i++) {
        long double sum = 0;
        for (int64_t c = 0; c < d; c++)
            sum += (long double)rows[i * d + c] * rows[i * d + c];
        score[i] = sqrtl(sum);
    }
    for (int64_t level = 1; level < config->levels; level++) {
        const long double *finer = score + layout->level_offset[level - 1];
        for (int64_t i = 0; i < layout->level_size[level]; i++) {
            long double most = finer[i * config->pool];
            for (int64_t j = 1; j < config->pool; j++)
                most = fmaxl(most, finer[i * config->pool + j]);
            score[layout->level_offset[level] + i] = most;
        }
    }
}

lh_status verify_undetermined(const lh_config *config, const lh_layout *layout, const lh_tensor *q,
                              const lh_tensor *k, double tol, bool *open, lh_error *error)
{
    const int64_t inner = config->tile_topk * config->pool;
    const int64_t most = layout->tile_coarse > inner ? layout->tile_coarse : inner;
    struct tile t = {.config = config, .layout = layout};
    long double *scores = NULL;
    memset(open, 0, (size_t)(config->batch * config->heads) * sizeof *open);
    if (config->levels == 1)
        return LH_OK;
    lh_status status = lh_alloc((void **)&t.entries, (size_t)most * sizeof *t.entries, "candidates", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&scores, 2 * (size_t)layout->entries * sizeof *scores, "scores", error);
    for (int64_t i = 0; i < config->batch * config->heads && status == LH_OK; i++) {
        const int64_t b = i / config->heads, h = i % config->heads;
        score_head(config, layout, q, b, h, scores);
        score_head(config, layout, k, b, h / (config->heads / config->kv_heads), scores + layout->entries);
        t.score_q = scores;
        t.score_k = scores + layout->entries;
        for (int64_t tile = 0; tile < layout->tiles && !open[i]; tile++)
            open[i] = close_tile(&t, tile, tol);
    }
    lh_free(t.entries);
    lh_free(scores);
    return status;
}
