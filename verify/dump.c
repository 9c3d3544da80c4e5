/*
 * Somebody else's tensors. A stage is judged on the dump's own inputs to it where it has them all, so that one
 * early fault does not drown the rest; then everything is judged end to end from q k v.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "scalar/run.h"
#include "verify/row.h"

struct judge {
    const verify_dump *dump;
    verify_sink *sink;
};

static void report(const struct judge *j, const char *part, lh_tensor_id id, verify_result result,
                   const char *note)
{
    verify_row_send(j->sink,
                    &(verify_row){.subject = j->dump->subject,
                                  .backend = j->dump->name,
                                  .dtype = j->dump->present[id].dtype,
                                  .part = part,
                                  .tensor = id,
                                  .shape = j->dump->present[id],
                                  .result = result},
                    note);
}

/* The dump's index held to one set of scores. */
static lh_status judge_selection(const struct judge *j, const verify_expect *e, const lh_tensor *want,
                                 const verify_trace *scores, double rounding, verify_selection *s,
                                 lh_error *error)
{
    return verify_judge_index(&e->config, &e->layout, &j->dump->present[LH_INDEX], want,
                              &scores->tensor[LH_SCORE_Q], &scores->tensor[LH_SCORE_K], rounding, s, error);
}

/* Whether the head of element `at` of index hangs on scores that only binary64 takes for equal. */
static lh_status tie_by_rounding(const verify_expect *e, int64_t at, bool *by_rounding, lh_error *error)
{
    static const double BINARY64_TIE = 0x1p-50;
    bool *open;
    lh_status status =
        lh_alloc((void **)&open, (size_t)(e->config.batch * e->config.heads) * sizeof *open, "heads", error);
    if (status != LH_OK)
        return status;
    status = verify_undetermined(&e->config, &e->layout, &e->given.tensor[LH_Q], &e->given.tensor[LH_K],
                                 BINARY64_TIE, open, error);
    *by_rounding = status == LH_OK && open[at / e->layout.selected];
    lh_free(open);
    return status;
}

/* Scores that tie as stored excuse any choice between them, for they may differ in what the port ranked by. Where they
 * tie in exact arithmetic too, nothing is excused: the lower index goes first (SPEC 3.3). */
static lh_status judge_ties(const struct judge *j, const verify_expect *e, verify_selection *s,
                            lh_error *error)
{
    lh_tensor trace[LH_TENSOR_COUNT];
    verify_trace own = {0};
    verify_selection exact = {0};
    bool by_rounding = false;
    lh_status status = verify_make(&own, &e->config, LH_F64, LH_INDEX, VERIFY_PACKED, error);
    memcpy(trace, e->want.tensor, sizeof trace);
    trace[LH_INDEX] = own.tensor[LH_INDEX];
    if (status == LH_OK)
        status = lh_ref_run(64, &e->config, LH_REF_STAGE(LH_SELECT), trace, NULL, error);
    if (status == LH_OK &&
        verify_compare(&j->dump->present[LH_INDEX], &trace[LH_INDEX], 0).verdict != VERIFY_EXACT)
        status = judge_selection(j, e, &trace[LH_INDEX], &e->want, 0, &exact, error);
    verify_free(&own);
    if (status == LH_OK && exact.excused)
        status = tie_by_rounding(e, s->first, &by_rounding, error);
    if (status == LH_OK && exact.excused && !by_rounding) {
        s->excused = false;
        snprintf(s->text, sizeof s->text, "equal scores, but the lower index does not go first");
    }
    return status;
}

/* `rounding` is 0 where the dump's own scores were given. */
static lh_status judge_index(const struct judge *j, const verify_expect *e, const verify_trace *scores,
                             const char *part, double rounding, lh_error *error)
{
    const lh_tensor *got = &j->dump->present[LH_INDEX], *want = &e->want.tensor[LH_INDEX];
    verify_selection s = {0};
    verify_result result = verify_compare(got, want, 0);
    lh_status status = LH_OK;
    if (result.verdict == VERIFY_WRONG) {
        status = judge_selection(j, e, want, scores, rounding, &s, error);
        if (status == LH_OK && s.excused)
            status = judge_ties(j, e, &s, error);
        result.worst = s.first;
        result.got = verify_element(got, s.first);
        result.wanted = verify_element(want, s.first);
        result.error = s.margin;
        result.allowed = 2 * rounding;
        result.share = s.margin > 0 ? s.margin / result.allowed : 0;
        if (s.excused) {
            result.verdict = VERIFY_EXCUSED;
            snprintf(s.text, sizeof s.text, "%lld kept entries are others, of scores that tie within %.1e",
                     (long long)s.others, s.margin);
        }
    }
    if (status == LH_OK)
        report(j, part, LH_INDEX, result, s.text);
    return status;
}

