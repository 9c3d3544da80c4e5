/*
 * attend_gpu_backward.cl: causal softmax attention, backward (SPEC 4), the weights recomputed from lse.
 *
 * Two kernels, each the only owner of what it writes: backward_queries has ROWS queries and walks over the keys
 * before them, backward_keys has ROWS keys and walks over the queries after them.
 */

/* 2^x, at most 1, which the weights of huge logits would pass by far: lse has fewer digits than a logit's distance from it. NaN
 * stays. */
static float weight_of(float x)
{
    return exp2(x > 0 ? 0 : x);
}

kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
backward_queries(const global store_t *q_sel, const global store_t *k_sel, const global store_t *v_sel,
                 const global store_t *do_sel, const global float *lse, const global float *delta,
                 global store_t *dq_sel, local float4 *step_quads, local float4 *weight_quads,
                 const struct shape s)
{
    local float *step = (local float *)step_quads, *weights = (local float *)weight_quads;
    const int item = get_local_id(0), x = item % LANES_X, y = item / LANES_X, dim = DIM_OF(s);
    const index_t selected = s.selected;
    const struct place p = find_place(&s, true);
    const long head_at = p.head * selected * dim;
    float dq[RM][RC], base[RM], mean[RM];
#pragma unroll
    for (int r = 0; r < RM; r++) {
        const index_t row = min(p.row + y * RM + r, selected - 1);
        base[r] = lse[p.head * selected + row] * M_LOG2E_F;
        mean[r] = delta[p.local_head * selected + row];
#pragma unroll
        for (int i = 0; i < RC; i++)
            dq[r][i] = 0;
    }
    for (index_t key = 0; key < min(p.row + ROWS, selected); key += COLUMNS) {
        float scores[RM][RN], slopes[RM][RN];
        tile_dot(scores, q_sel, p.row, k_sel, key, head_at, dim, selected, step, item);
        tile_dot(slopes, do_sel, p.row, v_sel, key, head_at, dim, selected, step, item);
#pragma unroll
        for (int r = 0; r < RM; r++) {
#pragma unroll
            for (int n = 0; n < RN; n++) {
                const bool hidden = key + x * RN + n > p.row + y * RM + r;
                const float weight = weight_of(fma(scores[r][n], s.scale * M_LOG2E_F, -base[r]));
                slopes[r][n] = hidden ? 0 : weight * (slopes[r][n] - mean[r]);
            }
        }
        put_weights(weights, slopes, item);
        tile_apply(dq, weights, k_sel, key, head_at, p.column, dim, selected, step, item);
    }
    store_slice(dq, s.scale, dq_sel, head_at, p.row, p.column, dim, selected, item);
}

kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
backward_keys(const global store_t *q_sel, const global store_t *k_sel, const global store_t *v_sel,
              const global store_t *do_sel, const global float *lse, const global float *delta,
              global store_t *dk_sel, global store_t *dv_sel, local float4 *step_quads,
              local float4 *weight_quads, const struct shape s)
{
    local float *step = (local float *)step_quads, *weights = (local float *)weight_quads;
    const int item = get_local_id(0), x = item % LANES_X, y = item / LANES_X, dim = DIM_OF(s);
    const index_t selected = s.selected;
    const struct place p = find_place(&s, false);
    const long head_at = p.head * selected * dim;
    float dk[RM][RC], dv[RM][RC];
#pragma unroll
    for (int r = 0; r < RM; r++) {
#pragma unroll
        for (int i = 0; i < RC; i++)
            dk[r][i] = dv[r][i] = 0;
    }
    for (index_t query = p.row / COLUMNS * COLUMNS; query < selected; query += COLUMNS) {
        float scores[RM][RN], slopes[RM][RN];
        tile_dot(scores, k_sel, p.row, q_sel, query, head_at, dim, selected, step, item);
        tile_dot(slopes, v_sel, p.row, do_sel, query, head_at, dim, selected, step, item);
#pragma unroll
        for (int n = 0; n < RN; n++) {
            const index_t column = query + x * RN + n;
            const index_t there = min(column, selected - 1);
            const float base = lse[p.head * selected + there] * M_LOG2E_F;
            const float mean = delta[p.local_head * selected + there];
#pragma unroll
            for (int r = 0; r < RM; r++) {
                const bool hidden = column >= selected || p.row + y * RM + r > column;
                scores[r][n] = hidden ? 0 : weight_of(fma(scores[r][n], s.scale * M_LOG2E_F, -base));
                slopes[r][n] = scores[r][n] * (slopes[r][n] - mean);
            }
        }
        put_weights(weights, scores, item);
        tile_apply(dv, weights, do_sel, query, head_at, p.column, dim, selected, step, item);
        barrier(CLK_LOCAL_MEM_FENCE); /* the weights were read */
        put_weights(weights, slopes, item);
        tile_apply(dk, weights, q_sel, query, head_at, p.column, dim, selected, step, item);
    }
    store_slice(dk, s.scale, dk_sel, head_at, p.row, p.column, dim, selected, item);
    store_slice(dv, 1, dv_sel, head_at, p.row, p.column, dim, selected, item);
}
