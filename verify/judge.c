/*
 * A backend on one case in one dtype: each stage alone on the reference's own upstream tensors, then the
 * whole layer. Everything runs twice and must give the same bits; nothing but the outputs may change.
 */
#include <stdio.h>
#include <string.h>

#include "verify/row.h"

struct judging {
    const verify_case *subject;
    const verify_expect *stages, *layer;
    const char *backend;
    int device;
    lh_attention attention;
    const struct lh_tiles *tiles;
    lh_dtype dtype;
    verify_sink *sink;
    char note[128];             /* of the last output judged */
    verify_trace first, second; /* what the backend reads and writes; of the second run only the outputs */
};

static void report(const struct judging *j, const char *part, lh_tensor_id id, verify_result result,
                   const char *note)
{
    verify_row_send(j->sink,
                    &(verify_row){.subject = j->subject,
                                  .backend = j->backend,
                                  .dtype = j->dtype,
                                  .part = part,
                                  .tensor = id,
                                  .shape = j->first.tensor[id],
                                  .result = result},
                    note);
}

/* A call that came back with a status is a row; without memory nothing was compared, and verification ends. */
static lh_status report_refusal(const struct judging *j, const char *part, lh_tensor_id id,
                                const lh_error *refusal, lh_error *error)
{
    if (refusal->status == LH_NO_MEMORY)
        return lh_fail(error, LH_NO_MEMORY, "%s, case %s, %s: %s", j->backend, j->subject->id, part,
                       refusal->text);
    /* Another library's attention may say what it does not take; own kernels take everything. */
    const bool lends = j->attention != LH_ATTENTION_OWN && j->attention != LH_ATTENTION_AUTO;
    const verify_verdict verdict =
        lends && refusal->status == LH_UNSUPPORTED ? VERIFY_SKIPPED : VERIFY_REFUSED;
    report(j, part, id, (verify_result){.verdict = verdict, .worst = -1}, refusal->text);
    return LH_OK;
}

static void fail_at(verify_result *result, verify_verdict verdict, int64_t worst)
{
    if (!verify_passed(result->verdict))
        return;
    result->verdict = verdict;
    result->worst = worst;
}

/* One output: numbers, memory around it, and the second run's bits. */
static verify_result judge_output(struct judging *j, const verify_expect *expect, lh_tensor_id id,
                                  bool repeated)
{
    const lh_tensor *got = &j->first.tensor[id];
    verify_result result = verify_judge_tensor(expect, id, got, j->note, sizeof j->note);
    if (!verify_guards_hold(&j->first, id) || (repeated && !verify_guards_hold(&j->second, id)))
        fail_at(&result, VERIFY_GUARD, -1);
    const bool same_bits = j->attention == LH_ATTENTION_OWN || j->dtype == LH_F32 || j->dtype == LH_F64;
    const int64_t differs = repeated && same_bits ? verify_first_difference(got, &j->second.tensor[id]) : -1;
    if (differs >= 0)
        fail_at(&result, VERIFY_UNSTABLE, differs);
    return result;
}

/* A row for every input that the call changed, or whose surroundings it changed. */
static void judge_inputs(struct judging *j, const verify_expect *expect, const char *part,
                         const lh_tensor_id *ids)
{
    for (; *ids != LH_TENSOR_COUNT; ids++) {
        verify_result result = verify_compare(&j->first.tensor[*ids], &expect->given.tensor[*ids], 0);
        if (!verify_guards_hold(&j->first, *ids))
            result.verdict = VERIFY_GUARD;
        else if (result.verdict != VERIFY_EXACT)
            result.verdict = VERIFY_INPUT;
        if (!verify_passed(result.verdict))
            report(j, part, *ids, result, "an input");
    }
}

static lh_status fill(struct judging *j, const verify_expect *expect, const lh_tensor_id *ids,
                      lh_error *error)
{
    lh_status status = LH_OK;
    for (; *ids != LH_TENSOR_COUNT && status == LH_OK; ids++)
        status = lh_tensor_convert(&j->first.tensor[*ids], &expect->given.tensor[*ids], error);
    return status;
}

static void poison(struct judging *j, const lh_tensor_id *ids)
{
    for (; *ids != LH_TENSOR_COUNT; ids++) {
        verify_poison(&j->first, *ids);
        verify_poison(&j->second, *ids);
    }
}

/* first's tensors, with the outputs of the second run for `ids`. */
static void second_run(const struct judging *j, const lh_tensor_id *ids, lh_tensor *trace)
{
    memcpy(trace, j->first.tensor, sizeof j->first.tensor);
    for (; *ids != LH_TENSOR_COUNT; ids++)
        trace[*ids] = j->second.tensor[*ids];
}

