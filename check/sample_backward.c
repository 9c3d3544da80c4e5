/* The gradients, on judged rows; dk and dv over the heads of a group. */
#include <math.h>
#include <string.h>

#include "check/sample_walk.h"

lh_status sample_judge_scatter_backward(struct walk *w, lh_error *error)
{
    lh_status status = LH_OK;
    for (int64_t i = 0;
         i < w->entry_count && status == LH_OK && sample_has(w, LH_DO_SEL) && sample_has(w, LH_DOUT); i++) {
        struct sample_row *r = &w->row[0];
        int64_t first, end;
        sample_written(w, w->entries[i], &first, &end);
        memset(r->stored, 0, (size_t)w->config->dim * sizeof(double));
        memset(r->weighed, 0, (size_t)w->config->dim * sizeof(double));
        status = sample_gather_gradient(w, w->entries[i], r->want, r->stored, error);
        if (status == LH_OK)
            status = sample_judge_row(w, LH_DO_SEL, true, w->entries[i], r,
                                      sample_sum_rounding(w, LH_DO_SEL, end - first), 0, error);
    }
    return status;
}

lh_status sample_judge_attend_backward(struct walk *w, lh_error *error)
{
    const bool own = w->own_rows && sample_has(w, LH_DO_SEL);
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->entry_count && status == LH_OK && w->have_backward; i++) {
        const int64_t s = w->entries[i];
        struct sample_row *dq = &w->row[0], *dk = &w->row[1], *dv = &w->row[2];
        if (sample_has(w, LH_DQ_SEL)) {
            sample_query(&w->head, s, dq);
            sample_factor_keep(w, 0, i, dq);
            status = sample_judge_row(w, LH_DQ_SEL, own, s, dq, sample_product_rounding(w, LH_DQ_SEL),
                                      sample_weights_rounding(w, dq, w->head.lse[s], true), error);
        }
        if (status != LH_OK || (!sample_has(w, LH_DK_SEL) && !sample_has(w, LH_DV_SEL)))
            continue;
        double most = 0;
        for (int64_t later = s; later < w->layout.selected; later++)
            most = fmax(most, fabs(w->head.lse[later]));
        sample_key(&w->head, s, dk, dv);
        sample_factor_keep(w, 1, i, dk);
        const double heavy = sample_weights_rounding(w, dk, most, true);
        if (sample_has(w, LH_DK_SEL))
            status = sample_judge_row(w, LH_DK_SEL, own, s, dk, sample_product_rounding(w, LH_DK_SEL), heavy,
                                      error);
        if (status == LH_OK && sample_has(w, LH_DV_SEL))
            status = sample_judge_row(w, LH_DV_SEL, own, s, dv, sample_product_rounding(w, LH_DV_SEL), heavy,
                                      error);
    }
    for (int gradient = 0; gradient < 2 && status == LH_OK; gradient++)
        status = sample_judge_factor(w, gradient, false, own, error);
    return status;
}

