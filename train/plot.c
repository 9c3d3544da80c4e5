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
struct block_state {
    FILE *to;
    double tokens, seconds, smooth;
    int64_t seen, steps, stride;
};

static lh_status count_step(void *user, const journal_entry *e, lh_error *error)
{
    (void)error;
    *(int64_t *)user += e->kind == ENTRY_STEP;
    return LH_OK;
}

static lh_status write_step(void *user, const journal_entry *e, lh_error *error)
{
    struct block_state *b = user;
    (void)error;
    if (e->kind != ENTRY_STEP)
        return LH_OK;
    b->seen = b->seen < SMOOTH ? b->seen + 1 : SMOOTH;
    b->smooth += (e->loss - b->smooth) / (double)b->seen;
    b->tokens += (double)e->tokens;
    b->seconds += e->seconds;
    if (b->steps++ % b->stride == 0 && e->seconds > 0)
        fprintf(b->to, "%.6g %.6g %.6g %.6g\n", b->tokens / 1e6, b->seconds / 60, b->smooth,
                (double)e->tokens / e->seconds);
    return LH_OK;
}

static lh_status write_block(FILE *to, int run, const char *folder, lh_error *error)
{
    int64_t steps = 0;
    lh_status status = journal_read(folder, count_step, &steps, error);
    struct block_state b = {.to = to, .stride = 1 + steps / POINTS};
    fprintf(to, "$run%d << EOD\n", run);
    if (status == LH_OK)
        status = journal_read(folder, write_step, &b, error);
    fprintf(to, "EOD\n");
    return status;
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
