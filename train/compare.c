/* The comparison of two-stage and dense training. */
#include "train/compare.h"

#include <string.h>

#include "core/base.h"
#include "train/place.h"

lh_status evaluate_checkpoint(const char *path, const char *wish, bool finished, checkpoint *c, model *m,
                              lh_error *error)
{
    lh_status status = checkpoint_open(path, c, error);
    if (status != LH_OK)
        return status;
    const model_shape shape = settings_shape(&c->settings);
    memset(m, 0, sizeof *m);
    status = (finished ? recipe_wants_finished : recipe_wants_dense)(&c->recipe, wish, error);
    if (status == LH_OK)
        status = settings_check(&c->settings, error);
    if (status == LH_OK)
        status = model_create(&shape, 0, false, m, error);
    if (status == LH_OK)
        status = checkpoint_load(c, m, NULL, NULL, error);
    if (status != LH_OK) {
        model_destroy(m);
        checkpoint_close(c);
    }
    return status;
}

/* Seconds and tokens of a journal's steps up to `until`, and of the steps of `which`. */
struct sums {
    int64_t until;
    phase which;
    double seconds, of_which;
    int64_t tokens, n;
};

static lh_status add_entry(void *user, const journal_entry *e, lh_error *error)
{
    struct sums *sums = user;
    (void)error;
    if (e->kind != ENTRY_STEP || e->step > sums->until)
        return LH_OK;
    sums->seconds += e->seconds;
    sums->tokens += e->tokens;
    sums->of_which += e->phase == sums->which ? e->seconds : 0;
    sums->n += e->phase == sums->which;
    return LH_OK;
}

static lh_status fill_row(const settings *s, const char *folder, const char *name, const corpus *t,
                          phase which, compare_row *row, double *mean, lh_error *error)
{
    char path[PATH_SIZE];
    checkpoint c;
    model m;
    lh_status status = folder_path(folder, name, path, error);
    if (status == LH_OK)
        status = evaluate_checkpoint(path, "evaluation", false, &c, &m, error);
    if (status != LH_OK)
        return status;
    row->steps = c.recipe.step;
    row->train_loss = c.recipe.monitor.smooth;
    recipe_verdict(&c.settings, &c.recipe, row->verdict, sizeof row->verdict);
    struct sums sums = {.until = row->steps, .which = which};
    status = journal_read(folder, add_entry, &sums, error);
    row->seconds = sums.seconds;
    row->tokens = sums.tokens;
    *mean = sums.n > 0 ? sums.of_which / (double)sums.n : 0;
    if (status == LH_OK)
        status = place_model(s, NULL, &m, NULL, error);
    if (status == LH_OK)
        status = evaluate_model(s, &m, t, &row->evaluation, error);
    model_destroy(&m);
    checkpoint_close(&c);
    return status;
}

/* Passes steps on, and keeps the dense run's state where its clock passes the two-stage run's. */
struct equal_time {
    watch_fn *watch;
    void *user;
    double seconds;
};

static lh_status watch_dense(void *user, const trainer *t, const step_report *report, lh_error *error)
{
    const struct equal_time *e = user;
    lh_status status = LH_OK;
    if (t->seconds >= e->seconds && t->seconds - report->seconds < e->seconds)
        status = trainer_save(t, EQUAL_TIME_NAME, error);
    if (status == LH_OK && e->watch)
        status = e->watch(e->user, t, report, error);
    return status;
}

static lh_status train_in(const settings *s, const char *folder, const compare_options *o, watch_fn *watch,
                          void *user, double *seconds, bool *stopped, lh_error *error)
{
    trainer *t;
    const run_options run = {
        .start = o->resume ? START_RESUME : START_NEW, .around = o->around, .stop = o->stop};
    lh_status status = lh_alloc((void **)&t, sizeof *t, "trainer", error);
    if (status != LH_OK)
        return status;
    status = trainer_open(s, folder, &run, t, error);
    if (status == LH_OK) {
        status = trainer_run(t, watch, user, error);
        *seconds = t->seconds;
        *stopped = t->stopped;
        trainer_close(t);
    }
    lh_free(t);
    return status;
}

