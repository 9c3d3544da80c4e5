/* Loss and speed curves, drawn by gnuplot from the journals. */
#define _POSIX_C_SOURCE 200809L /* popen */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "train/audit.h"
#include "train/journal.h"

enum {
    SMOOTH = 25, /* steps a plotted loss averages over */
    POINTS = 300 /* of a curve, about: the picture stays small */
};

/* One data block: million tokens, minutes, smoothed loss, tokens per second. */
static lh_status write_block(FILE *to, int run, const char *folder, lh_error *error)
{
    char path[4096];
    json_t *lines, *line;
    size_t i;
    double tokens = 0, seconds = 0, smooth = 0;
    int64_t seen = 0;
    snprintf(path, sizeof path, "%.4000s/log.jsonl", folder);
    const lh_status status = journal_read(path, &lines, error);
    if (status != LH_OK)
        return status;
    const size_t stride = 1 + json_array_size(lines) / POINTS;
    fprintf(to, "$run%d << EOD\n", run);
    json_array_foreach(lines, i, line)
    {
        if (strcmp(json_string_value(json_object_get(line, "kind")), "step") != 0)
            continue;
        const double step_tokens = json_number_value(json_object_get(line, "tokens"));
        const double step_seconds = json_number_value(json_object_get(line, "seconds"));
        const double loss = json_number_value(json_object_get(line, "loss"));
        seen = seen < SMOOTH ? seen + 1 : SMOOTH;
        smooth += (loss - smooth) / (double)seen;
        tokens += step_tokens;
        seconds += step_seconds;
        if (i % stride == 0)
            fprintf(to, "%.6g %.6g %.6g %.6g\n", tokens / 1e6, seconds / 60, smooth,
                    step_tokens / step_seconds);
    }
    fprintf(to, "EOD\n");
    json_decref(lines);
    return LH_OK;
}

static void write_panel(FILE *to, const char *x_label, int x, const char *y_label, int y,
                        const char *const *titles, int runs)
{
    fprintf(to, "set xlabel '%s'\nset ylabel '%s'\nplot ", x_label, y_label);
    for (int run = 0; run < runs; run++)
        fprintf(to, "%s$run%d using %d:%d with lines lw 1.5 lc %d title '%s'", run ? ", " : "", run, x, y,
                run + 1, titles[run]);
    fprintf(to, "\n");
}

lh_status plot_runs(const char *const *folders, const char *const *titles, int runs, const char *svg,
                    lh_error *error)
{
    FILE *gnuplot = popen("gnuplot 2>/dev/null", "w");
    if (!gnuplot)
        return lh_fail(error, LH_IO, "gnuplot: cannot be started: %s", strerror(errno));
    lh_status status = LH_OK;
    for (int run = 0; run < runs && status == LH_OK; run++)
        status = write_block(gnuplot, run, folders[run], error);
    if (status == LH_OK) {
        fprintf(gnuplot,
                "set terminal svg size 1080,320 font 'sans,11'\nset output '%s'\n"
                "set multiplot layout 1,3\nset grid\nset key top right\n",
                svg);
        write_panel(gnuplot, "million tokens", 1, "training loss, nats per byte", 3, titles, runs);
        write_panel(gnuplot, "minutes of training", 2, "training loss, nats per byte", 3, titles, runs);
        write_panel(gnuplot, "million tokens", 1, "tokens per second", 4, titles, runs);
        fprintf(gnuplot, "unset multiplot\n");
    }
    if (pclose(gnuplot) != 0 && status == LH_OK)
        status = lh_fail(error, LH_IO, "gnuplot: could not draw %s (Debian: gnuplot-nox)", svg);
    return status;
}
