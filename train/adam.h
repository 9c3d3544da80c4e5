/*
 * adam.h: AdamW with warm-up and gradient-norm clip.
 *
 *   m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2,
 *   w -= rate (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + 1e-8) + decay w)
 *
 * Norm weights are not decayed. Everything is float32.
 */
#ifndef TRAIN_ADAM_H
#define TRAIN_ADAM_H

#include "train/model.h"

typedef struct adam {
    real *m, *v; /* laid out like the model's values, and where they are */
    const lh_arithmetic *on;
} adam;

typedef struct adam_options {
    double beta1, beta2, decay, clip;
} adam_options;

lh_status adam_create(const model *m, adam *a, lh_error *error);
void adam_destroy(adam *a);
/* From the processor to where the model was moved. LH_NO_MEMORY, LH_DEVICE. */
lh_status adam_move(adam *a, const model *m, lh_error *error);
/* A copy on the processor. LH_NO_MEMORY, LH_DEVICE. */
lh_status adam_fetch(const adam *a, const model *m, adam *host, lh_error *error);
/* Norm of all gradients together, summed in a fixed order. */
lh_status gradient_norm(const model *m, double *norm, lh_error *error);
/* One step, the t-th (from 1), with gradients scaled to norm `clip` where `norm` is larger; sets them
 * to zero. */
void adam_step(const adam *a, const model *m, const adam_options *options, double rate, double norm,
               int64_t t);

#endif
