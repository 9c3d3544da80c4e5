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

/* row: [d] = sum over first <= j < end of the head's rows, in rising j */
LH_OMP_INLINE void sum_rows(const struct lh_omp_rows *rows, int64_t first, int64_t end, float *restrict row,
                            lh_dtype dtype)
{
    const int64_t d = rows->plan->config.dim;
    const char *x = lh_omp_at(rows->data, dtype, first * rows->stride);
    if (end - first == 1) {
        for (int64_t c = 0; c < d; c++)
            row[c] = load_element(x, dtype, c);
        return;
    }
    for (int64_t c = 0; c < d; c++)
        row[c] = 0;
    for (int64_t j = first; j < end; j++, x = lh_omp_at(x, dtype, rows->stride))
        for (int64_t c = 0; c < d; c++)
            row[c] += load_element(x, dtype, c);
}

void lh_omp_read_row(const struct lh_omp_rows *rows, int64_t s, float *row)
{
    const lh_config *config = &rows->plan->config;
    const lh_layout *layout = &rows->plan->layout;
    int64_t first = s, end = s + 1, window = 1;
    if (rows->reading != LH_OMP_ROW) {
        const int64_t entry = lh_index_at(rows->index, rows->at + s);
        const int level = lh_level_of(layout, (int)config->levels, entry);
        window = layout->window[level];
        first = (entry - layout->level_offset[level]) * window;
        if (rows->reading == LH_OMP_SPREAD)
            first += window - 1;
        end = first + window;
        if (end > config->tokens)
            end = config->tokens;
    }
    WITH_DTYPE(rows->dtype, sum_rows, rows, first, end, row);
    if (rows->reading == LH_OMP_MEAN && window > 1) {
        for (int64_t c = 0; c < config->dim; c++)
            row[c] /= (float)window;
    }
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
