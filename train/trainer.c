/* Opening a run, and the loop over its steps. */
#include "train/trainer.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/backend.h"

static int64_t steps_in_all(const settings *s)
{
    return s->lighthouse_steps + s->dense_steps;
}

static lh_status load_weights(trainer *t, const char *path, bool resume, lh_error *error)
{
    checkpoint c;
    lh_status status = checkpoint_open(path, &c, error);
    if (status != LH_OK)
        return status;
    status = checkpoint_fits(&c, &t->settings, error);
    if (status == LH_OK && !resume)
        status = recipe_wants_finished(&c.recipe, "fine-tuning", error);
    if (status == LH_OK)
        status = checkpoint_load(&c, &t->model, resume ? &t->adam : NULL, resume ? &t->budget : NULL, error);
    if (status == LH_OK && resume) {
        t->recipe = c.recipe;
        budget_share(&t->settings, &t->budget);
        status = recipe_resume(&t->settings, &t->recipe, error);
    }
    checkpoint_close(&c);
    return status;
}

/* Seconds of the steps that the kept log has. */
static lh_status sum_seconds(void *user, const journal_entry *e, lh_error *error)
{
    trainer *t = user;
    (void)error;
    t->seconds += e->kind == ENTRY_STEP ? e->seconds : 0;
    return LH_OK;
}

/* What lh_file_write had begun when the run was killed. */
static lh_status remove_leftovers(const char *folder, lh_error *error)
{
    DIR *open = opendir(folder);
    if (!open)
        return lh_fail(error, LH_IO, "%.300s: cannot be read: %s", folder, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(open));) {
        if (strncmp(entry->d_name, ".lighthouse-", strlen(".lighthouse-")) == 0)
            unlinkat(dirfd(open), entry->d_name, 0);
    }
    closedir(open);
    return LH_OK;
}

static lh_status open_folder(trainer *t, enum trainer_start start, const char *from, lh_error *error)
{
    char path[PATH_SIZE];
    if (mkdir(t->folder, 0777) != 0 && errno != EEXIST)
        return lh_fail(error, LH_IO, "%s: cannot be made: %s", t->folder, strerror(errno));
    lh_status status = folder_path(t->folder, CHECKPOINT_NAME, path, error);
    if (status != LH_OK)
        return status;
    const bool there = access(path, F_OK) == 0;
    if (there && start != START_RESUME)
        return lh_fail(error, LH_INVALID, "%s is there already, wanted --resume or another folder", path);
    status = remove_leftovers(t->folder, error);
    if (status == LH_OK && there)
        status = load_weights(t, path, true, error);
    else if (status == LH_OK && start == START_FINETUNE)
        status = load_weights(t, from, false, error);
    if (status == LH_OK)
        status = journal_open(t->folder, t->recipe.step, &t->journal, error);
    if (status == LH_OK)
        status = journal_read(t->folder, sum_seconds, t, error);
    return status;
}

lh_status trainer_open(const settings *s, const char *folder, enum trainer_start start, const char *from,
                       trainer *t, lh_error *error)
{
    memset(t, 0, sizeof *t);
    t->settings = *s;
    snprintf(t->folder, sizeof t->folder, "%s", folder);
    if (start == START_FINETUNE)
        t->settings.lighthouse_steps = 0;
    s = &t->settings;
    const model_shape shape = settings_shape(s);
    const size_t row_bytes = (size_t)(s->micro_batch * s->context);
    lh_status status = settings_check(s, error);
    if (status == LH_OK)
        status = settings_dense_layers(s, t->dense, error);
    if (status == LH_OK)
        status = text_read(s->text, s->held_out, (uint64_t)s->seed, s->context + 1, &t->text, error);
    if (status == LH_OK)
        status = model_create(&shape, (uint64_t)s->seed, true, &t->model, error);
    if (status == LH_OK)
        status = adam_create(&t->model, &t->adam, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&t->sequence, (size_t)s->context + 1, "sequence", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&t->inputs, row_bytes, "inputs", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&t->targets, row_bytes, "targets", error);
    if (status == LH_OK)
        status = budget_create(s, &t->budget, error);
    recipe_start(s, &t->recipe);
    if (status == LH_OK)
        status = open_folder(t, start, from, error);
    if (status != LH_OK)
        trainer_close(t);
    return status;
}

