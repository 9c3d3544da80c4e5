/* The audit: a run's ledger in JSON and for people, FLOPs by formula. */
#include "train/audit.h"

#include <string.h>

#include "core/base.h"
#include "core/json.h"
#include "train/audit_made.h"
#include "train/ledger.h"

double attention_flops(const model_shape *shape, int64_t rows, int64_t batch)
{
    return 3.5 * 2 * (double)rows * (double)rows * (double)(shape->dim * shape->heads * batch);
}

static double number(const json_t *line, const char *key)
{
    return json_number_value(json_object_get(line, key));
}

static json_t *phase_json(const settings *s, const run_ledger *ledger, phase which, const bool *dense,
                          double saved[2])
{
    const ledger_sums *sums = &ledger->phase[which];
    const model_shape shape = settings_shape(s);
    const double steps = (double)sums->steps;
    json_t *layers = json_array();
    for (int64_t l = 0; l < s->layers; l++) {
        const bool lighthouse = which == PHASE_LIGHTHOUSE && !dense[l];
        const double flops =
            lighthouse
                ? sums->to_even[l] * attention_flops(&shape, ledger_selected(s, s->tile_topk), s->batch)
                : steps * attention_flops(&shape, s->context, s->batch);
        const double dense_flops = steps * attention_flops(&shape, s->context, s->batch);
        const double as_dense = lighthouse ? steps * ledger_dense_seconds(ledger, l) : sums->attention[l];
        saved[0] += as_dense > 0 ? as_dense - sums->attention[l] : 0;
        saved[1] += dense_flops - flops;
        layers = lh_json_append(layers, json_pack("{s:s s:f s:f s:f s:f s:f s:f}", "attention",
                                                  lighthouse ? "lighthouse" : "dense", "attention_seconds",
                                                  sums->attention[l], "outside_seconds", sums->outside[l],
                                                  "attention_flops", flops, "outside_flops",
                                                  3 * (double)sums->tokens * model_layer_flops(&shape),
                                                  "dense_seconds", as_dense, "dense_flops", dense_flops));
    }
    return json_pack("{s:s s:I s:I s:f s:f s:f s:f s:{s:I s:I s:I} s:o}", "stage", phase_name(which), "steps",
                     (json_int_t)sums->steps, "tokens", (json_int_t)sums->tokens, "seconds", sums->seconds,
                     "tokens_per_second", sums->seconds > 0 ? (double)sums->tokens / sums->seconds : 0,
                     "rest_seconds", sums->rest, "rest_flops",
                     3 * (double)sums->tokens * model_head_flops(&shape), "memory", "activations",
                     (json_int_t)sums->activations, "plans", (json_int_t)sums->plans, "weights",
                     (json_int_t)sums->weights, "layers", layers);
}

static json_t *budget_report(const settings *s, const run_ledger *ledger)
{
    const ledger_sums *sums = &ledger->phase[PHASE_LIGHTHOUSE];
    json_t *tile_topk = ledger->budget_tile_topk;
    double to_even = 0, steps = 0;
    for (int64_t l = 0; l < s->layers; l++) {
        if (json_array_size(json_array_get(tile_topk, (size_t)l)) == 0)
            continue;
        to_even += sums->to_even[l];
        steps += (double)sums->steps;
    }
    return json_pack("{s:I s:O s:O s:f s:f}", "tiles", (json_int_t)(s->topk / s->tile_topk), "tile_topk",
                     tile_topk, "spread", ledger->budget_spread, "attention_flops_to_even",
                     steps > 0 ? to_even / steps : 1, "seconds", ledger->budget_seconds);
}

static json_t *probes_json(const settings *s, const run_ledger *ledger)
{
    json_t *probes = json_array();
    for (int64_t l = 0; l < s->layers; l++)
        if (ledger->layer[l].n > 0)
            probes = lh_json_append(probes, json_pack("{s:I s:I s:f}", "layer", (json_int_t)l, "n",
                                                      (json_int_t)ledger->layer[l].n, "mean_seconds",
                                                      ledger_dense_seconds(ledger, l)));
    return probes;
}

static json_t *evaluation_json(const evaluation *e)
{
    json_t *retrieval = json_array();
    for (int i = 0; i < LENGTHS && e->trials > 0; i++)
        for (int d = 0; d < DEPTHS && e->length[i] > 0; d++)
            retrieval =
                lh_json_append(retrieval, json_pack("{s:I s:f s:I s:I}", "length", (json_int_t)e->length[i],
                                                    "depth", e->depth[d], "right", (json_int_t)e->right[i][d],
                                                    "trials", (json_int_t)e->trials));
    return json_pack("{s:o s:I s:o}", "held_out_loss", lh_json_number(e->held_out), "windows",
                     (json_int_t)e->windows, "retrieval", retrieval);
}

