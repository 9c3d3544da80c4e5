/* What a judged head is read from: rows of tensors, means of windows, sums of gradients. */
#include <math.h>
#include <string.h>

#include "check/sample_walk.h"

bool sample_has(const struct walk *w, lh_tensor_id id)
{
    return w->source->has[id];
}

/* Row n of this head's tensor, n counted in its own rows. */
int64_t sample_element(const struct walk *w, lh_tensor_id id, int64_t n)
{
    lh_tensor t;
    lh_tensor_shape(w->config, &w->layout, LH_F64, id, &t);
    return lh_offset(&t, w->b, lh_has_kv_heads(id) ? w->g : w->h, n);
}

lh_status sample_fetch(const struct walk *w, lh_tensor_id id, int64_t row, int64_t count, int64_t width,
                       double *to, lh_error *error)
{
    return w->source->fetch(w->source, id, sample_element(w, id, row), count * width, to, error);
}

/* do_sel of entry s from dout, and the size of its terms. */
lh_status sample_gather_gradient(struct walk *w, int64_t s, double *sum, double *size, lh_error *error)
{
    const int64_t d = w->config->dim;
    int64_t first, end;
    lh_status status = LH_OK;
    sample_written(w, s, &first, &end);
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t j = first; j < end && status == LH_OK; j++) {
        status = sample_fetch(w, LH_DOUT, j, 1, d, w->found, error);
        for (int64_t c = 0; c < d && status == LH_OK; c++) {
            sum[c] += w->found[c];
            if (size)
                size[c] += fabs(w->found[c]);
        }
    }
    return status;
}

/* Mean of a window of x; size of its terms. */
lh_status sample_pool_row(struct walk *w, lh_tensor_id x, int64_t entry, double *mean, double *size,
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
        status = sample_fetch(w, x, first + j, 1, d, w->found, error);
        for (int64_t c = 0; c < d && status == LH_OK; c++) {
            mean[c] += w->found[c] / (double)window;
            if (size)
                size[c] += fabs(w->found[c]) / (double)window;
        }
    }
    return status;
}

/* Positions that entry s of the sub-sequence writes: [*first, *end). */
void sample_written(const struct walk *w, int64_t s, int64_t *first, int64_t *end)
{
    const int level = lh_level_of(&w->layout, (int)w->config->levels, w->index[s]);
    const int64_t window = w->layout.window[level], i = w->index[s] - w->layout.level_offset[level];
    *first = i * window + window - 1;
    *end = *first + window < w->config->tokens ? *first + window : w->config->tokens;
}

lh_tensor sample_one_tensor(const struct walk *w, lh_tensor_id id, void *data)
{
    lh_tensor t;
    lh_layout layout = w->layout;
    layout.index_dtype = LH_I64;
    lh_tensor_shape(&w->one, &layout, LH_F64, id, &t);
    t.data = data;
    return t;
}

lh_status sample_load_index(struct walk *w, lh_error *error)
{
    const int64_t rows = w->layout.selected;
    lh_status status = sample_fetch(w, LH_INDEX, 0, rows, 1, w->head.weight, error);
    for (int64_t s = 0; s < rows && status == LH_OK; s++)
        w->index[s] = (int64_t)w->head.weight[s];
    return status;
}
