/*
 * evaluate.h: what a model can do under dense attention: held-out loss, and retrieval of a hidden digit.
 */
#ifndef TRAIN_EVALUATE_H
#define TRAIN_EVALUATE_H

#include "train/ranks.h"
#include "train/recipe.h"
#include "train/text.h"

enum {
    LENGTHS = 3,
    DEPTHS = 5
};

typedef struct evaluation {
    double held_out; /* nats per byte */
    int64_t windows;
    int64_t trials;                 /* of each cell of right */
    int64_t length[LENGTHS];        /* context lengths: N/4, N/2, N */
    double depth[DEPTHS];           /* 0 ... 1 */
    int64_t right[LENGTHS][DEPTHS]; /* trials whose argmax over the ten digits was right; chance is a tenth */
} evaluation;

/* A pass under dense attention over one sequence of `tokens` bytes, that keeps nothing for a backward. */
lh_status dense_pass(const settings *s, const model *m, int64_t tokens, pass *p, lh_error *error);

/* The mean of the held-out windows' losses, added up in their order. r: every rank takes every W-th window, and all get the
 * loss of one process; NULL: this process alone. */
lh_status evaluate_held_out(const settings *s, const model *m, const corpus *t, const train_ranks *r,
                            double *loss, lh_error *error);
lh_status evaluate_model(const settings *s, const model *m, const corpus *t, evaluation *e, lh_error *error);

/* Told of each byte as it comes, which may be long after the one before. */
typedef void generate_watch(void *user, uint8_t byte);
/* Appends `count` bytes to a prompt of `length` bytes, the likeliest first where temperature is 0;
 * bytes: room for length + count. The model sees at most the last `context` bytes. watch: or NULL. */
lh_status generate(const settings *s, const model *m, double temperature, int64_t length, int64_t count,
                   uint8_t *bytes, generate_watch *watch, void *user, lh_error *error);

#endif
