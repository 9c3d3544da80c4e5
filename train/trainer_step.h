/* trainer_step.h: a run's steps; trainer.h has what callers outside use. */
#ifndef TRAIN_TRAINER_STEP_H
#define TRAIN_TRAINER_STEP_H

#include "train/trainer.h"

/* A pass and a line in the log for the stage that begins, or is gone on with. */
lh_status trainer_enter(trainer *t, lh_error *error);
/* Draws, computes, updates and logs a step, with what is measured after it. */
lh_status trainer_step(trainer *t, step_report *report, lh_error *error);

#endif
