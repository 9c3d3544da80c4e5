/* train_compare.h: `lighthouse train --compare`: one seed in FOLDER, several in a folder each. */
#ifndef LH_CLI_TRAIN_COMPARE_H
#define LH_CLI_TRAIN_COMPARE_H

#include "train/compare.h"

/* What FOLDER holds. */
typedef struct compare_place {
    bool run;           /* a run: a checkpoint */
    bool one, several;  /* a comparison of one seed, of several */
    int64_t first_seed; /* lowest of several */
} compare_place;

void compare_find(const char *folder, compare_place *p);
/* LH_INVALID where a comparison of so many seeds (0: a single run) cannot be begun, or with resume gone on with, there. */
lh_status compare_place_check(const compare_place *p, const char *folder, int64_t seeds, bool resume,
                              lh_error *error);
/* The two-stage run of the first seed: what a comparison that goes on takes its settings from. */
lh_status compare_first_run(const compare_place *p, const char *folder, char path[PATH_SIZE],
                            lh_error *error);

typedef struct compare_request {
    const char *folder;
    int64_t seeds;
    bool resume, quiet, watch;
} compare_request;

/* Trains and reports; *stopped: a signal ended it before its end. */
lh_status compare_seeds(const compare_request *r, const settings *s, bool *stopped, lh_error *error);

#endif
