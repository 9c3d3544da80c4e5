/*
 * A factor common to the judged rows of dq or dk, in half types: verify/factor.c by rows.
 *
 * The error of a head's judged rows is projected on what is wanted there, and on the part of it that D makes. Only pairs
 * of a query and a key that reach those rows count in what honest rounding amounts to (sample_probe.c). There is no twin to
 * say what rounding the rows of q, k, v and do does that the dump lacks: the projection's derivatives with respect to them
 * do, at first order, each element rounded by itself.
 *
 *   dS, P    u                 of X = dS t; t[s,j] is what one unit of dS adds to the projection
 *   dP       2^-24 sqrt(d)     of P t times the size of dP's terms
 *   D        u |do o|          on the row's sum of P t, and D itself in the half type
 *   lse      expm1(u(lse) |lse|)  on the row's sums of X and of P D t
 *   unseen   sqrt(2) u         of the means and sums that the dump lacks, through the derivatives
 *   stored   u                 of the judged elements, and of the rows that they are un-pooled from
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/sample_factor.h"
#include "verify/allow.h"

/* As in verify/factor.c: independent roundings come to so many root sums of squares of units. */
static const double SPREADS = 3;

static bool half_type(const struct walk *w)
{
    return verify_arithmetic(w->report->dtype) < verify_roundoff(w->report->dtype);
}

static bool all_seen(const struct walk *w)
{
    return sample_has(w, LH_Q_SEL) && sample_has(w, LH_K_SEL) && sample_has(w, LH_V_SEL) &&
           sample_has(w, LH_DO_SEL);
}

lh_status sample_factor_create(struct walk *w, lh_error *error)
{
    const int64_t d = w->config->dim, rows = w->layout.selected, judged = sample_room(w);
    const int64_t reached = judged * w->config->levels, most = reached < rows ? reached : rows;
    const int64_t derivatives = all_seen(w) ? 0 : 2 * VERIFY_DIRECTIONS * rows * d;
    const size_t doubles = (size_t)(2 * VERIFY_DIRECTIONS * judged * d + VERIFY_DIRECTIONS * most * d +
                                    2 * VERIFY_DIRECTIONS * rows + derivatives + SAMPLE_PROBE_ROWS * d),
                 integers = (size_t)(most + rows);
    if (!half_type(w) || (!sample_has(w, LH_DQ_SEL) && !sample_has(w, LH_DK_SEL) && !sample_has(w, LH_DQ) &&
                          !sample_has(w, LH_DK)))
        return LH_OK;
    lh_status status = lh_alloc((void **)&w->factor, sizeof *w->factor, "projections of gradients", error);
    if (status != LH_OK)
        return status;
    memset(w->factor, 0, sizeof *w->factor);
    status = lh_alloc(&w->factor->room, doubles * sizeof(double) + integers * sizeof(int64_t),
                      "projections of gradients", error);
    if (status != LH_OK)
        return status;
    struct sample_factor *f = w->factor;
    double *at = f->room;
    for (int i = 0; i < 2 * VERIFY_DIRECTIONS; i++, at += judged * d)
        f->along[i / VERIFY_DIRECTIONS][i % VERIFY_DIRECTIONS] = at;
    for (int i = 0; i < VERIFY_DIRECTIONS; i++, at += most * d)
        f->pull[i] = at;
    for (int i = 0; i < VERIFY_DIRECTIONS; i++, at += 2 * rows) {
        f->X[i] = at;
        f->unit[i] = at + rows;
    }
    for (int i = 0; i < VERIFY_DIRECTIONS && derivatives > 0; i++, at += 2 * rows * d) {
        f->first[i] = at;
        f->second[i] = at + rows * d;
    }
    f->row = at;
    f->u_lse = fmax(verify_arithmetic(w->report->dtype), sample_unit(w, LH_LSE));
    f->fixed = (int64_t *)(at + SAMPLE_PROBE_ROWS * d);
    f->place = f->fixed + most;
    for (int64_t s = 0; s < rows; s++)
        f->place[s] = -1;
    return LH_OK;
}

void sample_factor_destroy(struct walk *w)
{
    if (w->factor)
        lh_free(w->factor->room);
    lh_free(w->factor);
    w->factor = NULL;
}

