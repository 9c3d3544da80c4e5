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
    real *m, *v; /* laid out like the model's values */
} adam;

typedef struct adam_options {
    double beta1, beta2, decay, clip;
} adam_options;

lh_status adam_create(const model *m, adam *a, lh_error *error);
void adam_destroy(adam *a);
/* Norm of all gradients together, summed in double in a fixed order. */
double gradient_norm(const model *m);
/* One step, the t-th (from 1), with gradients scaled to norm `clip` where `norm` is larger; sets them
 * to zero. */
void adam_step(const adam *a, const model *m, const adam_options *options, double rate, double norm,
               int64_t t);

#endif
