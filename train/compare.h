/*
 * compare.h: what the recipe is worth: a two-stage run beside dense training from scratch, on the same data.
 *
 * While the learning rate is constant after its warm-up, dense training for as long as the two-stage run took
 * is the beginning, bit for bit, of dense training for as many tokens: one dense run gives both, with a
 * checkpoint kept where its clock passes the two-stage run's. With another schedule it is a run of its own.
 */
#ifndef TRAIN_COMPARE_H
#define TRAIN_COMPARE_H

#include "train/audit.h"
#include "train/trainer.h"

enum compare_run {
    TWO_STAGE,
    DENSE_TOKENS,
    DENSE_TIME,
    COMPARE_RUNS,
    MAX_SEEDS = 64
};
#define TWO_STAGE_FOLDER "two-stage"
#define DENSE_FOLDER "dense"
#define TIME_FOLDER "dense-equal-time"
#define EQUAL_TIME_NAME "equal-time.safetensors"

typedef struct compare_row {
    const char *title;
    int64_t steps, tokens;
    double seconds;    /* of training alone */
    double train_loss; /* smoothed */
    evaluation evaluation;
    char verdict[512];
} compare_row;

typedef struct comparison {
    int64_t seed;
    bool stopped; /* by compare_options.stop: nothing else holds */
    compare_row row[COMPARE_RUNS];
    bool equal_time_reached; /* false: dense was done sooner, and the third row is the second again */
    double step_speedup;     /* a dense step's seconds over a Lighthouse step's */
    double end_to_end;       /* dense's seconds over the two-stage run's, equal tokens */
} comparison;

typedef struct compare_options {
    bool resume;
    const char *around; /* the folder of all seeds: none of it is text */
    watch_fn *watch;    /* told of every step */
    void *user;
    const volatile sig_atomic_t *stop; /* trainer.stop */
} compare_options;

/* Runs (or with resume goes on with) FOLDER/two-stage and FOLDER/dense, and evaluates all three. */
lh_status compare_runs(const settings *s, const char *folder, const compare_options *o, comparison *c,
                       lh_error *error);

/* Of one seed, and of n (2 to MAX_SEEDS) with mean and standard deviation. */
json_t *comparison_json(const comparison *c);
void comparison_print(const comparison *c, FILE *to);
json_t *comparisons_json(const comparison *c, int n);
void comparisons_print(const comparison *c, int n, FILE *to);

/* Weights of a checkpoint, if its stage lets it be evaluated, and the settings it was made with. */
lh_status evaluate_checkpoint(const char *path, const char *wish, bool finished, checkpoint *c, model *m,
                              lh_error *error);

#endif