void sample_factor_keep(const struct walk *w, int gradient, int64_t i, const struct sample_row *r)
{
    const int64_t d = w->config->dim;
    if (!w->factor)
        return;
    memcpy(w->factor->along[gradient][VERIFY_ALL] + i * d, r->want, (size_t)d * sizeof(double));
    memcpy(w->factor->along[gradient][VERIFY_OF_D] + i * d, r->of_D, (size_t)d * sizeof(double));
}

static bool drawn_before(const int64_t *rows, int64_t i)
{
    int64_t n = 0;
    while (rows[n] != rows[i])
        n++;
    return n < i;
}

/* Adds the direction of a judged row, divided by the window it is un-pooled from, to that of slot s. */
static void pull_to(struct sample_factor *f, int64_t s, const double *const along[VERIFY_DIRECTIONS],
                    double window, int64_t d)
{
    if (f->place[s] < 0) {
        f->place[s] = f->count;
        f->fixed[f->count++] = s;
        for (int i = 0; i < VERIFY_DIRECTIONS; i++)
            memset(f->pull[i] + f->place[s] * d, 0, (size_t)d * sizeof(double));
    }
    for (int i = 0; i < VERIFY_DIRECTIONS; i++)
        sample_add(f->pull[i] + f->place[s] * d, 1 / window, along[i], d);
}

/* Which rows of the sub-sequence of this head reach the judged rows, and with which direction. */
static void pull_back(const struct walk *w, const double *const along[VERIFY_DIRECTIONS])
{
    struct sample_factor *f = w->factor;
    const int64_t d = w->config->dim, count = f->unpooled ? w->token_count : w->entry_count,
                  *rows = f->unpooled ? w->tokens : w->entries;
    f->count = 0;
    for (int64_t i = 0; i < count; i++) {
        const double *here[VERIFY_DIRECTIONS];
        for (int x = 0; x < VERIFY_DIRECTIONS; x++)
            here[x] = along[x] + i * d;
        if (drawn_before(rows, i))
            continue;
        if (!f->unpooled)
            pull_to(f, rows[i], here, 1, d);
        for (int64_t level = 0; f->unpooled && level < w->config->levels; level++) {
            const int64_t window = w->layout.window[level],
                          s = w->slot[w->layout.level_offset[level] + rows[i] / window];
            if (s >= 0)
                pull_to(f, s, here, (double)window, d);
        }
    }
    for (int64_t n = 0; n < f->count; n++)
        f->place[f->fixed[n]] = -1;
}

/* What was found along each direction, and the elements' own roundings. */
static lh_status find(struct walk *w, lh_tensor_id id, const double *want,
                      const double *const along[VERIFY_DIRECTIONS], lh_error *error)
{
    const struct sample_factor *f = w->factor;
    const int64_t d = w->config->dim, count = f->unpooled ? w->token_count : w->entry_count,
                  *rows = f->unpooled ? w->tokens : w->entries;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < count && status == LH_OK; i++) {
        if (drawn_before(rows, i))
            continue;
        status = sample_fetch(w, id, rows[i], 1, d, w->found, error);
        for (int64_t c = i * d; c < (i + 1) * d && status == LH_OK; c++) {
            for (int x = 0; x < VERIFY_DIRECTIONS; x++) {
                struct sample_shares *to = &w->factor->to[x];
                to->error += (w->found[c - i * d] - want[c]) * along[x][c];
                to->whole += along[x][c] * along[x][c];
                to->stored += want[c] * along[x][c] * want[c] * along[x][c];
                to->stored_total += want[c] * along[x][c];
                to->small += fabs(along[x][c]);
            }
        }
    }
    return status;
}

/* Of a mean or sum that the dump lacks, relative to the size of its terms: stored once, or once a level, where that of
 * a level below is averaged over p entries of the next. */
static double unseen_rounding(const struct walk *w)
{
    const double half = verify_roundoff(w->report->dtype),
                 window = (double)w->layout.window[w->config->levels - 1];
    const bool half_sums = w->report->wish.habits & VERIFY_HALF_SUMS;
    return half * (sqrt(2) + (half_sums ? 1 + sqrt(window) : 0)) +
           verify_arithmetic(w->report->dtype) * (2 + sqrt(window));
}

