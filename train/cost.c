/* Predicting FLOPs, memory and time over (L, p, k), and advice from them. */
#include "train/cost.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base.h"
#include "train/audit.h"

/* Bytes of weights, gradients and the optimiser's two moments, each. */
enum {
    COPIES_OF_WEIGHTS = 4
};

static int64_t element_bytes(const settings *s)
{
    return strcmp(s->dtype, "bf16") == 0 ? 2 : 4;
}

static int64_t lighthouse_layers(const settings *s)
{
    bool dense[MAX_LAYERS];
    int64_t n = 0;
    if (settings_dense_layers(s, dense, NULL) != LH_OK)
        return s->layers;
    for (int64_t l = 0; l < s->layers; l++)
        n += !dense[l];
    return n;
}

double cost_bytes_around(const settings *s, int64_t rows)
{
    const double tokens = (double)(s->context * s->batch), heads = (double)s->heads, kv = (double)s->kv_heads;
    const double per_token = (heads + kv) + (heads + 2 * kv) + heads + heads + (heads + 2 * kv);
    const double selected = 8 * heads * (double)(rows * s->batch);
    return (double)(element_bytes(s) * s->dim) * (per_token * tokens + selected);
}

static double outside_flops(const settings *s)
{
    const model_shape shape = settings_shape(s);
    return 3 * (double)(s->batch * s->context) *
           ((double)s->layers * model_layer_flops(&shape) + model_head_flops(&shape));
}

double cost_seconds(const settings *s, const cost_row *row, const device_rates *rates)
{
    const model_shape shape = settings_shape(s);
    const double lighthouse = row->levels > 1 ? (double)lighthouse_layers(s) : 0;
    const double dense = (double)s->layers - lighthouse;
    return dense * attention_flops(&shape, s->context, s->batch) / rates->attention +
           lighthouse * (attention_flops(&shape, row->selected, s->batch) / rates->attention +
                         cost_bytes_around(s, row->selected) / rates->bytes) +
           outside_flops(s) / rates->products;
}

double cost_total_seconds(const settings *s, const cost_row *row, const device_rates *rates)
{
    const cost_row dense = {.levels = 1, .selected = s->context};
    return (double)s->lighthouse_steps * cost_seconds(s, row, rates) +
           (double)s->dense_steps * cost_seconds(s, &dense, rates);
}

static double phase_memory(const settings *s, bool lighthouse)
{
    bool dense[MAX_LAYERS];
    size_t bytes = 0;
    if (settings_dense_layers(s, dense, NULL) != LH_OK)
        return 0;
    const pass_options options = settings_pass(s, lighthouse, dense);
    const model_shape shape = settings_shape(s);
    pass_memory(&shape, &options, &bytes, NULL);
    return (double)bytes + COPIES_OF_WEIGHTS * sizeof(real) * (double)model_parameters(&shape);
}

double cost_memory(const settings *s)
{
    const double dense = s->dense_steps > 0 ? phase_memory(s, false) : 0;
    const double lighthouse = s->lighthouse_steps > 0 ? phase_memory(s, true) : 0;
    return dense > lighthouse ? dense : lighthouse;
}

static void fill_row(const settings *s, int64_t levels, int64_t pool, int64_t topk, int64_t selected,
                     cost_row *row)
{
    settings with = *s;
    const model_shape shape = settings_shape(s);
    const double lighthouse = levels > 1 ? (double)lighthouse_layers(s) : 0;
    with.levels = levels;
    with.pool = pool;
    with.topk = topk;
    const double dense_memory = phase_memory(&with, false), own = levels > 1 ? phase_memory(&with, true) : 0;
    *row = (cost_row){
        .levels = levels,
        .pool = pool,
        .topk = topk,
        .selected = selected,
        .flops = lighthouse * attention_flops(&shape, selected, s->batch) +
                 ((double)s->layers - lighthouse) * attention_flops(&shape, s->context, s->batch) +
                 outside_flops(s),
        .memory = own > dense_memory ? own : dense_memory,
    };
}

/* Largest valid budget of at most `wanted`; 0 when there is none. */
static int64_t valid_topk(const settings *s, int64_t levels, int64_t pool, int64_t wanted, int64_t *selected)
{
    lh_layout layout;
    lh_config c = {s->micro_batch, s->heads, s->kv_heads, s->context, s->dim, levels, pool, 0, s->tile_topk};
    for (c.topk = wanted / s->tile_topk * s->tile_topk; c.topk > 0; c.topk -= s->tile_topk) {
        if (lh_config_check(&c, &layout, NULL) == LH_OK) {
            *selected = layout.selected;
            return c.topk;
        }
    }
    return 0;
}

