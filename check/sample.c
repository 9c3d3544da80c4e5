/*
 * Judging by rows: one key/value head with its query heads at a time, a few rows of every tensor. What a stage reads
 * is the dump's own where the dump has it, else computed from what is before it; the report says which.
 *
 * Longer than other files: one walk through the stages, each a few lines, over one state.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/sample.h"
#include "core/random.h"
#include "scalar/run.h"

enum {
    LAST = 64 /* rows at the end of a head that are always judged */
};

/* Everything of one query head. */
struct walk {
    const lh_config *config;
    lh_config one; /* the same with one batch and one head */
    lh_layout layout;
    const check_source *source;
    const check_sample *sample;
    check_report *report;
    int64_t b, h, g;
    int64_t *index, *slot; /* [S], [P]: -1 where not selected */
    struct sample_head head;
    double *pooled; /* 3 [S,d]: sizes of the terms of q, k, v that are not in the dump */
    double *room;   /* what head points into, and three rows */
    struct sample_row row[3];
    double *found;             /* [d], or a window of rows */
    int64_t *tokens, *entries; /* judged rows: of [0,N), of [0,S) */
    int64_t token_count, entry_count;
    double *group[2][3]; /* dk, dv of the judged tokens over the heads of the group: want, stored, weighed */
    double group_weights;
    bool own_rows, have_backward;
    bool open,
        group_open; /* without an index, rounding decides this head's (a head of this group's) selection */
};

double check_work(const lh_config *c)
{
    lh_layout layout;
    if (lh_config_check(c, &layout, NULL) != LH_OK)
        return 0;
    return (double)(c->batch * c->heads * c->dim) * (double)layout.selected * (double)layout.selected;
}

static bool has(const struct walk *w, lh_tensor_id id)
{
    return w->source->has[id];
}

/* Row n of this head's tensor, n counted in its own rows. */
static int64_t element(const struct walk *w, lh_tensor_id id, int64_t n)
{
    lh_tensor t;
    lh_tensor_shape(w->config, &w->layout, LH_F64, id, &t);
    return lh_offset(&t, w->b, lh_has_kv_heads(id) ? w->g : w->h, n);
}

static lh_status fetch(const struct walk *w, lh_tensor_id id, int64_t row, int64_t count, int64_t width,
                       double *to, lh_error *error)
{
    return w->source->fetch(w->source, id, element(w, id, row), count * width, to, error);
}

