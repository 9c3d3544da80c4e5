/*
 * recipe.h: lighthouse -> dense -> finished, and the monitor that watches the loss on the way.
 *
 * Weights, optimiser state and data stream go through the switch unchanged. All state here is in the
 * checkpoint.
 */
#ifndef TRAIN_RECIPE_H
#define TRAIN_RECIPE_H

#include "train/settings.h"

typedef enum phase {
    PHASE_LIGHTHOUSE,
    PHASE_DENSE,
    PHASE_FINISHED,
    PHASE_COUNT
} phase;

const char *phase_name(phase s);
lh_status phase_parse(const char *text, phase *s, lh_error *error);

enum {
    WINDOW = 25
}; /* steps that the monitor's smoothed loss averages over */

/* A fixed record of doubles, so that the checkpoint can hold it as one tensor. */
typedef struct monitor {
    double smooth;          /* mean loss of the last WINDOW steps, or of as many as there were */
    double recent[WINDOW];  /* ring of losses, by step mod WINDOW */
    double seen;            /* losses in the ring */
    double lowest;          /* lowest smoothed loss of this stage, once the ring was full */
    double before_switch;   /* smoothed loss when Lighthouse went off; 0: there was none */
    double jump;            /* highest loss of the WINDOW steps after the switch */
    double recovered_after; /* dense steps until smooth <= before_switch; 0: not yet */
    double halfway;         /* smoothed loss in the middle of the dense stage, for monitor_flat */
} monitor;
enum {
    MONITOR_DOUBLES = sizeof(monitor) / sizeof(double)
};

typedef struct recipe {
    phase phase;
    int64_t step; /* done so far, over both stages */
    monitor monitor;
} recipe;

void recipe_start(const settings *s, recipe *r);
/* LH_FORMAT unless a run can have got there. */
lh_status recipe_check(const recipe *r, lh_error *error);
/* A checkpoint's recipe under settings that may ask for more steps than those `before`, which it was made with. LH_INVALID
 * when they ask for fewer than are done, or would turn Lighthouse on again. */
lh_status recipe_resume(const settings *s, const settings *before, recipe *r, lh_error *error);
/*
 * Learning rate of the next step: settings.rate, warmed up, and where the schedule is not constant falling to final_rate of
 * it: from the warm-up's end along a cosine or a line, or (wsd) by a line over the last `cooldown` of the steps. The steps
 * are the whole run's, with the switch wherever it is in them, or, anew, each stage's own.
 */
bool schedule_is_constant(const settings *s);
double recipe_rate(const settings *s, const recipe *r);
/* Books a step's loss and moves on, through the switch when it is due. LH_MISMATCH when the run diverged:
 * the loss is not finite, or its smoothed value rose by settings.divergence over its lowest. */
lh_status recipe_step(const settings *s, recipe *r, double loss, lh_error *error);

/* LH_INVALID unless dense attention is all this stage uses, saying what `wish` must wait for. */
lh_status recipe_wants_dense(const recipe *r, const char *wish, lh_error *error);
/* LH_INVALID unless the run is finished. */
lh_status recipe_wants_finished(const recipe *r, const char *wish, lh_error *error);

/* What the monitor saw at the switch, in a sentence or two with advice. */
void recipe_verdict(const settings *s, const recipe *r, char *text, size_t size);

#endif
