/*
 * plot.h: loss and speed of one or more runs as an SVG picture, from their journals.
 *
 * Three panels: training loss over tokens, over time, and tokens a second; loss is an average in which a step counts
 * a 25th, held-out losses (--eval-every) are circles, the switch to dense is a dashed line.
 * chart.h draws it: LH_UNSUPPORTED without gnuplot.
 */
#ifndef TRAIN_PLOT_H
#define TRAIN_PLOT_H

#include "lighthouse.h"

typedef struct plot_run {
    const char *folder; /* of the journal */
    const char *title;  /* in the key, once for all runs that have it; plain words */
    int colour;         /* 0 to 3 */
} plot_run;

lh_status plot_write(const plot_run *runs, int count, const char *path, lh_error *error);

#endif