void trainer_close(trainer *t)
{
    journal_close(&t->journal);
    pass_destroy(&t->pass);
    budget_destroy(&t->budget);
    adam_destroy(&t->adam);
    model_destroy(&t->model);
    text_free(&t->text);
    lh_free(t->sequence);
    lh_free(t->inputs);
    lh_free(t->targets);
    memset(t, 0, sizeof *t);
}

lh_status trainer_save(const trainer *t, const char *name, lh_error *error)
{
    char path[PATH_SIZE];
    const lh_status status = folder_path(t->folder, name, path, error);
    if (status != LH_OK)
        return status;
    return checkpoint_write(path, &t->settings, &t->recipe, &t->model, &t->adam, &t->budget, error);
}

static lh_status log_budget(trainer *t, lh_error *error)
{
    json_t *line = budget_json(&t->budget, &t->pass);
    json_object_set_new(line, "step", json_integer(t->recipe.step));
    return journal_write(&t->journal, line, error);
}

static bool budgets_are_due(const trainer *t)
{
    return t->recipe.phase == PHASE_LIGHTHOUSE && t->budget.tile_topk &&
           t->recipe.step % t->settings.budget_every == 0;
}

/* New budgets from the q and k that the step's last micro-batch left in the pass. */
static lh_status change_budgets(trainer *t, lh_error *error)
{
    const double start = lh_seconds();
    lh_status status = budget_measure(&t->pass, &t->budget, error);
    if (status != LH_OK)
        return status;
    budget_share(&t->settings, &t->budget);
    status = pass_regroup(&t->pass, error);
    t->budget.seconds = lh_seconds() - start;
    return status;
}

/* A pass and a line in the log for the stage that begins, or is gone on with. */
static lh_status enter_phase(trainer *t, lh_error *error)
{
    const bool lighthouse = t->recipe.phase == PHASE_LIGHTHOUSE;
    pass_options options = settings_pass(&t->settings, lighthouse, t->dense);
    options.group_tile_topk = lighthouse ? t->budget.tile_topk : NULL;
    pass_destroy(&t->pass);
    lh_status status = pass_create(&t->model, &options, &t->pass, error);
    if (status != LH_OK)
        return status;
    status = journal_write(&t->journal,
                           json_pack("{s:s s:I s:s s:I s:I s:I}", "kind", "stage", "step",
                                     (json_int_t)t->recipe.step, "stage", phase_name(t->recipe.phase),
                                     "activations", (json_int_t)t->pass.arena_bytes, "plans",
                                     (json_int_t)pass_plan_bytes(&t->pass), "weights",
                                     (json_int_t)(4 * (size_t)t->model.size * sizeof(real))),
                           error);
    return status == LH_OK && options.group_tile_topk ? log_budget(t, error) : status;
}

/* Fills inputs and targets with micro-batch `part` of the next step. */
static void draw(trainer *t, int64_t part)
{
    const settings *s = &t->settings;
    for (int64_t i = 0; i < s->micro_batch; i++) {
        const int64_t number = t->recipe.step * s->batch + part * s->micro_batch + i;
        stream_sample(&t->text, (uint64_t)s->seed, s->passkey, number, s->context + 1, t->sequence);
        memcpy(t->inputs + i * s->context, t->sequence, (size_t)s->context);
        memcpy(t->targets + i * s->context, t->sequence + 1, (size_t)s->context);
    }
}

static lh_status compute_gradients(trainer *t, double *loss, lh_error *error)
{
    const int64_t parts = t->settings.batch / t->settings.micro_batch;
    lh_status status = LH_OK;
    *loss = 0;
    for (int64_t part = 0; part < parts && status == LH_OK; part++) {
        double part_loss = 0;
        draw(t, part);
        status = pass_forward(&t->pass, t->inputs, error);
        if (status == LH_OK)
            status = pass_backward(&t->pass, t->inputs, t->targets, 1 / (double)parts, &part_loss, error);
        *loss += part_loss / (double)parts;
    }
    return status;
}