lh_status audit_make(const char *folder, const settings *s, const recipe *r, const corpus *t,
                     const evaluation *e, const char *products, json_t **audit, lh_error *error)
{
    char verdict[512];
    bool dense[MAX_LAYERS];
    run_ledger *ledger;
    lh_status status = settings_dense_layers(s, dense, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&ledger, sizeof *ledger, "audit", error);
    if (status != LH_OK)
        return status;
    status = ledger_read(folder, s, ledger, error);
    if (status != LH_OK) {
        ledger_free(ledger);
        lh_free(ledger);
        return status;
    }
    const model_shape shape = settings_shape(s);
    double saved[2] = {0, 0}, seconds = 0;
    json_t *stages = json_array();
    for (phase which = 0; which < PHASE_FINISHED; which++) {
        if (ledger->phase[which].steps > 0)
            stages = lh_json_append(stages, phase_json(s, ledger, which, dense, saved));
        seconds += ledger->phase[which].seconds;
    }
    const bool measured = ledger_probed(ledger) || ledger->phase[PHASE_LIGHTHOUSE].steps == 0;
    recipe_verdict(s, r, verdict, sizeof verdict);
    *audit = json_pack(
        "{s:{s:I s:I s:I s:I s:I s:I s:I} s:s s:o s:o s:{s:o s:f s:o} s:{s:f s:f s:f s:f} s:s}", "model",
        "parameters", (json_int_t)model_parameters(&shape), "layers", (json_int_t)s->layers, "width",
        (json_int_t)s->width, "heads", (json_int_t)s->heads, "kv_heads", (json_int_t)s->kv_heads, "dim",
        (json_int_t)s->dim, "context", (json_int_t)s->context, "backend", s->backend, "stages", stages,
        "dense_probes", probes_json(s, ledger), "saved", "seconds",
        measured ? json_real(saved[0]) : json_null(), "flops", saved[1], "share",
        measured ? json_real(saved[0] + seconds > 0 ? saved[0] / (saved[0] + seconds) : 0) : json_null(),
        "monitor", "before_switch", r->monitor.before_switch, "jump", r->monitor.jump, "recovered_after",
        r->monitor.recovered_after, "final_loss", r->monitor.smooth, "verdict", verdict);
    if (*audit && ledger->budget_tile_topk)
        *audit = lh_json_set(*audit, "budget", budget_report(s, ledger));
    if (*audit) {
        *audit = lh_json_set(*audit, "held_out", json_incref(ledger->held_out));
        *audit = lh_json_set(*audit, "changes", json_incref(ledger->changes));
        *audit = lh_json_set(*audit, "settings", settings_json(s));
        *audit = lh_json_set(*audit, "text", text_json(s, t));
        *audit = lh_json_set(*audit, "made", made_json(products));
    }
    ledger_free(ledger);
    lh_free(ledger);
    if (*audit && e)
        *audit = lh_json_set(*audit, "evaluation", evaluation_json(e));
    return *audit ? LH_OK : lh_fail(error, LH_NO_MEMORY, "audit could not be packed");
}

static double layers_sum(const json_t *one, const char *key)
{
    double sum = 0;
    size_t i;
    json_t *layer;
    json_array_foreach(json_object_get(one, "layers"), i, layer) sum += number(layer, key);
    return sum;
}

/* k of every group in the Lighthouse layers, and what uneven budgets cost. */
static void print_budget(const json_t *budget, FILE *to)
{
    size_t l, g;
    json_t *layer, *m;
    fprintf(to, "Budgets k by layer and key/value head, at the end:");
    json_array_foreach(json_object_get(budget, "tile_topk"), l, layer)
    {
        if (json_array_size(layer) > 0)
            fprintf(to, "  layer %zu:", l);
        json_array_foreach(layer, g, m) fprintf(to, " %.0f", number(budget, "tiles") * json_number_value(m));
    }
    fprintf(to, "\nThe Lighthouse layers' attention took %.4f times the FLOPs of even budgets.\n",
            number(budget, "attention_flops_to_even"));
}

void audit_print(const json_t *audit, FILE *to)
{
    size_t i;
    json_t *one;
    const json_t *saved = json_object_get(audit, "saved");
    fprintf(to, "%-11s %6s %10s %9s %11s %11s %9s %9s\n", "stage", "steps", "tokens", "tokens/s",
            "attention s", "as dense s", "outside s", "memory");
    json_array_foreach(json_object_get(audit, "stages"), i, one)
    {
        const json_t *memory = json_object_get(one, "memory");
        char as_dense[32] = "-";
        if (layers_sum(one, "dense_seconds") > 0)
            snprintf(as_dense, sizeof as_dense, "%.1f", layers_sum(one, "dense_seconds"));
        fprintf(to, "%-11s %6.0f %10.0f %9.0f %11.1f %11s %9.1f %6.0f MiB\n",
                json_string_value(json_object_get(one, "stage")), number(one, "steps"), number(one, "tokens"),
                number(one, "tokens_per_second"), layers_sum(one, "attention_seconds"), as_dense,
                layers_sum(one, "outside_seconds") + number(one, "rest_seconds"),
                (number(memory, "activations") + number(memory, "plans") + number(memory, "weights")) /
                    (1 << 20));
    }
    if (json_object_get(audit, "budget"))
        print_budget(json_object_get(audit, "budget"), to);
    if (json_is_null(json_object_get(saved, "seconds")))
        fprintf(
            to,
            "Saved: %.3g FLOPs; dense attention was not timed yet (--probes), so seconds are not known.\n",
            number(saved, "flops"));
    else
        fprintf(to, "Saved: %.1f s of what dense training would have taken (%.0f %%), %.3g FLOPs.\n",
                number(saved, "seconds"), 100 * number(saved, "share"), number(saved, "flops"));
    fprintf(to, "%s\n", json_string_value(json_object_get(audit, "verdict")));
}
