/*
 * pass.h: running the decoder forward and backward over B sequences of N bytes.
 *
 * Everything but attention works on blocks of rows (rows = B N, row-major), so that only what the
 * backward reads is kept at full length: per layer the residual stream before and in the middle of the
 * layer, q k v, the attention output, gate and up, and attention's index, o_sel and lse. Norms and the
 * SwiGLU product are computed again. All of it is laid out in one block of memory, where the model's arithmetic is, before
 * the first step; a pass allocates nothing afterwards. A pass that only evaluates keeps a single layer.
 *
 * With bf16, everything kept at full length is stored in bfloat16, and the weights enter the
 * products rounded to it; products, norms, the residual gradient and weight gradients are float32 (core/backend.h: on a device products may round).
 */
#ifndef TRAIN_PASS_H
#define TRAIN_PASS_H

#include "lighthouse_dist.h"
#include "train/model.h"

typedef struct pass_options {
    int64_t batch, tokens;
    bool bf16;
    bool training;    /* keep what the backward needs */
    bool index_given; /* forward reads the index kept by an earlier forward (for the gradient test) */
    const char *backend;
    int device;
    int threads;
    int64_t levels, pool, topk, tile_topk; /* of the layers that are not dense */
    const bool *dense;                     /* [layers]: which attend densely; NULL: all */
    /* [layers, G] tile budgets of the groups of query heads that share a key/value head, the caller's; each
     * layer's sum is G tile_topk. NULL: tile_topk for all. Call pass_regroup after changing them. */
    const int64_t *group_tile_topk;
    /* Sequences over ranks: tokens and topk are this rank's, of its part of every sequence. NULL: sequences are whole. */
    const lh_exchange *exchange;
} pass_options;

/* [rows, width] kept at full length, in real or in bfloat16. */
typedef struct store {
    void *data;
    int64_t width;
    bool bf16;
} store;

/* Scratch for as many rows as are worked on at a time. */
typedef struct block {
    real *x, *mid, *normed, *qkv, *attention, *gate_up, *product; /* forward, and again in backward */
    real *d_normed, *d_qkv, *d_attention, *d_gate_up, *d_product; /* backward */
    real *logits;                                                 /* [block, 256] */
    real *partial;                                                /* [norm_groups, D] */
} block;

enum attention_kind {
    DENSE,
    LIGHTHOUSE,
    ATTENTION_KINDS
};

/* What backward needs from a layer's forward. */
typedef struct layer_store {
    store x;         /* [rows, D] entering the layer */
    store qkv;       /* [rows, (H + 2G) d], q and k rotated */
    store attention; /* [rows, H d] */
    store mid;       /* [rows, D] after the attention */
    store gate_up;   /* [rows, 2F] */
    void *index, *o_sel, *lse;
} layer_store;

/* Seconds spent in passes that went forward and backward since the trainer last set them to zero. */
typedef struct layer_clock {
    double attention; /* lh_forward and lh_backward */
    double outside;
} layer_clock;

/* The end of a stretch of work, and where its time is counted; NULL: nowhere, the next stretch begins. */
typedef struct lap {
    lh_mark end;
    double *account;
} lap;

/* Pointers to numbers and bytes are into the memory of m->on, but where a line says "host". */
typedef struct pass {
    const model *m;
    pass_options options;
    int64_t rows, block;                 /* block: rows that are worked on at a time */
    uint8_t *bytes, *targets;            /* [rows] */
    lh_plan *plan[ATTENTION_KINDS];      /* shared by the layers of that kind; NULL where there are none */
    lh_dist_plan *over[ATTENTION_KINDS]; /* in their place where sequences are over ranks */
    lh_plan **group_plan;      /* [group_plans] at m/2: shared by the groups of tile budget m, or NULL */
    int64_t group_plans;       /* 0 unless there are group_tile_topk */
    enum attention_kind *kind; /* [layers] */
    layer_store *layer;        /* [layers + 1]; the last has only x, the stream that leaves the model */
    store d_qkv, d_attention;  /* backward */
    real *dx;                  /* [rows, D] gradient of the residual stream */
    real *cosines, *sines;     /* [N, d/2] */
    real *weights;             /* bf16: the rounded weights, laid out like m->values */
    block scratch;             /* a block's worth of everything that is not kept */
    double *row_losses;        /* [rows] */
    double *losses;            /* [rows] host: of the last loss */
    /* Where gradients are added up: [shards][m->size], of the shards-th runs of every sequence's rows. NULL: m->gradients. */
    real *gradients;
    int64_t shards;
    void *arena;
    size_t arena_bytes;
    layer_clock *clock; /* [layers + 1]; the last is embedding, head and loss */
    lap *lap;           /* [6 layers + 6]: of a forward and a backward */
    int64_t laps;
} pass;

lh_status pass_create(const model *m, const pass_options *options, pass *p, lh_error *error);
void pass_destroy(pass *p);
/* Bytes pass_create would take for itself, the attention plans' workspaces not counted. */
lh_status pass_memory(const model_shape *shape, const pass_options *options, size_t *bytes, lh_error *error);

/* Runs the layers; bytes: [rows]. These and all that is passed in below is the host's. */
lh_status pass_forward(pass *p, const uint8_t *bytes, lh_error *error);
/* Mean loss over the rows, in nats per byte, after pass_forward; targets: [rows]. */
lh_status pass_loss(pass *p, const uint8_t *targets, double *loss, lh_error *error);
/* Likewise, and adds the gradients of `share` times that mean to m->gradients, or p->gradients. Over ranks that is the mean
 * over all ranks' rows, and *loss is of no use: p->losses has the rows here. */
lh_status pass_backward(pass *p, const uint8_t *targets, double share, double *loss, lh_error *error);
/* The 256 logits of one row after pass_forward. logits: host */
lh_status pass_logits(pass *p, int64_t row, real *logits, lh_error *error);

/* Measures what dense attention costs on the q k v that `layer` holds from the last forward: seconds
 * forward and backward, as the host sees it. Overwrites d_qkv and d_attention, nothing else; call it between steps. */
lh_status pass_probe_dense(pass *p, int64_t layer, double *seconds, lh_error *error);

/* Makes the plans that group_tile_topk asks for and drops those that it no longer does; between steps. */
lh_status pass_regroup(pass *p, lh_error *error);

/* Bytes held in attention plans. */
size_t pass_plan_bytes(const pass *p);

#endif
