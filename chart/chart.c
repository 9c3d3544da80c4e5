/* A picture as data and a fixed script for gnuplot; what comes back gets colours for a dark page. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chart/chart.h"
#include "core/base.h"
#include "core/replace.h"
#include "core/text.h"

extern char **environ;

static const char *const colours[CHART_COLOURS] = {"#0060ad", "#c2410c", "#15803d", "#7e22ce"};

/* gnuplot gives colours as attributes, which a style sheet overrides. */
static const char dark[] =
    "<style>@media (prefers-color-scheme:dark){"
    "[fill=\"#ffffff\"]{fill:#0d1117}[fill=\"black\"]{fill:#e6edf3}[stroke=\"black\"]{stroke:#e6edf3}"
    "[color=\"black\"]{color:#e6edf3}.gridline{stroke:#30363d}"
    "[stroke=\"rgb(  0,  96, 173)\"]{stroke:#58a6ff}[color=\"rgb(  0,  96, 173)\"]{color:#58a6ff}"
    "[stroke=\"rgb(194,  65,  12)\"]{stroke:#ff9b5e}[color=\"rgb(194,  65,  12)\"]{color:#ff9b5e}"
    "[stroke=\"rgb( 21, 128,  61)\"]{stroke:#56d364}[color=\"rgb( 21, 128,  61)\"]{color:#56d364}"
    "[stroke=\"rgb(126,  34, 206)\"]{stroke:#d2a8ff}[color=\"rgb(126,  34, 206)\"]{color:#d2a8ff}}"
    "</style>\n";

static void write_data(FILE *script, int panel, const chart_panel *p)
{
    for (int s = 0; s < p->count; s++) {
        const chart_series *series = &p->series[s];
        fprintf(script, "$s%d_%d << END\n", panel, s);
        for (int i = 0; i < series->points; i++)
            fprintf(script, "%.9g %.9g\n", series->x[i], series->y[i]);
        fprintf(script, "END\n");
    }
}

static bool is_first_of_its_title(const chart_panel *p, int series)
{
    if (!p->series[series].title)
        return false;
    for (int i = 0; i < series; i++) {
        if (p->series[i].title && strcmp(p->series[i].title, p->series[series].title) == 0)
            return false;
    }
    return true;
}

/* The smallest value of a column of all series that is greater than `before`; INFINITY when there is none. */
static double next_value(const chart_panel *p, bool of_x, double before)
{
    double next = INFINITY;
    for (int s = 0; s < p->count; s++) {
        for (int i = 0; i < p->series[s].points; i++) {
            const double value = of_x ? p->series[s].x[i] : p->series[s].y[i];
            next = value > before ? fmin(next, value) : next;
        }
    }
    return next;
}

static double greatest(const chart_panel *p, bool of_x)
{
    double most = 0;
    for (int s = 0; s < p->count; s++) {
        for (int i = 0; i < p->series[s].points; i++)
            most = fmax(most, of_x ? p->series[s].x[i] : p->series[s].y[i]);
    }
    return most;
}

/* The points that were measured are the ticks, where one does not stand on the one before. */
static void write_logarithmic(FILE *script, const chart_panel *p)
{
    const double first = next_value(p, true, 0);
    fprintf(script, "set logscale xy\nset xrange [%.9g:%.9g]\nset yrange [%.9g:%.9g]\nset xtics (",
            first / 1.2, 1.2 * greatest(p, true), next_value(p, false, 0) / 1.5, 1.5 * greatest(p, false));
    for (double x = first, shown = 0; isfinite(x); x = next_value(p, true, x)) {
        if (x < 1.3 * shown)
            continue;
        const bool thousands = fmod(x, 1024) == 0;
        fprintf(script, "%s'%.7g%s' %.9g", x > first ? ", " : "", thousands ? x / 1024 : x,
                thousands ? "Ki" : "", x);
        shown = x;
    }
    fprintf(script, ")\n");
}

/* Ticks of x at 1, 2 or 5 times a power of ten, about four of them: gnuplot's own stand on one another. */
static void write_linear(FILE *script, const chart_panel *p)
{
    const double most = greatest(p, true) > 0 ? greatest(p, true) : 1;
    const double power = pow(10, floor(log10(most / 4))), digit = most / 4 / power;
    fprintf(script, "set xrange [0:%.9g]\nset xtics %.9g\nset yrange [%s:*]\n", most,
            power * (digit < 1.5   ? 1
                     : digit < 3.5 ? 2
                     : digit < 7.5 ? 5
                                   : 10),
            p->from_zero ? "0" : "*");
}

static void write_marks(FILE *script, const chart_panel *p)
{
    fprintf(script, "unset arrow\nunset label\n");
    for (int i = 0; i < p->marks; i++) {
        const chart_mark *m = &p->mark[i];
        fprintf(script, "set arrow from first %.9g, graph 0 to first %.9g, graph 1 nohead dt 2 lc rgb '%s'\n",
                m->x, m->x, colours[m->colour]);
        if (m->title)
            fprintf(script, "set label '%s' at first %.9g, graph 0.98 right rotate offset character 0.8,0\n",
                    m->title, m->x);
    }
}

static void write_series(FILE *script, int panel, int number, const chart_series *s, bool in_key)
{
    const bool marked = s->marker != CHART_NONE;
    fprintf(script, "$s%d_%d using 1:2 with %s lc rgb '%s'", panel, number,
            s->line ? marked ? "linespoints" : "lines" : "points", colours[s->colour]);
    if (s->line)
        fprintf(script, " lw 1.6 dt %d", s->dashed ? 2 : 1);
    if (marked)
        fprintf(script, " pt %d ps 0.6", s->marker == CHART_DOT ? 7 : 6);
    fprintf(script, in_key ? " title '%s'" : " notitle", s->title);
}