static lh_status log_step(trainer *t, const step_report *r, lh_error *error)
{
    const int64_t layers = t->settings.layers;
    json_t *attention = json_array(), *outside = json_array();
    for (int64_t l = 0; l < layers; l++) {
        json_array_append_new(attention, json_real(t->pass.clock[l].attention));
        json_array_append_new(outside, json_real(t->pass.clock[l].outside));
    }
    return journal_write(&t->journal,
                         json_pack("{s:s s:I s:s s:f s:f s:f s:I s:f s:o s:o s:f}", "kind", "step", "step",
                                   (json_int_t)r->step, "stage", phase_name(r->phase), "loss", r->loss,
                                   "norm", r->norm, "rate", r->rate, "tokens",
                                   (json_int_t)(t->settings.batch * t->settings.context), "seconds",
                                   r->seconds, "attention", attention, "outside", outside, "rest",
                                   t->pass.clock[layers].outside),
                         error);
}

/* After `probes` of the Lighthouse steps, evenly spread, times dense attention in one of its layers. */
static lh_status probe(trainer *t, lh_error *error)
{
    const settings *s = &t->settings;
    const int64_t n = t->recipe.step, probes = s->probes, all = s->lighthouse_steps;
    if (probes == 0 || n * probes / all == (n - 1) * probes / all)
        return LH_OK;
    int64_t layer = n * probes / all % s->layers, tried = 0;
    while (t->pass.kind[layer] != LIGHTHOUSE && tried++ < s->layers)
        layer = (layer + 1) % s->layers;
    if (t->pass.kind[layer] != LIGHTHOUSE)
        return LH_OK;
    double seconds;
    const lh_status status = pass_probe_dense(&t->pass, layer, &seconds, error);
    if (status != LH_OK)
        return status;
    return journal_write(&t->journal,
                         json_pack("{s:s s:I s:I s:f}", "kind", "probe", "step", (json_int_t)n, "layer",
                                   (json_int_t)layer, "seconds",
                                   seconds * (double)(s->batch / s->micro_batch)),
                         error);
}

static lh_status take_step(trainer *t, step_report *report, lh_error *error)
{
    const settings *s = &t->settings;
    const adam_options options = {s->beta1, s->beta2, s->decay, s->clip};
    const double start = lh_seconds();
    *report =
        (step_report){.phase = t->recipe.phase, .steps = steps_in_all(s), .rate = recipe_rate(s, &t->recipe)};
    memset(t->pass.clock, 0, (size_t)(s->layers + 1) * sizeof *t->pass.clock);
    lh_status status = compute_gradients(t, &report->loss, error);
    if (status != LH_OK)
        return status;
    report->norm = gradient_norm(&t->model);
    if (!isfinite(report->norm))
        return lh_fail(error, LH_MISMATCH, "gradient norm is %g at step %" PRId64 ", wanted a finite number",
                       report->norm, t->recipe.step + 1);
    status = recipe_step(s, &t->recipe, report->loss, error);
    if (status != LH_OK)
        return status;
    adam_step(&t->adam, &t->model, &options, report->rate, report->norm, t->recipe.step);
    report->step = t->recipe.step;
    if (budgets_are_due(t))
        status = change_budgets(t, error);
    if (status != LH_OK)
        return status;
    report->seconds = lh_seconds() - start;
    t->seconds += report->seconds;
    status = log_step(t, report, error);
    if (status == LH_OK && budgets_are_due(t))
        status = log_budget(t, error);
    if (status == LH_OK && report->phase == PHASE_LIGHTHOUSE)
        status = probe(t, error);
    return status;
}

lh_status trainer_run(trainer *t, watch_fn *watch, void *user, lh_error *error)
{
    lh_status status = t->recipe.phase == PHASE_FINISHED ? LH_OK : enter_phase(t, error);
    while (status == LH_OK && t->recipe.phase != PHASE_FINISHED) {
        step_report report;
        status = take_step(t, &report, error);
        const bool switched = t->recipe.phase != report.phase;
        if (status == LH_OK && watch)
            status = watch(user, t, &report, error);
        if (status == LH_OK && (switched || report.step % t->settings.checkpoint_every == 0))
            status = trainer_save(t, CHECKPOINT_NAME, error);
        if (status == LH_OK && switched && t->recipe.phase == PHASE_DENSE)
            status = enter_phase(t, error);
    }
    return status;
}
