/*
 * checkpoint.h: a run on disk, one safetensors file.
 *
 * Weights under their own names (float32 masters), adam_m.NAME, adam_v.NAME, monitor, budget.spread where
 * budget is entropy; stage, step and every setting in the metadata. Nothing else, no clock: two runs that
 * computed the same have the same file. A setting that a file does not have takes its default, so what an
 * older program wrote goes on as it did there; settings of the model's shape must be there.
 */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "core/safetensors.h"
#include "train/adam.h"
#include "train/budget.h"
#include "train/recipe.h"

lh_status checkpoint_write(const char *path, const settings *s, const recipe *r, const model *m,
                           const adam *a, const budget *b, lh_error *error);

typedef struct checkpoint {
    lh_file *file;
    settings settings;
    recipe recipe;
} checkpoint;

lh_status checkpoint_open(const char *path, checkpoint *c, lh_error *error);
void checkpoint_close(checkpoint *c);
/* LH_INVALID naming the first setting of the model's shape in which the file differs from `s`. */
lh_status checkpoint_fits(const checkpoint *c, const settings *s, lh_error *error);
/* Fills a model of the same shape, and unless they are NULL the optimiser and the budgets' spreads; those stay
 * as they are when either run has even budgets. */
lh_status checkpoint_load(const checkpoint *c, const model *m, const adam *a, const budget *b,
                          lh_error *error);

#endif
