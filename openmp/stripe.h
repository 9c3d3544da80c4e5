/*
 * stripe.h: what the backward does with one tile of keys and one stripe of queries, whoever holds them: a whole head
 * (attend_backward.c) or a window of its rows (window.c).
 */
#ifndef LH_OPENMP_STRIPE_H
#define LH_OPENMP_STRIPE_H

#include "openmp/pack.h"

/* Operands of one head's stripe of queries, sizes.stripe_tiles tiles at most. */
struct lh_omp_stripe {
    float *q, *dout;           /* [stripe tiles][TILE/BLOCK][d][BLOCK] */
    float *q_rows, *dout_rows; /* [stripe tiles][panels], see pack.h; q_rows scaled by 1/sqrt(d) */
    float *lse, *delta;        /* [stripe rows] */
};

/* One tile of LH_OMP_TILE keys. */
struct lh_omp_keys {
    const float *k, *v;     /* [TILE/GROUP][d][GROUP] */
    const float *k_columns; /* [dim_group/GROUP][TILE][GROUP], scaled by 1/sqrt(d) */
    float *dk, *dv;         /* [TILE][dim_vector], added to */
};

/* Floats of a stripe's operands, and of one partial sum of its dq: [stripe tiles][TILE/BLOCK][dim_group][BLOCK]. */
size_t lh_omp_stripe_floats(const struct lh_omp_sizes *sizes);
size_t lh_omp_partial_floats(const struct lh_omp_sizes *sizes);
/* The stripe's operands in `memory`. */
struct lh_omp_stripe lh_omp_stripe_in(const struct lh_omp_sizes *sizes, float *memory);

/* Tile `t` of the stripe, `tile` of the head. buffer: scratch, [2 BLOCK][d] */
void lh_omp_pack_queries(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head, int64_t tile,
                         int64_t t, const struct lh_omp_stripe *x, float *buffer);
/* The key tile against tile t of the stripe, whose first row is `ahead` rows past the first key. partial: dq of the
 * stripe, which the pair begins or is added to. s, ds: scratch, [LH_OMP_TILE][LH_OMP_TILE] each. */
void lh_omp_pair(const struct lh_omp_sizes *sizes, const struct lh_omp_keys *keys,
                 const struct lh_omp_stripe *x, int64_t t, int64_t ahead, bool begins, float *partial,
                 float *s, float *ds);
/* dq: [TILE][d] <- tile t of a stripe's sums: [stripe tiles][TILE/BLOCK][dim_group][BLOCK], `parts` of them, each after the
 * other, added up in order. sum: scratch, [d][BLOCK] */
void lh_omp_sum_partials(const struct lh_omp_sizes *sizes, const float *partial, int64_t parts, int64_t t,
                         float *sum, float *dq);

#endif
