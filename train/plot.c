/* Which curves of which runs go into the picture. */
#include "train/plot.h"

#include "chart/chart.h"
#include "core/base.h"
#include "train/plot_data.h"

enum {
    PANELS = 3
};

/* A panel of one run: its points as columns. */
struct columns {
    double x[PLOT_POINTS], y[PLOT_POINTS], held_out_x[PLOT_POINTS], held_out_y[PLOT_POINTS];
};

struct panel_kind {
    const char *title;
    bool over_time, speed;
};

static const struct panel_kind kinds[PANELS] = {
    {.title = "training loss, nats a byte, mean over about 25 steps"},
    {.title = "the same over time", .over_time = true},
    {.title = "tokens a second, mean over about 25 steps", .speed = true},
};

/* What an axis counts in; `from`: the least end of an axis that does, in millions of tokens or in minutes. */
struct unit {
    double from, scale;
    const char *title;
};
enum {
    UNITS = 3
};
static const struct unit units[2][UNITS] = {
    {{1, 1, "million tokens"}, {2e-3, 1e3, "thousand tokens"}, {0, 1e6, "tokens"}},
    {{120, 1 / 60.0, "hours of training"}, {2, 1, "minutes of training"}, {0, 60, "seconds of training"}},
};

static double x_of(const struct panel_kind *kind, const plot_point *p)
{
    return kind->over_time ? p->minutes : p->tokens;
}

/* One for all runs of a panel, by the longest. */
static const struct unit *unit_of(const struct panel_kind *kind, const plot_curve *curves, int count)
{
    double end = 0;
    for (int i = 0; i < count; i++) {
        const plot_curve *c = &curves[i];
        if (c->points > 0 && x_of(kind, &c->point[c->points - 1]) > end)
            end = x_of(kind, &c->point[c->points - 1]);
    }
    const struct unit *unit = units[kind->over_time];
    while (end < unit->from)
        unit++;
    return unit;
}

/* A run in a panel: its curve, and its held-out losses as circles. Returns the number of series. */
static int fill(const struct panel_kind *kind, const struct unit *unit, const plot_run *run,
                const plot_curve *c, struct columns *to, chart_series *series)
{
    for (int i = 0; i < c->points; i++) {
        to->x[i] = unit->scale * x_of(kind, &c->point[i]);
        to->y[i] = kind->speed ? c->point[i].speed : c->point[i].loss;
    }
    series[0] = (chart_series){.title = run->title,
                               .colour = run->colour,
                               .line = true,
                               .points = c->points,
                               .x = to->x,
                               .y = to->y};
    if (kind->speed || c->held_outs == 0)
        return 1;
    for (int i = 0; i < c->held_outs; i++) {
        to->held_out_x[i] = unit->scale * x_of(kind, &c->held_out[i]);
        to->held_out_y[i] = c->held_out[i].loss;
    }
    series[1] = (chart_series){.title = "held-out loss, dense attention",
                               .colour = run->colour,
                               .marker = CHART_RING,
                               .points = c->held_outs,
                               .x = to->held_out_x,
                               .y = to->held_out_y};
    return 2;
}

/* Everything that a panel points to; count of each is the runs'. */
struct picture {
    plot_curve *curve;
    struct columns *columns; /* [PANELS][runs] */
    chart_series *series;    /* [PANELS][2 runs] */
    chart_mark *mark;        /* [PANELS][runs] */
};

static void describe(const struct picture *p, const plot_run *runs, int count, chart_panel *panels)
{
    for (int k = 0; k < PANELS; k++) {
        chart_series *series = &p->series[2 * k * count];
        chart_mark *mark = &p->mark[k * count];
        chart_panel *panel = &panels[k];
        const struct unit *unit = unit_of(&kinds[k], p->curve, count);
        *panel = (chart_panel){.title = kinds[k].title,
                               .x_title = unit->title,
                               .from_zero = kinds[k].speed,
                               .series = series,
                               .mark = mark};
        for (int run = 0; run < count; run++) {
            const plot_curve *c = &p->curve[run];
            panel->count +=
                fill(&kinds[k], unit, &runs[run], c, &p->columns[k * count + run], &series[panel->count]);
            if (c->switched) {
                const char *title = panel->marks == 0 ? "switch to dense" : NULL; /* said once a panel */
                mark[panel->marks++] = (chart_mark){.x = unit->scale * x_of(&kinds[k], &c->at_switch),
                                                    .colour = runs[run].colour,
                                                    .title = title};
            }
        }
    }
}

lh_status plot_write(const plot_run *runs, int count, const char *path, lh_error *error)
{
    struct picture p = {0};
    const size_t all = (size_t)count;
    lh_status status = lh_alloc((void **)&p.curve, all * sizeof *p.curve, "curves", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&p.columns, PANELS * all * sizeof *p.columns, "curves", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&p.series, 2 * PANELS * all * sizeof *p.series, "curves", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&p.mark, PANELS * all * sizeof *p.mark, "curves", error);
    for (int i = 0; i < count && status == LH_OK; i++)
        status = plot_read(runs[i].folder, &p.curve[i], error);
    if (status == LH_OK) {
        chart_panel panels[PANELS];
        describe(&p, runs, count, panels);
        status = chart_write(NULL, panels, PANELS, path, error);
    }
    lh_free(p.mark);
    lh_free(p.series);
    lh_free(p.columns);
    lh_free(p.curve);
    return status;
}