static lh_status judge_stage(struct judging *j, lh_plan *plan, lh_stage stage, lh_error *error)
{
    const lh_tensor_id *reads = lh_stage_reads(stage), *writes = lh_stage_writes(stage);
    lh_tensor again[LH_TENSOR_COUNT];
    lh_error refusal;
    const lh_status status = fill(j, j->stages, reads, error);
    if (status != LH_OK)
        return status;
    poison(j, writes);
    second_run(j, writes, again);
    if (lh_run_stage(plan, stage, j->first.tensor, &refusal) != LH_OK ||
        lh_run_stage(plan, stage, again, &refusal) != LH_OK) {
        return report_refusal(j, lh_stage_name(stage), writes[0], &refusal, error);
    }
    for (const lh_tensor_id *id = writes; *id != LH_TENSOR_COUNT; id++)
        report(j, lh_stage_name(stage), *id, judge_output(j, j->stages, *id, true), j->note);
    judge_inputs(j, j->stages, lh_stage_name(stage), reads);
    return LH_OK;
}

static const lh_tensor_id layer_inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_TENSOR_COUNT};
static const lh_tensor_id kept[] = {LH_INDEX, LH_O_SEL, LH_LSE, LH_COVERAGE, LH_TENSOR_COUNT};
static const lh_tensor_id layer_writes[] = {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT,         LH_COVERAGE,
                                            LH_DQ,    LH_DK,    LH_DV,  LH_TENSOR_COUNT};
static const lh_tensor_id results[] = {LH_OUT, LH_DQ, LH_DK, LH_DV, LH_TENSOR_COUNT};

static lh_status run_layer(lh_plan *plan, const lh_tensor *trace, lh_error *refusal)
{
    const lh_status status = lh_forward(plan, trace, refusal);
    return status == LH_OK ? lh_backward(plan, trace, refusal) : status;
}

/* The index of a whole layer. *forced becomes true when what follows must be judged with that index. */
static lh_status judge_layer_index(struct judging *j, bool *usable, bool *forced, lh_error *error)
{
    const verify_expect *e = j->layer;
    const lh_tensor *got = &j->first.tensor[LH_INDEX];
    verify_selection selection = {.legal = true};
    verify_result result = judge_output(j, e, LH_INDEX, true);
    if (result.verdict == VERIFY_WRONG) {
        const lh_status status = verify_judge_index(&e->config, &e->layout, got, &e->want.tensor[LH_INDEX],
                                                    &e->want.tensor[LH_SCORE_Q], &e->want.tensor[LH_SCORE_K],
                                                    e->score_rounding, &selection, error);
        if (status != LH_OK)
            return status;
        result.error = selection.margin;
        result.allowed = 2 * e->score_rounding;
        result.share = selection.margin / result.allowed;
        if (selection.excused && !j->subject->exact_scores)
            result.verdict = VERIFY_EXCUSED;
        if (selection.excused)
            snprintf(selection.text, sizeof selection.text, "%lld entries differ by ties within %.1e%s",
                     (long long)selection.differing, selection.margin,
                     j->subject->exact_scores ? ", but these scores are exact: the order of ties is wrong"
                                              : "");
        result.worst = selection.first;
        result.got = verify_element(got, result.worst);
        result.wanted = verify_element(&e->want.tensor[LH_INDEX], result.worst);
    }
    *usable = selection.legal && (verify_passed(result.verdict) || result.verdict == VERIFY_WRONG ||
                                  result.verdict == VERIFY_UNSTABLE || result.verdict == VERIFY_GUARD);
    *forced = selection.differing > 0;
    report(j, "layer", LH_INDEX, result, selection.text);
    return LH_OK;
}

/* Outputs other than the index of one whole-layer run. */
static void judge_layer_outputs(struct judging *j, const verify_expect *expect, const char *part,
                                const lh_tensor_id *ids, bool repeated)
{
    for (; *ids != LH_TENSOR_COUNT; ids++) {
        if (*ids != LH_INDEX)
            report(j, part, *ids, judge_output(j, expect, *ids, repeated), j->note);
    }
    judge_inputs(j, j->layer, part, layer_inputs);
}

/* Forward and backward where the plan keeps index, o_sel, lse and coverage to itself. */
static lh_status judge_own_buffers(struct judging *j, lh_plan *plan, const verify_expect *expect,
                                   lh_error *error)
{
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_error refusal;
    poison(j, results);
    memcpy(trace, j->first.tensor, sizeof trace);
    for (const lh_tensor_id *id = kept; *id != LH_TENSOR_COUNT; id++)
        trace[*id].data = NULL;
    if (run_layer(plan, trace, &refusal) != LH_OK)
        return report_refusal(j, "layer, own buffers", LH_OUT, &refusal, error);
    judge_layer_outputs(j, expect, "layer, own buffers", results, false);
    return LH_OK;
}

