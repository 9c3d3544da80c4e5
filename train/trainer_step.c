/* A step of a run, from its data to its line in the log. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/base.h"
#include "core/json.h"
#include "train/evaluate.h"
#include "train/seconds.h"
#include "train/trainer_step.h"

static int64_t steps_in_all(const settings *s)
{
    return s->lighthouse_steps + s->dense_steps;
}

static lh_status log_budget(trainer *t, lh_error *error)
{
    json_t *line = budget_json(&t->budget, &t->pass);
    line = lh_json_set(line, "step", json_integer(t->recipe.step));
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
    t->budget.seconds = seconds_since(start);
    return status;
}

lh_status trainer_enter(trainer *t, lh_error *error)
{
    const bool lighthouse = t->recipe.phase == PHASE_LIGHTHOUSE;
    pass_options options = settings_pass(&t->settings, lighthouse, t->dense);
    options.group_tile_topk = lighthouse ? t->budget.tile_topk : NULL;
    ranks_pass(&t->ranks, &options);
    pass_destroy(&t->pass);
    lh_status status = pass_create(&t->model, &options, &t->pass, error);
    if (status != LH_OK)
        return status;
    t->pass.gradients = t->ranks.apart;
    t->pass.shards = t->ranks.shards;
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

/* Of this rank's micro-batches, or its part of them, and then of all. */
static lh_status compute_over_ranks(trainer *t, double *loss, lh_error *error)
{
    const train_ranks *r = &t->ranks;
    const int64_t parts = t->settings.batch / t->settings.micro_batch, rounds = ranks_rounds(r, &t->settings);
    lh_status status = LH_OK;
    for (int64_t round = 0; round < rounds && status == LH_OK; round++) {
        double mine = 0;
        draw(t, ranks_part(r, round));
        ranks_narrow(r, &t->settings, t->inputs);
        ranks_narrow(r, &t->settings, t->targets);
        status = pass_forward(&t->pass, t->inputs, error);
        if (status == LH_OK)
            status = pass_backward(&t->pass, t->targets, 1 / (double)parts, &mine, error);
        status = ranks_meet(r, status, &t->stopping, error);
        if (status == LH_OK)
            status = ranks_sum(r, &t->pass, mine, parts, loss, error);
    }
    return status == LH_OK ? ranks_spread(r, &t->model, error) : status;
}

static lh_status compute_gradients(trainer *t, double *loss, lh_error *error)
{
    const int64_t parts = t->settings.batch / t->settings.micro_batch;
    lh_status status = LH_OK;
    *loss = 0;
    if (t->ranks.apart)
        return compute_over_ranks(t, loss, error);
    for (int64_t part = 0; part < parts && status == LH_OK; part++) {
        double part_loss = 0;
        draw(t, part);
        status = pass_forward(&t->pass, t->inputs, error);
        if (status == LH_OK)
            status = pass_backward(&t->pass, t->targets, 1 / (double)parts, &part_loss, error);
        *loss += part_loss / (double)parts;
    }
    return status;
}

static lh_status log_step(trainer *t, const step_report *r, lh_error *error)
{
    const int64_t layers = t->settings.layers;
    json_t *attention = json_array(), *outside = json_array();
    for (int64_t l = 0; l < layers; l++) {
        attention = lh_json_append(attention, json_real(t->pass.clock[l].attention));
        outside = lh_json_append(outside, json_real(t->pass.clock[l].outside));
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

/* Every so many steps and at the end of a stage. */
static bool evaluation_is_due(const trainer *t, const step_report *report)
{
    const int64_t every = t->settings.eval_every;
    return every > 0 && (report->step % every == 0 || t->recipe.phase != report->phase);
}

/* Held-out loss under dense attention, whatever the stage. */
static lh_status evaluate(trainer *t, step_report *report, lh_error *error)
{
    const double start = lh_seconds();
    const lh_status status =
        evaluate_held_out(&t->settings, &t->model, &t->text, &t->ranks, &report->held_out, error);
    if (status != LH_OK)
        return status;
    return journal_write(&t->journal,
                         json_pack("{s:s s:I s:f s:f}", "kind", "held-out", "step", (json_int_t)report->step,
                                   "loss", report->held_out, "seconds", seconds_since(start)),
                         error);
}

/* After `probes` of the Lighthouse steps, evenly spread, times dense attention in one of its layers. */
static lh_status probe(trainer *t, lh_error *error)
{
    const settings *s = &t->settings;
    const int64_t n = t->recipe.step, probes = s->probes, all = s->lighthouse_steps;
    if (!ranks_first(&t->ranks) || t->ranks.tokens || probes == 0 ||
        n * probes / all == (n - 1) * probes / all)
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

lh_status trainer_step(trainer *t, step_report *report, lh_error *error)
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
    status = gradient_norm(&t->model, &report->norm, error);
    if (status != LH_OK)
        return status;
    if (!isfinite(report->norm))
        return lh_fail(error, LH_MISMATCH, "gradient norm is %g at step %" PRId64 ", wanted a finite number",
                       report->norm, t->recipe.step + 1);
    status = recipe_step(s, &t->recipe, report->loss, error);
    if (status != LH_OK)
        return status;
    adam_step(&t->adam, &t->model, &options, report->rate, report->norm, t->recipe.step);
    status = t->model.on->wait(t->model.on, error);
    report->step = t->recipe.step;
    if (status == LH_OK && budgets_are_due(t))
        status = change_budgets(t, error);
    if (status != LH_OK)
        return status;
    report->seconds = seconds_since(start);
    t->seconds += report->seconds;
    status = log_step(t, report, error);
    if (status == LH_OK && budgets_are_due(t))
        status = log_budget(t, error);
    if (status == LH_OK && report->phase == PHASE_LIGHTHOUSE)
        status = probe(t, error);
    if (!evaluation_is_due(t, report))
        return status;
    /* All come to it or none: what is logged and probed, one rank alone does. */
    status = ranks_meet(&t->ranks, status, &t->stopping, error);
    return status == LH_OK ? evaluate(t, report, error) : status;
}
