/*
 * attend_cpu_backward.cl: causal softmax attention, backward (SPEC 4), the weights recomputed from lse.
 *
 * A head's key tiles are dealt out to PARTS work-items, whatever the number of threads. Each has its own dk and
 * dv and adds into its own partial dq [heads][PARTS][PADDED][WIDE], which sum_parts adds up in order: no float
 * atomics, and the same bits every time. The rows of a part begin with the query tile of its first keys: those before it see none.
 * k_columns are scaled by log2(e)/sqrt(d), which gives scores in base 2.
 */

PRODUCT(multiply_scores, , global, k % PANEL + (k / PANEL * BM + r) * PANEL)
PRODUCT(multiply_keys, , , r + k * BN)
PRODUCT(multiply_queries, global, , k + r * BN)

/* scores -> P, slopes (dO.V) -> dS = P (dO.V - delta); zero above the diagonal and past the last row. Query r sees keys up to
 * r + ahead. No weight passes 1, which those of huge logits would by far: lse has fewer digits than a logit's distance from it. */
static void differentiate(float *scores, float *slopes, const global float *lse, const global float *delta,
                          index_t row, int ahead, index_t selected)
{
    for (int r = 0; r < BM; r++) {
        vfloat *weight = (vfloat *)(scores + r * BN);
        vfloat *slope = (vfloat *)(slopes + r * BN);
        const bool there = row + r < selected;
        const int visible = there ? clamp(ahead + r + 1, 0, BN) : 0;
        const float base = there ? lse[row + r] * M_LOG2E_F : 0;
        const float mean = there ? delta[row + r] : 0;
        for (int n = 0; n < (visible + VEC - 1) / VEC; n++) {
            const vfloat x = weight[n] - base;
            weight[n] = exp2_vector(select(x, (vfloat)0, x > 0.0f));
            slope[n] = weight[n] * (slope[n] - mean);
        }
        for (int n = visible; n < BN; n++)
            scores[r * BN + n] = slopes[r * BN + n] = 0;
    }
}

/* Stores BN rows of a tile's dk or dv, times `scale`. */
static void store_tile(const float *tile, global float *to, long head, index_t key, index_t selected, int dim,
                       float scale)
{
    for (int n = 0; n < BN && key + n < selected; n++) {
        const long at = (head * selected + key + n) * dim;
        for (int c = 0; c < dim; c += VEC)
            store_columns(*(const vfloat *)(tile + n * WIDE + c) * scale, to, at + c, dim - c);
    }
}

/* dk_sel, dv_sel: from head `rows_first` on */
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attend_backward(const global float *k_columns, const global float *v_columns, const global float *k_rows,
                const global float *q_rows, const global float *do_rows, const global float *lse,
                const global float *delta, global float *dq_parts, global float *dk_sel, global float *dv_sel,
                volatile global uint *turns, long rows_first, long padded_rows, const struct shape s)
{
    const index_t selected = s.selected, padded = padded_rows;
    const uint piece = next_turn(turns);
    const int parts = s.parts, part = piece % parts;
    const long local_head = piece / parts;
    const long head = rows_first + local_head;
    global float *head_dq = dq_parts + (local_head * parts + part) * padded * WIDE;
    const global float *head_lse = lse + (s.sel_first + local_head) * selected;
    const global float *head_delta = delta + local_head * selected;
    float dk[BN * WIDE] __attribute__((aligned(64)));
    float dv[BN * WIDE] __attribute__((aligned(64)));
    float scores[BM * BN] __attribute__((aligned(64)));
    float slopes[BM * BN] __attribute__((aligned(64)));

    for (index_t turn = 0; turn * BN < selected; turn++) {
        /* Dealt back and forth, so that every part has long and short tiles. */
        const int owner = turn / parts % 2 == 0 ? turn % parts : parts - 1 - turn % parts;
        if (owner != part)
            continue;
        const index_t key = turn * BN;
        for (int i = 0; i < BN * WIDE; i += VEC) {
            *(vfloat *)(dk + i) = 0;
            *(vfloat *)(dv + i) = 0;
        }
        for (index_t row = key / BM * BM; row < selected; row += BM) {
            const int ahead = min(row - key, (index_t)BN);
            const global float *q = q_rows + (local_head * padded + row) * WIDE;
            const global float *dout = do_rows + (local_head * padded + row) * WIDE;
            const global float *k = k_rows + (local_head * padded + key) * WIDE;
            global float *dq = head_dq + (long)row * WIDE;
            for (int p = 0; p < TILE_PANELS; p++) {
                const long panel = (local_head * padded + key + p * PANEL) * WIDTH;
                for (int r = 0; r < BM; r += MR) {
                    if (p * PANEL >= ahead + r + MR)
                        continue;
                    multiply_scores(scores + r * BN + p * PANEL, BN, false, q + r * PANEL, k_columns + panel,
                                    WIDTH);
                    multiply_scores(slopes + r * BN + p * PANEL, BN, false, dout + r * PANEL,
                                    v_columns + panel, WIDTH);
                }
            }
            differentiate(scores, slopes, head_lse, head_delta, row, ahead, selected);
            for (int p = 0; p < WIDE_PANELS; p++) {
                for (int n = 0; n < BN; n += MR) {
                    const int first = max(0, n - ahead); /* the first query to see key n */
                    if (first >= BM)
                        continue;
                    multiply_keys(dv + n * WIDE + p * PANEL, WIDE, true, scores + first * BN + n,
                                  dout + (p * BM + first) * PANEL, BM - first);
                    multiply_keys(dk + n * WIDE + p * PANEL, WIDE, true, slopes + first * BN + n,
                                  q + (p * BM + first) * PANEL, BM - first);
                }
                for (int r = 0; r < BM; r += MR)
                    multiply_queries(dq + r * WIDE + p * PANEL, WIDE, turn >= parts, slopes + r * BN,
                                     k + p * BN * PANEL, clamp(ahead + r + MR, 0, BN));
            }
        }
        store_tile(dk, dk_sel, head, key, selected, s.dim, s.scale);
        store_tile(dv, dv_sel, head, key, selected, s.dim, 1);
    }
}
