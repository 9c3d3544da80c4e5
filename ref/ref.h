/*
 * ref.h: Lighthouse Attention (arXiv 2605.06554) in scalar C, one head at a time, one stage a file.
 *
 *   forward   pool -> score -> select -> gather -> attend -> scatter
 *   backward  scatter_backward -> attend_backward -> unpool (pool and gather backward in one)
 *
 * Leans on nothing but the C language and sqrt, so that it can be read, copied out and compiled anywhere.
 * Nothing here allocates, prints or fails: the caller hands in valid shapes (SPEC 2), buffers and scratch.
 * Arrays are row-major and contiguous.
 *
 *   B batch   H query heads   G key/value heads   N tokens   d head dimension   L levels   p pooling factor
 *   k parents kept per level   m parents kept per level and tile   P pyramid entries   S selected entries
 *
 * The bits are part of the definition (SPEC 6): every sum starts at +0.0 and adds its terms one by one in
 * rising order of its index, every product, quotient and square root is rounded once, and nothing is
 * computed in another way than the comment above the function says.
 */
#ifndef REF_REF_H
#define REF_REF_H

#include "real.h"
#include "names.h"

struct ref_shape {
    int64_t batch, heads, kv_heads; /* B, H, G: read by the layer only */
    int64_t tokens, dim;            /* N, d */
    int64_t levels, pool;           /* L, p */
    int64_t topk, tile_topk;        /* k, m: read when L >= 2 only */
};

/* p^l: tokens under one entry of level l. */
static inline int64_t ref_window(const struct ref_shape *s, int64_t level)
{
    int64_t window = 1;
    for (int64_t l = 0; l < level; l++)
        window *= s->pool;
    return window;
}

/* First pyramid entry of level l: offset(l) = sum over j < l of N/p^j. */
static inline int64_t ref_offset(const struct ref_shape *s, int64_t level)
{
    int64_t offset = 0;
    for (int64_t l = 0, window = 1; l < level; l++, window *= s->pool)
        offset += s->tokens / window;
    return offset;
}

/* P: entries of the whole pyramid. */
static inline int64_t ref_entries(const struct ref_shape *s)
{
    return ref_offset(s, s->levels);
}

/* S = N/p^(L-1) + (L-1) p k: entries selected. */
static inline int64_t ref_selected(const struct ref_shape *s)
{
    const int64_t coarse = s->tokens / ref_window(s, s->levels - 1);
    return s->levels == 1 ? coarse : coarse + (s->levels - 1) * s->pool * s->topk;
}

/* pool.c     x, dx: [N,d]   x_pyr: [P,d]   dx_sel: [S,d]   slot: [P] */
void ref_pool(const struct ref_shape *s, const real *x, real *x_pyr);
void ref_unpool(const struct ref_shape *s, const real *dx_sel, const int64_t *slot, real *dx);

/* score.c    x: [N,d]   score: [P] */
void ref_score(const struct ref_shape *s, const real *x, real *score);

/* select.c   score_q, score_k: [P]   index: [S]   scratch: [S] */
struct ref_candidate {
    int64_t entry;        /* into the pyramid */
    int64_t major, minor; /* its place in the post-order, SPEC 3.4 */
    real score;           /* the one that it competes with at the moment */
};
void ref_select(const struct ref_shape *s, const real *score_q, const real *score_k, int64_t *index,
                struct ref_candidate *scratch);

/* gather.c   x_pyr: [P,d]   index: [S]   x_sel: [S,d]   slot: [P] */
void ref_gather(const struct ref_shape *s, const real *x_pyr, const int64_t *index, real *x_sel);
void ref_slots(const struct ref_shape *s, const int64_t *index, int64_t *slot);

/* attend.c   all *_sel: [S,d]   lse: [S]   row: [S] scratch */
void ref_attend(const struct ref_shape *s, const real *q_sel, const real *k_sel, const real *v_sel,
                real *o_sel, real *lse, real *row);
void ref_attend_backward(const struct ref_shape *s, const real *q_sel, const real *k_sel, const real *v_sel,
                         const real *o_sel, const real *lse, const real *do_sel, real *dq_sel, real *dk_sel,
                         real *dv_sel);

/* scatter.c  o_sel, do_sel: [S,d]   slot: [P]   out, dout: [N,d]   coverage: [N] or NULL   index: [S] */
void ref_scatter(const struct ref_shape *s, const real *o_sel, const int64_t *slot, real *out,
                 int32_t *coverage);
void ref_scatter_backward(const struct ref_shape *s, const real *dout, const int64_t *index, real *do_sel);

/* exp.c, log.c: at most 0.51 units in the last place from the true value, subnormal results included. */
real ref_exp(real x);
real ref_log(real x);

/* layer.c: the stages over batch and heads. */

/* What the stages need besides tensors; of one head. */
struct ref_scratch {
    struct ref_candidate *candidates; /* [S], for select */
    int64_t *slot;                    /* [P], for scatter and unpool */
    real *row;                        /* [S], for attend */
    real *head;                       /* [N,d], for unpool */
};
/* Every tensor of SPEC 5. A stage reads and writes its own; the others may be NULL. */
struct ref_trace {
    real *q, *k, *v;                /* [B,H,N,d] [B,G,N,d] [B,G,N,d] */
    real *q_pyr, *k_pyr, *v_pyr;    /* [B,H,P,d] [B,G,P,d] [B,G,P,d] */
    real *score_q, *score_k;        /* [B,H,P] [B,G,P] */
    int64_t *index;                 /* [B,H,S] */
    real *q_sel, *k_sel, *v_sel;    /* [B,H,S,d] */
    real *o_sel, *lse;              /* [B,H,S,d] [B,H,S] */
    real *out;                      /* [B,H,N,d] */
    int32_t *coverage;              /* [B,H,N] or NULL */
    real *dout, *do_sel;            /* [B,H,N,d] [B,H,S,d] */
    real *dq_sel, *dk_sel, *dv_sel; /* [B,H,S,d] */
    real *dq, *dk, *dv;             /* [B,H,N,d] [B,G,N,d] [B,G,N,d] */
    struct ref_scratch scratch;
};
void ref_layer_pool(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_score(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_select(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_gather(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_attend(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_scatter(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_scatter_backward(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_attend_backward(const struct ref_shape *s, const struct ref_trace *t);
void ref_layer_unpool(const struct ref_shape *s, const struct ref_trace *t);
/* q k v -> everything up to out, coverage. */
void ref_forward(const struct ref_shape *s, const struct ref_trace *t);
/* dout and what ref_forward left in the trace -> do_sel ... dq dk dv. */
void ref_backward(const struct ref_shape *s, const struct ref_trace *t);

#endif
