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

struct pooling {
    const lh_tensor *x, *x_pyr;
    int64_t pieces, step; /* pieces of a head, coarsest windows of a piece */
};

static void pool_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct pooling *p = job;
    const int64_t window = plan->layout.window[plan->config.levels - 1];
    const int64_t head = i / p->pieces, heads = p->x->shape[1], first = i % p->pieces * p->step;
    const int64_t end = lh_omp_least(first + p->step, plan->layout.coarse);
    pool_tokens(plan, p->x,
                lh_omp_at(p->x->data, p->x->dtype, lh_offset(p->x, head / heads, head % heads, 0)),
                lh_omp_at(p->x_pyr->data, p->x->dtype, lh_offset(p->x_pyr, head / heads, head % heads, 0)),
                first * window, end * window, scratch);
}

static void pool_tensor(const lh_plan *plan, const lh_tensor *x, const lh_tensor *x_pyr)
{
    const int64_t window = plan->layout.window[plan->config.levels - 1], coarse = plan->layout.coarse;
    const int64_t step = window < 256 ? 256 / window : 1; /* coarsest windows per piece of work */
    const struct pooling job = {x, x_pyr, (coarse + step - 1) / step, step};
    lh_omp_for(plan, x->shape[0] * x->shape[1] * job.pieces, 0, pool_piece, &job);
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
