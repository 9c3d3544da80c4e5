/*
 * cost.h: what a configuration will cost, before it is run.
 *
 * A step is predicted as
 *   layers (attention FLOPs / attention rate + bytes around it / byte rate) + products' FLOPs / their rate,
 * with the rates of a device: measured here in a few seconds, or from the table. Memory is what a training
 * pass lays out (pass_memory) with weights, gradients and moments, of the hungrier stage.
 */
#ifndef TRAIN_COST_H
#define TRAIN_COST_H

#include "train/settings.h"

typedef struct device_rates {
    const char *name;
    double attention; /* FLOP/s of attention, forward and backward together */
    double products;  /* FLOP/s of a layer outside attention, all told */
    double bytes;     /* bytes/s of pool, score, select, gather, scatter and their backwards */
    const char *source;
} device_rates;

/* NULL past the last. */
const device_rates *device_known(int i);
/* Which rate no machine has, or NULL. */
const char *rates_nonsense(const device_rates *r);
/* Measures this machine with the settings' backend, type, heads and width; a few seconds. LH_DEVICE when what comes of it
 * makes no sense, three times. */
lh_status device_measure(const settings *s, device_rates *rates, lh_error *error);

typedef struct cost_row {
    int64_t levels, pool, topk; /* levels 1: dense */
    int64_t selected;           /* S */
    double flops;               /* of a Lighthouse step, attention and the rest */
    double memory;              /* bytes */
} cost_row;

enum {
    COST_ROWS = 40
};
/* Row 0 is dense; then the valid (L, p, k) around the settings' context, coarse to fine budgets. */
int cost_rows(const settings *s, cost_row rows[COST_ROWS]);
/* Seconds of a step in the Lighthouse stage (levels 1: of a dense step). */
double cost_seconds(const settings *s, const cost_row *row, const device_rates *rates);
/* Of the whole recipe: lighthouse_steps of `row` and dense_steps of dense. */
double cost_total_seconds(const settings *s, const cost_row *row, const device_rates *rates);
/* Bytes that the stages around one layer's attention move at least, `rows` selected: q k read to score, q k v to
 * gather, out written, dout read, dq dk dv written; eight sub-sequences. */
double cost_bytes_around(const settings *s, int64_t rows);
/* Bytes of the hungrier stage that a run has, weights, gradients and moments with it. */
double cost_memory(const settings *s);
/* Largest micro-batch of this context whose dense stage fits into so many bytes; 0: none. */
int64_t cost_largest_batch(const settings *s, int64_t context, double memory);

/* Which row to start from: three levels, p = 2, k near N/64; raises the stride, then drops to two levels,
 * while time runs over `seconds` (0: no limit). Says why in `advice`, and what memory to spare would buy. */
int cost_choose(const settings *s, const cost_row *rows, int count, const device_rates *rates, double memory,
                double seconds, char *advice, size_t size);

#endif
