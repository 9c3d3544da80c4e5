/* Time over tokens, both logarithmic, drawn by gnuplot through a pipe. */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "core/replace.h"

lh_status bench_find_gnuplot(lh_error *error)
{
    if (system("gnuplot --version >/dev/null 2>&1") == 0)
        return LH_OK;
    return lh_fail(error, LH_UNSUPPORTED, "gnuplot is absent, wanted it for --svg (Debian: gnuplot-nox)");
}

/* One line of the picture: a backend's attention, of one pass. */
struct series {
    const char *backend;
    bool dense;
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
        if (at == count && point->timed_heads > 0)
            series[count++] = (struct series){point->request.backend, point->request.dense};
    }
    return count;
}

static void write_data(FILE *script, const bench_result *result, const struct series *series, int count)
{
    for (int at = 0; at < count; at++) {
        fprintf(script, "$series%d << END\n", at);
        for (int i = 0; i < result->count; i++) {
            const bench_point *point = &result->points[i];
            if (same_series(point, &series[at]) && point->timed_heads > 0)
                fprintf(script, "%" PRId64 " %.9g %.9g\n", point->request.config.tokens,
                        1e3 * point->pass[BENCH_FORWARD].median, 1e3 * point->pass[BENCH_BACKWARD].median);
        }
        fprintf(script, "END\n");
    }
}

static void write_panel(FILE *script, const struct series *series, int count, bench_pass pass)
{
    static const char *const colours[] = {"#0060ad", "#d95319", "#2e8b57", "#7e2f8e"};
    int colour = -1;
    fprintf(script, "set title '%s'\nset ylabel '%s'\nplot ", pass == BENCH_FORWARD ? "forward" : "backward",
            pass == BENCH_FORWARD ? "milliseconds (median)" : "");
    for (int at = 0; at < count; at++) {
        if (at == 0 || strcmp(series[at].backend, series[at - 1].backend) != 0)
            colour++;
        fprintf(script,
                "%s$series%d using 1:%d with linespoints lw 2 pt %d ps 0.8 dt %d lc rgb '%s' title '%s %s'",
                at ? ", " : "", at, 2 + (int)pass, series[at].dense ? 6 : 7, series[at].dense ? 2 : 1,
                colours[colour % 4], series[at].backend, series[at].dense ? "dense" : "lighthouse");
    }
    fprintf(script, "\n");
}

/* The same axes for both panels, with room for the key. */
static void write_ranges(FILE *script, const bench_result *result)
{
    double tokens[2] = {INFINITY, 0}, milliseconds[2] = {INFINITY, 0};
    for (int i = 0; i < result->count; i++) {
        const bench_point *point = &result->points[i];
        tokens[0] = fmin(tokens[0], (double)point->request.config.tokens);
        tokens[1] = fmax(tokens[1], (double)point->request.config.tokens);
        for (int pass = 0; pass < BENCH_PASSES && point->timed_heads > 0; pass++) {
            milliseconds[0] = fmin(milliseconds[0], 1e3 * point->pass[pass].median);
            milliseconds[1] = fmax(milliseconds[1], 1e3 * point->pass[pass].median);
        }
    }
    fprintf(script, "set xrange [%.9g:%.9g]\nset yrange [%.9g:%.9g]\n", tokens[0] / 1.25, tokens[1] * 1.25,
            milliseconds[0] / 2, milliseconds[1] * 8);
}

static void write_script(FILE *script, const bench_result *result, const struct series *series, int count)
{
    const lh_config *c = &result->points[0].request.config;
    write_data(script, result, series, count);
    fprintf(script,
            "set terminal svg size 1000,460 dynamic font 'sans,13' background rgb 'white'\n"
            "set multiplot layout 1,2 title \"One attention layer: B %" PRId64 ", H %" PRId64 ", d %" PRId64
            ", %s, %d threads\"\n"
            "set logscale xy\nset grid xtics ytics lc rgb '#dddddd' lw 1\nset border 3\nset tics nomirror\n"
            "set key left top reverse Left samplen 2\nset xlabel 'tokens'\nset xtics (",
            c->batch, c->heads, c->dim, lh_dtype_name(result->points[0].request.dtype),
            result->machine.threads);
    int64_t before = 0;
    for (int i = 0; i < result->count; i++) {
        const int64_t tokens = result->points[i].request.config.tokens;
        if (tokens != before)
            fprintf(script, tokens % 1024 == 0 ? "%s'%" PRId64 "Ki' %" PRId64 : "%s'%" PRId64 "' %" PRId64,
                    before ? ", " : "", tokens % 1024 == 0 ? tokens / 1024 : tokens, tokens);
        before = tokens;
    }
    fprintf(script, ")\n");
    write_ranges(script, result);
    for (int pass = 0; pass < BENCH_PASSES; pass++)
        write_panel(script, series, count, (bench_pass)pass);
    fprintf(script, "unset multiplot\n");
}

/* Starts gnuplot with its output in `descriptor`; *script is the pipe it reads. -1 when that fails. */
static pid_t start_gnuplot(int descriptor, FILE **script)
{
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    const pid_t child = fork();
    if (child == 0) {
        close(ends[1]);
        if (dup2(ends[0], STDIN_FILENO) >= 0 && dup2(descriptor, STDOUT_FILENO) >= 0)
            execlp("gnuplot", "gnuplot", (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    *script = child > 0 ? fdopen(ends[1], "w") : NULL;
    if (!*script)
        close(ends[1]);
    return child;
}

static lh_status draw(int descriptor, const char *path, const void *context, lh_error *error)
{
    const bench_result *result = context;
    struct series *series;
    lh_status status =
        lh_alloc((void **)&series, (size_t)(result->count + 1) * sizeof *series, "series", error);
    if (status != LH_OK)
        return status;
    const int count = find_series(result, series);
    if (count == 0) {
        lh_free(series);
        return lh_fail(error, LH_INVALID, "%.300s has no points, wanted at least one that was not skipped",
                       path);
    }
    FILE *script;
    int ended = -1;
    void (*const before)(int) = signal(SIGPIPE, SIG_IGN); /* gnuplot may end early */
    const pid_t child = start_gnuplot(descriptor, &script);
    if (child > 0 && script) {
        write_script(script, result, series, count);
        fclose(script);
    }
    if (child > 0)
        waitpid(child, &ended, 0);
    signal(SIGPIPE, before);
    if (ended != 0)
        status = lh_fail(error, LH_IO, "%.300s could not be drawn by gnuplot (Debian: gnuplot-nox)", path);
    lh_free(series);
    return status;
}

lh_status bench_write_svg(const char *path, const bench_result *result, lh_error *error)
{
    return lh_replace_file(path, draw, result, error);
}
