/*
 * compare.h: what the recipe is worth: a two-stage run beside dense training from scratch, on the same data.
 *
 * The learning rate is constant after its warm-up, so dense training for as long as the two-stage run took
 * is the beginning, bit for bit, of dense training for as many tokens: one dense run gives both, with a
 * checkpoint kept where its clock passes the two-stage run's.
 */
#ifndef TRAIN_COMPARE_H
#define TRAIN_COMPARE_H

#include "train/audit.h"
#include "train/trainer.h"

enum compare_run {
    TWO_STAGE,
    DENSE_TOKENS,
    DENSE_TIME,
    COMPARE_RUNS
};

typedef struct compare_row {
    const char *title;
    int64_t steps, tokens;
    double seconds;    /* of training alone */
    double train_loss; /* smoothed */
    evaluation evaluation;
    char verdict[512];
} compare_row;

typedef struct comparison {
    compare_row row[COMPARE_RUNS];
    bool equal_time_reached; /* false: dense was done sooner, and the third row is the second again */
    double step_speedup;     /* a dense step's seconds over a Lighthouse step's */
    double end_to_end;       /* dense's seconds over the two-stage run's, equal tokens */
} comparison;

/* Runs (or with resume goes on with) FOLDER/two-stage and FOLDER/dense, and evaluates all three. `watch` is
 * told of every step. */
lh_status compare_runs(const settings *s, const char *folder, bool resume, watch_fn *watch, void *user,
                       comparison *c, lh_error *error);
json_t *comparison_json(const comparison *c);
void comparison_print(const comparison *c, FILE *to);

/* Weights of a checkpoint, if its stage lets it be evaluated, and the settings it was made with. */
lh_status evaluate_checkpoint(const char *path, const char *wish, checkpoint *c, model *m, lh_error *error);

#endif
