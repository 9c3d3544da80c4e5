/*
 * store.h: a pass from within: rows of a store as reals, converted through scratch only where it is kept in
 * bfloat16, and attention's tensors and plans.
 */
#ifndef TRAIN_STORE_H
#define TRAIN_STORE_H

#include "train/kernels.h"
#include "train/pass.h"

/* Where to read rows [row, row + rows): the store itself, or scratch after expanding. */
static inline real *store_read(const store *s, int64_t row, int64_t rows, real *scratch)
{
    if (!s->bf16)
        return (real *)s->data + row * s->width;
    from_bf16(rows * s->width, (const uint16_t *)s->data + row * s->width, scratch);
    return scratch;
}

/* Where to write rows; store_keep after writing. */
static inline real *store_write(const store *s, int64_t row, real *scratch)
{
    return s->bf16 ? scratch : (real *)s->data + row * s->width;
}

/* Keeps what was written, and leaves in `written` the values that were kept. */
static inline void store_keep(const store *s, int64_t row, int64_t rows, real *written)
{
    if (!s->bf16)
        return;
    to_bf16(rows * s->width, written, (uint16_t *)s->data + row * s->width);
    from_bf16(rows * s->width, (const uint16_t *)s->data + row * s->width, written);
}

/* Weights as the products see them. */
static inline real *pass_weights(const pass *p)
{
    return p->options.bf16 ? p->weights : p->m->values;
}

/* The layer's entry in p->layer: a pass that only evaluates keeps one. */
static inline layer_store *pass_layer(const pass *p, int64_t layer)
{
    return &p->layer[p->options.training ? layer : 0];
}

/* Attention of a layer of that kind, all heads together. */
lh_config pass_config(const pass *p, enum attention_kind kind);
/* Of everything kept at full length. */
lh_dtype pass_dtype(const pass *p);
/* For plans over this pass's tensors. */
lh_options pass_plan_options(const pass *p);
/* q, k, v as [B, heads, N, d] views into rows of qkv. */
void pass_views(const pass *p, const store *qkv, lh_tensor *q, lh_tensor *k, lh_tensor *v);
/* Trace of a layer: q k v out, index, o_sel, lse. */
void pass_trace(const pass *p, int64_t layer, lh_tensor trace[LH_TENSOR_COUNT]);
/* Attention of a layer, all heads at once or group by group. */
lh_status pass_attend(const pass *p, int64_t layer, bool backward, lh_error *error);

/* groups.c: attention of heads in groups, each with a tile budget of its own. */
lh_status groups_create(pass *p, lh_error *error);
void groups_destroy(pass *p);
lh_status groups_attend(const pass *p, int64_t layer, bool backward, lh_error *error);

#endif