struct folders {
    char two_stage[PATH_SIZE], dense[PATH_SIZE], time[PATH_SIZE];
};

static lh_status name_folders(const char *folder, struct folders *f, lh_error *error)
{
    lh_status status = folder_path(folder, TWO_STAGE_FOLDER, f->two_stage, error);
    if (status == LH_OK)
        status = folder_path(folder, DENSE_FOLDER, f->dense, error);
    return status == LH_OK ? folder_path(folder, TIME_FOLDER, f->time, error) : status;
}

static lh_status fill_rows(const settings *s, const struct folders *f, const compare_options *o,
                           comparison *c, lh_error *error)
{
    corpus t;
    double lighthouse_step = 0, dense_step = 0, unused;
    lh_status status = text_read(s->text, s->held_out, o->around, s->context + 1, &t, error);
    if (status != LH_OK)
        return status;
    const bool constant = schedule_is_constant(s), in_time = c->equal_time_reached;
    const char *at_time = constant && in_time ? EQUAL_TIME_NAME : CHECKPOINT_NAME;
    status = fill_row(s, f->two_stage, CHECKPOINT_NAME, &t, PHASE_LIGHTHOUSE, &c->row[TWO_STAGE],
                      &lighthouse_step, error);
    if (status == LH_OK)
        status = fill_row(s, f->dense, CHECKPOINT_NAME, &t, PHASE_DENSE, &c->row[DENSE_TOKENS], &dense_step,
                          error);
    if (status == LH_OK)
        status = fill_row(s, constant || !in_time ? f->dense : f->time, at_time, &t, PHASE_DENSE,
                          &c->row[DENSE_TIME], &unused, error);
    c->step_speedup = lighthouse_step > 0 ? dense_step / lighthouse_step : 1;
    c->end_to_end =
        c->row[TWO_STAGE].seconds > 0 ? c->row[DENSE_TOKENS].seconds / c->row[TWO_STAGE].seconds : 0;
    text_free(&t);
    return status;
}

/* A rate that falls towards the end of a run is not at its end where the time is up: a run of its own, of as many steps
 * as the time has room for. */
static lh_status train_equal_time(const settings *dense, const struct folders *f, const compare_options *o,
                                  double share, bool *stopped, lh_error *error)
{
    settings s = *dense;
    double seconds = 0;
    s.dense_steps = (int64_t)((double)dense->dense_steps * share);
    s.dense_steps = s.dense_steps > 0 ? s.dense_steps : 1;
    return train_in(&s, f->time, o, o->watch, o->user, &seconds, stopped, error);
}

lh_status compare_runs(const settings *s, const char *folder, const compare_options *o, comparison *c,
                       lh_error *error)
{
    struct folders *f;
    struct equal_time e = {o->watch, o->user, 0};
    double dense_seconds = 0;
    settings dense = *s;
    dense.lighthouse_steps = 0;
    dense.dense_steps = s->lighthouse_steps + s->dense_steps;
    memset(c, 0, sizeof *c);
    c->seed = s->seed;
    c->row[TWO_STAGE].title = "two-stage";
    c->row[DENSE_TOKENS].title = "dense, equal tokens";
    c->row[DENSE_TIME].title = "dense, equal time";
    lh_status status = lh_alloc((void **)&f, sizeof *f, "names of folders", error);
    if (status != LH_OK)
        return status;
    status = name_folders(folder, f, error);
    if (status == LH_OK)
        status = train_in(s, f->two_stage, o, o->watch, o->user, &e.seconds, &c->stopped, error);
    if (status == LH_OK && !c->stopped)
        status = train_in(&dense, f->dense, o, watch_dense, &e, &dense_seconds, &c->stopped, error);
    c->equal_time_reached = dense_seconds >= e.seconds;
    if (status == LH_OK && !c->stopped && c->equal_time_reached && !schedule_is_constant(s))
        status = train_equal_time(&dense, f, o, e.seconds / dense_seconds, &c->stopped, error);
    if (status == LH_OK && !c->stopped)
        status = fill_rows(s, f, o, c, error);
    lh_free(f);
    return status;
}
