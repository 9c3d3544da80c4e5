/*
 * Scatter: every token receives the summaries of its past (SPEC 3.7, 4).
 *
 * Entry i of level l is written to the p^l positions i p^l + p^l - 1 ... i p^l + 2 p^l - 2, those below N.
 * The first of them is the last token of the entry's own window: nobody receives a summary of its own future.
 *
 *   forward    out[j] = sum over l of o_sel[slot(l, floor((j+1) / p^l) - 1)], entries that were selected only
 *   backward   do_sel[s] = sum of dout[j] over the positions that entry s was written to
 */
#include "ref.h"

/*
 * o_sel: [S,d], slot: [P] (ref_slots)  ->  out: [N,d], coverage: [N] or NULL.
 * A pull, fine to coarse. A position that no entry reaches stays +0.0.
 */
void ref_scatter(const struct ref_shape *s, const real *o_sel, const int64_t *slot, real *out,
                 int32_t *coverage)
{
    const int64_t d = s->dim;
    for (int64_t i = 0; i < s->tokens * d; i++)
        out[i] = 0;
    for (int64_t j = 0; coverage && j < s->tokens; j++)
        coverage[j] = 0;
    for (int64_t l = 0; l < s->levels; l++) {
        const int64_t window = ref_window(s, l), offset = ref_offset(s, l);
        for (int64_t j = window - 1; j < s->tokens; j++) {
            const int64_t from = slot[offset + (j + 1) / window - 1];
            if (from < 0)
                continue;
            for (int64_t c = 0; c < d; c++)
                out[j * d + c] += o_sel[from * d + c];
            if (coverage)
                coverage[j]++;
        }
    }
}

/* dout: [N,d], index: [S]  ->  do_sel: [S,d].  Positions in rising order. */
void ref_scatter_backward(const struct ref_shape *s, const real *dout, const int64_t *index, real *do_sel)
{
    const int64_t d = s->dim, selected = ref_selected(s);
    for (int64_t i = 0; i < selected; i++) {
        int64_t l = 0;
        while (index[i] >= ref_offset(s, l + 1))
            l++;
        const int64_t window = ref_window(s, l);
        const int64_t first = (index[i] - ref_offset(s, l)) * window + window - 1;
        for (int64_t c = 0; c < d; c++)
            do_sel[i * d + c] = 0;
        for (int64_t j = first; j < first + window && j < s->tokens; j++)
            for (int64_t c = 0; c < d; c++)
                do_sel[i * d + c] += dout[j * d + c];
    }
}
