/*
 * trainer.h: a run from its settings to its last checkpoint.
 *
 * A run lives in a folder: checkpoint.safetensors, log.jsonl, and what audit.h adds. Weights, moments and
 * data depend on settings and step alone, so a run that was killed and resumed ends in the same file.
 */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "train/checkpoint.h"
#include "train/journal.h"
#include "train/text.h"

typedef struct trainer {
    settings settings;
    char folder[PATH_SIZE];
    bool dense[MAX_LAYERS]; /* settings.dense_layers */
    corpus text;
    model model;
    adam adam;
    recipe recipe;
    budget budget; /* its arrays NULL where budgets are even */
    pass pass;     /* of the stage the run is in */
    journal journal;
    double seconds;            /* spent in steps so far, those before a resume too */
    uint8_t *sequence;         /* [N + 1] */
    uint8_t *inputs, *targets; /* [micro_batch N] */
} trainer;

/* What a step reports. */
typedef struct step_report {
    phase phase;
    int64_t step, steps; /* done, and in all */
    double loss, norm, rate, seconds;
} step_report;

/* Called after every step, before its checkpoint is written; an error ends the run. */
typedef lh_status watch_fn(void *user, const trainer *t, const step_report *report, lh_error *error);

enum trainer_start {
    START_NEW,      /* refuses a folder that holds a checkpoint */
    START_RESUME,   /* from the folder's checkpoint; from the beginning where there is none yet */
    START_FINETUNE, /* new, with the weights of another run */
};

/* from: checkpoint whose weights START_FINETUNE takes. The folder is made if need be. */
lh_status trainer_open(const settings *s, const char *folder, enum trainer_start start, const char *from,
                       trainer *t, lh_error *error);
void trainer_close(trainer *t);
/* Trains until the recipe is finished. On divergence LH_MISMATCH: the last good checkpoint stays. */
lh_status trainer_run(trainer *t, watch_fn *watch, void *user, lh_error *error);
/* Writes the run as it is now to `name` in its folder. */
lh_status trainer_save(const trainer *t, const char *name, lh_error *error);

#endif
