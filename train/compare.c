/* The comparison of two-stage and dense training. */
#include "train/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "core/backend.h"

static const char equal_time_name[] = "equal-time.safetensors";

lh_status evaluate_checkpoint(const char *path, const char *wish, checkpoint *c, model *m, lh_error *error)
{
    lh_status status = checkpoint_open(path, c, error);
    if (status != LH_OK)
        return status;
    const model_shape shape = settings_shape(&c->settings);
    memset(m, 0, sizeof *m);
    status = recipe_wants_dense(&c->recipe, wish, error);
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
        status = evaluate_checkpoint(path, "evaluation", &c, &m, error);
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
        status = trainer_save(t, equal_time_name, error);
    if (status == LH_OK && e->watch)
        status = e->watch(e->user, t, report, error);
    return status;
}

static lh_status train_in(const settings *s, const char *folder, bool resume, watch_fn *watch, void *user,
                          double *seconds, lh_error *error)
{
    trainer *t;
    lh_status status = lh_alloc((void **)&t, sizeof *t, "trainer", error);
    if (status != LH_OK)
        return status;
    status = trainer_open(s, folder, resume ? START_RESUME : START_NEW, NULL, t, error);
    if (status == LH_OK) {
        status = trainer_run(t, watch, user, error);
        *seconds = t->seconds;
        trainer_close(t);
    }
    lh_free(t);
    return status;
}

static lh_status fill_rows(const settings *s, const char *two_stage, const char *dense, comparison *c,
                           lh_error *error)
{
    corpus t;
    double lighthouse_step = 0, dense_step = 0, unused;
    lh_status status = text_read(s->text, s->held_out, (uint64_t)s->seed, s->context + 1, &t, error);
    if (status != LH_OK)
        return status;
    const char *last = CHECKPOINT_NAME, *at_time = c->equal_time_reached ? equal_time_name : last;
    status = fill_row(s, two_stage, last, &t, PHASE_LIGHTHOUSE, &c->row[TWO_STAGE], &lighthouse_step, error);
    if (status == LH_OK)
        status = fill_row(s, dense, last, &t, PHASE_DENSE, &c->row[DENSE_TOKENS], &dense_step, error);
    if (status == LH_OK)
        status = fill_row(s, dense, at_time, &t, PHASE_DENSE, &c->row[DENSE_TIME], &unused, error);
    c->step_speedup = lighthouse_step > 0 ? dense_step / lighthouse_step : 1;
    c->end_to_end = c->row[DENSE_TOKENS].seconds / c->row[TWO_STAGE].seconds;
    text_free(&t);
    return status;
}

lh_status compare_runs(const settings *s, const char *folder, bool resume, watch_fn *watch, void *user,
                       comparison *c, lh_error *error)
{
    char two_stage[PATH_SIZE], dense[PATH_SIZE];
    struct equal_time e = {watch, user, 0};
    double dense_seconds = 0;
    settings dense_settings = *s;
    dense_settings.lighthouse_steps = 0;
    dense_settings.dense_steps = s->lighthouse_steps + s->dense_steps;
    memset(c, 0, sizeof *c);
    c->row[TWO_STAGE].title = "two-stage";
    c->row[DENSE_TOKENS].title = "dense, equal tokens";
    c->row[DENSE_TIME].title = "dense, equal time";
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return lh_fail(error, LH_IO, "%s: cannot be made: %s", folder, strerror(errno));
    lh_status status = folder_path(folder, "two-stage", two_stage, error);
    if (status == LH_OK)
        status = folder_path(folder, "dense", dense, error);
    if (status == LH_OK)
        status = train_in(s, two_stage, resume, watch, user, &e.seconds, error);
    if (status == LH_OK)
        status = train_in(&dense_settings, dense, resume, watch_dense, &e, &dense_seconds, error);
    c->equal_time_reached = dense_seconds >= e.seconds;
    if (status == LH_OK)
        status = fill_rows(s, two_stage, dense, c, error);
    return status;
}

static int64_t all_right(const evaluation *e, int length)
{
    int64_t right = 0;
    for (int d = 0; d < DEPTHS; d++)
        right += e->right[length][d];
    return right;
}

json_t *comparison_json(const comparison *c)
{
    json_t *rows = json_array();
    for (int i = 0; i < COMPARE_RUNS; i++) {
        const compare_row *r = &c->row[i];
        json_t *retrieval = json_array();
        for (int l = 0; l < LENGTHS; l++)
            json_array_append_new(retrieval,
                                  json_pack("{s:I s:I s:I}", "length", (json_int_t)r->evaluation.length[l],
                                            "right", (json_int_t)all_right(&r->evaluation, l), "trials",
                                            (json_int_t)(r->evaluation.trials * DEPTHS)));
        json_array_append_new(rows, json_pack("{s:s s:I s:I s:f s:f s:f s:o s:s}", "run", r->title, "steps",
                                              (json_int_t)r->steps, "tokens", (json_int_t)r->tokens,
                                              "seconds", r->seconds, "train_loss", r->train_loss,
                                              "held_out_loss", r->evaluation.held_out, "retrieval", retrieval,
                                              "verdict", r->verdict));
    }
    return json_pack("{s:o s:b s:f s:f}", "runs", rows, "equal_time_reached", c->equal_time_reached,
                     "step_speedup", c->step_speedup, "end_to_end_speedup", c->end_to_end);
}

void comparison_print(const comparison *c, FILE *to)
{
    fprintf(to, "%-20s %6s %10s %9s %9s %11s %9s", "run", "steps", "tokens", "train s", "tokens/s",
            "train loss", "held-out");
    for (int l = 0; l < LENGTHS && c->row[0].evaluation.trials > 0; l++)
        fprintf(to, "   digit@%" PRId64, c->row[0].evaluation.length[l]);
    fprintf(to, "\n");
    for (int i = 0; i < COMPARE_RUNS; i++) {
        const compare_row *r = &c->row[i];
        fprintf(to, "%-20s %6" PRId64 " %10" PRId64 " %9.1f %9.0f %11.4f %9.4f", r->title, r->steps,
                r->tokens, r->seconds, (double)r->tokens / r->seconds, r->train_loss, r->evaluation.held_out);
        for (int l = 0; l < LENGTHS && r->evaluation.trials > 0; l++)
            fprintf(to, " %8" PRId64 "/%-4" PRId64, all_right(&r->evaluation, l),
                    r->evaluation.trials * DEPTHS);
        fprintf(to, "\n");
    }
    if (!c->equal_time_reached)
        fprintf(to,
                "Dense training was done before the two-stage run's time was up: its last row is its end.\n");
    fprintf(
        to,
        "A Lighthouse step is %.2f times as fast as a dense one; the two-stage run %.2f times as fast as dense "
        "training on the same tokens.\n%s\n",
        c->step_speedup, c->end_to_end, c->row[TWO_STAGE].verdict);
}
