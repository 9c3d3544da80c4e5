/*
 * checkpoint.h: a run on disk, one safetensors file.
 *
 * Weights under their own names (float32 masters), adam_m.NAME, adam_v.NAME, monitor, budget.spread where
 * budget is entropy; stage, step, every setting and the text's hash, bytes and bytes learnt from in the metadata,
 * and `sha256`, the seal over all of it (seal.h). Nothing else, no clock: two runs that computed the same have the
 * same file. A setting that a file does not have takes its default; settings of the model's shape must be there.
 */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "core/safetensors.h"
#include "train/adam.h"
#include "train/budget.h"
#include "train/recipe.h"
#include "train/text.h"

lh_status checkpoint_write(const char *path, const settings *s, const recipe *r, const corpus *t,
                           const model *m, const adam *a, const budget *b, lh_error *error);

typedef struct checkpoint {
    lh_file *file;
    settings settings;
    recipe recipe;
    char text_sha256[65];
    int64_t text_bytes, text_train;
} checkpoint;

lh_status checkpoint_open(const char *path, checkpoint *c, lh_error *error);
void checkpoint_close(checkpoint *c);
/* The checkpoint in a run's folder, or the one before it. A damaged one's error says whether that is whole. */
lh_status checkpoint_open_last(const char *folder, bool before, checkpoint *c, lh_error *error);
/* Puts the checkpoint before the last in the last one's place. */
lh_status checkpoint_restore(const char *folder, lh_error *error);
/* Gives the checkpoint in a folder the name of the one before it too, as far as the file system can. */
void checkpoint_keep(const char *folder);
/* LH_INVALID naming the first setting bound so, or more tightly, in which the file differs from `s`. */
lh_status checkpoint_fits(const checkpoint *c, const settings *s, enum binding binding, lh_error *error);
/* LH_INVALID unless this is the text that the run learns from, divided as it was. */
lh_status checkpoint_same_text(const checkpoint *c, const char *path, const corpus *t, lh_error *error);
/* Fills a model of the same shape, and unless they are NULL the optimiser and the budgets' spreads; those stay
 * as they are when either run has even budgets. */
lh_status checkpoint_load(const checkpoint *c, const model *m, const adam *a, const budget *b,
                          lh_error *error);

#endif
