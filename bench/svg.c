/* Time over tokens, both logarithmic: a line for each backend's attention, a panel for each pass. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "chart/chart.h"
#include "core/base.h"

/* One line of the picture: a backend's attention, of one pass. */
struct series {
    const char *backend;
    bool dense;
    char title[64];
};

static bool same_series(const bench_point *point, const struct series *series)
{
    return point->request.dense == series->dense && strcmp(point->request.backend, series->backend) == 0;
}

static int find_series(const bench_result *result, struct series *series)
{
    int count = 0;
    for (int i = 0; i < result->count; i++) {
        const bench_point *point = &result->points[i];
        int at = 0;
        while (at < count && !same_series(point, &series[at]))
            at++;
        if (at == count && point->timed_heads > 0) {
            struct series *new = &series[count++];
            *new = (struct series){.backend = point->request.backend, .dense = point->request.dense};
            snprintf(new->title, sizeof new->title, "%.40s %s", new->backend,
                     new->dense ? "dense" : "lighthouse");
        }
    }
    return count;
}

/* The points of one line, in the order in which they were measured; returns how many. */
static int fill(const bench_result *result, const struct series *of, bench_pass pass, double *tokens,
                double *milliseconds)
{
    int points = 0;
    for (int i = 0; i < result->count; i++) {
        const bench_point *point = &result->points[i];
        if (same_series(point, of) && point->timed_heads > 0) {
            tokens[points] = (double)point->request.config.tokens;
            milliseconds[points++] = 1e3 * point->pass[pass].median;
        }
    }
    return points;
}

/* Lines of one panel; what they point to is in `room`, [2][result->count]. */
static void describe(const bench_result *result, const struct series *series, int count, bench_pass pass,
                     double *room, chart_series *lines)
{
    int colour = -1, used = 0;
    for (int at = 0; at < count; at++) {
        if (at == 0 || strcmp(series[at].backend, series[at - 1].backend) != 0)
            colour++;
        double *x = room + used, *y = room + result->count + used;
        const int points = fill(result, &series[at], pass, x, y);
        lines[at] = (chart_series){.title = series[at].title,
                                   .colour = colour % 4,
                                   .line = true,
                                   .dashed = series[at].dense,
                                   .marker = series[at].dense ? CHART_RING : CHART_DOT,
                                   .points = points,
                                   .x = x,
                                   .y = y};
        used += points;
    }
}

static lh_status draw(const bench_result *result, const struct series *series, int count, double *room,
                      chart_series *lines, const char *path, lh_error *error)
{
    static const char *const titles[BENCH_PASSES] = {"forward, milliseconds (median)",
                                                     "backward, milliseconds (median)"};
    const lh_config *c = &result->points[0].request.config;
    chart_panel panels[BENCH_PASSES];
    char title[200];
    snprintf(title, sizeof title,
             "One attention layer: B %" PRId64 ", H %" PRId64 ", d %" PRId64 ", %s, %d threads", c->batch,
             c->heads, c->dim, lh_dtype_name(result->points[0].request.dtype), result->machine.threads);
    for (int pass = 0; pass < BENCH_PASSES; pass++) {
        chart_series *of = &lines[pass * count];
        describe(result, series, count, (bench_pass)pass, room + 2 * pass * result->count, of);
        panels[pass] = (chart_panel){
            .title = titles[pass], .x_title = "tokens", .logarithmic = true, .series = of, .count = count};
    }
    return chart_write(title, panels, BENCH_PASSES, path, error);
}

lh_status bench_write_svg(const char *path, const bench_result *result, lh_error *error)
{
    const size_t all = (size_t)result->count;
    struct series *series = NULL;
    double *room = NULL;
    chart_series *lines = NULL;
    lh_status status = lh_alloc((void **)&series, (all + 1) * sizeof *series, "series", error);
    const int count = status == LH_OK ? find_series(result, series) : 0;
    if (status == LH_OK && count == 0)
        status = lh_fail(error, LH_INVALID, "%.300s has no points, wanted at least one that was not skipped",
                         path);
    if (status == LH_OK)
        status = lh_alloc((void **)&room, 2 * BENCH_PASSES * all * sizeof *room, "points", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&lines, BENCH_PASSES * (size_t)count * sizeof *lines, "series", error);
    if (status == LH_OK)
        status = draw(result, series, count, room, lines, path, error);
    lh_free(lines);
    lh_free(room);
    lh_free(series);
    return status;
}
