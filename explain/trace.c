/* The run itself, and what is read off it: slots, roles, ranks, attention weights. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "explain/explain.h"
#include "ref/ref.h"
#include "scalar/run.h"

static void find_slots(explain *e)
{
    for (int64_t i = 0; i < e->layout.entries; i++)
        e->slot[i] = -1;
    for (int64_t s = 0; s < e->layout.selected; s++)
        e->slot[e->index[s]] = s;
}

/* Place of `entry` by `score` among the candidates of its level and tile (SPEC 3.3: descending, then by entry), those
 * chosen by query left out where `rest`. */
static int64_t rank_of(const explain *e, int64_t entry, const double *score, bool rest)
{
    const int level = explain_level(e, entry);
    const int64_t half = e->config.tile_topk / 2;
    int64_t rank = 1;
    for (int64_t other = e->layout.level_offset[level]; other < e->layout.level_offset[level + 1]; other++) {
        if (other == entry || e->slot[other] < 0 || explain_tile(e, other) != explain_tile(e, entry) ||
            (rest && e->query_rank[other] <= half))
            continue;
        if (score[other] > score[entry] || (score[other] == score[entry] && other < entry))
            rank++;
    }
    return rank;
}

/* A candidate was opened when its children are in the sub-sequence; the ranks must say the same. */
static lh_status find_roles(explain *e, lh_error *error)
{
    const int64_t half = e->config.tile_topk / 2;
    memset(e->query_rank, 0, (size_t)e->layout.entries * sizeof(int64_t));
    memset(e->key_rank, 0, (size_t)e->layout.entries * sizeof(int64_t));
    for (int64_t i = 0; i < e->layout.entries; i++)
        e->role[i] = e->slot[i] < 0 ? EXPLAIN_ABSENT : EXPLAIN_LEAF;
    for (int64_t i = e->config.tokens; i < e->layout.entries; i++)
        if (e->slot[i] >= 0)
            e->query_rank[i] = rank_of(e, i, e->value[LH_SCORE_Q], false);
    for (int64_t i = e->config.tokens; i < e->layout.entries; i++) {
        if (e->slot[i] < 0)
            continue;
        const bool by_query = e->query_rank[i] <= half;
        e->key_rank[i] = by_query ? 0 : rank_of(e, i, e->value[LH_SCORE_K], true);
        const int level = explain_level(e, i);
        const int64_t child =
            e->layout.level_offset[level - 1] + (i - e->layout.level_offset[level]) * e->config.pool;
        const bool opened = e->slot[child] >= 0;
        if (opened)
            e->role[i] = by_query ? EXPLAIN_QUERY_PARENT : EXPLAIN_KEY_PARENT;
        if (opened != (by_query || e->key_rank[i] <= half))
            return lh_fail(error, LH_MISMATCH,
                           "entry %" PRId64 " is %s, wanted what its ranks %" PRId64 " and %" PRId64 " say",
                           i, opened ? "a parent" : "a leaf", e->query_rank[i], e->key_rank[i]);
    }
    return LH_OK;
}

/* As the reference's backward has them: exp(logit - lse). A row's weights must add up to 1. */
static lh_status find_weights(explain *e, lh_error *error)
{
    const int64_t S = e->layout.selected, d = e->config.dim;
    const double *q = e->value[LH_Q_SEL], *k = e->value[LH_K_SEL], *lse = e->value[LH_LSE];
    const double scale = 1 / sqrt((double)d);
    memset(e->weights, 0, (size_t)(S * S) * sizeof(double));
    for (int64_t s = 0; s < S; s++) {
        double sum = 0;
        for (int64_t t = 0; t <= s; t++) {
            double dot = 0;
            for (int64_t c = 0; c < d; c++)
                dot += q[s * d + c] * k[t * d + c];
            e->weights[s * S + t] = ref_exp(dot * scale - lse[s]);
            sum += e->weights[s * S + t];
        }
        /* lse carries its own rounding into every weight: of order |lse| 2^-53, times a few. */
        if (!(fabs(sum - 1) <= 1e-14 * (16 + fabs(lse[s]) + (double)S)))
            return lh_fail(error, LH_MISMATCH, "weights of slot %" PRId64 " add up to %.17g, wanted 1", s,
                           sum);
    }
    return LH_OK;
}

lh_status explain_run(explain *e, int64_t gradient, lh_error *error)
{
    if (gradient >= e->config.tokens)
        return lh_fail(error, LH_INVALID, "--gradient is %" PRId64 ", wanted a token, 0 to %" PRId64,
                       gradient, e->config.tokens - 1);
    e->gradient = gradient;
    if (gradient >= 0) {
        double *dout = e->trace[LH_DOUT].data;
        for (int64_t i = 0; i < e->config.tokens * e->config.dim; i++)
            dout[i] = i / e->config.dim == gradient ? 1 : 0;
        e->backward = true;
    }
    lh_status status =
        lh_ref_run(64, &e->config, e->backward ? LH_REF_ALL : LH_REF_FORWARD, e->trace, NULL, error);
    if (status != LH_OK)
        return status;
    find_slots(e);
    status = find_roles(e, error);
    return status == LH_OK ? find_weights(e, error) : status;
}

void explain_free(explain *e)
{
    lh_free(e->memory);
    e->memory = NULL;
}
