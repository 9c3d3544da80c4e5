/*
 * Pool: mean vectors over windows of p^l tokens, for l = 0 ... L-1 (SPEC 3.1).
 *
 *   forward    x_pyr[offset(l) + i] = (sum over j < p^l of x[i p^l + j]) / p^l
 *   backward   dx[j] = sum over l of dx_sel[slot(l, floor(j / p^l))] / p^l, entries that were selected only
 */
#include "ref.h"

/* x: [N,d]  ->  x_pyr: [P,d].  Every level straight from the tokens: one sum, one division. */
void ref_pool(const struct ref_shape *s, const real *x, real *x_pyr)
{
    const int64_t d = s->dim;
    real *row = x_pyr;
    for (int64_t l = 0; l < s->levels; l++) {
        const int64_t window = ref_window(s, l);
        for (int64_t i = 0; i < s->tokens / window; i++, row += d) {
            for (int64_t c = 0; c < d; c++)
                row[c] = 0;
            for (int64_t j = i * window; j < (i + 1) * window; j++)
                for (int64_t c = 0; c < d; c++)
                    row[c] += x[j * d + c];
            for (int64_t c = 0; c < d; c++)
                row[c] /= (real)window;
        }
    }
}

/*
 * dx_sel: [S,d], slot: [P] (ref_slots)  ->  dx: [N,d].
 * The backward of gather and pool in one, as a pull: a token asks every level for the entry above it, fine to
 * coarse, so no entry is added to by two writers.
 */
void ref_unpool(const struct ref_shape *s, const real *dx_sel, const int64_t *slot, real *dx)
{
    const int64_t d = s->dim;
    for (int64_t i = 0; i < s->tokens * d; i++)
        dx[i] = 0;
    for (int64_t l = 0; l < s->levels; l++) {
        const int64_t window = ref_window(s, l), offset = ref_offset(s, l);
        for (int64_t j = 0; j < s->tokens; j++) {
            const int64_t from = slot[offset + j / window];
            if (from < 0)
                continue;
            for (int64_t c = 0; c < d; c++)
                dx[j * d + c] += dx_sel[from * d + c] / (real)window;
        }
    }
}
