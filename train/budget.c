/* Budgets by group: measuring spreads and sharing out. */
#include "train/budget.h"

#include <math.h>
#include <string.h>

#include "core/backend.h"
#include "core/json.h"
#include "train/views.h"

static const lh_tensor_id score_ids[2] = {LH_SCORE_Q, LH_SCORE_K};
static const double kept = 0.5; /* of the average so far: one batch alone says little */

lh_status budget_create(const settings *s, budget *b, lh_error *error)
{
    *b = (budget){.layers = s->layers, .groups = s->kv_heads};
    if (strcmp(s->budget, "entropy") != 0)
        return LH_OK;
    const size_t n = (size_t)(s->layers * s->kv_heads);
    lh_status status = lh_alloc((void **)&b->tile_topk, n * sizeof *b->tile_topk, "budgets", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&b->spread, n * sizeof *b->spread, "spreads", error);
    if (status != LH_OK) {
        budget_destroy(b);
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        b->tile_topk[i] = s->tile_topk;
        b->spread[i] = 0;
    }
    return LH_OK;
}

void budget_destroy(budget *b)
{
    lh_free(b->tile_topk);
    lh_free(b->spread);
    memset(b, 0, sizeof *b);
}

double budget_spread(int64_t n, const real *score)
{
    double sum = 0, entropy = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)score[i] * (double)score[i];
    for (int64_t i = 0; i < n; i++) {
        const double p = (double)score[i] * (double)score[i] / sum;
        entropy -= p > 0 ? p * log(p) : 0;
    }
    return sum > 0 ? fmin(exp(entropy) / (double)n, 1) : 1;
}

void budget_apportion(int64_t groups, const double *spread, int64_t tile_topk, int64_t most, int64_t *shares)
{
    const int64_t floor = tile_topk / 8 > 0 ? tile_topk / 8 * 2 : 2;
    const int64_t ceiling = 4 * tile_topk < most ? 4 * tile_topk : most / 2 * 2;
    double whole = 0;
    for (int64_t g = 0; g < groups; g++)
        whole += spread[g];
    for (int64_t g = 0; g < groups; g++)
        shares[g] = floor;
    /* Two at a time to the group that its share is furthest beyond: each time the largest drop in the sum of
     * squared distances, which is convex, so the end is its minimum. */
    for (int64_t left = groups * (tile_topk - floor); left > 0; left -= 2) {
        int64_t next = -1;
        double furthest = 0;
        for (int64_t g = 0; g < groups; g++) {
            const double wanted = (double)(groups * tile_topk) * spread[g] / whole - (double)shares[g];
            if (shares[g] < ceiling && (next < 0 || wanted > furthest)) {
                next = g;
                furthest = wanted;
            }
        }
        shares[next] += 2;
    }
}

void budget_share(const settings *s, budget *b)
{
    const lh_config config = settings_attention(s);
    lh_layout layout;
    if (!b->spread || config.levels == 1 || lh_config_check(&config, &layout, NULL) != LH_OK)
        return; /* no layer attends by budget */
    for (int64_t l = 0; l < b->layers; l++) {
        const double *spread = b->spread + l * b->groups;
        if (spread[0] > 0)
            budget_apportion(b->groups, spread, s->tile_topk, layout.tile_coarse,
                             b->tile_topk + l * b->groups);
    }
}

/* Mean over the batch of a group's H/G query spreads and its key spread, on the coarsest level. */
static double group_spread(const lh_plan *plan, const lh_tensor *score_q, const lh_tensor *score_k,
                           int64_t group)
{
    const lh_config *c = lh_plan_config(plan);
    const lh_layout *layout = lh_plan_layout(plan);
    const int64_t heads = c->heads / c->kv_heads, first = layout->level_offset[c->levels - 1];
    double sum = 0;
    for (int64_t b = 0; b < c->batch; b++) {
        const real *k = (const real *)score_k->data + lh_offset(score_k, b, group, first);
        sum += budget_spread(layout->coarse, k);
        for (int64_t h = 0; h < heads; h++) {
            const real *q = (const real *)score_q->data + lh_offset(score_q, b, group * heads + h, first);
            sum += budget_spread(layout->coarse, q);
        }
    }
    return sum / (double)(c->batch * (heads + 1));
}

