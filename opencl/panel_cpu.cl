/*
 * panel_cpu.cl: for devices whose work-items are threads with wide vectors: one register-blocked product.
 * Everything here is float32: pack.cl converts.
 *
 * -D WIDTH: of a row in products, d and zeros after it, VEC: floats in a vector, MR, NR: a product keeps MR rows of NR vectors in
 * registers, BM, BN: rows and columns of a tile of scores, multiples of MR and of PANEL.
 *
 * Operands are packed by pack.cl in panels of PANEL columns: [panel][row][PANEL], so that they are read from end to end.
 * Token rows are padded with zeros to `padded` a head, columns to WIDE. PANEL is NR * VEC unless -D says otherwise.
 */
#ifndef PANEL
#define PANEL (NR * VEC)
#endif
#define WIDE ((WIDTH + PANEL - 1) / PANEL * PANEL)
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
    const float round = 12582912.0f; /* 1.5 * 2^23: a sum with it is an integer, which the low bits hold */
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

/* BM rows of x [heads,S,d] from `row` on, times `scale`; zeros past the last row and the last column. */
static void copy_rows(float *to, const global float *x, long head, index_t row, index_t selected, int dim,
                      float scale)
{
    for (int r = 0; r < BM; r++) {
        const bool there = row + r < selected;
        const long from = (head * selected + row + r) * dim;
        for (int c = 0; c < WIDE; c += VEC) {
            const vfloat value = there ? load_columns(x, from + c, dim - c) : (vfloat)0;
            *(vfloat *)(to + r * WIDE + c) = value * scale;
        }
    }
}
