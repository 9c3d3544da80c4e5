/* Scores and selection of one head. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/sample_walk.h"
#include "scalar/run.h"

/* Scores of all tokens and windows of one head of x, into score [P]. */
static lh_status score_head(struct walk *w, lh_tensor_id x, double *score, lh_error *error)
{
    const lh_layout *l = &w->layout;
    const int64_t d = w->config->dim, p = w->config->pool;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->config->tokens && status == LH_OK; i++) {
        double most = 0, sum = 0;
        int exponent;
        status = sample_fetch(w, x, i, 1, d, w->found, error);
        for (int64_t c = 0; c < d; c++)
            most = fmax(most, fabs(w->found[c]));
        (void)frexp(most, &exponent);
        for (int64_t c = 0; c < d; c++) {
            const double scaled = ldexp(w->found[c], -exponent);
            sum += scaled * scaled;
        }
        score[i] = ldexp(sqrt(sum), exponent);
    }
    for (int64_t level = 1; level < w->config->levels; level++) {
        for (int64_t i = 0; i < l->level_size[level]; i++) {
            double most = score[l->level_offset[level - 1] + i * p];
            for (int64_t j = 1; j < p; j++)
                most = fmax(most, score[l->level_offset[level - 1] + i * p + j]);
            score[l->level_offset[level] + i] = most;
        }
    }
    return status;
}

static lh_status judge_scores(struct walk *w, lh_tensor_id id, const double *score, double *found,
                              lh_error *error)
{
    if (!sample_has(w, id) || (id == LH_SCORE_K && w->h % (w->config->heads / w->config->kv_heads) != 0))
        return LH_OK;
    const lh_status status = sample_fetch(w, id, 0, w->layout.entries, 1, found, error);
    const double rounding =
        2 * sample_unit(w, id) + 4 * verify_arithmetic(w->report->dtype) * (2 + sqrt((double)w->config->dim));
    for (int64_t e = 0; e < w->layout.entries && status == LH_OK; e++)
        sample_note(w, id, true, sample_element(w, id, e), found[e], score[e],
                    rounding * score[e] + sample_least(w, id));
    return status;
}

/* Selection of this head by these scores; the dump's index, if it has one, held to it. Without one, index becomes what
 * the scores choose. */
static lh_status judge_selection(struct walk *w, double *score_q, double *score_k, bool own, double rounding,
                                 lh_error *error)
{
    const int64_t rows = w->layout.selected;
    lh_tensor trace[LH_TENSOR_COUNT] = {0};
    int64_t *chosen;
    verify_selection s = {0};
    lh_status status = lh_alloc((void **)&chosen, (size_t)rows * sizeof *chosen, "index of a head", error);
    if (status != LH_OK)
        return status;
    trace[LH_SCORE_Q] = sample_one_tensor(w, LH_SCORE_Q, score_q);
    trace[LH_SCORE_K] = sample_one_tensor(w, LH_SCORE_K, score_k);
    trace[LH_INDEX] = sample_one_tensor(w, LH_INDEX, chosen);
    status = lh_ref_run(64, &w->one, LH_REF_STAGE(LH_SELECT), trace, NULL, error);
    if (status == LH_OK && sample_has(w, LH_INDEX)) {
        const lh_tensor got = sample_one_tensor(w, LH_INDEX, w->index);
        status = verify_judge_index(&w->one, &w->layout, &got, &trace[LH_INDEX], &trace[LH_SCORE_Q],
                                    &trace[LH_SCORE_K], rounding, &s, error);
        verify_row *row = sample_row_for(w->report, w, LH_INDEX, own);
        if (status == LH_OK && row) {
            row->result.elements += rows;
            if (s.differing > 0 && !verify_failed(row->result.verdict)) {
                row->result.verdict = s.excused ? VERIFY_EXCUSED : VERIFY_WRONG;
                row->result.worst = sample_element(w, LH_INDEX, s.first);
                row->result.got = (double)w->index[s.first];
                row->result.wanted = (double)chosen[s.first];
                snprintf(row->note, sizeof row->note, "%s", s.text);
            }
        }
    } else if (status == LH_OK) {
        memcpy(w->index, chosen, (size_t)rows * sizeof *chosen);
    }
    lh_free(chosen);
    return status;
}

lh_status sample_judge_choice(struct walk *w, lh_error *error)
{
    const size_t bytes = (size_t)w->layout.entries * sizeof(double);
    const double u = verify_arithmetic(w->report->dtype);
    double *score = NULL;
    lh_status status = lh_alloc((void **)&score, 4 * bytes, "scores of a head", error);
    double *q = score, *k = score ? q + w->layout.entries : NULL,
           *found_q = score ? k + w->layout.entries : NULL,
           *found_k = score ? found_q + w->layout.entries : NULL;
    if (status == LH_OK)
        status = score_head(w, LH_Q, q, error);
    if (status == LH_OK)
        status = score_head(w, LH_K, k, error);
    if (status == LH_OK)
        status = judge_scores(w, LH_SCORE_Q, q, found_q, error);
    if (status == LH_OK)
        status = judge_scores(w, LH_SCORE_K, k, found_k, error);
    const bool own = sample_has(w, LH_SCORE_Q) && sample_has(w, LH_SCORE_K);
    if (status == LH_OK && own && w->config->heads != w->config->kv_heads)
        status = sample_fetch(w, LH_SCORE_K, 0, w->layout.entries, 1, found_k, error);
    if (status == LH_OK && own)
        status = judge_selection(w, found_q, found_k, true, 0, error);
    else if (status == LH_OK)
        status = judge_selection(
            w, q, k, false,
            4 * u * (2 + sqrt((double)w->config->dim)) + 3 * verify_roundoff(w->report->dtype), error);
    lh_free(score);
    return status;
}

/* Without an index: whether this head's selection hangs on scores within rounding of each other. */
lh_status sample_find_open(struct walk *w, lh_error *error)
{
    verify_trace x = {0};
    const double u = verify_arithmetic(w->report->dtype);
    w->open = false;
    if (sample_has(w, LH_INDEX) || (sample_has(w, LH_SCORE_Q) && sample_has(w, LH_SCORE_K)))
        return LH_OK;
    lh_status status = verify_make(&x, &w->one, LH_F64, LH_Q, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = verify_make(&x, &w->one, LH_F64, LH_K, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = sample_fetch(w, LH_Q, 0, w->config->tokens, w->config->dim, x.tensor[LH_Q].data, error);
    if (status == LH_OK)
        status = sample_fetch(w, LH_K, 0, w->config->tokens, w->config->dim, x.tensor[LH_K].data, error);
    if (status == LH_OK)
        status = verify_undetermined(
            &w->one, &w->layout, &x.tensor[LH_Q], &x.tensor[LH_K],
            2 * (4 * u * (2 + sqrt((double)w->config->dim)) + 3 * verify_roundoff(w->report->dtype)),
            &w->open, error);
    verify_free(&x);
    w->group_open = w->group_open || w->open;
    return status;
}

/* What is behind an open selection is not judged in this head; a tensor judged in no head says so. */
void sample_leave_open(struct walk *w)
{
    for (int id = LH_Q_SEL; id < LH_TENSOR_COUNT; id++) {
        if (!sample_has(w, (lh_tensor_id)id) || id == LH_DOUT)
            continue;
        verify_row *row = sample_row_for(w->report, w, (lh_tensor_id)id, false);
        if (row && row->result.elements == 0) {
            row->result.verdict = VERIFY_UNJUDGED;
            snprintf(row->note, sizeof row->note,
                     "scores within rounding of each other decide the selection: dump index");
        }
    }
}
