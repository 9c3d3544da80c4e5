/* plot_data.h: what of a journal a picture shows. */
#ifndef TRAIN_PLOT_DATA_H
#define TRAIN_PLOT_DATA_H

#include "train/plot.h"

enum {
    PLOT_POINTS = 400 /* of a curve at most: the picture stays small */
};

typedef struct plot_point {
    double tokens, minutes, loss, speed; /* millions; tokens a second */
} plot_point;

typedef struct plot_curve {
    plot_point point[PLOT_POINTS], held_out[PLOT_POINTS]; /* held_out: with that loss */
    int points, held_outs;
    bool switched;
    plot_point at_switch; /* tokens and minutes of the last Lighthouse step */
} plot_curve;

lh_status plot_read(const char *folder, plot_curve *curve, lh_error *error);

#endif
