/*
 * Score: how strong a window is (SPEC 3.2).
 *
 *   score[i]             = sqrt(sum over c of x[i][c]^2)                level 0
 *   score[offset(l) + i] = max over j < p^l of score[i p^l + j]        level l
 *
 * The square of a float32 is exact in binary64; the sum runs there in eight fixed partial sums, is rooted
 * there and rounded once to float32, so the result is the true norm rounded, but for a sum that lies within
 * 1e-16 of the middle between two float32 numbers.
 */
#include "openmp/openmp.h"
#include "openmp/element.h"

enum {
    PARTIAL = 8,
    WIDENED = 128 /* columns of half types that are widened at a time */
};
typedef double partial_sums __attribute__((vector_size(PARTIAL * sizeof(double))));
typedef float floats __attribute__((vector_size(PARTIAL * sizeof(float)), may_alias, aligned(4)));

LH_OMP_INLINE void add_squares(double sum[PARTIAL], const float *x, int64_t n)
{
    partial_sums total;
    int64_t c = 0;
    memcpy(&total, sum, sizeof total);
    for (; c + PARTIAL <= n; c += PARTIAL) {
        const partial_sums value = __builtin_convertvector(*(const floats *)(x + c), partial_sums);
        total += value * value;
    }
    memcpy(sum, &total, sizeof total);
    for (int i = 0; c + i < n; i++)
        sum[i] += (double)x[c + i] * (double)x[c + i];
}

LH_OMP_INLINE void norm(const void *restrict x, int64_t d, float *score, lh_dtype dtype)
{
    double sum[PARTIAL] = {0};
    if (dtype == LH_F32)
        add_squares(sum, x, d);
    for (int64_t c = 0; dtype != LH_F32 && c < d; c += WIDENED) {
        const int64_t n = lh_omp_least(WIDENED, d - c);
        float wide[WIDENED];
        for (int64_t i = 0; i < n; i++)
            wide[i] = load_element(x, dtype, c + i);
        add_squares(sum, wide, n);
    }
    for (int half = PARTIAL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            sum[i] += sum[i + half];
    *score = (float)sqrt(sum[0]);
}

LH_OMP_INLINE void norms(const char *x, int64_t stride, int64_t d, float *score, int64_t n, lh_dtype dtype)
{
    for (int64_t j = 0; j < n; j++)
        norm(lh_omp_at(x, dtype, j * stride), d, score + j, dtype);
}

/* Coarsest windows [first, end) of one head. score: [P] */
static void score_windows(const lh_plan *plan, const lh_tensor *x, const char *tokens, float *score,
                          int64_t first, int64_t end)
{
    const lh_layout *layout = &plan->layout;
    const int64_t levels = plan->config.levels, pool = plan->config.pool;
    const int64_t window = layout->window[levels - 1], from = first * window;
    WITH_DTYPE(x->dtype, norms, lh_omp_at(tokens, x->dtype, from * x->stride[2]), x->stride[2],
               plan->config.dim, score + from, (end - first) * window);
    for (int64_t l = 1; l < levels; l++) {
        const float *finer = score + layout->level_offset[l - 1];
        float *level = score + layout->level_offset[l];
        const int64_t per_window = window / layout->window[l];
        for (int64_t i = first * per_window; i < end * per_window; i++) {
            float most = finer[i * pool];
            for (int64_t j = 1; j < pool; j++)
                most = finer[i * pool + j] > most ? finer[i * pool + j] : most;
            level[i] = most;
        }
    }
}

struct scoring {
    const lh_tensor *x;
    float *score;
    int64_t pieces, step; /* pieces of a head, coarsest windows of a piece */
};

static void score_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    (void)scratch;
    const struct scoring *s = job;
    const int64_t head = i / s->pieces, heads = s->x->shape[1], first = i % s->pieces * s->step;
    score_windows(
        plan, s->x, lh_omp_at(s->x->data, s->x->dtype, lh_offset(s->x, head / heads, head % heads, 0)),
        s->score + head * plan->layout.entries, first, lh_omp_least(first + s->step, plan->layout.coarse));
}

static void score_tensor(const lh_plan *plan, const lh_tensor *x, float *score)
{
    const int64_t window = plan->layout.window[plan->config.levels - 1], coarse = plan->layout.coarse;
    const int64_t step = window < 256 ? 256 / window : 1; /* coarsest windows per piece of work */
    const struct scoring job = {x, score, (coarse + step - 1) / step, step};
    lh_omp_for(plan, x->shape[0] * x->shape[1] * job.pieces, 0, score_piece, &job);
}

lh_status lh_omp_score(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    double since = lh_seconds();
    score_tensor(plan, &trace[LH_Q], trace[LH_SCORE_Q].data);
    score_tensor(plan, &trace[LH_K], trace[LH_SCORE_K].data);
    lh_omp_book(plan, LH_SCORE, &since);
    return LH_OK;
}