static verify_row *row_for(check_report *report, const struct walk *w, lh_tensor_id id, bool own)
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
static void note(const struct walk *w, lh_tensor_id id, bool own, int64_t at, double got, double wanted,
                 double allowed)
{
    verify_row *row = row_for(w->report, w, id, own);
    if (!row)
        return;
    verify_result *r = &row->result;
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

static double unit(const struct walk *w, lh_tensor_id id)
{
    return verify_roundoff(w->source->dtype[id]);
}

/* Rounding of a sum of so many terms in the port's arithmetic, and of storing it. */
static double sum_rounding(const struct walk *w, lh_tensor_id id, int64_t terms)
{
    const double u = verify_arithmetic(w->report->dtype);
    return 2 * unit(w, id) + 4 * u * (2 + sqrt((double)terms));
}

static double least(const struct walk *w, lh_tensor_id id)
{
    return w->source->dtype[id] == LH_F16 ? 0x1p-23 : 0x1p-126;
}

/* The weights' relative error: of logits summed in the port's arithmetic, of the lse that was stored, and where q_sel and
 * k_sel are not in the dump of their storing. */
static double weights(const struct walk *w, const struct sample_row *r, double lse, bool backward)
{
    const double u = verify_arithmetic(w->report->dtype), half = verify_roundoff(w->report->dtype);
    const lh_dtype kept = has(w, LH_LSE) ? w->source->dtype[LH_LSE] : w->report->dtype;
    double rounding = 8 * u * fmax(r->logit, 1);
    if (backward)
        rounding += fmax(u, verify_roundoff(kept)) * fabs(lse);
    if (!w->own_rows)
        rounding += 8 * half * r->spread;
    if (w->report->wish.habits & VERIFY_TF32)
        rounding += 2 * 0x1p-10 * fmax(1, r->logit);
    if (w->report->wish.habits & VERIFY_ROUNDED_LOGITS)
        rounding += 2 * half * fmax(r->logit, 1);
    if (w->report->wish.habits & VERIFY_HALF_SUMS)
        rounding += half * (2 + sqrt((double)w->layout.selected));
    return expm1(rounding);
}

/* Of rows that the dump lacks, pooled and stored on the way. */
static double unseen(const struct walk *w)
{
    const double window = (double)w->layout.window[w->config->levels - 1];
    return w->own_rows ? 0
                       : (double)(2 + w->config->levels) * verify_roundoff(w->report->dtype) +
                             4 * verify_arithmetic(w->report->dtype) * (2 + sqrt(window));
}

static lh_status judge_row(struct walk *w, lh_tensor_id id, bool own, int64_t n, const struct sample_row *r,
                           double rounding, double heavy, lh_error *error)
{
    const int64_t d = w->config->dim;
    const lh_status status = fetch(w, id, n, 1, d, w->found, error);
    for (int64_t c = 0; c < d && status == LH_OK; c++)
        note(w, id, own, element(w, id, n) + c, w->found[c], r->want[c],
             rounding * r->stored[c] + heavy * r->weighed[c] + least(w, id));
    return status;
}

/* Which rows of [0,n) are judged: the first, the last 64, and some drawn. */
static int64_t choose(const struct walk *w, uint64_t stream, int64_t n, int64_t *rows)
{
    int64_t count = 0;
    if (n <= w->sample->rows + LAST + 1) {
        for (int64_t i = 0; i < n; i++)
            rows[count++] = i;
        return count;
    }
    rows[count++] = 0;
    for (int64_t i = 0; i < w->sample->rows; i++)
        rows[count++] = (int64_t)(lh_random_uniform(w->sample->seed, stream, (uint64_t)i) * (double)n);
    for (int64_t i = n - LAST; i < n; i++)
        rows[count++] = i;
    return count;
}

/* ---- what a head is made of ------------------------------------------------------------------- */

/* Mean of a window of x; size of its terms. */
static lh_status pool_row(struct walk *w, lh_tensor_id x, int64_t entry, double *mean, double *size,
                          lh_error *error)
{
    const int64_t d = w->config->dim;
    const int level = lh_level_of(&w->layout, (int)w->config->levels, entry);
    const int64_t window = w->layout.window[level], first = (entry - w->layout.level_offset[level]) * window;
    memset(mean, 0, (size_t)d * sizeof *mean);
    if (size)
        memset(size, 0, (size_t)d * sizeof *size);
    lh_status status = LH_OK;
    for (int64_t j = 0; j < window && status == LH_OK; j++) {
        status = fetch(w, x, first + j, 1, d, w->found, error);
        for (int64_t c = 0; c < d && status == LH_OK; c++) {
            mean[c] += w->found[c] / (double)window;
            if (size)
                size[c] += fabs(w->found[c]) / (double)window;
        }
    }
    return status;
}

static lh_status load_selected(struct walk *w, lh_tensor_id x, lh_tensor_id pyr, lh_tensor_id sel, double *to,
                               double *pooled, double **size, lh_error *error)
{
    const int64_t d = w->config->dim, rows = w->layout.selected;
    lh_status status = LH_OK;
    *size = has(w, sel) || has(w, pyr) ? to : pooled;
    if (has(w, sel))
        return fetch(w, sel, 0, rows, d, to, error);
    w->own_rows = false;
    for (int64_t s = 0; s < rows && status == LH_OK; s++)
        status = has(w, pyr) ? fetch(w, pyr, w->index[s], 1, d, to + s * d, error)
                             : pool_row(w, x, w->index[s], to + s * d, pooled + s * d, error);
    return status;
}

/* Positions that entry s of the sub-sequence writes: [*first, *end). */
static void written(const struct walk *w, int64_t s, int64_t *first, int64_t *end)
{
    const int level = lh_level_of(&w->layout, (int)w->config->levels, w->index[s]);
    const int64_t window = w->layout.window[level], i = w->index[s] - w->layout.level_offset[level];
    *first = i * window + window - 1;
    *end = *first + window < w->config->tokens ? *first + window : w->config->tokens;
}

/* do_sel of entry s from dout, and the size of its terms. */
static lh_status gather_gradient(struct walk *w, int64_t s, double *sum, double *size, lh_error *error)
{
    const int64_t d = w->config->dim;
    int64_t first, end;
    lh_status status = LH_OK;
    written(w, s, &first, &end);
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t j = first; j < end && status == LH_OK; j++) {
        status = fetch(w, LH_DOUT, j, 1, d, w->found, error);
        for (int64_t c = 0; c < d && status == LH_OK; c++) {
            sum[c] += w->found[c];
            if (size)
                size[c] += fabs(w->found[c]);
        }
    }
    return status;
}

