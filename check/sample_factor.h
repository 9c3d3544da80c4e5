/* sample_factor.h: what projecting the judged rows of a gradient takes (sample_factor.c, sample_probe.c). */
#ifndef LH_CHECK_SAMPLE_FACTOR_H
#define LH_CHECK_SAMPLE_FACTOR_H

#include "check/sample_walk.h"

/* Shares of one projection: sums of squares, and sums where roundings may be alike throughout. */
struct sample_shares {
    double each, products, fixed, running, total; /* of X: pairs; dP; what is judged; the other side; all */
    double D_rows, D_total, lse_rows, lse_most;
    double vanishing, unseen, kept;
    double stored, stored_total, small; /* of the judged elements */
    double error, whole;                /* what was found along the direction; its own square */
};

enum {
    SAMPLE_PROBE_ROWS = 1 + 2 * VERIFY_DIRECTIONS /* scratch of a judged row: its gradient, and derivatives */
};

/* The side of a pair that is judged stays while the other one runs over the sub-sequence. */
struct sample_factor {
    double *along[2][VERIFY_DIRECTIONS]; /* of dq, dk: directions of the judged rows, [judged,d] */
    int64_t *fixed, *place; /* [most]: slots that the judged rows come from; [S]: where in fixed, -1 */
    double *pull[VERIFY_DIRECTIONS];                        /* [most,d]: the direction in each of them */
    double *X[VERIFY_DIRECTIONS], *unit[VERIFY_DIRECTIONS]; /* [S]: sums of X and of P t */
    double *first[VERIFY_DIRECTIONS], *second[VERIFY_DIRECTIONS]; /* [S,d]: derivatives; NULL: all is seen */
    double *row;                                                  /* SAMPLE_PROBE_ROWS [d] */
    double u_lse;
    double logit; /* the largest */
    struct sample_shares to[VERIFY_DIRECTIONS];
    int64_t count;
    bool unpooled;
    void *room;
};

/* Adds to f->to what rounding does in the pairs that reach f->fixed of this head, whose directions are in f->pull. */
void sample_probe_head(const struct walk *w, int gradient);

#endif
