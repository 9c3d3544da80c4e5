/*
 * attend_cpu.cl: causal softmax attention, forward (SPEC 3.6), one work-item per BM query rows.
 *
 * q_sel [heads,S,d], k_sel packed by columns, v_sel packed by rows -> o_sel [heads,S,d], lse [heads,S]. Online
 * softmax in base 2: scores are q.k * log2(e)/sqrt(d).
 */

/* Mask, exponentials and running maximum and sum of BM rows of scores against `columns` keys from `key` on. */
static void soften(float *scores, float *o, float *largest, float *total, index_t row, index_t key, int columns)
{
    for (int r = 0; r < BM; r++) {
        vfloat *line = (vfloat *)(scores + r * BN);
        if (key + columns - 1 > row + r) {
            for (int n = 0; n < columns; n++) {
                if (key + n > row + r)
                    scores[r * BN + n] = -INFINITY;
            }
        }
        vfloat best = line[0];
        for (int n = 1; n < columns / VEC; n++)
            best = fmax(best, line[n]);
        const float before = largest[r];
        const float now = fmax(before, row_max(best));
        vfloat sum = 0;
        for (int n = 0; n < columns / VEC; n++) {
            line[n] = exp2_vector(line[n] - now);
            sum += line[n];
        }
        if (now > before) {
            const float shrink = exp2(before - now);
            total[r] *= shrink;
            for (int c = 0; c < WIDE; c += VEC)
                *(vfloat *)(o + r * WIDE + c) *= shrink;
            largest[r] = now;
        }
        total[r] += row_sum(sum);
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attend_forward(const global store_t *q_sel, const global float *k_columns, const global float *v_rows,
               global store_t *o_sel, global float *lse, long first, long heads, index_t selected,
               index_t padded, float scale)
{
    const index_t tiles = (selected + BM - 1) / BM;
    const index_t row = (tiles - 1 - (index_t)(get_global_id(0) / heads)) * BM; /* the longest first */
    const long local_head = get_global_id(0) % heads;
    const long head = first + local_head;
    float q[BM * WIDE] __attribute__((aligned(64)));
    float o[BM * WIDE] __attribute__((aligned(64)));
    float scores[BM * BN] __attribute__((aligned(64)));
    float largest[BM], total[BM];
    copy_rows(q, q_sel, head, row, selected, scale * M_LOG2E_F);
    for (int i = 0; i < BM * WIDE; i += VEC)
        *(vfloat *)(o + i) = 0;
    for (int r = 0; r < BM; r++) {
        largest[r] = -INFINITY;
        total[r] = 0;
    }
    const index_t end = min(row + BM, padded);
    for (index_t key = 0; key < end; key += BN) {
        const int panels = min((index_t)TILE_PANELS, (end - key + PANEL - 1) / PANEL);
        for (int p = 0; p < panels; p++) {
            const global float *k = k_columns + (local_head * padded + key + p * PANEL) * DIM;
            for (int r = 0; r < BM; r += MR)
                multiply(scores + r * BN + p * PANEL, BN, false, q + r * WIDE, WIDE, 1, k, DIM);
        }
        soften(scores, o, largest, total, row, key, panels * PANEL);
        for (int p = 0; p < WIDE_PANELS; p++) {
            const global float *v = v_rows + ((local_head * WIDE_PANELS + p) * padded + key) * PANEL;
            for (int r = 0; r < BM; r += MR)
                multiply(o + r * WIDE + p * PANEL, WIDE, true, scores + r * BN, BN, 1, v, panels * PANEL);
        }
    }
    for (int r = 0; r < BM && row + r < selected; r++) {
        const long to = (head * selected + row + r) * DIM;
        for (int c = 0; c < DIM; c += VEC)
            store_columns(*(vfloat *)(o + r * WIDE + c) / total[r], o_sel, to + c, DIM - c);
        lse[head * selected + row + r] = (largest[r] + log2(total[r])) * M_LN2_F;
    }
}
