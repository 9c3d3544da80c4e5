/* Opening a run, and the loop over its steps. */
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base.h"
#include "train/seconds.h"
#include "train/trainer_step.h"

/* What a run goes on with that it did not begin with, a line each. */
static lh_status log_changes(trainer *t, const settings *before, lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < setting_count && status == LH_OK; i++) {
        char from[SETTING_TEXT], to[SETTING_TEXT];
        setting_print(before, &setting_table[i], from);
        setting_print(&t->settings, &setting_table[i], to);
        if (strcmp(from, to) != 0)
            status = journal_write(&t->journal,
                                   json_pack("{s:s s:I s:s s:s s:s}", "kind", "change", "step",
                                             (json_int_t)t->recipe.step, "setting", setting_table[i].name,
                                             "from", from, "to", to),
                                   error);
    }
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

static lh_status open_journal(trainer *t, lh_error *error)
{
    if (!ranks_first(&t->ranks))
        return LH_OK;
    const lh_status status = journal_open(t->folder, t->recipe.step, &t->journal, error);
    return status == LH_OK ? journal_read(t->folder, sum_seconds, t, error) : status;
}

static lh_status go_on(trainer *t, bool before, lh_error *error)
{
    checkpoint c;
    lh_status status = checkpoint_open_last(t->folder, before, &c, error);
    if (status != LH_OK)
        return status;
    status = checkpoint_fits(&c, &t->settings, FOR_THE_RUN, error);
    if (status == LH_OK)
        status = checkpoint_same_text(&c, t->settings.text, &t->text, error);
    if (status == LH_OK)
        status = checkpoint_load(&c, &t->model, &t->adam, &t->budget, error);
    if (status == LH_OK) {
        t->recipe = c.recipe;
        budget_share(&t->settings, &t->budget);
        status = recipe_resume(&t->settings, &c.settings, &t->recipe, error);
    }
    if (status == LH_OK && before && ranks_first(&t->ranks))
        status = checkpoint_restore(t->folder, error);
    if (status == LH_OK)
        status = open_journal(t, error);
    if (status == LH_OK)
        status = log_changes(t, &c.settings, error);
    checkpoint_close(&c);
    return status;
}

static lh_status begin(trainer *t, const run_options *o, lh_error *error)
{
    checkpoint c;
    if (o->start != START_FINETUNE)
        return open_journal(t, error);
    lh_status status = checkpoint_open(o->from, &c, error);
    if (status != LH_OK)
        return status;
    status = checkpoint_fits(&c, &t->settings, FOR_THE_MODEL, error);
    if (status == LH_OK)
        status = recipe_wants_finished(&c.recipe, "fine-tuning", error);
    if (status == LH_OK)
        status = checkpoint_load(&c, &t->model, NULL, NULL, error);
    checkpoint_close(&c);
    return status == LH_OK ? open_journal(t, error) : status;
}

static lh_status open_folder(trainer *t, const run_options *o, lh_error *error)
{
    char path[PATH_SIZE];
    const bool first = ranks_first(&t->ranks);
    lh_status status = folder_path(t->folder, CHECKPOINT_NAME, path, error);
    if (status == LH_OK && first)
        status = folder_lock(t->folder, &t->lock, error);
    if (status != LH_OK)
        return status;
    const bool there = access(path, F_OK) == 0, resume = o->start == START_RESUME || o->start == START_BEFORE;
    if (there && !resume)
        return lh_fail(error, LH_INVALID, "%.300s is there already, wanted --resume or another folder", path);
    if (first)
        status = folder_tidy(t->folder, error);
    if (status != LH_OK)
        return status;
    /* What the first rank went back to is the last one when the others come. */
    const bool before = first && o->start == START_BEFORE;
    return there || before ? go_on(t, before, error) : begin(t, o, error);
}

/* The first rank makes the folder what it is to be, the others read it then. */
static lh_status open_in_turn(trainer *t, const run_options *o, lh_status status, lh_error *error)
{
    const bool first = ranks_first(&t->ranks);
    if (status == LH_OK && first)
        status = open_folder(t, o, error);
    status = ranks_meet(&t->ranks, status, &t->stopping, error);
    if (status == LH_OK && !first)
        status = open_folder(t, o, error);
    return ranks_meet(&t->ranks, status, &t->stopping, error);
}

/* A path from where the run was begun would be another one elsewhere. One too long for a setting stays as it was given. */
static void place_text(settings *s)
{
    char here[PATH_SIZE], placed[SETTING_TEXT];
    if (s->text[0] == '/' || !getcwd(here, sizeof here))
        return;
    if ((size_t)snprintf(placed, sizeof placed, "%s/%s", here, s->text) < sizeof placed)
        strcpy(s->text, placed);
}

/* From the processor, where checkpoints are read, to where the run is computed. */
static lh_status place(trainer *t, const run_options *o, lh_error *error)
{
    const char *keep = t->ranks.apart ? "gradients of ranks and shards are summed on the processor" : NULL;
    const lh_status status = o->on ? model_move(&t->model, o->on, error)
                                   : place_model(&t->settings, keep, &t->model, t->why, error);
    return status == LH_OK && !t->model.on->host ? adam_move(&t->adam, &t->model, error) : status;
}

