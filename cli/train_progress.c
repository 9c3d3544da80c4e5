/* Progress of `lighthouse train`. */
#include "cli/train_progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/train_report.h"
#include "core/base.h"
#include "train/cost.h"
#include "train/kernels.h"

static const double every = 10; /* seconds between lines where there is no terminal, and between pictures */

/* One that understands how to go back to the beginning of a line. */
static bool has_terminal(void)
{
    const char *name = getenv("TERM");
    return isatty(STDERR_FILENO) && name && strcmp(name, "dumb") != 0;
}

static int columns_of_terminal(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void progress_fit(char *line, int columns)
{
    int seen = 0;
    if (columns <= 0)
        return;
    for (char *c = line; *c; c++) {
        const bool begins = ((unsigned char)*c & 0xc0) != 0x80;
        if (begins && ++seen >= columns) {
            *c = '\0';
            return;
        }
    }
}

void progress_start(progress *p, const trainer *t)
{
    const settings *s = &t->settings;
    const corpus *c = &t->text;
    lh_device_info device;
    progress_end(p);
    snprintf(p->folder, sizeof p->folder, "%s", t->folder);
    p->estimated = false;
    p->steps = 0;
    p->shown = 0;
    if (p->quiet)
        return;
    if (lh_device_query(s->backend, (int)s->device, &device, NULL) != LH_OK)
        device = (lh_device_info){.memory = UINT64_MAX};
    if (!device.name[0])
        snprintf(device.name, sizeof device.name, "device %" PRId64, s->device);
    char passed[64] = "";
    if (c->passed > 0)
        snprintf(passed, sizeof passed, " (%" PRId64 " passed over)", c->passed);
    if (p->named)
        fprintf(stderr, "%s: ", p->folder);
    const lh_arithmetic *on = t->model.on;
    if (on->host && product_prepare(NULL) != LH_OK)
        return; /* the run is about to say why it cannot begin */
    const double needed = cost_memory(s) + (on->host ? (double)c->size : 0);
    const double there =
        on->host ? (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) : (double)device.memory;
    char memory[32], all[32];
    fprintf(stderr,
            "%" PRId64 " bytes of text in %" PRId64 " %s%s, %" PRId64 " of them to learn from; %" PRId64
            " weights; %s of memory; %s on %s%s%s; %" PRId64 " steps done of %" PRId64 "\n",
            c->size, c->files, c->files == 1 ? "file" : "files", passed, c->train,
            model_parameters(&t->model.shape), cli_bytes(needed, memory), s->backend, device.name,
            on->host ? ", products by OpenBLAS for " : ", products too by ",
            on->host ? blas_core() : on->products, t->recipe.step, s->lighthouse_steps + s->dense_steps);
    if (t->why[0])
        fprintf(
            stderr,
            "lighthouse train: warning: products are the processor's, not %s's, and q, k, v go there and back: %s\n",
            s->backend, t->why);
    if (needed > there) /* the dense stage may be the one that ends it, after days */
        fprintf(stderr,
                "lighthouse train: warning: %s has %s of memory: the run will be slow or be killed; halve "
                "micro-batch or context, or take bf16\n",
                on->host ? "this machine" : device.name, cli_bytes(there, all));
}

/* Dense steps still to come, from a Lighthouse step: attention's time goes with the square of the rows. */
static double dense_step(const progress *p, const settings *s)
{
    lh_layout layout;
    const lh_config config = settings_attention(s);
    const double mean = p->seconds / (double)p->steps;
    if (p->phase == PHASE_DENSE || lh_config_check(&config, &layout, NULL) != LH_OK)
        return mean;
    const double rows = (double)s->context / (double)layout.selected;
    return mean + p->attention / (double)p->steps * (rows * rows - 1);
}

/* Seconds to the end of the run. */
static double seconds_left(const progress *p, const settings *s, const step_report *r)
{
    const double mean = p->seconds / (double)p->steps;
    const int64_t lighthouse = r->phase == PHASE_LIGHTHOUSE ? s->lighthouse_steps - r->step : 0;
    return (double)lighthouse * mean + (double)(r->steps - r->step - lighthouse) * dense_step(p, s);
}

static void count_step(progress *p, const trainer *t, const step_report *r)
{
    if (p->steps == 0 || p->phase != r->phase) {
        p->phase = r->phase;
        p->steps = 0;
        p->seconds = p->attention = 0;
    }
    p->steps++;
    p->seconds += r->seconds;
    for (int64_t l = 0; l < t->settings.layers; l++)
        p->attention += t->pass.clock[l].attention;
}

lh_status progress_show(void *user, const trainer *t, const step_report *r, lh_error *error)
{
    progress *p = user;
    const settings *s = &t->settings;
    const double now = lh_seconds();
    char left[32], line[256], held_out[64] = "";
    (void)error;
    if (strcmp(p->folder, t->folder) != 0)
        progress_start(p, t);
    count_step(p, t, r);
    if (p->watch && (now - p->drawn > every || r->step == r->steps)) {
        report_curves(t->folder, true);
        p->drawn = now;
    }
    if (p->quiet)
        return LH_OK;
    report_duration(seconds_left(p, s, r), left);
    if (!p->estimated)
        fprintf(stderr, "The first step took %.2f s: about %s to go%s\n", r->seconds, left,
                p->named ? " in this run" : "");
    p->estimated = true;
    const bool terminal = has_terminal();
    if (now >= p->shown && now - p->shown < (terminal ? 0.2 : every) && r->step < r->steps &&
        r->held_out == 0)
        return LH_OK;
    if (r->held_out > 0)
        snprintf(held_out, sizeof held_out, "  held-out %.4f", r->held_out);
    snprintf(line, sizeof line, "step %" PRId64 "/%" PRId64 " %s  %s left  loss %.4f%s  %.0f tokens/s",
             r->step, r->steps, phase_name(r->phase), left, r->loss, held_out,
             (double)(s->batch * s->context) * (double)p->steps / p->seconds);
    progress_fit(line, terminal ? columns_of_terminal() : 0);
    const bool stays = !terminal || r->held_out > 0;
    fprintf(stderr, "%s%s%s", terminal ? "\r\033[K" : "", line, stays ? "\n" : "");
    fflush(stderr);
    p->begun = !stays;
    p->shown = now;
    return LH_OK;
}

void progress_end(progress *p)
{
    if (p->begun)
        fputc('\n', stderr);
    p->begun = false;
}
