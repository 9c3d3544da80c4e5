/* views.h: a pass as attention sees it. */
#ifndef TRAIN_VIEWS_H
#define TRAIN_VIEWS_H

#include "train/store.h"

/* Of a layer that would have these options. */
enum attention_kind pass_kind(const pass_options *o, int64_t layer);
/* Attention of a layer of that kind, all heads together. */
lh_config pass_config(const pass *p, enum attention_kind kind);
/* Of everything kept at full length. */
lh_dtype pass_dtype(const pass *p);
/* Ranks that a sequence's tokens are over. */
static inline int64_t pass_ranks(const pass *p)
{
    return p->options.exchange ? p->options.exchange->ranks : 1;
}
/* What was begun since the last lap ends here. */
static inline void pass_lap(pass *p, double *account)
{
    lap *l = &p->lap[p->laps++];
    l->account = account;
    p->m->on->mark(p->m->on, &l->end);
}
/* Once all laps were waited for. */
void pass_count_laps(pass *p);
/* Where the gradients from this row's block are added up. */
static inline real *pass_gradients(const pass *p, int64_t row)
{
    const int64_t tokens = p->options.tokens;
    return p->gradients ? p->gradients + row % tokens / (tokens / p->shards) * p->m->size : p->m->gradients;
}
/* Rows of the block that begins at `row`: of one run of those whose gradients are apart. */
static inline int64_t pass_rows(const pass *p, int64_t row)
{
    const int64_t run = p->gradients ? p->options.tokens / p->shards : p->rows, left = run - row % run;
    return left < p->block ? left : p->block;
}
/* For plans over this pass's tensors. */
lh_options pass_plan_options(const pass *p);
/* q, k, v as [B, heads, N, d] views into rows of qkv. */
void pass_views(const pass *p, const store *qkv, lh_tensor *q, lh_tensor *k, lh_tensor *v);
/* Trace of a layer: q k v out, index, o_sel, lse. */
void pass_trace(const pass *p, int64_t layer, lh_tensor trace[LH_TENSOR_COUNT]);

#endif
