/*
 * trainer.h: a run from its settings to its last checkpoint.
 *
 * A run lives in a folder: checkpoint.safetensors and the one before it, log.jsonl, and what audit.h adds. Weights, moments and
 * data depend on settings and step alone, so a run that was killed and resumed ends in the same file.
 */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include <signal.h>

#include "train/checkpoint.h"
#include "train/journal.h"
#include "train/place.h"
#include "train/ranks.h"
#include "train/text.h"

typedef struct trainer {
    settings settings;
    char folder[PATH_SIZE];
    bool dense[MAX_LAYERS]; /* settings.dense_layers */
    corpus text;
    model model; /* where its backend has it (place.h); over ranks or shards, on the processor */
    char why
        [PLACE_TEXT]; /* what keeps the model on the processor although its backend could have it; "": nothing */
    adam adam;
    recipe recipe;
    budget budget; /* its arrays NULL where budgets are even */
    pass pass;     /* of the stage the run is in */
    train_ranks ranks;
    journal journal;
    int lock;                          /* descriptor of the folder's lock, -1: none */
    const volatile sig_atomic_t *stop; /* not 0: the run is to end after the step it is in; NULL: never */
    bool stopping;                     /* some rank was asked to end */
    bool stopped;                      /* trainer_run ended before the recipe was finished */
    double seconds;                    /* spent in steps so far, those before a resume too */
    uint8_t *sequence;                 /* [N + 1] */
    uint8_t *inputs, *targets;         /* [micro_batch N] */
} trainer;

/* What a step reports. */
typedef struct step_report {
    phase phase;
    int64_t step, steps; /* done, and in all */
    double loss, norm, rate, seconds;
    double held_out; /* loss, measured after this step; 0: it was not */
} step_report;

/* Called after every step, before its checkpoint is written; an error ends the run. */
typedef lh_status watch_fn(void *user, const trainer *t, const step_report *report, lh_error *error);

enum trainer_start {
    START_NEW,      /* refuses a folder that holds a checkpoint */
    START_RESUME,   /* from the folder's checkpoint; from the beginning where there is none yet */
    START_BEFORE,   /* from the checkpoint before it, which takes its place */
    START_FINETUNE, /* new, with the weights of another run */
};

typedef struct run_options {
    enum trainer_start start;
    const char *from;   /* checkpoint whose weights START_FINETUNE takes */
    const char *around; /* folder of a comparison that the run is part of: none of it is text; NULL: none */
    const volatile sig_atomic_t *stop; /* trainer.stop */
    const lh_exchange *exchange; /* the run is over ranks, which all make the same calls; NULL: one process */
    enum ranks_over over;
    const lh_arithmetic *on; /* computes the model, and is closed with it; NULL: as the backend has it */
} run_options;

/*
 * The folder is made if need be, and locked: LH_INVALID while another process has it. A run goes on with the text and the
 * settings that are bound to it (settings.h), or LH_INVALID names what differs; other changes are journalled.
 */
lh_status trainer_open(const settings *s, const char *folder, const run_options *options, trainer *t,
                       lh_error *error);
void trainer_close(trainer *t);
/* Trains until the recipe is finished, or `stop` says so: then with a checkpoint of where it is. On divergence
 * LH_MISMATCH: the last good checkpoint stays. */
lh_status trainer_run(trainer *t, watch_fn *watch, void *user, lh_error *error);
/* Writes the run as it is now to `name` in its folder. */
lh_status trainer_save(const trainer *t, const char *name, lh_error *error);

#endif
