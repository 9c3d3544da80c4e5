/* One query head in binary64: the dump's own tensors where it has them, else computed from what is before. */
#include <string.h>

#include "check/sample_walk.h"

static lh_status load_selected(struct walk *w, lh_tensor_id x, lh_tensor_id pyr, lh_tensor_id sel, double *to,
                               double *pooled, double **size, lh_error *error)
{
    const int64_t d = w->config->dim, rows = w->layout.selected;
    lh_status status = LH_OK;
    *size = pooled;
    if (x == LH_V && !sample_has(w, LH_V)) { /* nothing that hangs on it is judged */
        memset(to, 0, (size_t)(rows * d) * sizeof *to);
        memset(pooled, 0, (size_t)(rows * d) * sizeof *pooled);
        return LH_OK;
    }
    *size = sample_has(w, sel) || sample_has(w, pyr) ? to : pooled;
    if (sample_has(w, sel))
        return sample_fetch(w, sel, 0, rows, d, to, error);
    w->own_rows = false;
    for (int64_t s = 0; s < rows && status == LH_OK; s++)
        status = sample_has(w, pyr) ? sample_fetch(w, pyr, w->index[s], 1, d, to + s * d, error)
                                    : sample_pool_row(w, x, w->index[s], to + s * d, pooled + s * d, error);
    return status;
}

lh_status sample_load_head(struct walk *w, lh_error *error)
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
    if (status == LH_OK && sample_has(w, LH_O_SEL))
        status = sample_fetch(w, LH_O_SEL, 0, rows, d, h->o, error);
    if (status == LH_OK && sample_has(w, LH_LSE))
        status = sample_fetch(w, LH_LSE, 0, rows, 1, h->lse, error);
    w->have_backward = sample_has(w, LH_O_SEL) && sample_has(w, LH_LSE) &&
                       (sample_has(w, LH_DO_SEL) || sample_has(w, LH_DOUT));
    for (int64_t s = 0; s < rows && status == LH_OK && w->have_backward; s++) {
        status = sample_has(w, LH_DO_SEL) ? sample_fetch(w, LH_DO_SEL, s, 1, d, h->go + s * d, error)
                                          : sample_gather_gradient(w, s, h->go + s * d, NULL, error);
        h->D[s] = 0;
        for (int64_t c = 0; c < d; c++)
            h->D[s] += h->go[s * d + c] * h->o[s * d + c];
    }
    return status;
}