static lh_status load_index(struct walk *w, lh_error *error)
{
    const int64_t rows = w->layout.selected;
    lh_status status = fetch(w, LH_INDEX, 0, rows, 1, w->head.weight, error);
    for (int64_t s = 0; s < rows && status == LH_OK; s++)
        w->index[s] = (int64_t)w->head.weight[s];
    return status;
}

static lh_status load_head(struct walk *w, lh_error *error)
{
    const int64_t d = w->config->dim, rows = w->layout.selected;
    struct sample_head *h = &w->head;
    lh_status status = LH_OK;
    for (int64_t e = 0; e < w->layout.entries; e++)
        w->slot[e] = -1;
    for (int64_t s = 0; s < rows; s++)
        w->slot[w->index[s]] = s;
    w->own_rows = true;
    status = load_selected(w, LH_Q, LH_Q_PYR, LH_Q_SEL, h->q, w->pooled + 0 * rows * d, &h->q_size, error);
    if (status == LH_OK)
        status =
            load_selected(w, LH_K, LH_K_PYR, LH_K_SEL, h->k, w->pooled + 1 * rows * d, &h->k_size, error);
    if (status == LH_OK)
        status =
            load_selected(w, LH_V, LH_V_PYR, LH_V_SEL, h->v, w->pooled + 2 * rows * d, &h->v_size, error);
    if (status == LH_OK && has(w, LH_O_SEL))
        status = fetch(w, LH_O_SEL, 0, rows, d, h->o, error);
    if (status == LH_OK && has(w, LH_LSE))
        status = fetch(w, LH_LSE, 0, rows, 1, h->lse, error);
    w->have_backward = has(w, LH_O_SEL) && has(w, LH_LSE) && (has(w, LH_DO_SEL) || has(w, LH_DOUT));
    for (int64_t s = 0; s < rows && status == LH_OK && w->have_backward; s++) {
        status = has(w, LH_DO_SEL) ? fetch(w, LH_DO_SEL, s, 1, d, h->go + s * d, error)
                                   : gather_gradient(w, s, h->go + s * d, NULL, error);
        h->D[s] = 0;
        for (int64_t c = 0; c < d; c++)
            h->D[s] += h->go[s * d + c] * h->o[s * d + c];
    }
    return status;
}

/* ---- the stages --------------------------------------------------------------------------------- */

static lh_status judge_pool(struct walk *w, lh_tensor_id x, lh_tensor_id pyr, lh_error *error)
{
    lh_status status = LH_OK;
    if (!has(w, pyr))
        return LH_OK;
    int64_t *rows = w->tokens + 2 * (w->sample->rows + LAST + 1); /* room of its own */
    const int64_t count = choose(w, (uint64_t)pyr, w->layout.entries, rows);
    struct sample_row *r = &w->row[0];
    for (int64_t i = 0; i < count && status == LH_OK; i++) {
        const int level = lh_level_of(&w->layout, (int)w->config->levels, rows[i]);
        status = pool_row(w, x, rows[i], r->want, r->stored, error);
        memset(r->weighed, 0, (size_t)w->config->dim * sizeof(double));
        if (status == LH_OK)
            status = judge_row(w, pyr, true, rows[i], r,
                               sum_rounding(w, pyr, w->layout.window[level]) + (double)level * unit(w, pyr),
                               0, error);
    }
    return status;
}

/* Scores of all tokens and windows of one head of x, into score [P]. */
static lh_status score_head(struct walk *w, lh_tensor_id x, double *score, lh_error *error)
{
    const lh_layout *l = &w->layout;
    const int64_t d = w->config->dim, p = w->config->pool;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->config->tokens && status == LH_OK; i++) {
        double most = 0, sum = 0;
        int exponent;
        status = fetch(w, x, i, 1, d, w->found, error);
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
    if (!has(w, id) || (id == LH_SCORE_K && w->h % (w->config->heads / w->config->kv_heads) != 0))
        return LH_OK;
    const lh_status status = fetch(w, id, 0, w->layout.entries, 1, found, error);
    const double rounding =
        2 * unit(w, id) + 4 * verify_arithmetic(w->report->dtype) * (2 + sqrt((double)w->config->dim));
    for (int64_t e = 0; e < w->layout.entries && status == LH_OK; e++)
        note(w, id, true, element(w, id, e), found[e], score[e], rounding * score[e] + least(w, id));
    return status;
}

