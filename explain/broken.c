/* What the mask and the shift are there for: the stages without them. */
#include "explain/broken.h"

void broken_attend(const struct ref_shape *s, const real *q_sel, const real *k_sel, const real *v_sel,
                   real *o_sel, real *lse, real *row)
{
    const int64_t d = s->dim, selected = ref_selected(s);
    const real scale = 1 / real_sqrt((real)d);
    for (int64_t i = 0; i < selected; i++) {
        real *o = o_sel + i * d;
        real max = 0, sum = 0;
        for (int64_t j = 0; j < selected; j++) {
            row[j] = 0;
            for (int64_t c = 0; c < d; c++)
                row[j] += q_sel[i * d + c] * k_sel[j * d + c];
            row[j] *= scale;
            max = j == 0 || row[j] > max ? row[j] : max;
        }
        for (int64_t c = 0; c < d; c++)
            o[c] = 0;
        for (int64_t j = 0; j < selected; j++) {
            const real e = ref_exp(row[j] - max);
            sum += e;
            for (int64_t c = 0; c < d; c++)
                o[c] += e * v_sel[j * d + c];
        }
        for (int64_t c = 0; c < d; c++)
            o[c] /= sum;
        lse[i] = max + ref_log(sum);
    }
}

void broken_scatter(const struct ref_shape *s, const real *o_sel, const int64_t *slot, real *out,
                    int32_t *coverage)
{
    const int64_t d = s->dim;
    for (int64_t j = 0; j < s->tokens; j++) {
        coverage[j] = 0;
        for (int64_t c = 0; c < d; c++)
            out[j * d + c] = 0;
        for (int64_t l = 0; l < s->levels; l++) {
            const int64_t from = slot[ref_offset(s, l) + j / ref_window(s, l)];
            for (int64_t c = 0; from >= 0 && c < d; c++)
                out[j * d + c] += o_sel[from * d + c];
            coverage[j] += from >= 0;
        }
    }
}
