/* Reports of `lighthouse train`. */
#include "cli/train_report.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "core/base.h"
#include "core/json.h"
#include "core/replace.h"
#include "train/plot.h"

char *report_duration(double seconds, char *text)
{
    const double minutes = seconds / 60, hours = minutes / 60;
    if (seconds < 99.5)
        snprintf(text, 32, "%.0f s", seconds);
    else if (minutes < 119.5)
        snprintf(text, 32, "%.0f min", minutes);
    else if (hours < 48)
        snprintf(text, 32, "%d h %02d min", (int)((minutes + 0.5) / 60), (int)(minutes + 0.5) % 60);
    else
        snprintf(text, 32, "%.0f d %.0f h", (double)((int64_t)(hours + 0.5) / 24),
                 (double)((int64_t)(hours + 0.5) % 24));
    return text;
}

static void warn(const lh_error *error)
{
    fprintf(stderr, "lighthouse train: warning: %s\n", error->text);
}

static const char page_text[] =
    "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=10><title>lighthouse train</title>\n"
    "<meta name=color-scheme content=\"light dark\"><style>img{max-width:100%}</style>\n"
    "<img src=curves.svg alt=\"loss and speed of the run\">\n";

void report_curves(const char *folder, bool page)
{
    const plot_run run = {folder, "this run", 0};
    char path[PATH_SIZE];
    lh_error error = {LH_OK, ""};
    lh_status status = folder_path(folder, "curves.svg", path, &error);
    if (status == LH_OK)
        status = plot_write(&run, 1, path, &error);
    if (status == LH_OK && page)
        status = folder_path(folder, "curves.html", path, &error);
    if (status == LH_OK && page)
        status = lh_replace_text(path, page_text, sizeof page_text - 1, &error);
    if (status != LH_OK)
        warn(&error);
}

void report_evaluation(const evaluation *e, FILE *to)
{
    fprintf(to, "Under dense attention: held-out loss %.4f nats per byte (%" PRId64 " window%s)\n",
            e->held_out, e->windows, e->windows == 1 ? "" : "s");
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

/* A folder's name as a shell reads it, in one line whatever it holds. */
static void print_quoted(const char *name, FILE *to)
{
    fputc('\'', to);
    for (; *name; name++) {
        if (*name == '\'')
            fputs("'\\''", to);
        else
            fputc(iscntrl((unsigned char)*name) ? '?' : *name, to);
    }
    fputc('\'', to);
}

void report_how_to_go_on(const char *options, const char *folder)
{
    fprintf(stderr, "To go on: lighthouse train%s%s --resume ", *options ? " " : "", options);
    print_quoted(folder, stderr);
    fputc('\n', stderr);
}

lh_status report_run(const char *folder, const trainer *t, lh_error *error)
{
    char path[PATH_SIZE];
    evaluation e;
    json_t *audit;
    lh_status status = t->stopped ? LH_OK : evaluate_model(&t->settings, &t->model, &t->text, &e, error);
    if (status == LH_OK)
        status = audit_make(folder, &t->settings, &t->recipe, &t->text, t->stopped ? NULL : &e,
                            t->model.on->products, &audit, error);
    if (status != LH_OK)
        return status;
    audit_print(audit, stdout);
    if (!t->stopped)
        report_evaluation(&e, stdout);
    status = folder_path(folder, "audit.json", path, error);
    if (status == LH_OK)
        status = lh_json_write(path, audit, error);
    else
        json_decref(audit);
    report_curves(folder, false);
    if (t->stopped && status == LH_OK) {
        fprintf(stderr, "Stopped after step %" PRId64 ". ", t->recipe.step);
        report_how_to_go_on("", folder);
    }
    return status;
}

/* Two runs a seed, in one colour each. */
static void draw_comparisons(const char *folder, const comparison *c, int n)
{
    char(*folders)[PATH_SIZE / 4], path[PATH_SIZE];
    plot_run runs[2 * MAX_SEEDS];
    lh_error error = {LH_OK, ""};
    lh_status status = lh_alloc((void **)&folders, 2 * (size_t)n * sizeof *folders, "names of runs", &error);
    if (status != LH_OK) {
        warn(&error);
        return;
    }
    status = folder_path(folder, "compare.svg", path, &error);
    for (int i = 0; i < 2 * n && status == LH_OK; i++) {
        const char *name = i % 2 == 0 ? TWO_STAGE_FOLDER : DENSE_FOLDER;
        const int length = n == 1 ? snprintf(folders[i], sizeof *folders, "%s/%s", folder, name)
                                  : snprintf(folders[i], sizeof *folders, "%s/seed-%" PRId64 "/%s", folder,
                                             c[i / 2].seed, name);
        if (length >= (int)sizeof *folders)
            status = lh_fail(&error, LH_INVALID, "%.200s...: its name is too long for a picture", folder);
        runs[i] = (plot_run){folders[i], i % 2 == 0 ? "two-stage" : "dense", i % 2};
    }
    if (status == LH_OK)
        status = plot_write(runs, 2 * n, path, &error);
    lh_free(folders);
    if (status != LH_OK)
        warn(&error);
}

lh_status report_comparisons(const char *folder, const comparison *c, int n, lh_error *error)
{
    char path[PATH_SIZE];
    if (n == 1)
        comparison_print(c, stdout);
    else
        comparisons_print(c, n, stdout);
    lh_status status = folder_path(folder, "compare.json", path, error);
    if (status == LH_OK)
        status = lh_json_write(path, n == 1 ? comparison_json(c) : comparisons_json(c, n), error);
    draw_comparisons(folder, c, n);
    return status;
}
