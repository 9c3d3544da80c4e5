/* What is found beside what is wanted: the allowance of an element, and the worst of each tensor. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/sample_walk.h"

verify_row *sample_row_for(check_report *report, const struct walk *w, lh_tensor_id id, bool own)
{
    const char *part = own ? lh_stage_name(check_stage_of(id)) : "layer";
    for (int i = 0; i < report->row_count; i++) {
        if (report->rows[i].tensor == id && strcmp(report->rows[i].part, part) == 0)
            return &report->rows[i];
    }
    if (report->row_count == CHECK_ROWS)
        return NULL;
    verify_row *row = &report->rows[report->row_count++];
    *row = (verify_row){.backend = "dump", .dtype = w->source->dtype[id], .part = part, .tensor = id};
    lh_tensor_shape(w->config, &w->layout, LH_F64, id, &row->shape);
    row->result = (verify_result){.verdict = VERIFY_EXACT, .worst = -1};
    return row;
}

/* One element judged: kept when it is the worst so far. */
/* An infinity in a tensor whose first one has a row already: that one may turn out an overflow, any other may be wrong. */
static void note_infinite(const struct walk *w, lh_tensor_id id, int64_t at, double got, double wanted)
{
    for (int i = 0; i < w->report->row_count; i++) {
        verify_row *row = &w->report->rows[i];
        const bool overflow = check_overflows(row->dtype, got, wanted);
        if (row->tensor != id ||
            (row->result.verdict != VERIFY_INF && row->result.verdict != VERIFY_OVERFLOW))
            continue;
        if (overflow && row->result.verdict == VERIFY_INF && row->result.worst == at)
            check_note_overflow(row, row->dtype);
        else if (overflow)
            continue;
        else
            row->result.verdict = VERIFY_INF;
        row->result.worst = at;
        row->result.got = got;
        row->result.wanted = wanted;
    }
}

void sample_note(const struct walk *w, lh_tensor_id id, bool own, int64_t at, double got, double wanted,
                 double allowed)
{
    if (isinf(got) && w->infinite[id] >= 0) {
        note_infinite(w, id, at, got, wanted);
        return;
    }
    verify_row *row = sample_row_for(w->report, w, id, own);
    if (!row)
        return;
    verify_result *r = &row->result;
    /* Logits so large that rounding an lse decides whether a weight is a number. */
    if (!isfinite(wanted) || !isfinite(allowed)) {
        if (r->elements == 0 && r->verdict == VERIFY_EXACT) {
            r->verdict = VERIFY_UNJUDGED;
            snprintf(row->note, sizeof row->note,
                     "rounding in this precision is as large as the values here");
        }
        return;
    }
    const double error = fabs(got - wanted), share = error == 0 ? 0 : error / allowed;
    r->elements++;
    if (r->verdict == VERIFY_UNJUDGED) { /* in another head */
        r->verdict = VERIFY_EXACT;
        row->note[0] = '\0';
    }
    if (error == 0 || share <= r->share)
        return;
    r->worst = at;
    r->got = got;
    r->wanted = wanted;
    r->error = error;
    r->allowed = allowed;
    r->share = share;
    r->verdict = share <= 1 ? VERIFY_WITHIN : VERIFY_WRONG;
}

double sample_unit(const struct walk *w, lh_tensor_id id)
{
    return verify_roundoff(w->source->dtype[id]);
}

/* Rounding of a sum of so many terms in the port's arithmetic, and of storing it. Half sums are the weights' matter where
 * there are weights. */
double sample_sum_rounding(const struct walk *w, lh_tensor_id id, int64_t terms)
{
    const double u = verify_arithmetic(w->report->dtype), half = verify_roundoff(w->report->dtype);
    const lh_stage stage = check_stage_of(id);
    const bool half_sums =
        w->report->wish.habits & VERIFY_HALF_SUMS && stage != LH_ATTEND && stage != LH_ATTEND_BACKWARD;
    return 2 * sample_unit(w, id) + 4 * u * (2 + sqrt((double)terms)) +
           (half_sums ? half * (1 + sqrt((double)terms)) : 0);
}

double sample_least(const struct walk *w, lh_tensor_id id)
{
    return w->source->dtype[id] == LH_F16 ? 0x1p-23 : 0x1p-126;
}

/* The weights' relative error: of logits summed in the port's arithmetic, of the lse that was stored, and where q_sel and
 * k_sel are not in the dump of their storing. */
double sample_weights_rounding(const struct walk *w, const struct sample_row *r, double lse, bool backward)
{
    const double u = verify_arithmetic(w->report->dtype), half = verify_roundoff(w->report->dtype);
    const lh_dtype kept = sample_has(w, LH_LSE) ? w->source->dtype[LH_LSE] : w->report->dtype;
    double rounding = 8 * u * fmax(r->logit, 1);
    if (backward)
        rounding += fmax(u, verify_roundoff(kept)) * fabs(lse);
    if (!w->own_rows)
        rounding += 8 * half * r->spread;
    /* Two operands are cut for each product: logits, what weights are multiplied with, and backward dP too. */
    if (w->report->wish.habits & VERIFY_TF32)
        rounding += 2 * 0x1p-10 * ((backward ? 2 : 1) + r->logit);
    if (w->report->wish.habits & (VERIFY_ROUNDED_LOGITS | VERIFY_HALF_SUMS)) /* a logit is a sum */
        rounding += 2 * half * fmax(r->logit, 1);
    if (w->report->wish.habits & VERIFY_HALF_SUMS)
        rounding += half * (2 + sqrt((double)w->layout.selected));
    return expm1(rounding);
}

/* Of rows that the dump lacks, pooled and stored on the way. */
double sample_unseen_rounding(const struct walk *w)
{
    const double window = (double)w->layout.window[w->config->levels - 1];
    return w->own_rows ? 0
                       : (double)(2 + w->config->levels) * verify_roundoff(w->report->dtype) +
                             4 * verify_arithmetic(w->report->dtype) * (2 + sqrt(window));
}

double sample_product_rounding(const struct walk *w, lh_tensor_id id)
{
    const double half = verify_roundoff(w->report->dtype), u = sample_unit(w, id);
    return sample_unseen_rounding(w) + sample_sum_rounding(w, id, w->layout.selected) +
           (half > u ? 2 * (half - u) : 0);
}

lh_status sample_judge_row(struct walk *w, lh_tensor_id id, bool own, int64_t n, const struct sample_row *r,
                           double rounding, double heavy, lh_error *error)
{
    const int64_t d = w->config->dim;
    const lh_status status = sample_fetch(w, id, n, 1, d, w->found, error);
    for (int64_t c = 0; c < d && status == LH_OK; c++)
        sample_note(w, id, own, sample_element(w, id, n) + c, w->found[c], r->want[c],
                    rounding * r->stored[c] + heavy * r->weighed[c] + sample_least(w, id));
    return status;
}
