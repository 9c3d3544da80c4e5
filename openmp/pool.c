/*
 * Pool: mean vectors over windows of p^l tokens for l = 0 ... L-1 (SPEC 3.1), as a stage alone; whole-layer
 * calls pool while they gather (rows.c).
 *
 *   x: [B,X,N,d]  ->  x_pyr: [B,X,P,d]     x_pyr[offset(l) + i] = (sum over j < p^l of x[i p^l + j]) / p^l
 *
 * One pass over the tokens: a level's sum is added to the next level's when its window ends.
 */
#include <string.h>

#include "openmp/openmp.h"
#include "openmp/element.h"

size_t lh_omp_pool_bytes(const lh_plan *plan)
{
    return sizeof(float) * (size_t)plan->config.levels * (size_t)plan->config.dim;
}

LH_OMP_INLINE void add_row(const void *restrict x, float *restrict sum, int64_t d, lh_dtype dtype)
{
    for (int64_t c = 0; c < d; c++)
        sum[c] += load_element(x, dtype, c);
}

/* sum: [d] divided by the window -> row `at` of pyramid */
LH_OMP_INLINE void store_mean(void *pyramid, int64_t at, const float *restrict sum, float window, int64_t d,
                              lh_dtype dtype)
{
    for (int64_t c = 0; c < d; c++)
        store_element(pyramid, dtype, at * d + c, sum[c] / window);
}

/* Tokens [first, end) of one head, a whole number of the coarsest windows. sums: [L,d] scratch */
static void pool_tokens(const lh_plan *plan, const lh_tensor *x, const char *tokens, char *pyramid,
                        int64_t first, int64_t end, float *sums)
{
    const lh_config *config = &plan->config;
    const lh_layout *layout = &plan->layout;
    const int64_t d = config->dim;
    const size_t row_bytes = (size_t)d * lh_dtype_size(x->dtype);
    memset(sums, 0, lh_omp_pool_bytes(plan));
    for (int64_t j = first; j < end; j++) {
        const char *row = lh_omp_at(tokens, x->dtype, j * x->stride[2]);
        memcpy(lh_omp_at(pyramid, x->dtype, j * d), row, row_bytes);
        if (config->levels > 1)
            WITH_DTYPE(x->dtype, add_row, row, sums + d, d);
        for (int64_t l = 1; l < config->levels && (j + 1) % layout->window[l] == 0; l++) {
            float *sum = sums + l * d;
            const int64_t at = layout->level_offset[l] + j / layout->window[l];
            WITH_DTYPE(x->dtype, store_mean, pyramid, at, sum, (float)layout->window[l], d);
            for (int64_t c = 0; c < d; c++) {
                if (l + 1 < config->levels)
                    sum[d + c] += sum[c];
                sum[c] = 0;
            }
        }
    }
}

static void pool_tensor(const lh_plan *plan, const lh_tensor *x, const lh_tensor *x_pyr)
{
    const struct lh_omp_state *state = lh_omp_state(plan);
    const int64_t window = plan->layout.window[plan->config.levels - 1], coarse = plan->layout.coarse;
    const int64_t step = window < 256 ? 256 / window : 1; /* coarsest windows per piece of work */
    const int64_t pieces = (coarse + step - 1) / step, heads = x->shape[1];
#pragma omp parallel for collapse(2) num_threads(state->threads) schedule(static)
    for (int64_t i = 0; i < x->shape[0] * heads; i++) {
        for (int64_t piece = 0; piece < pieces; piece++) {
            const int64_t b = i / heads, h = i % heads;
            const int64_t end = (piece + 1) * step < coarse ? (piece + 1) * step : coarse;
            pool_tokens(plan, x, lh_omp_at(x->data, x->dtype, lh_offset(x, b, h, 0)),
                        lh_omp_at(x_pyr->data, x->dtype, lh_offset(x_pyr, b, h, 0)), piece * step * window,
                        end * window, lh_omp_scratch(state));
        }
    }
}

lh_status lh_omp_pool(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    pool_tensor(plan, &trace[LH_Q], &trace[LH_Q_PYR]);
    pool_tensor(plan, &trace[LH_K], &trace[LH_K_PYR]);
    pool_tensor(plan, &trace[LH_V], &trace[LH_V_PYR]);
    lh_omp_book(plan, LH_POOL, &since);
    return LH_OK;
}
