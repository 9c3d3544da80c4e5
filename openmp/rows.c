/*
 * Rows: one row of a head as float32, whether it stands in a tensor or is a mean or a sum over a window.
 *
 *   LH_OMP_MEAN     (sum over 0 <= j < p^l of x[i p^l + j]) / p^l                        entry i of level l
 *   LH_OMP_SPREAD   sum over i p^l + p^l - 1 <= j <= i p^l + 2 p^l - 2, j < N, of x[j]
 */
#include "openmp/openmp.h"
#include "openmp/element.h"

struct lh_omp_rows lh_omp_rows_of(const lh_plan *plan, const lh_tensor *t, int64_t head,
                                  enum lh_omp_reading reading, const lh_tensor *index)
{
    return (struct lh_omp_rows){
        .plan = plan,
        .data = lh_omp_at(t->data, t->dtype, lh_omp_head_offset(plan, t, head)),
        .dtype = t->dtype,
        .stride = t->stride[2],
        .reading = index ? reading : LH_OMP_ROW,
        .index = index,
        .at = head * plan->layout.selected,
    };
}

/* What row s is made of: the head's rows [first, first + count), fewer at the head's end than the window has. */
struct span {
    int64_t first, count, window;
};

static struct span span_of(const struct lh_omp_rows *rows, int64_t s)
{
    const lh_config *config = &rows->plan->config;
    const lh_layout *layout = &rows->plan->layout;
    if (rows->reading == LH_OMP_ROW)
        return (struct span){s, 1, 1};
    const int64_t entry = lh_index_at(rows->index, rows->at + s);
    const int level = lh_level_of(layout, (int)config->levels, entry);
    const int64_t window = layout->window[level], shift = rows->reading == LH_OMP_SPREAD ? window - 1 : 0;
    const int64_t first = (entry - layout->level_offset[level]) * window + shift;
    return (struct span){first, lh_omp_least(window, config->tokens - first), window};
}

/* row: [d] = sum of the span's rows, in rising order */
LH_OMP_INLINE void sum_rows(const struct lh_omp_rows *rows, const struct span *span, float *restrict row,
                            lh_dtype dtype)
{
    const int64_t d = rows->plan->config.dim;
    const char *x = lh_omp_at(rows->data, dtype, span->first * rows->stride);
    if (span->count == 1) {
        for (int64_t c = 0; c < d; c++)
            row[c] = load_element(x, dtype, c);
        return;
    }
    for (int64_t c = 0; c < d; c++)
        row[c] = 0;
    for (int64_t j = 0; j < span->count; j++, x = lh_omp_at(x, dtype, rows->stride))
        for (int64_t c = 0; c < d; c++)
            row[c] += load_element(x, dtype, c);
}

const float *lh_omp_row(const struct lh_omp_rows *rows, int64_t s, float *row)
{
    const struct span span = span_of(rows, s);
    if (span.count == 1 && rows->dtype == LH_F32 && (span.window == 1 || rows->reading != LH_OMP_MEAN))
        return (const float *)rows->data + span.first * rows->stride;
    WITH_DTYPE(rows->dtype, sum_rows, rows, &span, row);
    if (rows->reading == LH_OMP_MEAN && span.window > 1) {
        for (int64_t c = 0; c < rows->plan->config.dim; c++)
            row[c] /= (float)span.window;
    }
    return row;
}

void lh_omp_fetch_row(const struct lh_omp_rows *rows, int64_t s)
{
    const char *x = lh_omp_at(rows->data, rows->dtype, s * rows->stride);
    const int64_t bytes = rows->plan->config.dim * (int64_t)lh_dtype_size(rows->dtype);
    for (int64_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(x + at);
}

LH_OMP_INLINE void store_row(void *data, int64_t at, const float *restrict row, int64_t d, lh_dtype dtype)
{
    for (int64_t c = 0; c < d; c++)
        store_element(data, dtype, at + c, row[c]);
}

void lh_omp_write_row(void *data, lh_dtype dtype, int64_t at, const float *row, int64_t d)
{
    WITH_DTYPE(dtype, store_row, data, at, row, d);
}
