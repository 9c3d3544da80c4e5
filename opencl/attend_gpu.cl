/*
 * attend_gpu.cl: causal softmax attention, forward (SPEC 3.6): one work-group per ROWS query rows and slice of d.
 *
 * q_sel k_sel v_sel [heads,S,d] -> o_sel [heads,S,d], lse [heads,S]. Online softmax in base 2; each work-item
 * keeps the sum of its own columns and they are added up at the end.
 */

/* The largest, or the sum, of a row's values over the LANES_X work-items that share it, the same for all. */
static void reduce_rows(float value[RM], bool largest, local float *step, int item)
{
    const int x = item % LANES_X, y = item / LANES_X;
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int r = 0; r < RM; r++)
        step[x * ROWS + y * RM + r] = value[r];
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int r = 0; r < RM; r++) {
        float result = step[y * RM + r];
#pragma unroll
        for (int i = 1; i < LANES_X; i++) {
            const float next = step[i * ROWS + y * RM + r];
            result = largest ? fmax(result, next) : result + next;
        }
        value[r] = result;
    }
}

kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
attend_forward(const global store_t *q_sel, const global store_t *k_sel, const global store_t *v_sel,
               global store_t *o_sel, global float *lse, local float4 *step_quads, local float4 *weight_quads,
               const struct shape s)
{
    local float *step = (local float *)step_quads, *weights = (local float *)weight_quads;
    const int item = get_local_id(0), x = item % LANES_X, y = item / LANES_X, dim = DIM_OF(s);
    const index_t selected = s.selected;
    const struct place p = find_place(&s, true);
    const long head_at = p.head * selected * dim;
    const float to_base2 = s.scale * M_LOG2E_F;
    float o[RM][RC], largest[RM], total[RM];
#pragma unroll
    for (int r = 0; r < RM; r++) {
        largest[r] = -INFINITY;
        total[r] = 0;
#pragma unroll
        for (int i = 0; i < RC; i++)
            o[r][i] = 0;
    }
    for (index_t key = 0; key < min(p.row + ROWS, selected); key += COLUMNS) {
        float scores[RM][RN], now[RM];
        tile_dot(scores, q_sel, p.row, k_sel, key, head_at, dim, selected, step, item);
        const bool diagonal = key + COLUMNS - 1 > p.row;
#pragma unroll
        for (int r = 0; r < RM; r++) {
            now[r] = largest[r];
#pragma unroll
            for (int n = 0; n < RN; n++) {
                const bool hidden = diagonal && key + x * RN + n > p.row + y * RM + r;
                scores[r][n] = hidden ? -INFINITY : scores[r][n] * to_base2;
                now[r] = fmax(now[r], scores[r][n]);
            }
        }
        reduce_rows(now, true, step, item);
#pragma unroll
        for (int r = 0; r < RM; r++) {
            const float shrink = exp2(largest[r] - now[r]);
            largest[r] = now[r];
            total[r] *= shrink;
#pragma unroll
            for (int i = 0; i < RC; i++)
                o[r][i] *= shrink;
#pragma unroll
            for (int n = 0; n < RN; n++) {
                scores[r][n] = exp2(scores[r][n] - now[r]);
                total[r] += scores[r][n];
            }
        }
        put_weights(weights, scores, item);
        tile_apply(o, weights, v_sel, key, head_at, p.column, dim, selected, step, item);
    }
    reduce_rows(total, false, step, item);
#pragma unroll
    for (int r = 0; r < RM; r++) {
        const index_t row = p.row + y * RM + r;
#pragma unroll
        for (int i = 0; i < RC; i++)
            o[r][i] /= total[r];
        if (x == 0 && p.column == 0 && row < selected)
            lse[p.head * selected + row] = (largest[r] + log2(total[r])) * M_LN2_F;
    }
    store_slice(o, 1, o_sel, head_at, p.row, p.column, dim, selected, item);
}
