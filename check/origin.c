/*
 * Where a NaN or an infinity came from: the rows of the inputs that an element was made of.
 *
 * A dump that shows little shows no more of it than one element. That element's position leads back to the entries of
 * the sub-sequence it was made of, and they to tokens; a dout that holds one itself is followed the other way.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/check.h"
#include "core/backend.h"
#include "scalar/run.h"

static void append(verify_row *row, const char *text)
{
    const size_t used = strlen(row->note);
    snprintf(row->note + used, sizeof row->note - used, "%s", text);
}

/* Tokens of the entry in slot s of query head `head`. */
static void name_entry(const verify_expect *e, const lh_tensor *index, int64_t head, int64_t s, char *text,
                       size_t room)
{
    const struct lh_span span =
        lh_span_of(&e->config, &e->layout, lh_index_at(index, head * e->layout.selected + s));
    if (span.window == 1)
        snprintf(text, room, " row %" PRId64 " (token %" PRId64 ")", s, span.first);
    else
        snprintf(text, room, " row %" PRId64 " (tokens %" PRId64 " to %" PRId64 ")", s, span.first,
                 span.first + span.window - 1);
}

/* The rows of o_sel that are added up in a row of out. */
static void name_terms(const verify_expect *e, const lh_tensor *index, int64_t element, verify_row *row)
{
    const int64_t at = element / e->config.dim, head = at / e->config.tokens, token = at % e->config.tokens;
    bool any = false;
    for (int64_t s = 0; s < e->layout.selected; s++) {
        const struct lh_span span =
            lh_span_of(&e->config, &e->layout, lh_index_at(index, head * e->layout.selected + s));
        const int64_t first = span.first + span.window - 1;
        char text[96];
        if (token < first || token >= first + span.window)
            continue;
        append(row, any ? "" : "; added up there: of o_sel");
        any = true;
        name_entry(e, index, head, s, text, sizeof text);
        append(row, text);
    }
    append(row, any ? "" : "; nothing is added up there: wanted +0");
}

/* A row of attention hangs on all before it: its own tokens are where to look first. */
static void name_row(const verify_expect *e, const lh_tensor *index, int64_t element, verify_row *row)
{
    const int64_t at = element / (row->tensor == LH_LSE ? 1 : e->config.dim);
    char text[96];
    name_entry(e, index, at / e->layout.selected, at % e->layout.selected, text, sizeof text);
    append(row, "; that is");
    append(row, text);
    append(row, " against all rows before it");
}

/* A gradient that is NaN or infinite where a dout that is so makes it so. */
static lh_status follow_dout(const struct check_evidence *evidence, check_report *report, lh_error *error)
{
    const verify_expect *e = evidence->stages;
    const lh_tensor *index = &evidence->dump->present[LH_INDEX];
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_TENSOR_COUNT};
    verify_trace made = {0};
    lh_status status = verify_make_all(&made, &e->config, LH_F64, VERIFY_PACKED, error);
    for (const lh_tensor_id *id = inputs; *id != LH_TENSOR_COUNT && status == LH_OK; id++)
        status = lh_tensor_convert(&made.tensor[*id], &e->given.tensor[*id], error);
    if (status == LH_OK)
        status = lh_tensor_convert(&made.tensor[LH_DOUT], &evidence->found[LH_DOUT], error);
    if (status == LH_OK && index->data)
        status = lh_tensor_convert(&made.tensor[LH_INDEX], index, error);
    if (status == LH_OK)
        status = lh_ref_run(64, &e->config, index->data ? LH_REF_ALL & ~LH_REF_STAGE(LH_SELECT) : LH_REF_ALL,
                            made.tensor, NULL, error);
    for (int i = 0; i < report->row_count && status == LH_OK; i++) {
        verify_row *row = &report->rows[i];
        const lh_tensor *found = &evidence->found[row->tensor];
        if (check_stage_of(row->tensor) < LH_SCATTER_BACKWARD ||
            check_stage_of(row->tensor) == LH_STAGE_COUNT ||
            (row->result.verdict != VERIFY_NAN && row->result.verdict != VERIFY_INF))
            continue;
        int64_t other = -1;
        for (int64_t k = 0; k < lh_tensor_elements(found) && other < 0; k++) {
            if (!isfinite(verify_element(found, k)) && isfinite(verify_element(&made.tensor[row->tensor], k)))
                other = k;
        }
        append(row, other < 0 ? "; what dout holds leads to each of them"
                              : "; what dout holds leads to some of them, not to all");
    }
    verify_free(&made);
    return status;
}

/* The first element that is not finite, which the row of a tensor set aside speaks of. */
static int64_t first_of(const lh_tensor *found)
{
    int64_t i = 0;
    while (isfinite(verify_element(found, i)))
        i++;
    return i;
}

lh_status check_origin(const struct check_evidence *evidence, check_report *report, lh_error *error)
{
    const verify_expect *e = evidence->stages;
    const lh_tensor *index = &e->given.tensor[LH_INDEX];
    const bool given = evidence->dump->present[LH_INDEX].data != NULL;
    bool gradients = false;
    for (int i = 0; i < report->row_count; i++) {
        verify_row *row = &report->rows[i];
        const lh_stage stage = check_stage_of(row->tensor);
        if (row->result.verdict != VERIFY_NAN && row->result.verdict != VERIFY_INF)
            continue;
        gradients = gradients || (stage >= LH_SCATTER_BACKWARD && stage < LH_STAGE_COUNT);
        if ((stage != LH_ATTEND && stage != LH_SCATTER) || !(e->needed & LH_REF_STAGE(stage)))
            continue;
        if (!given && !(e->needed & LH_REF_STAGE(LH_SELECT)))
            continue;
        const int64_t element = first_of(&evidence->found[row->tensor]);
        if (row->tensor == LH_OUT)
            name_terms(e, index, element, row);
        else
            name_row(e, index, element, row);
    }
    const unsigned lost = evidence->dump->lost;
    return gradients && lost & 1u << LH_DOUT && !(lost & 1u << LH_INDEX)
               ? follow_dout(evidence, report, error)
               : LH_OK;
}
