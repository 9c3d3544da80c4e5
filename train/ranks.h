/*
 * ranks.h: a run over ranks.
 *
 * Over sequences: micro-batch i of a step is rank i mod W's. Over tokens: of every sequence rank r has the r-th of W runs of
 * tokens, and attention is a layer over ranks (lighthouse_dist.h). Weights and moments are whole on every rank and the same;
 * the first one alone writes the folder, and measures what is measured beside the steps but the held-out loss,
 * of whose windows each rank takes a share.
 *
 * Bits. A sum of gradients has an order. With settings.shards S > 0 the gradients of a micro-batch are summed apart over S runs
 * of its sequences' rows, and then over micro-batches and runs in order, by one process as by W ranks: the same weights to the
 * bit over sequences, and over tokens where attention is by heads and W divides S. With S = 0 ranks differ from one process by
 * rounding. Losses are summed row by row in the order of one process.
 */
#ifndef TRAIN_RANKS_H
#define TRAIN_RANKS_H

#include "lighthouse_dist.h"
#include "train/settings.h"

enum ranks_over {
    OVER_AUTO, /* sequences where the ranks divide the micro-batches of a step, else tokens */
    OVER_SEQUENCES,
    OVER_TOKENS
};

typedef struct train_ranks {
    lh_exchange exchange; /* ranks 1: of one process, never called */
    bool tokens;          /* over tokens */
    int64_t shards, size; /* runs summed apart here; elements of a model's gradients */
    real *apart;          /* [shards, size] gradients of the micro-batch; NULL: neither ranks nor shards */
    real *received;       /* [ranks, shards, a rank's slice of size] */
    double *losses;       /* over tokens: [ranks, rows] */
} train_ranks;

/* exchange: NULL for one process. LH_INVALID where the ranks do not divide what they are over. */
lh_status ranks_create(const settings *s, const model *m, const lh_exchange *exchange, enum ranks_over over,
                       train_ranks *r, lh_error *error);
void ranks_destroy(train_ranks *r);

static inline bool ranks_first(const train_ranks *r)
{
    return r->exchange.rank == 0;
}

/* A pass over whole sequences -> this rank's. */
void ranks_pass(const train_ranks *r, pass_options *options);
/* [batch, context] -> this rank's [batch, context / ranks], in place. */
void ranks_narrow(const train_ranks *r, const settings *s, uint8_t *bytes);
/* The micro-batch that is this rank's in a round, and rounds of a step. */
int64_t ranks_part(const train_ranks *r, int64_t round);
int64_t ranks_rounds(const train_ranks *r, const settings *s);
/* After each round: the mean losses of its micro-batches, each over `parts`, are added to *loss in their order, and their
 * gradients to m->gradients, which is whole after ranks_spread. p: over whose tokens; mine: its loss. */
lh_status ranks_sum(const train_ranks *r, const pass *p, double mine, int64_t parts, double *loss,
                    lh_error *error);
lh_status ranks_spread(const train_ranks *r, const model *m, lh_error *error);
/* The status that all go on with; *stop becomes true where any rank's is. */
lh_status ranks_meet(const train_ranks *r, lh_status status, bool *stop, lh_error *error);
/* Every rank's `bytes` of `mine` -> all: [ranks][bytes] */
lh_status ranks_tell(const train_ranks *r, const void *mine, size_t bytes, void *all, lh_error *error);

#endif