/* A panel without a point is drawn too: a line outside the range. */
static void write_panel(FILE *script, int panel, const chart_panel *p)
{
    int points = 0;
    fprintf(script, "set title '%s'\nset xlabel '%s'\n", p->title, p->x_title);
    write_marks(script, p);
    for (int s = 0; s < p->count; s++)
        points += p->series[s].points;
    if (points == 0) {
        fprintf(script, "plot [0:1] [0:1] -1 notitle\n");
        return;
    }
    if (p->logarithmic)
        write_logarithmic(script, p);
    else
        write_linear(script, p);
    fprintf(script, "plot ");
    for (int s = 0; s < p->count; s++) {
        if (p->series[s].points == 0)
            continue;
        write_series(script, panel, s, &p->series[s], panel == 0 && is_first_of_its_title(p, s));
        fprintf(script, ", ");
    }
    fprintf(script, "1/0 notitle\n");
}

#define WIDTH 400.0 /* of a panel, pixels; with LEFT and RIGHT around it */
#define LEFT 60.0
#define RIGHT 20.0

static void write_script(FILE *script, const char *title, const chart_panel *panels, int count)
{
    for (int i = 0; i < count; i++)
        write_data(script, i, &panels[i]);
    fprintf(script,
            "set terminal svg size %.0f,400 dynamic font 'sans,12' background rgb 'white'\n"
            "set border 3\nset grid xtics ytics lt 1 lc rgb '#d8dee4' lw 1\nset tics nomirror\n"
            "set key at screen %.4f, screen 0.93 left top vertical maxrows 1 reverse Left samplen 2\n"
            "set multiplot layout 1,%d title '%s' margins %.4f, %.4f, 0.14, 0.78 spacing %.4f\n",
            count * WIDTH, LEFT / (count * WIDTH), count, title ? title : "", LEFT / (count * WIDTH),
            1 - RIGHT / (count * WIDTH), (LEFT + RIGHT) / (count * WIDTH));
    for (int i = 0; i < count; i++)
        write_panel(script, i, &panels[i]);
    fprintf(script, "unset multiplot\n");
}

/* Runs gnuplot from one file into another; 0 or the error that kept it from starting, -1 when it failed. */
static int run_gnuplot(FILE *script, FILE *picture)
{
    char *const arguments[] = {(char[]){"gnuplot"}, NULL};
    posix_spawn_file_actions_t files;
    pid_t child;
    int status = 0, problem = posix_spawn_file_actions_init(&files);
    if (problem != 0)
        return problem;
    problem = posix_spawn_file_actions_adddup2(&files, fileno(script), STDIN_FILENO);
    if (problem == 0)
        problem = posix_spawn_file_actions_adddup2(&files, fileno(picture), STDOUT_FILENO);
    if (problem == 0)
        problem = posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (problem == 0)
        problem = posix_spawnp(&child, arguments[0], &files, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    if (problem != 0)
        return problem;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0 ? 0 : -1;
}

/* The picture with its style sheet behind the first tag. */
static lh_status add_style(const char *drawn, char **text, size_t *size, lh_error *error)
{
    const char *tag = strstr(drawn, "<svg"), *end = tag ? strchr(tag, '>') : NULL;
    lh_text to;
    if (!end)
        return lh_fail(error, LH_IO, "gnuplot drew no picture");
    const lh_status status = lh_text_open(&to, "picture", error);
    if (status != LH_OK)
        return status;
    fprintf(to.stream, "%.*s>\n%s%s", (int)(end - drawn), drawn, dark, end + 1);
    return lh_text_close(&to, text, size, error);
}

static lh_status read_all(FILE *file, char **text, lh_error *error)
{
    const long bytes = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    rewind(file);
    lh_status status = lh_alloc((void **)text, (size_t)(bytes < 0 ? 0 : bytes) + 1, "picture", error);
    if (status == LH_OK)
        (*text)[fread(*text, 1, (size_t)(bytes < 0 ? 0 : bytes), file)] = '\0';
    return status;
}

static lh_status draw(FILE *script, FILE *picture, char **text, size_t *size, lh_error *error)
{
    char *drawn = NULL;
    fflush(script); /* an incomplete script draws nothing, which is seen below */
    rewind(script);
    const int problem = run_gnuplot(script, picture);
    if (problem == ENOENT)
        return lh_fail(error, LH_UNSUPPORTED,
                       "gnuplot is absent, wanted it for pictures (Debian: gnuplot-nox)");
    if (problem != 0)
        return lh_fail(error, LH_IO, "gnuplot could not draw the picture");
    lh_status status = read_all(picture, &drawn, error);
    if (status == LH_OK)
        status = add_style(drawn, text, size, error);
    lh_free(drawn);
    return status;
}

lh_status chart_write(const char *title, const chart_panel *panels, int count, const char *path,
                      lh_error *error)
{
    FILE *script = tmpfile(), *picture = script ? tmpfile() : NULL;
    char *text = NULL;
    size_t size = 0;
    lh_status status = LH_OK;
    if (picture) {
        write_script(script, title, panels, count);
        status = draw(script, picture, &text, &size, error);
        if (status == LH_OK)
            status = lh_replace_text(path, text, size, error);
    } else {
        status =
            lh_fail(error, LH_IO, "%.300s: no temporary file for the picture (%s)", path, strerror(errno));
    }
    free(text);
    if (picture)
        fclose(picture);
    if (script)
        fclose(script);
    return status;
}

bool chart_can(void)
{
    return system("gnuplot --version >/dev/null 2>&1") == 0;
}