static bool reads_present(const verify_dump *d, lh_stage stage)
{
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT; id++) {
        if (!d->present[*id].data)
            return false;
    }
    return true;
}

/* What a comparison says once it is asked whether it could say anything: rounding of the size of the values passes
 * everything. */
static verify_result weigh(const verify_expect *e, lh_tensor_id id, verify_result r, char *note, size_t room)
{
    const bool boundless = !isfinite(e->allowed[id]),
               blind = e->size[id] > 0 && !(e->allowed[id] <= e->size[id] / 2);
    if ((blind && r.verdict == VERIFY_WITHIN) || (boundless && r.verdict == VERIFY_WRONG)) {
        r.verdict = VERIFY_UNJUDGED;
        snprintf(note, room, "rounding in this precision is as large as the values here");
    }
    return r;
}

/* Squared norms choose as norms do (SPEC 8: not faults). */
static bool squares(const lh_tensor *got, const lh_tensor *want)
{
    const double u = 16 * verify_roundoff(got->dtype);
    for (int64_t i = 0; i < lh_tensor_elements(want); i++) {
        const double x = verify_element(got, i), y = verify_element(want, i) * verify_element(want, i);
        if (!(fabs(x - y) <= u * y))
            return false;
    }
    return true;
}

static verify_result judge_tensor(const struct judge *j, const verify_expect *e, lh_tensor_id id, char *note,
                                  size_t room)
{
    const lh_tensor *got = &j->dump->present[id];
    const verify_result r = verify_judge_tensor(e, id, got, note, room);
    if ((id == LH_SCORE_Q || id == LH_SCORE_K) && r.verdict == VERIFY_WRONG &&
        squares(got, &e->want.tensor[id])) {
        snprintf(note, room, "squares of the norms, which choose alike");
        return (verify_result){.verdict = VERIFY_EXCUSED, .elements = r.elements, .worst = -1};
    }
    return weigh(e, id, r, note, room);
}

/* Stages all of whose inputs the dump has: rounding above them is none of their business. */
static lh_status judge_stages(const struct judge *j, const verify_expect *e, lh_error *error)
{
    const verify_dump *d = j->dump;
    lh_status status = LH_OK;
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        const char *part = lh_stage_name((lh_stage)s);
        const lh_tensor_id *id = lh_stage_writes((lh_stage)s);
        for (; *id != LH_TENSOR_COUNT && status == LH_OK && reads_present(d, (lh_stage)s); id++) {
            char note[160];
            if (!d->present[*id].data)
                continue;
            if (*id == LH_INDEX) {
                status = judge_index(j, e, &e->given, part, 0, error);
            } else {
                const verify_result r = judge_tensor(j, e, *id, note, sizeof note);
                report(j, part, *id, r, note);
            }
        }
    }
    return status;
}

/* Relative rounding of the dump's own scores: what they are stored in, its dtype where they are not shown. */
static double score_rounding(const verify_dump *d, const verify_expect *e)
{
    const lh_tensor *shown = &d->present[LH_SCORE_Q];
    return e->score_rounding + verify_roundoff(shown->data ? shown->dtype : d->dtype);
}

/* Whether what the stage was given by way of the dump's tensors differs from what q k v lead to. */
static bool hangs_on_dump(const verify_dump *d, lh_stage stage)
{
    unsigned chain = 1u << stage;
    for (int s = stage; s >= 0; s--) {
        for (const lh_tensor_id *in = lh_stage_reads((lh_stage)s); chain >> s & 1 && *in != LH_TENSOR_COUNT;
             in++) {
            if (lh_listed(lh_layer_inputs, *in))
                continue;
            if (d->present[*in].data && *in != LH_INDEX)
                return true;
            for (int earlier = 0; earlier < s && !d->present[*in].data; earlier++)
                chain |= lh_listed(lh_stage_writes((lh_stage)earlier), *in) ? 1u << earlier : 0;
        }
    }
    return false;
}

/* A tensor that is wrong end to end, from the nearest tensors that the dump has: all rounding on the way is allowed. */
static void judge_nearest(const struct judge *j, const verify_expect *stages, const verify_expect *layer,
                          lh_tensor_id id)
{
    char note[160];
    const verify_result r = verify_judge_either(stages, layer, id, &j->dump->present[id], note, sizeof note);
    report(j, "nearest", id, r, note);
}

/* Whether a tensor is wrong in a head whose selection no rounding moves: those can be judged. */
static bool wrong_where_determined(const verify_expect *e, lh_tensor_id id, const lh_tensor *got,
                                   const bool *open)
{
    const lh_tensor *want = &e->want.tensor[id];
    const int64_t heads = want->shape[1], size = lh_tensor_elements(want) / (want->shape[0] * heads);
    const int64_t group = e->config.heads / heads;
    bool any = false;
    for (int64_t i = 0; i < e->config.batch * e->config.heads; i++)
        any = any || open[i];
    for (int64_t i = 0; any && i < lh_tensor_elements(want); i += size) {
        bool moved = false;
        for (int64_t h = 0; h < group; h++)
            moved = moved || open[i / size * group + h];
        for (int64_t j = i; j < i + size && !moved; j++) {
            if (!(fabs(verify_element(got, j) - verify_element(want, j)) <= e->allowed[id]))
                return true;
        }
    }
    return !any;
}