static lh_status judge_whole_layer(struct judging *j, lh_plan *plan, lh_error *error)
{
    lh_tensor again[LH_TENSOR_COUNT];
    lh_error refusal;
    bool usable = false, forced = false;
    verify_expect *own = NULL;
    const verify_expect *expect = j->layer;
    lh_status status = fill(j, j->layer, layer_inputs, error);
    if (status != LH_OK)
        return status;
    poison(j, layer_writes);
    second_run(j, layer_writes, again);
    if (run_layer(plan, j->first.tensor, &refusal) != LH_OK || run_layer(plan, again, &refusal) != LH_OK) {
        return report_refusal(j, "layer", LH_OUT, &refusal, error);
    }
    status = judge_layer_index(j, &usable, &forced, error);
    if (status == LH_OK && usable && forced) {
        verify_trace inputs = {0};
        lh_tensor present[LH_TENSOR_COUNT] = {0};
        for (const lh_tensor_id *id = layer_writes; *id != LH_TENSOR_COUNT; id++) /* all are wanted */
            present[*id] = j->first.tensor[*id];
        for (const lh_tensor_id *id = layer_inputs; *id != LH_TENSOR_COUNT; id++)
            inputs.tensor[*id] = j->layer->given.tensor[*id];
        status = verify_expect_make(&own, 1, error);
        if (status == LH_OK)
            status = verify_expect_layer(own, &j->layer->config, j->dtype, &inputs, present, 0, error);
        expect = own;
    }
    if (status == LH_OK && usable) {
        judge_layer_outputs(j, expect, "layer", layer_writes, true);
        status = judge_own_buffers(j, plan, expect, error);
    }
    verify_expect_unmake(own, 1);
    return status;
}

/* The reference's index forced on the backend. */
static lh_status judge_index_given(struct judging *j, lh_plan *plan, lh_error *error)
{
    static const char part[] = "layer, index given";
    static const lh_tensor_id outputs[] = {LH_O_SEL, LH_LSE, LH_OUT, LH_COVERAGE,
                                           LH_DQ,    LH_DK,  LH_DV,  LH_TENSOR_COUNT};
    lh_error refusal;
    lh_status status = fill(j, j->layer, layer_inputs, error);
    if (status == LH_OK)
        status = lh_tensor_convert(&j->first.tensor[LH_INDEX], &j->layer->want.tensor[LH_INDEX], error);
    if (status != LH_OK)
        return status;
    poison(j, outputs);
    if (run_layer(plan, j->first.tensor, &refusal) != LH_OK) {
        return report_refusal(j, part, LH_OUT, &refusal, error);
    }
    if (verify_first_difference(&j->first.tensor[LH_INDEX], &j->layer->want.tensor[LH_INDEX]) >= 0)
        report(j, part, LH_INDEX, (verify_result){.verdict = VERIFY_INPUT, .worst = -1}, "an input");
    judge_layer_outputs(j, j->layer, part, outputs, false);
    return LH_OK;
}

static lh_status judge_with_plan(struct judging *j, bool index_given, lh_error *error)
{
    const lh_options options = {.backend = j->backend,
                                .device = j->device,
                                .dtype = j->dtype,
                                .attention = j->attention,
                                .tiles = j->tiles,
                                .backward = true,
                                .stages = !index_given,
                                .index_given = index_given};
    lh_plan *plan = NULL;
    lh_error refusal;
    lh_status status = LH_OK;
    if (lh_plan_create(&j->layer->config, &options, &plan, &refusal) != LH_OK) {
        return report_refusal(j, "plan", LH_OUT, &refusal, error);
    }
    if (index_given) {
        status = judge_index_given(j, plan, error);
    } else {
        for (int stage = 0; stage < LH_STAGE_COUNT && status == LH_OK; stage++)
            status = judge_stage(j, plan, (lh_stage)stage, error);
        if (status == LH_OK)
            status = judge_whole_layer(j, plan, error);
    }
    lh_plan_destroy(plan);
    return status;
}

lh_status verify_judge_backend(const verify_case *c, const verify_expect *stages, const verify_expect *layer,
                               const char *backend, int device, lh_attention attention,
                               const struct lh_tiles *tiles, verify_sink *sink, lh_error *error)
{
    struct judging j = {.subject = c,
                        .stages = stages,
                        .layer = layer,
                        .backend = backend,
                        .device = device,
                        .attention = attention,
                        .tiles = tiles,
                        .dtype = stages->dtype,
                        .sink = sink};
    lh_status status = verify_make_all(&j.first, &stages->config, j.dtype, c->strides, error);
    if (status == LH_OK)
        status = verify_make_all(&j.second, &stages->config, j.dtype, c->strides, error);
    if (status == LH_OK)
        status = judge_with_plan(&j, false, error);
    if (status == LH_OK)
        status = judge_with_plan(&j, true, error);
    verify_free(&j.first);
    verify_free(&j.second);
    return status;
}