/* scores: score_q and score_k on the host; there: where the model is computed. */
static lh_status measure_layer(const pass *p, int64_t layer, lh_plan *plan, const lh_tensor scores[2],
                               void *const there[2], budget *b, lh_error *error)
{
    const lh_arithmetic *on = p->m->on;
    lh_tensor trace[LH_TENSOR_COUNT];
    pass_trace(p, layer, trace);
    for (int i = 0; i < 2; i++) {
        trace[score_ids[i]] = scores[i];
        trace[score_ids[i]].data = there[i];
    }
    lh_status status = lh_run_stage(plan, LH_SCORE, trace, error);
    for (int i = 0; i < 2 && status == LH_OK; i++)
        status = on->get(on, scores[i].data, there[i], (size_t)lh_tensor_elements(&scores[i]) * sizeof(real),
                         error);
    if (status != LH_OK)
        return status;
    for (int64_t g = 0; g < b->groups; g++) {
        double *average = &b->spread[layer * b->groups + g];
        const double now = group_spread(plan, &scores[0], &scores[1], g);
        *average = *average > 0 ? kept * *average + (1 - kept) * now : now;
    }
    return LH_OK;
}

lh_status budget_measure(const pass *p, budget *b, lh_error *error)
{
    const lh_config config = pass_config(p, LIGHTHOUSE);
    lh_options options = pass_plan_options(p);
    const lh_arithmetic *on = p->m->on;
    lh_tensor scores[2] = {{0}, {0}};
    void *there[2] = {NULL, NULL};
    lh_plan *plan;
    options.backward = false;
    options.stages = true;
    lh_status status = lh_plan_create(&config, &options, &plan, error);
    for (int i = 0; i < 2; i++) {
        lh_tensor_describe(&config, pass_dtype(p), score_ids[i], &scores[i], NULL);
        const size_t bytes = (size_t)lh_tensor_elements(&scores[i]) * sizeof(real);
        if (status == LH_OK)
            status = lh_alloc(&scores[i].data, bytes, "scores", error);
        if (status == LH_OK)
            status = on->take(on, bytes, "scores", &there[i], error);
    }
    for (int64_t l = 0; l < b->layers && status == LH_OK; l++) {
        if (p->kind[l] == LIGHTHOUSE)
            status = measure_layer(p, l, plan, scores, there, b, error);
    }
    lh_plan_destroy(plan);
    for (int i = 0; i < 2; i++) {
        lh_free(scores[i].data);
        on->give(on, there[i]);
    }
    return status;
}

lh_tensor budget_tensor(const budget *b)
{
    return (lh_tensor){b->spread, LH_F64, 2, {b->layers, b->groups}, {b->groups, 1}};
}

json_t *budget_json(const budget *b, const pass *p)
{
    json_t *tile_topk = json_array(), *spread = json_array();
    for (int64_t l = 0; l < b->layers; l++) {
        json_t *budgets = json_array(), *spreads = json_array();
        for (int64_t g = 0; g < b->groups && p->kind[l] == LIGHTHOUSE; g++) {
            budgets = lh_json_append(budgets, json_integer(b->tile_topk[l * b->groups + g]));
            spreads = lh_json_append(spreads, json_real(b->spread[l * b->groups + g]));
        }
        tile_topk = lh_json_append(tile_topk, budgets);
        spread = lh_json_append(spread, spreads);
    }
    return json_pack("{s:s s:o s:o s:I s:f}", "kind", "budget", "tile_topk", tile_topk, "spread", spread,
                     "plans", (json_int_t)pass_plan_bytes(p), "seconds", b->seconds);
}
