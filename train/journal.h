/*
 * journal.h: the run's log, one JSON object a line.
 *
 *   {"kind": "stage",  "step", "stage", "activations", "plans", "weights"}     bytes
 *   {"kind": "step",   "step", "stage", "loss", "norm", "rate", "tokens", "seconds",
 *                      "attention": [a layer's seconds], "outside": [likewise], "rest"}
 *   {"kind": "probe",  "step", "layer", "seconds"}                             dense attention, measured
 *   {"kind": "budget", "step", "tile_topk": [[a group's] of a layer], "spread": [likewise], "plans", "seconds"}
 *   {"kind": "held-out", "step", "loss", "seconds"}                            under dense attention, --eval-every
 *   {"kind": "change", "step", "setting", "from", "to"}                        of a resume
 *
 * A budget line, with --budget entropy alone, holds for the steps that follow: one at the beginning of the
 * Lighthouse stage, or where it is gone on with, and one each time that budgets change. Layers that attend
 * densely have []. plans: bytes; seconds: of measuring and planning, part of that step's.
 *
 * The audit and the pictures are made from it alone. After a resume it is as if the run had never stopped:
 * lines past the checkpoint's step, and half a line at the end, are dropped. Nothing in it is believed: a line
 * that is none of these, or a number out of bounds, is refused by its number, and the file stays as it was.
 */
#ifndef TRAIN_JOURNAL_H
#define TRAIN_JOURNAL_H

#include <jansson.h>
#include <stdio.h>

#include "train/folder.h"
#include "train/recipe.h"

typedef struct journal {
    FILE *file;
    char path[PATH_SIZE];
} journal;

/* Keeps lines up to `step` steps done, and appends from there; step 0 starts anew. */
lh_status journal_open(const char *folder, int64_t step, journal *j, lh_error *error);
void journal_close(journal *j);
/* Takes over the reference to `line`. A journal that was never opened keeps nothing: ranks but the first. */
lh_status journal_write(journal *j, json_t *line, lh_error *error);

typedef enum entry_kind {
    ENTRY_PHASE,
    ENTRY_STEP,
    ENTRY_PROBE,
    ENTRY_BUDGET,
    ENTRY_HELD_OUT,
    ENTRY_CHANGE,
    ENTRY_KINDS
} entry_kind;

/* A line that was read, checked; what its kind does not have is 0. */
typedef struct journal_entry {
    entry_kind kind;
    int64_t step;
    phase phase;                         /* of phase and step */
    int64_t activations, plans, weights; /* bytes */
    double loss, norm, rate, seconds, rest;
    int64_t tokens, layer;
    int64_t layers;                                    /* of attention and outside */
    double attention[MAX_LAYERS], outside[MAX_LAYERS]; /* [layers] seconds of a step */
    json_t *tile_topk, *spread;                        /* arrays of arrays of numbers, of this call alone */
    const char *setting, *from, *to;                   /* likewise */
    const char *text;                                  /* the line itself, [size] with its newline */
    size_t size;
} journal_entry;

/* Told of one line after the other; an error ends the reading. */
typedef lh_status entry_fn(void *user, const journal_entry *entry, lh_error *error);
/* Every line of a folder's journal. LH_IO when it cannot be read, LH_FORMAT naming a bad line. */
lh_status journal_read(const char *folder, entry_fn *each, void *user, lh_error *error);

#endif
