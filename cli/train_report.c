/* Progress and reports of `lighthouse train`. */
#include "cli/train_report.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "core/base.h"

static const double every = 10; /* seconds between lines where there is no terminal */

lh_status progress_show(void *user, const trainer *t, const step_report *r, lh_error *error)
{
    progress *p = user;
    (void)error;
    if (p->quiet)
        return LH_OK;
    if (p->steps == 0 || p->phase != r->phase || r->step < p->steps) {
        p->phase = r->phase;
        p->steps = 0;
        p->seconds = 0;
    }
    p->steps++;
    p->seconds += r->seconds;
    const bool terminal = isatty(STDERR_FILENO);
    const double now = lh_seconds();
    if (now - p->shown < (terminal ? 0.2 : every) && r->step < r->steps)
        return LH_OK;
    const settings *s = &t->settings;
    const double mean = p->seconds / (double)p->steps;
    const int64_t end = r->phase == PHASE_LIGHTHOUSE ? s->lighthouse_steps : r->steps;
    const double left = mean * (double)(end - r->step);
    fprintf(stderr,
            "%s%-10s step %" PRId64 "/%" PRId64 "  loss %.4f  %.0f tokens/s  %.0f s left in this stage%s",
            terminal ? "\r\033[K" : "", phase_name(r->phase), r->step, r->steps, r->loss,
            (double)(s->batch * s->context) / mean, left, terminal ? "" : "\n");
    fflush(stderr);
    p->begun = terminal;
    p->shown = now;
    return LH_OK;
}

void progress_end(progress *p)
{
    if (p->begun)
        fputc('\n', stderr);
    p->begun = false;
}

void report_evaluation(const evaluation *e, FILE *to)
{
    fprintf(to, "Under dense attention: held-out loss %.4f nats per byte (%" PRId64 " windows)\n",
            e->held_out, e->windows);
    if (e->trials == 0)
        return;
    fprintf(to, "Hidden digit found, by context and depth (of %" PRId64 "; chance is a tenth):\n%10s",
            e->trials, "");
    for (int d = 0; d < DEPTHS; d++)
        fprintf(to, " %5.0f%%", 100 * e->depth[d]);
    fprintf(to, "\n");
    for (int l = 0; l < LENGTHS; l++) {
        if (e->length[l] == 0)
            continue;
        fprintf(to, "%10" PRId64, e->length[l]);
        for (int d = 0; d < DEPTHS; d++)
            fprintf(to, " %6" PRId64, e->right[l][d]);
        fprintf(to, "\n");
    }
}

lh_status report_run(const char *folder, const trainer *t, lh_error *error)
{
    char path[PATH_SIZE];
    evaluation e;
    json_t *audit;
    const char *titles[] = {"this run"};
    lh_status status = evaluate_model(&t->settings, &t->model, &t->text, &e, error);
    if (status == LH_OK)
        status = audit_make(folder, &t->settings, &t->recipe, &e, &audit, error);
    if (status != LH_OK)
        return status;
    audit_print(audit, stdout);
    report_evaluation(&e, stdout);
    snprintf(path, sizeof path, "%.4000s/audit.json", folder);
    status = json_write(path, audit, error);
    json_decref(audit);
    snprintf(path, sizeof path, "%.4000s/curves.svg", folder);
    if (status == LH_OK)
        status = plot_runs(&folder, titles, 1, path, error);
    return status;
}

lh_status report_comparison(const char *folder, const comparison *c, lh_error *error)
{
    char path[PATH_SIZE], two_stage[PATH_SIZE], dense[PATH_SIZE];
    const char *folders[] = {two_stage, dense};
    const char *titles[] = {"two-stage", "dense"};
    comparison_print(c, stdout);
    json_t *json = comparison_json(c);
    snprintf(path, sizeof path, "%.4000s/compare.json", folder);
    lh_status status = json_write(path, json, error);
    json_decref(json);
    snprintf(two_stage, sizeof two_stage, "%.4000s/two-stage", folder);
    snprintf(dense, sizeof dense, "%.4000s/dense", folder);
    snprintf(path, sizeof path, "%.4000s/compare.svg", folder);
    if (status == LH_OK)
        status = plot_runs(folders, titles, 2, path, error);
    return status;
}