int cost_rows(const settings *s, cost_row rows[COST_ROWS])
{
    static const int64_t shares[] = {128, 64, 32};
    int count = 0;
    fill_row(s, 1, 2, 0, s->context, &rows[count++]);
    for (int64_t levels = 2; levels <= 5; levels++)
        for (int64_t pool = 2; pool <= 4; pool += 2) {
            int64_t last = 0;
            for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
                int64_t selected = 0;
                const int64_t topk = valid_topk(s, levels, pool, s->context / shares[i], &selected);
                if (topk > last && selected < s->context)
                    fill_row(s, levels, pool, topk, selected, &rows[count++]);
                last = topk > last ? topk : last;
            }
        }
    return count;
}

int64_t cost_largest_batch(const settings *s, int64_t context, double memory)
{
    settings with = *s;
    with.context = context;
    with.lighthouse_steps = 0;
    int64_t fits = 0;
    for (with.micro_batch = 1; with.micro_batch <= 1024; with.micro_batch *= 2) {
        with.batch = with.micro_batch;
        if (phase_memory(&with, false) > memory)
            break;
        fits = with.micro_batch;
    }
    return fits;
}

/* The row of (L, p) with the budget nearest N/64 from below, or -1. */
static int find_row(const settings *s, const cost_row *rows, int count, int64_t levels, int64_t pool)
{
    int found = -1;
    for (int i = 0; i < count; i++)
        if (rows[i].levels == levels && rows[i].pool == pool &&
            (found < 0 || rows[i].topk <= s->context / 64))
            found = i;
    return found;
}

int cost_choose(const settings *s, const cost_row *rows, int count, const device_rates *rates, double memory,
                double seconds, char *advice, size_t size)
{
    static const struct {
        int64_t levels, pool;
        const char *why;
    } steps[] = {
        {3, 2, "start at three levels, p = 2: it recovers best after the switch"},
        {3, 4, "raise the stride to p = 4: slower to recover, but time runs over with p = 2"},
        {2, 4, "drop to two levels: time runs over with three"},
    };
    int chosen = -1;
    const char *why = "no (L, p, k) is valid for this context: dense";
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const int row = find_row(s, rows, count, steps[i].levels, steps[i].pool);
        if (row < 0 || (chosen >= 0 && cost_total_seconds(s, &rows[row], rates) >=
                                           cost_total_seconds(s, &rows[chosen], rates)))
            continue;
        chosen = row;
        why = steps[i].why;
        if (seconds <= 0 || cost_total_seconds(s, &rows[row], rates) <= seconds)
            break;
    }
    chosen = chosen < 0 ? 0 : chosen;
    const int two = find_row(s, rows, count, 2, 4);
    const bool fits = memory <= 0 || rows[chosen].memory <= memory;
    const bool in_time = seconds <= 0 || cost_total_seconds(s, &rows[chosen], rates) <= seconds;
    const int coarser = find_row(s, rows, count, 4, 2);
    char more[160] = "";
    if (rows[chosen].levels == 3 && rows[chosen].pool == 2 && coarser >= 0 &&
        rows[chosen].memory < memory / 2)
        snprintf(more, sizeof more,
                 " Memory is to spare: a coarser level (L = 4, k = %" PRId64
                 ") takes %.0f %% off a step, or a larger "
                 "k buys detail.",
                 rows[coarser].topk,
                 100 - 100 * cost_seconds(s, &rows[coarser], rates) / cost_seconds(s, &rows[chosen], rates));
    char no_help[96] = "";
    if (!in_time && two >= 0 && two != chosen)
        snprintf(no_help, sizeof no_help,
                 " Two levels would not help: they keep %" PRId64 " rows, not %" PRId64 ".",
                 rows[two].selected, rows[chosen].selected);
    snprintf(advice, size, "L = %" PRId64 ", p = %" PRId64 ", k = %" PRId64 ": %s.%s%s%s%s",
             rows[chosen].levels, rows[chosen].pool, rows[chosen].topk, why, more, no_help,
             fits ? "" : " Memory does not suffice: halve micro-batch or context, or take bf16.",
             in_time ? ""
                     : " Even so the time runs over: fewer steps, a smaller model, or a shorter context.");
    return chosen;
}
