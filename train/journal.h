/*
 * journal.h: the run's log, one JSON object a line.
 *
 *   {"kind": "stage",  "step", "stage", "activations", "plans", "weights"}     bytes
 *   {"kind": "step",   "step", "stage", "loss", "norm", "rate", "tokens", "seconds",
 *                      "attention": [a layer's seconds], "outside": [likewise], "rest"}
 *   {"kind": "probe",  "step", "layer", "seconds"}                             dense attention, measured
 *   {"kind": "budget", "step", "tile_topk": [[a group's] of a layer], "spread": [likewise], "plans", "seconds"}
 *
 * A budget line, with --budget entropy alone, holds for the steps that follow: one at the beginning of the
 * Lighthouse stage, or where it is gone on with, and one each time that budgets change. Layers that attend
 * densely have []. plans: bytes; seconds: of measuring and planning, part of that step's.
 *
 * The audit and the pictures are made from it alone. After a resume it is as if the run had never stopped:
 * lines past the checkpoint's step, and half a line at the end, are dropped.
 */
#ifndef TRAIN_JOURNAL_H
#define TRAIN_JOURNAL_H

#include <jansson.h>
#include <stdio.h>

#include "lighthouse.h"

typedef struct journal {
    FILE *file;
    char path[4096];
} journal;

/* Keeps lines up to `step` steps done, and appends from there; step 0 starts anew. */
lh_status journal_open(const char *path, int64_t step, journal *j, lh_error *error);
void journal_close(journal *j);
/* Takes over the reference to `line`. */
lh_status journal_write(journal *j, json_t *line, lh_error *error);
/* Every line of a journal as a JSON array; a half line at its end is passed over. */
lh_status journal_read(const char *path, json_t **lines, lh_error *error);

#endif
