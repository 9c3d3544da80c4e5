/* Booking the lines of a run's journal. */
#include "train/ledger.h"

#include <inttypes.h>
#include <string.h>

#include "core/base.h"
#include "core/json.h"

struct booking {
    const settings *s;
    run_ledger *ledger;
    int64_t tile_coarse; /* most that a group's tile budget can be */
    double even;         /* rows of even budgets */
};

static lh_layout layout_of(const settings *s, int64_t tile_topk)
{
    lh_layout layout = {.selected = s->context, .tile_coarse = s->context};
    lh_config config = settings_attention(s);
    config.topk = config.topk / config.tile_topk * tile_topk;
    config.tile_topk = tile_topk;
    lh_config_check(&config, &layout, NULL);
    return layout;
}

int64_t ledger_selected(const settings *s, int64_t tile_topk)
{
    return layout_of(s, tile_topk).selected;
}

/* FLOPs go with the square of the rows, so the same rows shared out unevenly cost more. */
static lh_status book_budget(const struct booking *b, const journal_entry *e, lh_error *error)
{
    run_ledger *ledger = b->ledger;
    ledger_sums *sums = &ledger->phase[PHASE_LIGHTHOUSE];
    for (int64_t l = 0; l < b->s->layers; l++) {
        const json_t *groups = json_array_get(e->tile_topk, (size_t)l);
        const size_t n = json_array_size(groups);
        double sum = 0;
        for (size_t g = 0; g < n; g++) {
            const double m = json_number_value(json_array_get(groups, g));
            if (m < 2 || m > (double)b->tile_coarse)
                return lh_fail(error, LH_FORMAT, "tile_topk is %g, wanted 2 to %" PRId64, m, b->tile_coarse);
            const double rows = (double)ledger_selected(b->s, (int64_t)m);
            sum += rows * rows / (b->even * b->even * (double)n);
        }
        ledger->to_even[l] = n > 0 ? sum : 1;
    }
    json_decref(ledger->budget_tile_topk);
    json_decref(ledger->budget_spread);
    ledger->budget_tile_topk = json_incref(e->tile_topk);
    ledger->budget_spread = json_incref(e->spread);
    ledger->budget_seconds += e->seconds;
    sums->plans = e->plans > sums->plans ? e->plans : sums->plans;
    return LH_OK;
}

static lh_status book_step(const struct booking *b, const journal_entry *e, lh_error *error)
{
    ledger_sums *sums = &b->ledger->phase[e->phase];
    if (e->layers != b->s->layers)
        return lh_fail(error, LH_FORMAT, "attention has %" PRId64 " layers, wanted %" PRId64, e->layers,
                       b->s->layers);
    sums->steps++;
    sums->tokens += e->tokens;
    sums->seconds += e->seconds;
    sums->rest += e->rest;
    for (int64_t l = 0; l < e->layers; l++) {
        sums->attention[l] += e->attention[l];
        sums->outside[l] += e->outside[l];
        sums->to_even[l] += b->ledger->to_even[l];
    }
    return LH_OK;
}

/* Budgets are even until a budget line says otherwise: a run may be gone on with under even ones. */
static void even_budgets(run_ledger *ledger)
{
    for (int64_t l = 0; l < MAX_LAYERS; l++)
        ledger->to_even[l] = 1;
    json_decref(ledger->budget_tile_topk);
    json_decref(ledger->budget_spread);
    ledger->budget_tile_topk = ledger->budget_spread = NULL;
}

static void book_phase(run_ledger *ledger, const journal_entry *e)
{
    ledger_sums *sums = &ledger->phase[e->phase];
    sums->activations = e->activations;
    sums->plans = e->plans;
    sums->weights = e->weights;
    if (e->phase == PHASE_LIGHTHOUSE)
        even_budgets(ledger);
}

static lh_status book(void *user, const journal_entry *e, lh_error *error)
{
    const struct booking *b = user;
    run_ledger *ledger = b->ledger;
    switch (e->kind) {
    case ENTRY_PHASE:
        book_phase(ledger, e);
        break;
    case ENTRY_STEP:
        return book_step(b, e, error);
    case ENTRY_PROBE:
        ledger->layer[e->layer].n++;
        ledger->layer[e->layer].seconds += e->seconds;
        break;
    case ENTRY_BUDGET:
        return book_budget(b, e, error);
    case ENTRY_HELD_OUT:
        ledger->held_out =
            lh_json_append(ledger->held_out, json_pack("{s:I s:f s:f}", "step", (json_int_t)e->step, "loss",
                                                       e->loss, "seconds", e->seconds));
        break;
    default:
        ledger->changes =
            lh_json_append(ledger->changes, json_pack("{s:I s:s s:s s:s}", "step", (json_int_t)e->step,
                                                      "setting", e->setting, "from", e->from, "to", e->to));
    }
    return LH_OK;
}

lh_status ledger_read(const char *folder, const settings *s, run_ledger *ledger, lh_error *error)
{
    const lh_layout even = layout_of(s, s->tile_topk);
    struct booking b = {s, ledger, even.tile_coarse, (double)even.selected};
    memset(ledger, 0, sizeof *ledger);
    ledger->held_out = json_array();
    ledger->changes = json_array();
    even_budgets(ledger);
    return journal_read(folder, book, &b, error);
}

void ledger_free(run_ledger *ledger)
{
    json_decref(ledger->budget_tile_topk);
    json_decref(ledger->budget_spread);
    json_decref(ledger->held_out);
    json_decref(ledger->changes);
    memset(ledger, 0, sizeof *ledger);
}

bool ledger_probed(const run_ledger *ledger)
{
    for (int64_t l = 0; l < MAX_LAYERS; l++) {
        if (ledger->layer[l].n > 0)
            return true;
    }
    return false;
}

double ledger_dense_seconds(const run_ledger *ledger, int64_t layer)
{
    ledger_probes all = {0, 0};
    if (ledger->layer[layer].n > 0)
        return ledger->layer[layer].seconds / (double)ledger->layer[layer].n;
    for (int64_t l = 0; l < MAX_LAYERS; l++) {
        all.n += ledger->layer[l].n;
        all.seconds += ledger->layer[l].seconds;
    }
    return all.n > 0 ? all.seconds / (double)all.n : 0;
}
