/*
 * attend_cpu_backward.cl: causal softmax attention, backward (SPEC 4), the weights recomputed from lse.
 *
 * A head's key tiles are dealt out to PARTS work-items, whatever the number of threads. Each has its own dk and
 * dv and adds into its own partial dq [heads][PARTS][PADDED][WIDE], which sum_parts adds up in order: no float
 * atomics, and the same bits every time. q scaled by log2(e)/sqrt(d) gives scores in base 2.
 */

/* scores -> P, slopes (dO.V) -> dS = P (dO.V - delta); zero above the diagonal and past the last row. No weight passes 1, which
 * those of huge logits would by far: lse has fewer digits than a logit's distance from it. */
static void differentiate(float *scores, float *slopes, const global float *lse, const global float *delta,
                          index_t row, index_t key, index_t selected)
{
    for (int r = 0; r < BM; r++) {
        vfloat *weight = (vfloat *)(scores + r * BN);
        vfloat *slope = (vfloat *)(slopes + r * BN);
        const bool there = row + r < selected;
        if (!there || key + BN - 1 > row + r) {
            const int visible = there ? max((index_t)0, row + r + 1 - key) : 0;
            for (int n = visible; n < BN; n++)
                scores[r * BN + n] = -INFINITY;
        }
        const float base = there ? lse[row + r] * M_LOG2E_F : 0;
        const float mean = there ? delta[row + r] : 0;
        for (int n = 0; n < BN / VEC; n++) {
            const vfloat x = weight[n] - base;
            weight[n] = exp2_vector(select(x, (vfloat)0, x > 0.0f));
            slope[n] = weight[n] * (slope[n] - mean);
        }
    }
}

/* One product's MR rows of a panel into a partial dq. */
static void add_block(global float *dq, const float *block)
{
    for (int r = 0; r < MR; r++) {
        for (int n = 0; n < PANEL; n += VEC)
            *(global vfloat *)(dq + (long)r * WIDE + n) += *(const vfloat *)(block + r * PANEL + n);
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

/* q_sel, do_sel, dk_sel, dv_sel: from head `rows_first` on */
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attend_backward(const global float *q_sel, const global float *do_sel, const global float *k_columns,
                const global float *v_columns, const global float *k_rows, const global float *q_rows,
                const global float *do_rows, const global float *lse, const global float *delta,
                global float *dq_parts, global float *dk_sel, global float *dv_sel, long rows_first,
                long padded_rows, const struct shape s)
{
    const index_t selected = s.selected, padded = padded_rows;
    const int parts = s.parts, part = get_global_id(0) % parts;
    const float scale = s.scale;
    const long local_head = get_global_id(0) / parts;
    const long head = rows_first + local_head;
    global float *dq = dq_parts + (local_head * parts + part) * padded * WIDE;
    const global float *head_lse = lse + (s.sel_first + local_head) * selected;
    const global float *head_delta = delta + local_head * selected;
    float q[BM * WIDE] __attribute__((aligned(64)));
    float dout[BM * WIDE] __attribute__((aligned(64)));
    float dk[BN * WIDE] __attribute__((aligned(64)));
    float dv[BN * WIDE] __attribute__((aligned(64)));
    float scores[BM * BN] __attribute__((aligned(64)));
    float slopes[BM * BN] __attribute__((aligned(64)));
    float block[MR * PANEL] __attribute__((aligned(64)));

    for (long i = 0; i < (long)padded * WIDE; i += VEC)
        *(global vfloat *)(dq + i) = 0;
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
            copy_rows(q, q_sel, head, row, selected, s.dim, scale * M_LOG2E_F);
            copy_rows(dout, do_sel, head, row, selected, s.dim, 1);
            for (int p = 0; p < TILE_PANELS; p++) {
                const long panel = (local_head * padded + key + p * PANEL) * WIDTH;
                for (int r = 0; r < BM; r += MR) {
                    multiply(scores + r * BN + p * PANEL, BN, false, q + r * WIDE, WIDE, 1, k_columns + panel,
                             WIDTH);
                    multiply(slopes + r * BN + p * PANEL, BN, false, dout + r * WIDE, WIDE, 1,
                             v_columns + panel, WIDTH);
                }
            }
            differentiate(scores, slopes, head_lse, head_delta, row, key, selected);
            for (int p = 0; p < WIDE_PANELS; p++) {
                const long head_panel = (local_head * WIDE_PANELS + p) * padded;
                for (int n = 0; n < BN; n += MR) {
                    multiply(dv + n * WIDE + p * PANEL, WIDE, true, scores + n, 1, BN,
                             do_rows + (head_panel + row) * PANEL, BM);
                    multiply(dk + n * WIDE + p * PANEL, WIDE, true, slopes + n, 1, BN,
                             q_rows + (head_panel + row) * PANEL, BM);
                }
                for (int r = 0; r < BM; r += MR) {
                    multiply(block, PANEL, false, slopes + r * BN, BN, 1, k_rows + (head_panel + key) * PANEL,
                             BN);
                    add_block(dq + (row + r) * WIDE + p * PANEL, block);
                }
            }
        }
        store_tile(dk, dk_sel, head, key, selected, s.dim, scale);
        store_tile(dv, dv_sel, head, key, selected, s.dim, 1);
    }
}
