/* Comparisons of `lighthouse train`: their folders, and running them. */
#include "cli/train_compare.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/train_progress.h"
#include "cli/train_report.h"
#include "cli/train_stop.h"
#include "core/base.h"

static const char seed_prefix[] = "seed-";

static bool has(const char *folder, const char *name)
{
    char path[PATH_SIZE];
    return folder_path(folder, name, path, NULL) == LH_OK && access(path, F_OK) == 0;
}

void compare_find(const char *folder, compare_place *p)
{
    *p = (compare_place){.run = has(folder, CHECKPOINT_NAME),
                         .one = has(folder, TWO_STAGE_FOLDER "/" LOCK_NAME)};
    DIR *open = opendir(folder);
    if (!open)
        return;
    for (const struct dirent *entry; (entry = readdir(open));) {
        char inside[300], *end;
        const char *number = entry->d_name + sizeof seed_prefix - 1;
        if (strncmp(entry->d_name, seed_prefix, sizeof seed_prefix - 1) != 0)
            continue;
        const int64_t seed = strtoll(number, &end, 10);
        snprintf(inside, sizeof inside, "%s/" TWO_STAGE_FOLDER "/" LOCK_NAME, entry->d_name);
        if (end == number || *end || seed < 0 || !has(folder, inside))
            continue;
        p->first_seed = p->several && p->first_seed < seed ? p->first_seed : seed;
        p->several = true;
    }
    closedir(open);
}

lh_status compare_place_check(const compare_place *p, const char *folder, int64_t seeds, bool resume,
                              lh_error *error)
{
    const char *wanted = NULL, *found = "a comparison";
    if (seeds > 0 && p->run) {
        found = "a run";
        wanted = "another folder for a comparison";
    } else if (seeds == 0 && !p->run && (p->one || p->several))
        wanted = "--compare, or the folder of one of its runs";
    else if (seeds > 0 && !resume && (p->one || p->several))
        wanted = "--resume or another folder";
    else if (seeds > 1 && p->one) {
        found = "a comparison of one seed";
        wanted = "no --seeds";
    } else if (seeds == 1 && p->several) {
        found = "a comparison of several seeds";
        wanted = "--seeds N";
    }
    return wanted ? lh_fail(error, LH_INVALID, "%.300s holds %s, wanted %s", folder, found, wanted) : LH_OK;
}

lh_status compare_first_run(const compare_place *p, const char *folder, char path[PATH_SIZE], lh_error *error)
{
    char name[64];
    snprintf(name, sizeof name, "%s%" PRId64 "/" TWO_STAGE_FOLDER, seed_prefix, p->first_seed);
    return folder_path(folder, p->several ? name : TWO_STAGE_FOLDER, path, error);
}

static lh_status train_seeds(const compare_request *r, const settings *s, const compare_options *o,
                             comparison *c, bool *stopped, lh_error *error)
{
    lh_status status = LH_OK;
    for (int64_t i = 0; i < r->seeds && status == LH_OK && !*stopped; i++) {
        char name[32], folder[PATH_SIZE];
        settings one = *s;
        one.seed += i;
        snprintf(name, sizeof name, "%s%" PRId64, seed_prefix, one.seed);
        if (r->seeds == 1)
            snprintf(folder, sizeof folder, "%s", r->folder);
        else
            status = folder_path(r->folder, name, folder, error);
        if (status == LH_OK)
            status = compare_runs(&one, folder, o, &c[i], error);
        *stopped = status == LH_OK && c[i].stopped;
    }
    return status;
}

lh_status compare_seeds(const compare_request *r, const settings *s, bool *stopped, lh_error *error)
{
    comparison *c;
    progress shown = {.quiet = r->quiet, .watch = r->watch, .named = true};
    const compare_options o = {r->resume, r->folder, progress_show, &shown, stop_on_signals(true)};
    int lock = -1;
    lh_status status = lh_alloc((void **)&c, (size_t)r->seeds * sizeof *c, "comparison", error);
    if (status != LH_OK)
        return status;
    status = folder_lock(r->folder, &lock, error);
    if (status == LH_OK)
        status = train_seeds(r, s, &o, c, stopped, error);
    progress_end(&shown);
    stop_no_more();
    if (status == LH_OK && !*stopped)
        status = report_comparisons(r->folder, c, (int)r->seeds, error);
    if (status == LH_OK && *stopped) {
        char options[64] = "--compare";
        if (r->seeds > 1)
            snprintf(options, sizeof options, "--compare --seeds %" PRId64, r->seeds);
        report_how_to_go_on(options, r->folder);
    }
    if (lock >= 0)
        close(lock);
    lh_free(c);
    return status;
}
