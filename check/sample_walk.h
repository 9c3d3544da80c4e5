/*
 * sample_walk.h: what the files of judging by rows share: one walk over the heads, and what each stage has of it.
 *
 *   sample_access   rows of the dump, and what follows of them by one sum
 *   sample_load     a head's sub-sequence, own or computed
 *   sample_draw     which rows are judged
 *   sample_note     what was found beside what is wanted, and the allowance
 *   sample_select, sample_forward, sample_backward   the stages
 *   sample_factor   what is small in every element of dq or dk and the same in all
 *   sample_whole    one pass over everything
 */
#ifndef LH_CHECK_SAMPLE_WALK_H
#define LH_CHECK_SAMPLE_WALK_H

#include "check/sample.h"

enum {
    SAMPLE_LAST = 64,    /* rows at the end of a head that are always judged */
    SAMPLE_INFINITE = 4, /* and those of out, dq, dk, dv where the first infinity stands */
};

/* Everything of one query head. */
struct walk {
    const lh_config *config;
    lh_config one; /* the same with one batch and one head */
    lh_layout layout;
    const check_source *source;
    const check_sample *sample;
    check_report *report;
    int64_t b, h, g;
    int64_t *index, *slot; /* [S], [P]: -1 where not selected */
    struct sample_head head;
    double *pooled; /* 3 [S,d]: sizes of the terms of q, k, v that are not in the dump */
    double *room;   /* what head points into, and three rows */
    struct sample_row row[3];
    double *found;                     /* [d], or a window of rows */
    int64_t infinite[LH_TENSOR_COUNT]; /* element of the first infinity, -1 */
    int64_t *tokens, *entries;         /* judged rows: of [0,N), of [0,S) */
    int64_t token_count, entry_count;
    double *group[2][3]; /* dk, dv of the judged tokens over the heads of the group: want, stored, weighed */
    double *group_of_D;  /* what D takes from that dk */
    struct sample_factor *factor; /* NULL: no gradients in a half type */
    double group_weights;
    bool own_rows, have_backward;
    bool open,
        group_open; /* without an index, rounding decides this head's (a head of this group's) selection */
};

/* Rows are counted in the tensor's own head; those of k and v are of the group's. */
bool sample_has(const struct walk *w, lh_tensor_id id);
int64_t sample_element(const struct walk *w, lh_tensor_id id, int64_t row);
lh_status sample_fetch(const struct walk *w, lh_tensor_id id, int64_t row, int64_t count, int64_t width,
                       double *to, lh_error *error);
lh_status sample_load_index(struct walk *w, lh_error *error); /* into w->index */
/* The same tensor of one head alone, at data. */
lh_tensor sample_one_tensor(const struct walk *w, lh_tensor_id id, void *data);
/* Means [d] of the window of a pyramid entry of x, and sizes of its terms (NULL: not wanted). */
lh_status sample_pool_row(struct walk *w, lh_tensor_id x, int64_t entry, double *mean, double *size,
                          lh_error *error);
/* Positions that entry s of the sub-sequence writes: [*first, *end). */
void sample_written(const struct walk *w, int64_t s, int64_t *first, int64_t *end);
/* do_sel [d] of entry s from dout, and sizes of its terms (NULL: not wanted). */
lh_status sample_gather_gradient(struct walk *w, int64_t s, double *sum, double *size, lh_error *error);

/* w->head and w->slot, from w->index. */
lh_status sample_load_head(struct walk *w, lh_error *error);

/* How many rows of a tensor are judged at most. */
int64_t sample_room(const struct walk *w);
/* Adds the tokens of this group where out, dq, dk or dv is infinite first. */
void sample_draw_infinite(struct walk *w);
/* Rows of [0,n) to be judged, into `rows`, which holds sample_room; returns how many. */
int64_t sample_draw(const struct walk *w, uint64_t stream, int64_t n, int64_t *rows);

/* The report's row of a tensor, `own`: judged on its own inputs; NULL when the report is full. */
verify_row *sample_row_for(check_report *report, const struct walk *w, lh_tensor_id id, bool own);
/* One element judged: kept when it is the worst so far. */
void sample_note(const struct walk *w, lh_tensor_id id, bool own, int64_t at, double got, double wanted,
                 double allowed);
/* Row n of a tensor held to r->want: rounding on r->stored, heavy on r->weighed. */
lh_status sample_judge_row(struct walk *w, lh_tensor_id id, bool own, int64_t n, const struct sample_row *r,
                           double rounding, double heavy, lh_error *error);
/* Relative roundings: of storing; of a sum of so many terms and storing it; of the weights; of rows that the dump lacks;
 * of a product of attention. The least error that any value may have. */
double sample_unit(const struct walk *w, lh_tensor_id id);
double sample_sum_rounding(const struct walk *w, lh_tensor_id id, int64_t terms);
double sample_weights_rounding(const struct walk *w, const struct sample_row *r, double lse, bool backward);
double sample_unseen_rounding(const struct walk *w);
double sample_product_rounding(const struct walk *w, lh_tensor_id id);
double sample_least(const struct walk *w, lh_tensor_id id);

/* The stages of one head, in their order; each judges what the dump has of its tensors. */
lh_status sample_judge_pool(struct walk *w, lh_tensor_id x, lh_tensor_id pyr, lh_error *error);
lh_status sample_judge_choice(struct walk *w, lh_error *error); /* scores and index; w->index, without one */
lh_status sample_find_open(struct walk *w, lh_error *error);
void sample_leave_open(struct walk *w);
lh_status sample_judge_gather(struct walk *w, lh_tensor_id x, lh_tensor_id pyr, lh_tensor_id sel,
                              lh_error *error);
lh_status sample_judge_attend(struct walk *w, lh_error *error);
lh_status sample_judge_scatter(struct walk *w, lh_error *error);
lh_status sample_judge_scatter_backward(struct walk *w, lh_error *error);
lh_status sample_judge_attend_backward(struct walk *w, lh_error *error);
lh_status sample_judge_unpool(struct walk *w, lh_error *error); /* dq; what the head adds to dk and dv */
lh_status sample_judge_group(struct walk *w, lh_error *error);  /* dk and dv, after all heads of the group */

/* Room for what follows; none where there are no gradients in a half type. */
lh_status sample_factor_create(struct walk *w, lh_error *error);
void sample_factor_destroy(struct walk *w);
/* Keeps the i-th judged row of dq (gradient 0) or dk (1), or of their *_sel, as a direction. */
void sample_factor_keep(const struct walk *w, int gradient, int64_t i, const struct sample_row *r);
/* The kept rows of this head, all of them kept; own: the report's row of the tensor. */
lh_status sample_judge_factor(struct walk *w, int gradient, bool unpooled, bool own, lh_error *error);
/* dk of the judged tokens, after sample_judge_group. Heads of a group are loaded once more. */
lh_status sample_judge_group_factor(struct walk *w, lh_error *error);

/* One pass over everything: all is finite; every head's index is one. */
lh_status sample_judge_finite(struct walk *w, lh_error *error);
lh_status sample_judge_indices(struct walk *w, bool *usable, lh_error *error);

#endif