/* What comes of q k v (and dout), with the dump's index forced; the index is held to the reference's scores. */
static lh_status judge_end_to_end(const struct judge *j, const verify_expect *stages, verify_expect *e,
                                  lh_error *error)
{
    const verify_dump *d = j->dump;
    const double rounding = score_rounding(d, e);
    bool *open;
    lh_status status =
        lh_alloc((void **)&open, (size_t)(d->config.batch * d->config.heads) * sizeof *open, "heads", error);
    if (status != LH_OK)
        return status;
    memset(open, 0, (size_t)(d->config.batch * d->config.heads) * sizeof *open);
    const bool index_lost = d->lost & 1u << LH_INDEX;
    if (!d->present[LH_INDEX].data && !index_lost && e->needed & LH_REF_STAGE(LH_SELECT))
        status = verify_undetermined(&e->config, &e->layout, &e->given.tensor[LH_Q], &e->given.tensor[LH_K],
                                     2 * rounding, open, error);
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        const lh_tensor_id *id = lh_stage_writes((lh_stage)s);
        for (; *id != LH_TENSOR_COUNT; id++) {
            const bool index_free = s < LH_SELECT, gradient = s >= LH_SCATTER_BACKWARD;
            char note[160];
            if (!d->present[*id].data || *id == LH_INDEX || (!index_free && index_lost) ||
                (gradient && !d->present[LH_DOUT].data))
                continue;
            verify_result r = judge_tensor(j, e, *id, note, sizeof note);
            const bool wrong = verify_failed(r.verdict);
            if (wrong && !index_free && !wrong_where_determined(e, *id, &d->present[*id], open)) {
                r.verdict = VERIFY_UNJUDGED;
                snprintf(note, sizeof note,
                         "scores within rounding of each other decide the selection: dump index");
            } else if (wrong && !reads_present(d, (lh_stage)s) && hangs_on_dump(d, (lh_stage)s)) {
                judge_nearest(j, stages, e, *id);
            }
            report(j, "layer", *id, r, note);
        }
    }
    lh_free(open);
    if (status != LH_OK || !d->present[LH_INDEX].data)
        return status;
    status = lh_ref_run(64, &e->config, LH_REF_STAGE(LH_SELECT), e->want.tensor, NULL, error);
    return status == LH_OK ? judge_index(j, e, &e->want, "layer", rounding, error) : status;
}

/* q k v dout as F64; zeros where the dump has none, which nothing that is judged depends on. */
static lh_status take_inputs(const verify_dump *d, verify_trace *inputs, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    lh_status status = LH_OK;
    for (size_t i = 0; i < sizeof ids / sizeof *ids && status == LH_OK; i++) {
        const lh_tensor_id id = ids[i];
        status = verify_make(inputs, &d->config, LH_F64, id, VERIFY_PACKED, error);
        if (status == LH_OK && d->present[id].data)
            status = lh_tensor_convert(&inputs->tensor[id], &d->present[id], error);
        else if (status == LH_OK)
            memset(inputs->tensor[id].data, 0,
                   (size_t)lh_tensor_elements(&inputs->tensor[id]) * sizeof(double));
    }
    return status;
}

/* Stages whose outputs the dump has in vain: what they should have been is wanted nevertheless. */
static unsigned lost_stages(const verify_dump *d)
{
    unsigned stages = 0;
    for (int s = 0; s < (d->present[LH_DOUT].data ? LH_STAGE_COUNT : LH_SCATTER_BACKWARD); s++) {
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)s); *id != LH_TENSOR_COUNT; id++)
            stages |= d->lost >> *id & 1 ? LH_REF_STAGE(s) : 0;
    }
    return stages;
}

lh_status verify_judge_dump(const verify_dump *dump, verify_sink *sink, verify_expect *stages,
                            verify_expect *layer, lh_error *error)
{
    const struct judge j = {dump, sink};
    verify_trace inputs = {0};
    memset(stages, 0, sizeof *stages);
    memset(layer, 0, sizeof *layer);
    lh_status status = take_inputs(dump, &inputs, error);
    if (status == LH_OK)
        status = verify_expect_both(stages, layer, &dump->config, dump->dtype, &inputs, dump->present,
                                    dump->habits | VERIFY_STAGE * lost_stages(dump), error);
    if (status == LH_OK)
        status = judge_stages(&j, stages, error);
    if (status == LH_OK)
        status = judge_end_to_end(&j, stages, layer, error);
    verify_free(&inputs);
    return status;
}
