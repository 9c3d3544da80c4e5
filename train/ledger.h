/* ledger.h: sums over a run's journal. */
#ifndef TRAIN_LEDGER_H
#define TRAIN_LEDGER_H

#include "train/journal.h"

/* One stage's sums over its steps. */
typedef struct ledger_sums {
    int64_t steps, tokens;
    double seconds, rest;
    double attention[MAX_LAYERS], outside[MAX_LAYERS];
    double to_even[MAX_LAYERS]; /* each step's attention FLOPs over those of even budgets */
    int64_t activations, plans, weights;
} ledger_sums;

typedef struct ledger_probes {
    int64_t n;
    double seconds;
} ledger_probes;

typedef struct run_ledger {
    ledger_sums phase[PHASE_COUNT];
    ledger_probes layer[MAX_LAYERS];
    double to_even[MAX_LAYERS];               /* of the budgets that hold now */
    json_t *budget_tile_topk, *budget_spread; /* of the last budget line; NULL: none */
    double budget_seconds;
    json_t *held_out, *changes; /* arrays of such lines */
} run_ledger;

/* LH_FORMAT where a line does not fit a run with these settings. Free it whatever was returned. */
lh_status ledger_read(const char *folder, const settings *s, run_ledger *ledger, lh_error *error);
void ledger_free(run_ledger *ledger);

/* Has dense attention been timed? */
bool ledger_probed(const run_ledger *ledger);
/* Mean seconds of a layer's probes, or of all where that layer has none; 0 without any. */
double ledger_dense_seconds(const run_ledger *ledger, int64_t layer);
/* Rows attended over with a tile budget, the same of all heads. */
int64_t ledger_selected(const settings *s, int64_t tile_topk);

#endif
