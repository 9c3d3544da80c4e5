/*
 * Select: which pyramid entries make up the sub-sequence, and in which order (SPEC 3.3, 3.4).
 *
 *   score_q: [B,H,P]  score_k: [B,G,P]  ->  index: [B,H,S]
 *
 * Per tile and level, A is the m/2 candidates with the largest query score and A' the m/2 of the others with
 * the largest key score; A and A' are parents. A score and a candidate's place make one 64-bit key, smallest
 * first: larger scores, then lower places, NaN behind every number. Keys differ, so "the m/2 smallest" is one
 * threshold, found by radix: eight passes at most, whatever the scores are.
 *
 * No key is ever sorted: candidates stand in rising order at every level, so a walk down from the coarsest
 * level that emits a parent after its children is the post-order.
 */
#include <string.h>

#include "openmp/openmp.h"
#include "openmp/element.h"

/* One tile's working memory. */
struct tile {
    const lh_plan *plan;
    const float *score_q, *score_k; /* [P] */
    uint64_t *key;                  /* of this level's candidates */
    int64_t *entry;                 /* likewise: place within the level */
    int64_t *parent;                /* [m] the same of its parents, in rising order */
    unsigned char *is_parent;       /* of all candidates of all levels, coarsest first */
    int64_t first, count;           /* coarsest candidates */
    int64_t next[LH_MAX_LEVELS];    /* walk: the level's next unseen candidate among is_parent */
    const lh_tensor *index;
    int64_t at; /* walk: element of index to write next */
};

static int64_t most_candidates(const lh_plan *plan)
{
    const int64_t children = plan->config.pool * plan->config.tile_topk;
    return plan->layout.tile_coarse > children ? plan->layout.tile_coarse : children;
}

static int64_t entries_per_tile(const lh_plan *plan)
{
    return plan->layout.selected / plan->layout.tiles;
}

size_t lh_omp_select_bytes(const lh_plan *plan)
{
    if (plan->config.levels == 1)
        return 0;
    return (sizeof(uint64_t) + sizeof(int64_t)) * (size_t)most_candidates(plan) +
           sizeof(int64_t) * (size_t)plan->config.tile_topk + (size_t)entries_per_tile(plan);
}

/* Ascending keys are descending scores, then ascending places; NaN last; -0 and +0 are equal. */
static uint64_t key_of(float score, int64_t place)
{
    const uint32_t bits = bits_of(score + 0.0f);
    const uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000u;
    const uint32_t falling = score == score ? ~rising : UINT32_MAX;
    return (uint64_t)falling << 32 | (uint64_t)place;
}

/* The key at `rank` (from 0) among n different keys. */
static uint64_t key_at_rank(const uint64_t *key, int64_t n, int64_t rank)
{
    uint64_t prefix = 0, mask = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        int64_t bucket[256] = {0};
        for (int64_t i = 0; i < n; i++) {
            if ((key[i] & mask) == prefix)
                bucket[key[i] >> shift & 255]++;
        }
        uint64_t digit = 0;
        while (rank >= bucket[digit])
            rank -= bucket[digit++];
        prefix |= digit << shift;
        mask |= UINT64_C(255) << shift;
    }
    return prefix;
}

/* Marks the `half` candidates with the largest score among those not marked yet. */
static void mark_strongest(const struct tile *t, const float *score, unsigned char *is_parent, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        t->key[i] = is_parent[i] ? UINT64_MAX : key_of(score[t->entry[i]], i);
    const uint64_t last = key_at_rank(t->key, count, t->plan->config.tile_topk / 2 - 1);
    for (int64_t i = 0; i < count; i++)
        is_parent[i] |= t->key[i] <= last;
}

/* The cascade: fills is_parent, level by level. */
static void choose_parents(const struct tile *t)
{
    const lh_layout *layout = &t->plan->layout;
    const int64_t pool = t->plan->config.pool;
    unsigned char *is_parent = t->is_parent;
    int64_t count = t->count;
    for (int64_t i = 0; i < count; i++)
        t->entry[i] = t->first + i;
    for (int64_t l = t->plan->config.levels - 1; l > 0; l--) {
        memset(is_parent, 0, (size_t)count);
        mark_strongest(t, t->score_q + layout->level_offset[l], is_parent, count);
        mark_strongest(t, t->score_k + layout->level_offset[l], is_parent, count);
        int64_t parents = 0;
        for (int64_t i = 0; i < count; i++) {
            if (is_parent[i])
                t->parent[parents++] = t->entry[i];
        }
        is_parent += count;
        count = parents * pool;
        for (int64_t i = 0; i < count; i++)
            t->entry[i] = t->parent[i / pool] * pool + i % pool;
    }
}

static void emit(struct tile *t, int64_t entry)
{
    if (t->index->dtype == LH_I64)
        ((int64_t *)t->index->data)[t->at++] = entry;
    else
        ((int32_t *)t->index->data)[t->at++] = (int32_t)entry;
}

/* Emits candidate `place` of level l, behind everything inside its window. */
static void walk(struct tile *t, int64_t l, int64_t place)
{
    const int64_t pool = t->plan->config.pool;
    if (l > 0 && t->is_parent[t->next[l]++]) {
        for (int64_t j = 0; j < pool; j++)
            walk(t, l - 1, place * pool + j);
    }
    emit(t, t->plan->layout.level_offset[l] + place);
}

static void select_tile(struct tile *t)
{
    const lh_config *config = &t->plan->config;
    choose_parents(t);
    const int64_t coarsest = config->levels - 1, children = config->pool * config->tile_topk;
    t->next[coarsest] = 0;
    for (int64_t l = coarsest - 1; l > 0; l--)
        t->next[l] = t->next[l + 1] + (l + 1 == coarsest ? t->count : children);
    for (int64_t i = 0; i < t->count; i++)
        walk(t, coarsest, t->first + i);
}

static void identity(const lh_plan *plan, const lh_tensor *index)
{
    struct tile t = {.plan = plan, .index = index};
    for (int64_t i = 0; i < index->shape[0] * index->shape[1]; i++)
        for (int64_t s = 0; s < plan->layout.selected; s++)
            emit(&t, s);
}

static void select_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const lh_tensor *trace = job;
    const lh_config *config = &plan->config;
    const lh_layout *layout = &plan->layout;
    const int64_t head = i / layout->tiles, tile = i % layout->tiles, most = most_candidates(plan);
    const float *score_q = trace[LH_SCORE_Q].data, *score_k = trace[LH_SCORE_K].data;
    struct tile t = {
        .plan = plan,
        .score_q = score_q + head * layout->entries,
        .score_k = score_k + head / (config->heads / config->kv_heads) * layout->entries,
        .key = scratch,
        .first = tile * layout->tile_coarse,
        .count = layout->tile_coarse,
        .index = &trace[LH_INDEX],
        .at = head * layout->selected + tile * entries_per_tile(plan),
    };
    t.entry = (int64_t *)(t.key + most);
    t.parent = t.entry + most;
    t.is_parent = (unsigned char *)(t.parent + config->tile_topk);
    select_tile(&t);
}

lh_status lh_omp_select(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    if (plan->config.levels == 1)
        identity(plan, &trace[LH_INDEX]);
    else
        lh_omp_for(plan, plan->config.batch * plan->config.heads * plan->layout.tiles, 1, select_piece,
                   trace);
    lh_omp_book(plan, LH_SELECT, &since);
    return LH_OK;
}
