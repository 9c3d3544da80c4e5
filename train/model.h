/*
 * model.h: the weights of a Llama-style byte-level decoder.
 *
 *   x = embed[byte]
 *   each layer:  q k v = norm(x) qkv, q and k rotated;  x += attention(q,k,v) out;
 *                gate up = norm(x) gate_up;             x += (silu(gate) * up) down
 *   logits = norm(x) head        (head = embed^T when tied)
 *
 * D width, H heads, G key/value heads, d dim, F hidden. All weights lie in one array, a layer's side by
 * side, so that the optimiser, the checkpoint and the gradient norm need no list of pointers.
 */
#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include "train/real.h"

typedef struct model_shape {
    int64_t width; /* D */
    int64_t layers;
    int64_t heads;    /* H */
    int64_t kv_heads; /* G */
    int64_t dim;      /* d, even */
    int64_t hidden;   /* F */
    bool tied;
    double rotary_base;
} model_shape;

typedef struct layer_weights {
    real *norm_in;  /* [D] */
    real *qkv;      /* [D, (H + 2G) d] */
    real *out;      /* [H d, D] */
    real *norm_mid; /* [D] */
    real *gate_up;  /* [D, 2F] */
    real *down;     /* [F, D] */
} layer_weights;

typedef struct parameter {
    char name[32]; /* "layer3.gate_up" */
    int64_t offset;
    int64_t shape[2]; /* [1, D] for norms, which the weight decay leaves alone */
    double deviation; /* of the initial values; 0: ones */
} parameter;

/* values and gradients are in the memory of `on`. */
typedef struct model {
    model_shape shape;
    const lh_arithmetic *on; /* the model's own, closed with it */
    parameter *parameters;
    int count;
    int64_t size;         /* elements of values, padding included */
    int64_t layer_offset; /* of the first layer's weights */
    int64_t layer_size;
    int64_t norm_out, embed, head; /* offsets; head is embed when tied */
    real *values;
    real *gradients; /* NULL unless the model is to be trained */
} model;

/* On the processor. Weights are drawn from (seed) alone: the same on every machine. */
lh_status model_create(const model_shape *shape, uint64_t seed, bool gradients, model *m, lh_error *error);
void model_destroy(model *m);
/* From the processor to `on`, which is the model's from then on, also where this fails. No pass of the model is there yet.
 * LH_NO_MEMORY, LH_DEVICE. */
lh_status model_move(model *m, const lh_arithmetic *on, lh_error *error);
/* A copy on the processor, without gradients. LH_NO_MEMORY, LH_DEVICE. */
lh_status model_fetch(const model *m, model *host, lh_error *error);
/* The weights of a layer in an array laid out like m->values. */
layer_weights model_layer(const model *m, real *values, int64_t layer);
/* Parameters that are trained, padding not counted. */
int64_t model_parameters(const model_shape *shape);
/* Multiplications and additions of one layer's products, or of the head's, per token, forward only. */
double model_layer_flops(const model_shape *shape);
double model_head_flops(const model_shape *shape);

#endif
