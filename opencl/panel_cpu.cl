/*
 * panel_cpu.cl: for devices whose work-items are threads with wide vectors: one register-blocked product, and
 * the packing that feeds it.
 *
 * -D DIM: head dimension d, VEC: floats in a vector, MR, NR: a product keeps MR rows of NR vectors in
 * registers, BM, BN: rows and columns of a tile of scores, multiples of MR and of PANEL.
 *
 * Operands are packed in panels of PANEL columns: [panel][row][PANEL], so that they are read from end to end. Token
 * rows are padded with zeros to PADDED a head, columns to WIDE. PANEL is NR * VEC unless -D says otherwise.
 */
#ifndef PANEL
#define PANEL (NR * VEC)
#endif
#define WIDE ((DIM + PANEL - 1) / PANEL * PANEL)
#define TILE_PANELS (BN / PANEL)
#define WIDE_PANELS (WIDE / PANEL)

/*
 * out[r][:] (+)= sum_k a[r*a_row + k*a_step] * b[k][:] for MR rows and one panel. `out` has out_row floats a
 * row.
 */
static void multiply(float *out, int out_row, bool add, const float *a, int a_row, int a_step,
                     const global float *panel, int count)
{
    vfloat sum[MR][NR];
#pragma unroll
    for (int r = 0; r < MR; r++) {
#pragma unroll
        for (int n = 0; n < NR; n++)
            sum[r][n] = add ? *(const vfloat *)(out + r * out_row + n * VEC) : (vfloat)0;
    }
    const global vfloat *b = (const global vfloat *)panel;
    for (int k = 0; k < count; k++) {
        vfloat right[NR];
#pragma unroll
        for (int n = 0; n < NR; n++)
            right[n] = b[k * NR + n];
#pragma unroll
        for (int r = 0; r < MR; r++) {
            const vfloat left = a[r * a_row + k * a_step];
#pragma unroll
            for (int n = 0; n < NR; n++)
                sum[r][n] = fma(left, right[n], sum[r][n]);
        }
    }
#pragma unroll
    for (int r = 0; r < MR; r++) {
#pragma unroll
        for (int n = 0; n < NR; n++)
            *(vfloat *)(out + r * out_row + n * VEC) = sum[r][n];
    }
}

/* 2^x for x < 128, within 1 ulp or so; 0 from -127 down, NaN for NaN. */
static vfloat exp2_vector(vfloat x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits */
    const vfloat kept = select(x, (vfloat)-127.0f, x < -127.0f);
    const vfloat whole = kept + round;
    const vfloat part = kept - (whole - round);
    vfloat y = fma((vfloat)0.000153707049f, part, (vfloat)0.00133998482f);
    y = fma(y, part, (vfloat)0.00961837359f);
    y = fma(y, part, (vfloat)0.0555032901f);
    y = fma(y, part, (vfloat)0.240226477f);
    y = fma(y, part, (vfloat)0.693147182f);
    y = fma(y, part, (vfloat)1.0f);
    return y * as_vfloat((as_vint(whole) << 23) + 0x3f800000);
}

/* BM rows of x [heads,S,d] from `row` on, as float32 times `scale`; zeros past the last. */
static void copy_rows(float *to, const global store_t *x, long head, index_t row, index_t selected, float scale)
{
    for (int r = 0; r < BM; r++) {
        const bool there = row + r < selected;
        const long from = (head * selected + row + r) * DIM;
        for (int c = 0; c < DIM; c += VEC) {
            const vfloat value = there ? load_columns(x, from + c, DIM - c) : (vfloat)0;
            *(vfloat *)(to + r * WIDE + c) = value * scale;
        }
    }
}

/* x [heads,S,d] -> [heads][WIDE/PANEL][PADDED][PANEL]: tokens are a product's inner dimension. One work-item
 * packs BN tokens of a head. */
kernel void pack_rows(const global store_t *x, global float *packed, long first, index_t selected,
                      index_t padded)
{
    const index_t tiles = padded / BN;
    const long local_head = get_global_id(0) / tiles;
    const index_t begin = get_global_id(0) % tiles * BN;
    for (index_t row = begin; row < begin + BN; row++) {
        for (int p = 0; p < WIDE_PANELS; p++) {
            global float *to = packed + ((local_head * WIDE_PANELS + p) * padded + row) * PANEL;
            const long from = ((first + local_head) * selected + row) * DIM + p * PANEL;
            for (int c = 0; c < PANEL; c++)
                to[c] = row < selected && p * PANEL + c < DIM ? load(x, from + c) : 0.0f;
        }
    }
}

/* x [heads,S,d] -> [heads][PADDED/PANEL][d][PANEL]: tokens are a product's columns. */
kernel void pack_columns(const global store_t *x, global float *packed, long first, index_t selected,
                         index_t padded)
{
    const index_t tiles = padded / BN;
    const long local_head = get_global_id(0) / tiles;
    const index_t begin = get_global_id(0) % tiles * BN;
    for (index_t panel = begin / PANEL; panel < (begin + BN) / PANEL; panel++) {
        global float *to = packed + (local_head * padded + panel * PANEL) * DIM;
        for (int i = 0; i < PANEL; i++) {
            const index_t row = panel * PANEL + i;
            const long from = ((first + local_head) * selected + row) * DIM;
            for (int c = 0; c < DIM; c++)
                to[c * PANEL + i] = row < selected ? load(x, from + c) : 0.0f;
        }
    }
}
