/*
 * store.h: rows of a pass's stores as reals, converted through scratch only where they are kept in bfloat16.
 */
#ifndef TRAIN_STORE_H
#define TRAIN_STORE_H

#include "train/pass.h"

/* Where to read rows [row, row + rows): the store itself, or scratch after expanding. */
static inline real *store_read(const lh_arithmetic *on, const store *s, int64_t row, int64_t rows,
                               real *scratch)
{
    if (!s->bf16)
        return (real *)s->data + row * s->width;
    on->from_bf16(on, rows * s->width, (const uint16_t *)s->data + row * s->width, scratch);
    return scratch;
}

/* Where to write rows; store_keep after writing. */
static inline real *store_write(const store *s, int64_t row, real *scratch)
{
    return s->bf16 ? scratch : (real *)s->data + row * s->width;
}

/* Keeps what was written, and leaves in `written` the values that were kept. */
static inline void store_keep(const lh_arithmetic *on, const store *s, int64_t row, int64_t rows,
                              real *written)
{
    if (!s->bf16)
        return;
    on->to_bf16(on, rows * s->width, written, (uint16_t *)s->data + row * s->width);
    on->from_bf16(on, rows * s->width, (const uint16_t *)s->data + row * s->width, written);
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

#endif
