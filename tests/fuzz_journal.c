/*
 * libFuzzer target: any bytes as a run's log, budget lines in it. What is read is within bounds; the ledger, the
 * curves and a resume take it or refuse it, and a resume keeps lines as they were.
 */
#include <math.h>

#include "core/base.h"
#include "tests/fuzz_file.h"
#include "tests/fuzz_json.h"
#include "train/ledger.h"
#include "train/plot_data.h"

static lh_status check_entry(void *user, const journal_entry *e, lh_error *error)
{
    size_t *bytes = user;
    (void)error;
    *bytes += e->size;
    require(e->kind >= 0 && e->kind < ENTRY_KINDS && e->step >= 0 && e->size > 0 &&
            e->text[e->size - 1] == '\n');
    require(e->layers >= 0 && e->layers <= MAX_LAYERS && e->layer >= 0 && e->layer < MAX_LAYERS);
    require(isfinite(e->loss) && isfinite(e->norm) && isfinite(e->rate) && e->seconds >= 0 && e->rest >= 0);
    require(e->phase == PHASE_LIGHTHOUSE || e->phase == PHASE_DENSE);
    for (int64_t l = 0; l < e->layers; l++)
        require(e->attention[l] >= 0 && e->outside[l] >= 0);
    return LH_OK;
}

static void resume(const char *folder, int64_t step, lh_status read, const uint8_t *bytes, size_t size)
{
    static journal j;
    char path[96];
    struct stat about;
    lh_error error;
    const lh_status status = journal_open(folder, step, &j, &error);
    snprintf(path, sizeof path, "%s/" JOURNAL_NAME, folder);
    require(stat(path, &about) == 0);
    require(step == 0 || status == read);
    if (status == LH_OK) {
        journal_close(&j);
        require(about.st_size <= (off_t)size && (step > 0 || about.st_size == 0));
        return;
    }
    fuzz_check_error(&error);
    require(about.st_size == (off_t)size); /* as it was */
    fuzz_write(path, bytes, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static settings s;
    static run_ledger ledger;
    static plot_curve curve;
    const char *folder = fuzz_make_folder();
    char path[96];
    size_t read = 0;
    lh_error error;
    const int64_t live = lh_alloc_live();
    snprintf(path, sizeof path, "%s/" JOURNAL_NAME, folder);
    fuzz_serve(path, bytes, size);
    if (s.layers == 0) {
        settings_default(&s);
        s.layers = 2;
    }
    const lh_status status = journal_read(folder, check_entry, &read, &error);
    require(read <= size);
    if (status != LH_OK)
        fuzz_check_error(&error);
    if (ledger_read(folder, &s, &ledger, &error) != LH_OK)
        fuzz_check_error(&error);
    ledger_free(&ledger);
    require(plot_read(folder, &curve, &error) == status);
    require(curve.points <= PLOT_POINTS && curve.held_outs <= PLOT_POINTS);
    if (fuzz_seldom(bytes, size, 256)) {
        fuzz_write(path, bytes, size);
        resume(folder, 1, status, bytes, size);
        fuzz_write(path, bytes, size);
        resume(folder, 0, status, bytes, size);
    }
    require(lh_alloc_live() == live);
    return 0;
}
