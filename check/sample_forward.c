/* Pooling, gathering, attention and scattering, on judged rows. */
#include <math.h>
#include <string.h>

#include "check/sample_walk.h"

/* Means are rounded when they are stored, and where levels are pooled from each other at each level. */
static double pool_rounding(const struct walk *w, lh_tensor_id id, int level)
{
    return sample_sum_rounding(w, id, w->layout.window[level]) + (double)level * sample_unit(w, id);
}

lh_status sample_judge_pool(struct walk *w, lh_tensor_id x, lh_tensor_id pyr, lh_error *error)
{
    lh_status status = LH_OK;
    if (!sample_has(w, pyr))
        return LH_OK;
    int64_t *rows = w->tokens + 2 * sample_room(w); /* room of its own */
    const int64_t count = sample_draw(w, (uint64_t)pyr, w->layout.entries, rows);
    struct sample_row *r = &w->row[0];
    for (int64_t i = 0; i < count && status == LH_OK; i++) {
        const int level = lh_level_of(&w->layout, (int)w->config->levels, rows[i]);
        status = sample_pool_row(w, x, rows[i], r->want, r->stored, error);
        memset(r->weighed, 0, (size_t)w->config->dim * sizeof(double));
        if (status == LH_OK)
            status = sample_judge_row(w, pyr, true, rows[i], r, pool_rounding(w, pyr, level), 0, error);
    }
    return status;
}

lh_status sample_judge_gather(struct walk *w, lh_tensor_id x, lh_tensor_id pyr, lh_tensor_id sel,
                              lh_error *error)
{
    const bool own = sample_has(w, pyr);
    struct sample_row *r = &w->row[0];
    lh_status status = LH_OK;
    for (int64_t i = 0; i < w->entry_count && status == LH_OK && sample_has(w, x) && sample_has(w, sel);
         i++) {
        const int64_t s = w->entries[i];
        const int level = lh_level_of(&w->layout, (int)w->config->levels, w->index[s]);
        sample_clear(r, w->config->dim);
        status = own ? sample_fetch(w, pyr, w->index[s], 1, w->config->dim, r->want, error)
                     : sample_pool_row(w, x, w->index[s], r->want, r->stored, error);
        if (status == LH_OK)
            status = sample_judge_row(w, sel, own, s, r, own ? 0 : pool_rounding(w, sel, level), 0, error);
    }
    return status;
}

lh_status sample_judge_attend(struct walk *w, lh_error *error)
{
    const bool product = verify_roundoff(w->report->dtype) > sample_unit(w, LH_O_SEL);
    lh_status status = LH_OK;
    for (int64_t i = 0;
         i < w->entry_count && status == LH_OK && (sample_has(w, LH_O_SEL) || sample_has(w, LH_LSE)); i++) {
        const int64_t s = w->entries[i];
        struct sample_row *r = &w->row[0];
        double lse;
        sample_attend(&w->head, s, r, &lse);
        const double heavy = sample_weights_rounding(w, r, lse, false);
        if (sample_has(w, LH_O_SEL))
            status = sample_judge_row(w, LH_O_SEL, w->own_rows, s, r,
                                      sample_unseen_rounding(w) + sample_sum_rounding(w, LH_O_SEL, s + 1) +
                                          (product ? 2 * verify_roundoff(w->report->dtype) : 0),
                                      heavy, error);
        if (status == LH_OK && sample_has(w, LH_LSE))
            sample_note(w, LH_LSE, w->own_rows, sample_element(w, LH_LSE, s), w->head.lse[s], lse,
                        heavy + sample_sum_rounding(w, LH_LSE, s + 1) * fmax(fabs(lse), 1));
    }
    return status;
}

/* out and coverage of the judged tokens, from o_sel: the dump's, or computed. */
lh_status sample_judge_scatter(struct walk *w, lh_error *error)
{
    const int64_t d = w->config->dim;
    lh_status status = LH_OK;
    for (int64_t i = 0;
         i < w->token_count && status == LH_OK && (sample_has(w, LH_OUT) || sample_has(w, LH_COVERAGE));
         i++) {
        struct sample_row *sum = &w->row[0], *term = &w->row[1];
        int64_t cover = 0;
        double heavy = 0, lse;
        sample_clear(sum, d);
        for (int64_t level = 0; level < w->config->levels; level++) {
            const int64_t at = (w->tokens[i] + 1) / w->layout.window[level] - 1;
            const int64_t s = at < 0 ? -1 : w->slot[w->layout.level_offset[level] + at];
            if (s < 0)
                continue;
            cover++;
            if (!sample_has(w, LH_O_SEL) && sample_has(w, LH_OUT)) {
                sample_attend(&w->head, s, term, &lse);
                heavy = fmax(heavy, sample_weights_rounding(w, term, lse, false));
            }
            for (int64_t c = 0; c < d; c++) {
                const double o = sample_has(w, LH_O_SEL) ? w->head.o[s * d + c] : term->want[c];
                sum->want[c] += o;
                sum->stored[c] += sample_has(w, LH_O_SEL) ? fabs(o) : term->stored[c];
                sum->weighed[c] += sample_has(w, LH_O_SEL) ? 0 : term->weighed[c];
            }
        }
        const double extra = sample_has(w, LH_O_SEL)
                                 ? 0
                                 : sample_unseen_rounding(w) + 4 * verify_roundoff(w->report->dtype) +
                                       sample_sum_rounding(w, LH_OUT, w->layout.selected);
        if (sample_has(w, LH_OUT))
            status = sample_judge_row(w, LH_OUT, sample_has(w, LH_O_SEL), w->tokens[i], sum,
                                      sample_sum_rounding(w, LH_OUT, cover) + extra, heavy, error);
        if (status == LH_OK && sample_has(w, LH_COVERAGE)) {
            status = sample_fetch(w, LH_COVERAGE, w->tokens[i], 1, 1, w->found, error);
            if (status == LH_OK)
                sample_note(w, LH_COVERAGE, true, sample_element(w, LH_COVERAGE, w->tokens[i]), w->found[0],
                            (double)cover, 0);
        }
    }
    return status;
}
