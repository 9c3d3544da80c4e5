/*
 * Faults met in other people's ports that are none of one stage's own: one tensor in another's place, an edge left out,
 * a sign, what was there before. Each is the stage done right and its tensors then changed.
 */
#include <string.h>

#include "check/faults.h"
#include "core/backend.h"
#include "scalar/run.h"

enum field_fault {
    SECOND_FOR_THIRD,
    NEGATED,
    DOUBLED,
    LAST_FEATURE,
    LAST_TOKEN,
    LAST_ENTRY,
};

static double *values(const lh_tensor *t)
{
    return t->data;
}

static void swap(const lh_tensor *a, const lh_tensor *b)
{
    for (int64_t i = 0; i < lh_tensor_elements(a); i++) {
        const double kept = values(a)[i];
        values(a)[i] = values(b)[i];
        values(b)[i] = kept;
    }
}

static void multiply(const lh_tensor *trace, const lh_tensor_id *ids, double factor)
{
    for (; *ids != LH_TENSOR_COUNT; ids++) {
        for (int64_t i = 0; i < lh_tensor_elements(&trace[*ids]); i++)
            values(&trace[*ids])[i] *= factor;
    }
}

/* Takes what the last token of every window brought out of the means. */
static void forget_last_token(const lh_config *config, const lh_layout *layout, const lh_tensor *x,
                              const lh_tensor *pyramid)
{
    const int64_t d = config->dim;
    for (int64_t i = 0; i < lh_tensor_elements(pyramid); i++) {
        const int64_t head = i / d / layout->entries, entry = i / d % layout->entries;
        const struct lh_span span = lh_span_of(config, layout, entry);
        const int64_t last = span.first + span.window - 1;
        if (span.window > 1)
            values(pyramid)[i] -= values(x)[(head * config->tokens + last) * d + i % d] / (double)span.window;
    }
}

/* Scores without the last feature of q and k. */
static lh_status score_short(const lh_config *config, const lh_tensor *trace, lh_error *error)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K};
    lh_tensor work[LH_TENSOR_COUNT];
    double *copy[2] = {NULL, NULL};
    lh_status status = LH_OK;
    memcpy(work, trace, sizeof work);
    for (int x = 0; x < 2 && status == LH_OK; x++) {
        const int64_t n = lh_tensor_elements(&trace[inputs[x]]);
        status = lh_alloc((void **)&copy[x], (size_t)n * sizeof(double), "rows without a feature", error);
        for (int64_t i = 0; i < n && status == LH_OK; i++)
            copy[x][i] = (i + 1) % config->dim == 0 ? 0 : values(&trace[inputs[x]])[i];
        work[inputs[x]].data = copy[x];
    }
    if (status == LH_OK)
        status = lh_ref_run(64, config, LH_REF_STAGE(LH_SCORE), work, NULL, error);
    lh_free(copy[0]);
    lh_free(copy[1]);
    return status;
}

/* Takes the last entry of every head out of what was scattered. */
static void forget_last_entry(const lh_config *config, const lh_layout *layout, const lh_tensor *trace)
{
    const int64_t d = config->dim, rows = layout->selected, n = config->tokens;
    for (int64_t head = 0; head < config->batch * config->heads; head++) {
        const int64_t row = head * rows + rows - 1;
        const struct lh_span span = lh_span_of(config, layout, lh_index_at(&trace[LH_INDEX], row));
        for (int64_t j = span.first + span.window - 1; j < span.first + 2 * span.window - 1 && j < n; j++) {
            for (int64_t c = 0; c < d; c++)
                values(&trace[LH_OUT])[(head * n + j) * d + c] -= values(&trace[LH_O_SEL])[row * d + c];
            ((int32_t *)trace[LH_COVERAGE].data)[head * n + j]--;
        }
    }
}

static lh_status field_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                               const lh_tensor *trace, lh_error *error)
{
    static const lh_tensor_id queries_and_keys[] = {LH_DQ_SEL, LH_DK_SEL, LH_TENSOR_COUNT};
    const lh_tensor_id *written = lh_stage_writes(fault->stage);
    if (fault->variant == LAST_FEATURE)
        return config->dim > 1 ? score_short(config, trace, error)
                               : lh_fail(error, LH_UNSUPPORTED, "one feature");
    const lh_status status = lh_ref_run(64, config, LH_REF_STAGE(fault->stage), trace, NULL, error);
    if (status != LH_OK)
        return status;
    switch (fault->variant) {
    case SECOND_FOR_THIRD:
        swap(&trace[written[1]], &trace[written[2]]);
        break;
    case NEGATED:
        multiply(trace, queries_and_keys, -1);
        break;
    case DOUBLED:
        multiply(trace, written, 2);
        break;
    case LAST_TOKEN:
        forget_last_token(config, layout, &trace[LH_Q], &trace[LH_Q_PYR]);
        forget_last_token(config, layout, &trace[LH_K], &trace[LH_K_PYR]);
        forget_last_token(config, layout, &trace[LH_V], &trace[LH_V_PYR]);
        break;
    case LAST_ENTRY:
        forget_last_entry(config, layout, trace);
        break;
    default:
        break;
    }
    return LH_OK;
}

const lh_fault lh_faults_field[] = {
    {28, LH_POOL, "pool-last-token-left-out", "SPEC 3.1", "A window has p^l tokens: the last one counts too.",
     LAST_TOKEN, field_wrongly},
    {28, LH_SCORE, "score-last-feature-left-out", "SPEC 3.2", "The norm is over all d features.",
     LAST_FEATURE, field_wrongly},
    {27, LH_GATHER, "gather-k-v-swapped", "SPEC 3.5", "k_sel comes from k_pyr and v_sel from v_pyr.",
     SECOND_FOR_THIRD, field_wrongly},
    {28, LH_SCATTER, "scatter-last-entry-left-out", "SPEC 3.7",
     "All S entries are scattered, the last one too.", LAST_ENTRY, field_wrongly},
    {27, LH_ATTEND_BACKWARD, "backward-dk-dv-swapped", "SPEC 4",
     "dk_sel is dS' * q_sel and dv_sel is P' * do_sel: they are exchanged.", SECOND_FOR_THIRD, field_wrongly},
    {30, LH_ATTEND_BACKWARD, "backward-negated", "SPEC 4", "dS = P * (do.v - D), not its negative.", NEGATED,
     field_wrongly},
    {30, LH_UNPOOL, "unpool-on-top-of-before", "SPEC 4",
     "dq, dk and dv are overwritten: what a step before left there is not added to.", DOUBLED, field_wrongly},
    {27, LH_UNPOOL, "unpool-dk-dv-swapped", "SPEC 4", "dk comes from dk_sel and dv from dv_sel.",
     SECOND_FOR_THIRD, field_wrongly},
    {0, LH_STAGE_COUNT, NULL, NULL, NULL, 0, NULL},
};