static double rounding_of(const struct walk *w, lh_tensor_id id, const struct sample_shares *x)
{
    const double half = verify_roundoff(w->report->dtype), u = verify_arithmetic(w->report->dtype);
    const double weights = half + sample_weights_rounding(w, &(struct sample_row){.logit = w->factor->logit},
                                                          0, false),
                 dim = (double)w->config->dim;
    const double terms = (double)(w->factor->unpooled ? w->config->levels : w->layout.selected);
    return weights * (SPREADS * (sqrt(x->each) + sqrt(x->fixed) + sqrt(x->running)) + fabs(x->total)) +
           half * (SPREADS * sqrt(x->D_rows) + fabs(x->D_total)) + SPREADS * sqrt(x->lse_rows) +
           x->lse_most * (fabs(x->total) + fabs(x->D_total)) +
           4 * u * (2 + sqrt(dim)) * SPREADS * sqrt(x->products) +
           verify_least(w->report->dtype) * x->vanishing + SPREADS * unseen_rounding(w) * sqrt(x->unseen) +
           (w->factor->unpooled ? half * (SPREADS * sqrt(x->kept) + fabs(x->total)) : 0) +
           sample_sum_rounding(w, id, (int64_t)terms) * (SPREADS * sqrt(x->stored) + fabs(x->stored_total)) +
           sample_least(w, id) * x->small;
}

static void judge(struct walk *w, lh_tensor_id id, bool own)
{
    verify_row *row = sample_row_for(w->report, w, id, own);
    for (int i = 0; i < VERIFY_DIRECTIONS && row && verify_passed(row->result.verdict); i++) {
        const struct sample_shares *x = &w->factor->to[i];
        const double allowed = rounding_of(w, id, x), share = x->error == 0 ? 0 : fabs(x->error) / allowed;
        row->result.share = fmax(row->result.share, share);
        if (!(share > 1)) /* NaN: weights overflow where logits are so large that rounding decides them */
            continue;
        row->result.verdict = VERIFY_WRONG;
        snprintf(
            row->note, sizeof row->note,
            "%s of [%lld,%lld] is %.3g times what is wanted in the judged rows, rounding leaves 1 +- %.2g",
            i == VERIFY_ALL ? "all" : "the part of D", (long long)w->b,
            (long long)(lh_has_kv_heads(id) ? w->g : w->h),
            1 + (i == VERIFY_ALL ? x->error : -x->error) / x->whole, allowed / x->whole);
    }
}

static bool passes(struct walk *w, lh_tensor_id id, bool own)
{
    const verify_row *row = sample_row_for(w->report, w, id, own);
    return row && verify_passed(row->result.verdict);
}

lh_status sample_judge_factor(struct walk *w, int gradient, bool unpooled, bool own, lh_error *error)
{
    static const lh_tensor_id ids[2][2] = {{LH_DQ_SEL, LH_DK_SEL}, {LH_DQ, LH_DK}};
    struct sample_factor *f = w->factor;
    const lh_tensor_id id = ids[unpooled][gradient];
    if (!f || !sample_has(w, id) || !w->have_backward || !passes(w, id, own))
        return LH_OK;
    const double *const along[] = {f->along[gradient][VERIFY_ALL], f->along[gradient][VERIFY_OF_D]};
    f->unpooled = unpooled;
    memset(f->to, 0, sizeof f->to);
    f->logit = 0;
    pull_back(w, along);
    sample_probe_head(w, gradient);
    const lh_status status = find(w, id, along[VERIFY_ALL], along, error);
    if (status == LH_OK)
        judge(w, id, own);
    return status;
}

lh_status sample_judge_group_factor(struct walk *w, lh_error *error)
{
    struct sample_factor *f = w->factor;
    const int64_t group = w->config->heads / w->config->kv_heads;
    lh_status status = LH_OK;
    if (!f || !sample_has(w, LH_DK) || sample_has(w, LH_DK_SEL) || !w->have_backward ||
        !passes(w, LH_DK, false) || (group > 1 && !sample_has(w, LH_INDEX)))
        return LH_OK;
    const double *const along[] = {w->group[0][0], w->group_of_D};
    f->unpooled = true;
    memset(f->to, 0, sizeof f->to);
    f->logit = 0;
    for (int64_t i = 0; i < group && status == LH_OK; i++) {
        w->h = w->g * group + i;
        if (group > 1) /* otherwise it is still there */
            status = sample_load_index(w, error);
        if (status == LH_OK && group > 1)
            status = sample_load_head(w, error);
        if (status != LH_OK)
            return status;
        pull_back(w, along);
        sample_probe_head(w, 1);
    }
    status = find(w, LH_DK, along[VERIFY_ALL], along, error);
    if (status == LH_OK)
        judge(w, LH_DK, false);
    return status;
}