static lh_tensor one_tensor(const struct walk *w, lh_tensor_id id, void *data)
{
    lh_tensor t;
    lh_layout layout = w->layout;
    layout.index_dtype = LH_I64;
    lh_tensor_shape(&w->one, &layout, LH_F64, id, &t);
    t.data = data;
    return t;
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
    trace[LH_SCORE_Q] = one_tensor(w, LH_SCORE_Q, score_q);
    trace[LH_SCORE_K] = one_tensor(w, LH_SCORE_K, score_k);
    trace[LH_INDEX] = one_tensor(w, LH_INDEX, chosen);
    status = lh_ref_run(64, &w->one, LH_REF_STAGE(LH_SELECT), trace, NULL, error);
    if (status == LH_OK && has(w, LH_INDEX)) {
        const lh_tensor got = one_tensor(w, LH_INDEX, w->index);
        status = verify_judge_index(&w->one, &w->layout, &got, &trace[LH_INDEX], &trace[LH_SCORE_Q],
                                    &trace[LH_SCORE_K], rounding, &s, error);
        verify_row *row = row_for(w->report, w, LH_INDEX, own);
        if (status == LH_OK && row) {
            row->result.elements += rows;
            if (s.differing > 0 && !verify_failed(row->result.verdict)) {
                row->result.verdict = s.excused ? VERIFY_EXCUSED : VERIFY_WRONG;
                row->result.worst = element(w, LH_INDEX, s.first);
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

static lh_status judge_choice(struct walk *w, lh_error *error)
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
    const bool own = has(w, LH_SCORE_Q) && has(w, LH_SCORE_K);
    if (status == LH_OK && own && w->config->heads != w->config->kv_heads)
        status = fetch(w, LH_SCORE_K, 0, w->layout.entries, 1, found_k, error);
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
static lh_status find_open(struct walk *w, lh_error *error)
{
    verify_trace x = {0};
    const double u = verify_arithmetic(w->report->dtype);
    w->open = false;
    if (has(w, LH_INDEX) || (has(w, LH_SCORE_Q) && has(w, LH_SCORE_K)))
        return LH_OK;
    lh_status status = verify_make(&x, &w->one, LH_F64, LH_Q, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = verify_make(&x, &w->one, LH_F64, LH_K, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = fetch(w, LH_Q, 0, w->config->tokens, w->config->dim, x.tensor[LH_Q].data, error);
    if (status == LH_OK)
        status = fetch(w, LH_K, 0, w->config->tokens, w->config->dim, x.tensor[LH_K].data, error);
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
static void leave_open(struct walk *w)
{
    for (int id = LH_Q_SEL; id < LH_TENSOR_COUNT; id++) {
        if (!has(w, (lh_tensor_id)id) || id == LH_DOUT)
            continue;
        verify_row *row = row_for(w->report, w, (lh_tensor_id)id, false);
        if (row && row->result.elements == 0) {
            row->result.verdict = VERIFY_UNJUDGED;
            snprintf(row->note, sizeof row->note,
                     "scores within rounding of each other decide the selection: dump index");
        }
    }
}

static lh_status judge_gather(struct walk *w, lh_tensor_id pyr, lh_tensor_id sel, lh_error *error)
{
    const int64_t d = w->config->dim;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->entry_count && status == LH_OK && has(w, pyr) && has(w, sel); i++) {
        const int64_t s = w->entries[i];
        status = fetch(w, pyr, w->index[s], 1, d, w->row[0].want, error);
        memset(w->row[0].stored, 0, (size_t)d * sizeof(double));
        memset(w->row[0].weighed, 0, (size_t)d * sizeof(double));
        if (status == LH_OK)
            status = judge_row(w, sel, true, s, &w->row[0], 0, 0, error);
    }
    return status;
}

static lh_status judge_attend(struct walk *w, lh_error *error)
{
    const bool product = verify_roundoff(w->report->dtype) > unit(w, LH_O_SEL);
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->entry_count && status == LH_OK && (has(w, LH_O_SEL) || has(w, LH_LSE)); i++) {
        const int64_t s = w->entries[i];
        struct sample_row *r = &w->row[0];
        double lse;
        sample_attend(&w->head, s, r, &lse);
        const double heavy = weights(w, r, lse, false);
        if (has(w, LH_O_SEL))
            status = judge_row(w, LH_O_SEL, w->own_rows, s, r,
                               unseen(w) + sum_rounding(w, LH_O_SEL, s + 1) +
                                   (product ? 2 * verify_roundoff(w->report->dtype) : 0),
                               heavy, error);
        if (status == LH_OK && has(w, LH_LSE))
            note(w, LH_LSE, w->own_rows, element(w, LH_LSE, s), w->head.lse[s], lse,
                 heavy + sum_rounding(w, LH_LSE, s + 1) * fmax(fabs(lse), 1));
    }
    return status;
}

/* out and coverage of the judged tokens, from o_sel: the dump's, or computed. */
static lh_status judge_scatter(struct walk *w, lh_error *error)
{
    const int64_t d = w->config->dim;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->token_count && status == LH_OK && (has(w, LH_OUT) || has(w, LH_COVERAGE));
         i++) {
        struct sample_row *sum = &w->row[0], *term = &w->row[1];
        int64_t cover = 0;
        double heavy = 0, lse;
        memset(sum->want, 0, (size_t)d * sizeof(double));
        memset(sum->stored, 0, (size_t)d * sizeof(double));
        memset(sum->weighed, 0, (size_t)d * sizeof(double));
        for (int64_t level = 0; level < w->config->levels; level++) {
            const int64_t at = (w->tokens[i] + 1) / w->layout.window[level] - 1;
            const int64_t s = at < 0 ? -1 : w->slot[w->layout.level_offset[level] + at];
            if (s < 0)
                continue;
            cover++;
            if (!has(w, LH_O_SEL) && has(w, LH_OUT)) {
                sample_attend(&w->head, s, term, &lse);
                heavy = fmax(heavy, weights(w, term, lse, false));
            }
            for (int64_t c = 0; c < d; c++) {
                const double o = has(w, LH_O_SEL) ? w->head.o[s * d + c] : term->want[c];
                sum->want[c] += o;
                sum->stored[c] += has(w, LH_O_SEL) ? fabs(o) : term->stored[c];
                sum->weighed[c] += has(w, LH_O_SEL) ? 0 : term->weighed[c];
            }
        }
        const double extra = has(w, LH_O_SEL) ? 0
                                              : unseen(w) + 4 * verify_roundoff(w->report->dtype) +
                                                    sum_rounding(w, LH_OUT, w->layout.selected);
        if (has(w, LH_OUT))
            status = judge_row(w, LH_OUT, has(w, LH_O_SEL), w->tokens[i], sum,
                               sum_rounding(w, LH_OUT, cover) + extra, heavy, error);
        if (status == LH_OK && has(w, LH_COVERAGE)) {
            status = fetch(w, LH_COVERAGE, w->tokens[i], 1, 1, w->found, error);
            if (status == LH_OK)
                note(w, LH_COVERAGE, true, element(w, LH_COVERAGE, w->tokens[i]), w->found[0], (double)cover,
                     0);
        }
    }
    return status;
}

static lh_status judge_scatter_backward(struct walk *w, lh_error *error)
{
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->entry_count && status == LH_OK && has(w, LH_DO_SEL) && has(w, LH_DOUT); i++) {
        struct sample_row *r = &w->row[0];
        int64_t first, end;
        written(w, w->entries[i], &first, &end);
        memset(r->stored, 0, (size_t)w->config->dim * sizeof(double));
        memset(r->weighed, 0, (size_t)w->config->dim * sizeof(double));
        status = gather_gradient(w, w->entries[i], r->want, r->stored, error);
        if (status == LH_OK)
            status = judge_row(w, LH_DO_SEL, true, w->entries[i], r, sum_rounding(w, LH_DO_SEL, end - first),
                               0, error);
    }
    return status;
}

static double product_rounding(const struct walk *w, lh_tensor_id id)
{
    const double half = verify_roundoff(w->report->dtype), u = unit(w, id);
    return unseen(w) + sum_rounding(w, id, w->layout.selected) + (half > u ? 2 * (half - u) : 0);
}

static lh_status judge_attend_backward(struct walk *w, lh_error *error)
{
    const bool own = w->own_rows && has(w, LH_DO_SEL);
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->entry_count && status == LH_OK && w->have_backward; i++) {
        const int64_t s = w->entries[i];
        struct sample_row *dq = &w->row[0], *dk = &w->row[1], *dv = &w->row[2];
        if (has(w, LH_DQ_SEL)) {
            sample_query(&w->head, s, dq);
            status = judge_row(w, LH_DQ_SEL, own, s, dq, product_rounding(w, LH_DQ_SEL),
                               weights(w, dq, w->head.lse[s], true), error);
        }
        if (status != LH_OK || (!has(w, LH_DK_SEL) && !has(w, LH_DV_SEL)))
            continue;
        double most = 0;
        for (int64_t later = s; later < w->layout.selected; later++)
            most = fmax(most, fabs(w->head.lse[later]));
        sample_key(&w->head, s, dk, dv);
        const double heavy = weights(w, dk, most, true);
        if (has(w, LH_DK_SEL))
            status = judge_row(w, LH_DK_SEL, own, s, dk, product_rounding(w, LH_DK_SEL), heavy, error);
        if (status == LH_OK && has(w, LH_DV_SEL))
            status = judge_row(w, LH_DV_SEL, own, s, dv, product_rounding(w, LH_DV_SEL), heavy, error);
    }
    return status;
}

/* What entry s of the sub-sequence sends back to q, k or v: the dump's row, or computed. False when neither can be. */
static lh_status gradient_row(struct walk *w, int x, int64_t s, struct sample_row *r, double *heavy,
                              lh_error *error)
{
    static const lh_tensor_id sel[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    const int64_t d = w->config->dim;
    if (has(w, sel[x])) {
        const lh_status status = fetch(w, sel[x], s, 1, d, r->want, error);
        for (int64_t c = 0; c < d; c++) {
            r->stored[c] = fabs(r->want[c]);
            r->weighed[c] = 0;
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
    *heavy = fmax(*heavy, weights(w, r, most, true));
    return LH_OK;
}

static void add_row(const struct sample_row *r, double factor, int64_t d, double *want, double *stored,
                    double *weighed)
{
    for (int64_t c = 0; c < d; c++) {
        want[c] += factor * r->want[c];
        stored[c] += factor * r->stored[c];
        weighed[c] += factor * r->weighed[c];
    }
}

/* dq of the judged tokens; what this head adds to dk and dv of them. */
static lh_status judge_unpool(struct walk *w, lh_error *error)
{
    static const lh_tensor_id result[] = {LH_DQ, LH_DK, LH_DV}, sel[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    const int64_t d = w->config->dim;
    lh_status status = LH_OK;
    for (int x = 0; x < 3 && status == LH_OK; x++) {
        if (!has(w, result[x]) || !(has(w, sel[x]) || w->have_backward))
            continue;
        for (int64_t i = 0; i < w->token_count && status == LH_OK; i++) {
            struct sample_row *sum = &w->row[0], *term = &w->row[1];
            double own_heavy = 0, *heavy = x == 0 ? &own_heavy : &w->group_weights;
            if (x == 0) {
                memset(sum->want, 0, (size_t)d * sizeof(double));
                memset(sum->stored, 0, (size_t)d * sizeof(double));
                memset(sum->weighed, 0, (size_t)d * sizeof(double));
            }
            for (int64_t level = 0; level < w->config->levels && status == LH_OK; level++) {
                const int64_t s =
                    w->slot[w->layout.level_offset[level] + w->tokens[i] / w->layout.window[level]];
                if (s < 0)
                    continue;
                status = gradient_row(w, x, s, term, heavy, error);
                add_row(term, 1 / (double)w->layout.window[level], d,
                        x == 0 ? sum->want : w->group[x - 1][0] + i * d,
                        x == 0 ? sum->stored : w->group[x - 1][1] + i * d,
                        x == 0 ? sum->weighed : w->group[x - 1][2] + i * d);
            }
            if (status == LH_OK && x == 0)
                status = judge_row(w, LH_DQ, has(w, LH_DQ_SEL), w->tokens[i], sum,
                                   sum_rounding(w, LH_DQ, w->config->levels) +
                                       (has(w, LH_DQ_SEL)
                                            ? 0
                                            : product_rounding(w, LH_DQ) + verify_roundoff(w->report->dtype)),
                                   own_heavy, error);
        }
    }
    return status;
}

/* dk and dv of the judged tokens, once all heads of the group have added theirs. */
static lh_status judge_group(struct walk *w, lh_error *error)
{
    static const lh_tensor_id result[] = {LH_DK, LH_DV}, sel[] = {LH_DK_SEL, LH_DV_SEL};
    const int64_t d = w->config->dim, group = w->config->heads / w->config->kv_heads;
    lh_status status = LH_OK;
    for (int x = 0; x < 2; x++) {
        const bool own = has(w, sel[x]);
        if (!has(w, result[x]) || !(own || w->have_backward))
            continue;
        for (int64_t i = 0; i < w->token_count && status == LH_OK; i++) {
            const struct sample_row r = {w->group[x][0] + i * d, w->group[x][1] + i * d,
                                         w->group[x][2] + i * d, 0, 0};
            status =
                judge_row(w, result[x], own, w->tokens[i], &r,
                          sum_rounding(w, result[x], w->config->levels * group) +
                              (own ? 0 : product_rounding(w, result[x]) + verify_roundoff(w->report->dtype)),
                          w->group_weights, error);
        }
    }
    return status;
}

static lh_status judge_head(struct walk *w, bool index_usable, lh_error *error)
{
    lh_status status = LH_OK;
    if (has(w, LH_INDEX) && index_usable)
        status = load_index(w, error);
    if (status == LH_OK)
        status = judge_pool(w, LH_Q, LH_Q_PYR, error);
    if (status == LH_OK && w->h % (w->config->heads / w->config->kv_heads) == 0)
        status = judge_pool(w, LH_K, LH_K_PYR, error);
    if (status == LH_OK && w->h % (w->config->heads / w->config->kv_heads) == 0)
        status = judge_pool(w, LH_V, LH_V_PYR, error);
    if (status == LH_OK && (!has(w, LH_INDEX) || index_usable))
        status = judge_choice(w, error);
    if (status != LH_OK || (has(w, LH_INDEX) && !index_usable))
        return status;
    status = find_open(w, error);
    if (status == LH_OK && w->open)
        leave_open(w);
    if (status != LH_OK || w->open)
        return status;
    status = load_head(w, error);
    if (status == LH_OK)
        status = judge_gather(w, LH_Q_PYR, LH_Q_SEL, error);
    if (status == LH_OK)
        status = judge_gather(w, LH_K_PYR, LH_K_SEL, error);
    if (status == LH_OK)
        status = judge_gather(w, LH_V_PYR, LH_V_SEL, error);
    if (status == LH_OK)
        status = judge_attend(w, error);
    if (status == LH_OK)
        status = judge_scatter(w, error);
    if (status == LH_OK)
        status = judge_scatter_backward(w, error);
    if (status == LH_OK)
        status = judge_attend_backward(w, error);
    return status == LH_OK ? judge_unpool(w, error) : status;
}

/* ---- one pass over everything -------------------------------------------------------------------- */

static lh_status judge_finite(struct walk *w, lh_error *error)
{
    enum {
        PIECE = 65536
    };
    double *piece;
    lh_status status = lh_alloc((void **)&piece, PIECE * sizeof *piece, "piece of a tensor", error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor t;
        bool bad = false;
        lh_tensor_shape(w->config, &w->layout, LH_F64, (lh_tensor_id)id, &t);
        const int64_t elements = lh_tensor_elements(&t);
        for (int64_t i = 0; i < elements && status == LH_OK && !bad && has(w, (lh_tensor_id)id); i += PIECE) {
            const int64_t n = elements - i < PIECE ? elements - i : PIECE;
            status = w->source->fetch(w->source, (lh_tensor_id)id, i, n, piece, error);
            for (int64_t j = 0; j < n && status == LH_OK && !bad; j++) {
                if (isfinite(piece[j]))
                    continue;
                verify_row *row = row_for(w->report, w, (lh_tensor_id)id, true);
                bad = true;
                if (lh_listed(lh_layer_inputs, (lh_tensor_id)id))
                    status =
                        lh_fail(error, LH_INVALID, "%s holds %s at element %" PRId64 ", wanted finite values",
                                lh_tensor_name((lh_tensor_id)id), isnan(piece[j]) ? "NaN" : "Inf", i + j);
                else if (row)
                    row->result = (verify_result){.verdict = isnan(piece[j]) ? VERIFY_NAN : VERIFY_INF,
                                                  .elements = 1,
                                                  .worst = i + j,
                                                  .got = piece[j],
                                                  .share = INFINITY};
            }
        }
    }
    lh_free(piece);
    return status;
}

/* Every head's index, whether it is one. */
static lh_status judge_indices(struct walk *w, bool *usable, lh_error *error)
{
    lh_error reason;
    lh_status status = LH_OK;
    *usable = true;
    for (int64_t i = 0; i < w->config->batch * w->config->heads && status == LH_OK && has(w, LH_INDEX); i++) {
        w->b = i / w->config->heads;
        w->h = i % w->config->heads;
        status = load_index(w, error);
        const lh_tensor index = one_tensor(w, LH_INDEX, w->index);
        if (status != LH_OK || lh_index_check(&w->one, &w->layout, &index, &reason) == LH_OK)
            continue;
        verify_row *row = row_for(w->report, w, LH_INDEX, true);
        *usable = false;
        if (row) {
            row->result.verdict = VERIFY_WRONG;
            snprintf(row->note, sizeof row->note, "head [%" PRId64 ",%" PRId64 "]: %.300s", w->b, w->h,
                     reason.text);
        }
        return LH_OK;
    }
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------------ */

static lh_status make_room(struct walk *w, lh_error *error)
{
    const int64_t d = w->config->dim, rows = w->layout.selected, judged = w->sample->rows + LAST + 1;
    const int64_t most = rows > judged ? rows : judged;
    const size_t doubles = (size_t)(8 * rows * d + 3 * most + 10 * d + 6 * judged * d);
    lh_status status = lh_alloc((void **)&w->room, doubles * sizeof(double), "head to be judged", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&w->index, (size_t)rows * sizeof *w->index, "index of a head", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&w->slot, (size_t)w->layout.entries * sizeof *w->slot, "slots of a head",
                          error);
    if (status == LH_OK)
        status =
            lh_alloc((void **)&w->tokens, 3 * (size_t)judged * sizeof *w->tokens, "rows to be judged", error);
    if (status != LH_OK)
        return status;
    double *at = w->room;
    double **parts[] = {&w->head.q, &w->head.k, &w->head.v, &w->head.o, &w->head.go};
    for (int i = 0; i < 5; i++, at += rows * d)
        *parts[i] = at;
    w->pooled = at;
    at += 3 * rows * d;
    w->head.lse = at;
    w->head.D = at + most;
    w->head.weight = at + 2 * most;
    at += 3 * most;
    for (int i = 0; i < 3; i++, at += 3 * d)
        w->row[i] = (struct sample_row){at, at + d, at + 2 * d, 0, 0};
    w->found = at;
    at += d;
    for (int i = 0; i < 6; i++, at += judged * d)
        w->group[i / 3][i % 3] = at;
    w->head.small = w->report->dtype == LH_F16 ? 0x1p-14 : 0;
    w->head.rows = rows;
    w->head.dim = d;
    w->entries = w->tokens + judged;
    return LH_OK;
}

static lh_status judge_groups(struct walk *w, bool usable, lh_error *error)
{
    const lh_config *c = w->config;
    const int64_t groups = c->batch * c->kv_heads, group = c->heads / c->kv_heads;
    const int64_t judged = w->sample->heads > 0 && w->sample->heads / group < groups
                               ? (w->sample->heads / group > 2 ? w->sample->heads / group : 2)
                               : groups;
    const int64_t count = judged < groups ? judged : groups;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < count && status == LH_OK; i++) {
        /* The first, the last, and evenly between: a fault of one batch or head shows most at the ends. */
        const int64_t at = count == 1 ? 0 : i * (groups - 1) / (count - 1);
        const int64_t room = w->sample->rows + LAST + 1;
        w->b = at / c->kv_heads;
        w->g = at % c->kv_heads;
        w->token_count = choose(w, (uint64_t)(1000 + 2 * at), c->tokens, w->tokens);
        w->entries = w->tokens + room;
        w->entry_count = choose(w, (uint64_t)(1001 + 2 * at), w->layout.selected, w->entries);
        w->group_weights = 0;
        w->group_open = false;
        for (int x = 0; x < 6; x++)
            memset(w->group[x / 3][x % 3], 0, (size_t)(room * c->dim) * sizeof(double));
        for (int64_t j = 0; j < group && status == LH_OK; j++) {
            w->h = w->g * group + j;
            if (w->sample->progress)
                fprintf(w->sample->progress, "\rhead %" PRId64 " of %" PRId64, i * group + j + 1,
                        count * group);
            status = judge_head(w, usable, error);
        }
        if (status == LH_OK && usable && !w->group_open)
            status = judge_group(w, error);
    }
    if (w->sample->progress)
        fprintf(w->sample->progress, "\r%40s\r", "");
    return status;
}

lh_status check_sampled(const lh_config *config, const check_source *source, const check_sample *sample,
                        const check_wish *wish, check_report *report, lh_error *error)
{
    struct walk w = {.config = config, .one = *config, .source = source, .sample = sample, .report = report};
    bool usable = true;
    report->config = *config;
    report->first_wrong = -1;
    report->sampled = *sample;
    if (wish)
        report->wish = *wish;
    if (!source->has[LH_Q] || !source->has[LH_K] || !source->has[LH_V])
        return lh_fail(error, LH_INVALID, "tensor %s is missing, wanted q, k and v",
                       !source->has[LH_Q]   ? "q"
                       : !source->has[LH_K] ? "k"
                                            : "v");
    report->dtype = source->dtype[LH_Q];
    w.one.batch = w.one.heads = w.one.kv_heads = 1;
    lh_status status = lh_config_check(config, &w.layout, error);
    if (status == LH_OK)
        status = make_room(&w, error);
    if (status == LH_OK)
        status = judge_finite(&w, error);
    if (status == LH_OK)
        status = judge_indices(&w, &usable, error);
    if (status == LH_OK)
        status = judge_groups(&w, usable, error);
    lh_free(w.room);
    lh_free(w.index);
    lh_free(w.slot);
    lh_free(w.tokens);
    if (status == LH_OK)
        check_conclude(report);
    return status;
}