lh_status trainer_open(const settings *s, const char *folder, const run_options *o, trainer *t,
                       lh_error *error)
{
    memset(t, 0, sizeof *t);
    t->lock = -1;
    t->settings = *s;
    t->stop = o->stop;
    if (o->start == START_FINETUNE)
        t->settings.lighthouse_steps = 0;
    settings_choose_backend(&t->settings);
    s = &t->settings;
    const model_shape shape = settings_shape(s);
    const size_t row_bytes = (size_t)(s->micro_batch * s->context);
    const char *own = o->around ? o->around : folder;
    lh_status status = settings_check(s, error);
    if (status == LH_OK && (size_t)snprintf(t->folder, PATH_SIZE, "%s", folder) >= PATH_SIZE)
        status = folder_path(folder, CHECKPOINT_NAME, t->folder, error);
    if (status == LH_OK)
        status = settings_dense_layers(s, t->dense, error);
    if (status == LH_OK)
        status = text_read(s->text, s->held_out, own, s->context + 1, &t->text, error);
    place_text(&t->settings);
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
    if (status == LH_OK)
        status = ranks_create(s, &t->model, o->exchange, o->over, &t->ranks, error);
    else if (o->exchange)
        t->ranks.exchange = *o->exchange;
    recipe_start(s, &t->recipe);
    status = open_in_turn(t, o, status, error);
    if (status == LH_OK)
        status = place(t, o, error);
    if (status != LH_OK)
        trainer_close(t);
    return status;
}

void trainer_close(trainer *t)
{
    journal_close(&t->journal);
    pass_destroy(&t->pass);
    ranks_destroy(&t->ranks);
    budget_destroy(&t->budget);
    adam_destroy(&t->adam);
    model_destroy(&t->model);
    text_free(&t->text);
    lh_free(t->sequence);
    lh_free(t->inputs);
    lh_free(t->targets);
    if (t->lock >= 0)
        close(t->lock);
    memset(t, 0, sizeof *t);
    t->lock = -1;
}

lh_status trainer_save(const trainer *t, const char *name, lh_error *error)
{
    char path[PATH_SIZE];
    model weights = {0};
    adam moments = {0};
    const bool here = t->model.on->host;
    lh_status status = folder_path(t->folder, name, path, error);
    if (status == LH_OK && !here)
        status = model_fetch(&t->model, &weights, error);
    if (status == LH_OK && !here)
        status = adam_fetch(&t->adam, &t->model, &moments, error);
    if (status == LH_OK)
        status = checkpoint_write(path, &t->settings, &t->recipe, &t->text, here ? &t->model : &weights,
                                  here ? &t->adam : &moments, &t->budget, error);
    adam_destroy(&moments);
    model_destroy(&weights);
    return status;
}

/* The checkpoint that is, kept as the one before, then the new one. Where files cannot have two names, none is kept. */
static lh_status save(const trainer *t, lh_error *error)
{
    checkpoint_keep(t->folder);
    return trainer_save(t, CHECKPOINT_NAME, error);
}

static bool asked_to_stop(const trainer *t)
{
    return t->stop && *t->stop;
}

static bool checkpoint_is_due(const trainer *t, int64_t step, double saved_at)
{
    const settings *s = &t->settings;
    return step % s->checkpoint_every == 0 ||
           (s->checkpoint_minutes > 0 && seconds_since(saved_at) >= 60 * s->checkpoint_minutes);
}

/* The status of all ranks, and whether any of them was asked to stop. */
static lh_status meet(trainer *t, lh_status status, lh_error *error)
{
    t->stopping = t->stopping || asked_to_stop(t);
    return ranks_meet(&t->ranks, status, &t->stopping, error);
}

lh_status trainer_run(trainer *t, watch_fn *watch, void *user, lh_error *error)
{
    int64_t saved = t->recipe.step;
    double saved_at = lh_seconds();
    const bool first = ranks_first(&t->ranks);
    lh_status status = t->recipe.phase == PHASE_FINISHED ? LH_OK : trainer_enter(t, error);
    status = meet(t, status, error);
    while (status == LH_OK && t->recipe.phase != PHASE_FINISHED && !t->stopping) {
        step_report report;
        status = trainer_step(t, &report, error);
        const bool switched = t->recipe.phase != report.phase;
        if (status == LH_OK && watch && first)
            status = watch(user, t, &report, error);
        if (status == LH_OK && first && (switched || checkpoint_is_due(t, report.step, saved_at))) {
            status = save(t, error);
            saved = report.step;
            saved_at = lh_seconds();
        }
        if (status == LH_OK && switched && t->recipe.phase == PHASE_DENSE)
            status = trainer_enter(t, error);
        status = meet(t, status, error);
    }
    t->stopped = t->recipe.phase != PHASE_FINISHED;
    /* One that is stopped before its first step can be gone on with too. */
    const bool wanted = t->recipe.step > saved || (t->stopped && t->recipe.step == 0);
    if (status == LH_OK && first && wanted)
        status = save(t, error);
    return meet(t, status, error);
}
