/*
 * chart.h: curves as an SVG picture, for `bench --svg` and the curves of training, drawn by gnuplot.
 *
 * Panels stand side by side, the key in the first. The colours follow the reader's light or dark page, and what they
 * tell apart is told by dashes and markers too. Titles are the program's own words and stand in gnuplot's script as
 * they are: nothing that a user names belongs into one.
 */
#ifndef CHART_CHART_H
#define CHART_CHART_H

#include "lighthouse.h"

enum {
    CHART_COLOURS = 4
};

typedef enum chart_marker {
    CHART_NONE,
    CHART_DOT,
    CHART_RING
} chart_marker;

typedef struct chart_series {
    const char *title; /* in the key, once for all series that have it; NULL: not in the key */
    int colour;        /* below CHART_COLOURS */
    bool line, dashed;
    chart_marker marker;
    int points;
    const double *x, *y; /* [points], finite; positive where the panel is logarithmic */
} chart_series;

/* A vertical line with words beside it. */
typedef struct chart_mark {
    double x;
    int colour;
    const char *title; /* NULL: the line alone */
} chart_mark;

typedef struct chart_panel {
    const char *title, *x_title;
    bool logarithmic; /* both axes; x has a tick at each point of it, in units of 1,024 where they divide */
    bool from_zero;   /* y of a linear panel begins at 0 */
    const chart_series *series;
    int count;
    const chart_mark *mark;
    int marks;
} chart_panel;

/* Writes the picture to path, whole or not at all; title (NULL: none) stands above the panels. LH_UNSUPPORTED names
 * gnuplot's package where it is absent, LH_IO what could not be drawn or written. */
lh_status chart_write(const char *title, const chart_panel *panels, int count, const char *path,
                      lh_error *error);

/* Whether gnuplot is here, for whoever has long work before the picture. */
bool chart_can(void);

#endif