/* What entry s of the sub-sequence sends back to q, k or v: the dump's row, or computed. False when neither can be. */
static lh_status gradient_row(struct walk *w, int x, int64_t s, struct sample_row *r, double *heavy,
                              lh_error *error)
{
    static const lh_tensor_id sel[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    const int64_t d = w->config->dim;
    if (sample_has(w, sel[x])) {
        sample_clear(r, d);
        const lh_status status = sample_fetch(w, sel[x], s, 1, d, r->want, error);
        for (int64_t c = 0; c < d; c++) {
            r->stored[c] = fabs(r->want[c]);
        }
        return status;
    }
    double most = fabs(w->head.lse[s]);
    if (x == 0)
        sample_query(&w->head, s, r);
    else if (x == 1)
        sample_key(&w->head, s, r, &w->row[2]);
    else
        sample_key(&w->head, s, &w->row[2], r);
    for (int64_t later = s; x > 0 && later < w->layout.selected; later++)
        most = fmax(most, fabs(w->head.lse[later]));
    *heavy = fmax(*heavy, sample_weights_rounding(w, r, most, true));
    return LH_OK;
}

static void add_row(const struct sample_row *r, double factor, int64_t d, const struct sample_row *to)
{
    for (int64_t c = 0; c < d; c++) {
        to->want[c] += factor * r->want[c];
        to->stored[c] += factor * r->stored[c];
        to->weighed[c] += factor * r->weighed[c];
        if (to->of_D)
            to->of_D[c] += factor * r->of_D[c];
    }
}

/* dq of the judged tokens; what this head adds to dk and dv of them. */
lh_status sample_judge_unpool(struct walk *w, lh_error *error)
{
    static const lh_tensor_id result[] = {LH_DQ, LH_DK, LH_DV}, sel[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    const int64_t d = w->config->dim;
    lh_status status = LH_OK;
    for (int x = 0; x < 3 && status == LH_OK; x++) {
        if (!sample_has(w, result[x]) || !(sample_has(w, sel[x]) || w->have_backward))
            continue;
        for (int64_t i = 0; i < w->token_count && status == LH_OK; i++) {
            struct sample_row *term = &w->row[1],
                              group = {.want = w->group[x > 0 ? x - 1 : 0][0] + i * d,
                                       .stored = w->group[x > 0 ? x - 1 : 0][1] + i * d,
                                       .weighed = w->group[x > 0 ? x - 1 : 0][2] + i * d,
                                       .of_D = x == 1 && term->of_D ? w->group_of_D + i * d : NULL},
                              *sum = x == 0 ? &w->row[0] : &group;
            double own_heavy = 0, *heavy = x == 0 ? &own_heavy : &w->group_weights;
            if (x == 0)
                sample_clear(sum, d);
            for (int64_t level = 0; level < w->config->levels && status == LH_OK; level++) {
                const int64_t s =
                    w->slot[w->layout.level_offset[level] + w->tokens[i] / w->layout.window[level]];
                if (s < 0)
                    continue;
                status = gradient_row(w, x, s, term, heavy, error);
                add_row(term, 1 / (double)w->layout.window[level], d, sum);
            }
            if (x == 0)
                sample_factor_keep(w, 0, i, sum);
            if (status == LH_OK && x == 0)
                status =
                    sample_judge_row(w, LH_DQ, sample_has(w, LH_DQ_SEL), w->tokens[i], sum,
                                     sample_sum_rounding(w, LH_DQ, w->config->levels) +
                                         (sample_has(w, LH_DQ_SEL) ? 0
                                                                   : sample_product_rounding(w, LH_DQ) +
                                                                         verify_roundoff(w->report->dtype)),
                                     own_heavy, error);
        }
    }
    return status == LH_OK && !sample_has(w, LH_DQ_SEL) ? sample_judge_factor(w, 0, true, false, error)
                                                        : status;
}

/* dk and dv of the judged tokens, once all heads of the group have added theirs. */
lh_status sample_judge_group(struct walk *w, lh_error *error)
{
    static const lh_tensor_id result[] = {LH_DK, LH_DV}, sel[] = {LH_DK_SEL, LH_DV_SEL};
    const int64_t d = w->config->dim, group = w->config->heads / w->config->kv_heads;
    lh_status status = LH_OK;
    for (int x = 0; x < 2; x++) {
        const bool own = sample_has(w, sel[x]);
        if (!sample_has(w, result[x]) || !(own || w->have_backward))
            continue;
        for (int64_t i = 0; i < w->token_count && status == LH_OK; i++) {
            const struct sample_row r = {.want = w->group[x][0] + i * d,
                                         .stored = w->group[x][1] + i * d,
                                         .weighed = w->group[x][2] + i * d};
            status = sample_judge_row(
                w, result[x], own, w->tokens[i], &r,
                sample_sum_rounding(w, result[x], w->config->levels * group) +
                    (own ? 0 : sample_product_rounding(w, result[x]) + verify_roundoff(w->report->dtype)),
                w->group_weights, error);
        }
    }
    return status;
}
