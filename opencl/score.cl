/*
 * score.cl: s^(0)[i] = |x[i]|_2, s^(l)[i] = max of s^(l-1) over its pool children (SPEC 3.2).
 *
 * x [B,heads,N,d] -> score [B,heads,P] float32. -D SCORE_LANES: work-items that share a row. Local memory: partial
 * [GROUP].
 *
 * The scores decide what is selected, so they lean on no driver's square root: it is corrected to the nearest float.
 */

/* A plain sum of squares that reaches this has lost nothing that could show, even where small numbers become zero. */
#define LEAST_SUM 0x1p-60f

/* s is the square root of `square`, which is normal and whose square root is far from the least normal number, to 3 ulp or so;
 * returns it rounded to nearest: the only float whose products with its neighbours have the square between them. */
static float round_root(float s, float square)
{
    while (fma(s, as_float(as_int(s) - 1), -square) >= 0)
        s = as_float(as_int(s) - 1);
    while (fma(s, as_float(as_int(s) + 1), -square) < 0)
        s = as_float(as_int(s) + 1);
    return s;
}

/* The norm of a row whose plain sum of squares over- or underflows: the sum is taken of numbers that are scaled by a power
 * of two to have their largest in [1,2). One work-item's job. */
static float scaled_norm(const global store_t *x, long at, int dim)
{
    float largest = 0;
    for (int c = 0; c < dim; c++)
        largest = fmax(largest, fabs(load(x, at + c)));
    if (largest == 0 || isinf(largest))
        return largest;
    const int exponent = ilogb(largest);
    float sum = 0;
    for (int c = 0; c < dim; c++) {
        const float value = ldexp(load(x, at + c), -exponent);
        sum = fma(value, value, sum);
    }
    return isnan(sum) ? sum : ldexp(round_root(sqrt(sum), sum), exponent);
}

kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
score_rows(const global store_t *x, long4 x_at, global float *score, long4 score_at, int first, int heads,
           uint blocks, local float *partial, const struct shape s)
{
    const index_t end = s.end;
    const int dim = s.dim;
    const int item = get_local_id(0), lane = item % SCORE_LANES, head = first + head_of(blocks);
    for (int run = 0; run < RUN; run++) {
        const index_t token = (index_t)s.begin + row_of(blocks, SCORE_LANES, run);
        const long at = row_at(x_at, head, heads, token);
        float sum = 0;
        if (token < end) {
            vfloat squares = 0;
            for (int c = lane * VEC; c < dim; c += SCORE_LANES * VEC) {
                const vfloat value = load_columns(x, at + c, dim - c);
                squares = fma(value, value, squares);
            }
            sum = sum_lanes(squares);
        }
#if SCORE_LANES > 1
        barrier(CLK_LOCAL_MEM_FENCE);
        partial[item] = sum;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane == 0) {
            for (int i = 1; i < SCORE_LANES; i++)
                sum += partial[item + i];
        }
#endif
        if (lane == 0 && token < end)
            score[row_at(score_at, head, heads, token)] =
                sum >= LEAST_SUM && sum <= FLT_MAX ? round_root(sqrt(sum), sum) : scaled_norm(x, at, dim);
    }
}

/* Level size[l - 1] = fine entries at offset `from` to fine/pool = `size` at `to`. One coarse entry a work-item. As in ref/, a
 * NaN is never larger. */
kernel void score_level(global float *score, long4 score_at, int first, int heads, long entries, long size,
                        long from, long to, const struct shape s)
{
    const long id = get_global_id(0);
    if (id >= entries)
        return;
    const index_t pool = POOL_OF(s), i = id % size;
    const long at = row_at(score_at, first + id / size, heads, 0);
    float best = score[at + from + i * pool];
    for (index_t j = 1; j < pool; j++) {
        const float value = score[at + from + i * pool + j];
        best = value > best ? value : best;
    }
    score[at + to + i] = best;
}
