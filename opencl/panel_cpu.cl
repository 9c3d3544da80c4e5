/*
 * panel_cpu.cl: for devices whose work-items are threads with wide vectors: one register-blocked product.
 * Everything here is float32: pack.cl converts.
 *
 * -D WIDTH: of a row in products, d and zeros after it, VEC: floats in a vector, MR, NR: a product keeps MR rows of NR vectors in
 * registers, BM, BN: rows and columns of a tile of scores, multiples of MR and of PANEL.
 *
 * Operands are packed by pack.cl, rows in panels of PANEL columns a tile, [tile][panel][row][PANEL], so that they are read from end to
 * end. Token rows are padded with zeros to `padded` a head, columns to WIDE. PANEL is NR * VEC unless -D says otherwise.
 */
#ifndef PANEL
#define PANEL (NR * VEC)
#endif
#define WIDE ((WIDTH + PANEL - 1) / PANEL * PANEL)
#define TILE_PANELS (BN / PANEL)
#define WIDE_PANELS (WIDE / PANEL)

/*
 * The number of the piece of work that a work-item takes, from 0 on in the order that they ask. Whatever runs of work-groups a
 * driver deals to a thread (PoCL: half of what is left), threads are at neighbouring pieces, so that they share a head's operands in
 * the cache, and are even at the end.
 */
static uint next_turn(volatile global uint *turns)
{
    return atomic_inc(turns);
}

/*
 * NAME: out[r][:] = sum_k a[AT] * b[k][:], or that added to what is there, for MR rows r and one panel b; `out` has out_row floats a
 * row. OUT and A are address spaces.
 */
#define PRODUCT(NAME, OUT, A, AT)                                                                            \
    static void NAME(OUT float *out, int out_row, bool add, const A float *a, const global float *panel,     \
                     int count)                                                                              \
    {                                                                                                        \
        const global vfloat *b = (const global vfloat *)panel;                                               \
        vfloat sum[MR][NR];                                                                                  \
        UNROLL                                                                                               \
        for (int r = 0; r < MR; r++) {                                                                       \
            const OUT vfloat *from = (const OUT vfloat *)(out + r * out_row);                                \
            UNROLL                                                                                           \
            for (int n = 0; n < NR; n++)                                                                     \
                sum[r][n] = add ? from[n] : (vfloat)0;                                                       \
        }                                                                                                    \
        for (uint k = 0; k < (uint)count; k++) {                                                             \
            vfloat right[NR];                                                                                \
            UNROLL                                                                                           \
            for (int n = 0; n < NR; n++)                                                                     \
                right[n] = b[k * NR + n];                                                                    \
            UNROLL                                                                                           \
            for (int r = 0; r < MR; r++) {                                                                   \
                const vfloat left = a[AT];                                                                   \
                UNROLL                                                                                       \
                for (int n = 0; n < NR; n++)                                                                 \
                    sum[r][n] = fma(left, right[n], sum[r][n]);                                              \
            }                                                                                                \
        }                                                                                                    \
        UNROLL                                                                                               \
        for (int r = 0; r < MR; r++) {                                                                       \
            OUT vfloat *to = (OUT vfloat *)(out + r * out_row);                                              \
            UNROLL                                                                                           \
            for (int n = 0; n < NR; n++)                                                                     \
                to[n] = sum[r][n];                                                                           \
        }                                                                                                    \
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
