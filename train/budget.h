/*
 * budget.h: sharing a layer's budget out among its heads, for --budget entropy.
 *
 * A head whose scores are peaked finds what matters in few entries; one whose scores are spread needs more.
 * With the coarsest level's scores s_1 ... s_n, where selection starts, and p_i = s_i^2 / sum s^2,
 *
 *   spread = exp(-sum p_i log p_i) / n,   1 for equal scores, 1/n for one that is alone.
 *
 * Query heads that share a key/value head are a group with one budget: the mean of their query spreads and the
 * key head's. Of a layer's G tile_topk, a group gets its share in proportion to its spread averaged over time,
 * from a quarter of tile_topk to four times it. What changes is m alone; tiles stay, and so does the sum of S.
 */
#ifndef TRAIN_BUDGET_H
#define TRAIN_BUDGET_H

#include <jansson.h>

#include "train/settings.h"

typedef struct budget {
    int64_t layers, groups; /* groups: G */
    int64_t *tile_topk;     /* [layers, G] */
    double *spread;         /* [layers, G] averaged over time, 0: not measured yet; gives tile_topk */
    double seconds;         /* that the last change took; no state */
} budget;

/* Even budgets; both arrays NULL unless the settings say entropy. */
lh_status budget_create(const settings *s, budget *b, lh_error *error);
void budget_destroy(budget *b);

double budget_spread(int64_t n, const real *score);
/* Even numbers that add up to groups * tile_topk, from 2 floor(tile_topk / 8) (2 at least) to 4 tile_topk or
 * most, as near to proportional to `spread` as can be (least squares; without the limits it is the method of
 * largest remainders). Ties go to the first. */
void budget_apportion(int64_t groups, const double *spread, int64_t tile_topk, int64_t most, int64_t *shares);

/* Averages what the scores of the pass's last forward say into `spread`, for its Lighthouse layers. */
lh_status budget_measure(const pass *p, budget *b, lh_error *error);
/* tile_topk of every layer that was measured. */
void budget_share(const settings *s, budget *b);

/* `spread` as the checkpoint has it. */
lh_tensor budget_tensor(const budget *b);
/* Budgets and spreads of the pass's Lighthouse layers, for the journal. */
json_t *budget_json(const budget *b, const pass *p);

#endif
