/*
 * score.cl: s^(0)[i] = |x[i]|_2, s^(l)[i] = max of s^(l-1) over its pool children (SPEC 3.2).
 *
 * x [B,heads,N,d] -> score [B,heads,P] float32. -D SCORE_LANES: work-items that share a row. Local memory: partial
 * [GROUP].
 */

kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
score_rows(const global store_t *x, long4 x_at, global float *score, long4 score_at, int first, int heads,
           uint blocks, index_t tokens, int dim, local float *partial)
{
    const int item = get_local_id(0), lane = item % SCORE_LANES, head = first + head_of(blocks);
    for (int run = 0; run < RUN; run++) {
        const index_t token = row_of(blocks, SCORE_LANES, run);
        float sum = 0;
        if (token < tokens) {
            const long at = row_at(x_at, head, heads, token);
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
        if (lane == 0 && token < tokens)
            score[row_at(score_at, head, heads, token)] = sqrt(sum);
    }
}

/* Level sizes: from `fine` entries at offset `from` to fine/pool at `to`. One coarse entry a work-item. */
kernel void score_level(global float *score, long4 score_at, int first, int heads, long entries,
                        index_t size, index_t from, index_t to, index_t pool)
{
    const long id = get_global_id(0);
    if (id >= entries)
        return;
    const index_t i = id % size;
    const long at = row_at(score_at, first + id / size, heads, 0);
    float best = score[at + from + i * pool];
    for (index_t j = 1; j < pool; j++) {
        const float value = score[at + from + i * pool + j];
        best = value > best || isnan(value) ? value : best;
    }
    score[at + to + i] = best;
}
