/*
 * product.h: the one matrix product under all of attention, a register tile of `rows` x `vectors` vectors.
 *
 *   c[i][:] = sum over k < n of a(i,k) b[k][:]      i < rows, those of c and b being `vectors` vectors
 *
 * a(i,k) = a[i * a_row + k * a_step] is broadcast, b is streamed. The sum runs in rising k in registers and is
 * then stored, added to c, or added to c times a factor per lane. All strides are known where it is inlined.
 *
 * Where a's rows lie side by side, a is a panel that comes from further away than the first-level cache: it is fetched ahead,
 * as the processor's own guesses end with each page. So are the rows of c that are added to.
 */
#ifndef LH_OPENMP_PRODUCT_H
#define LH_OPENMP_PRODUCT_H

#include "openmp/vector.h"

enum product_end {
    PRODUCT_STORE,
    PRODUCT_STORE_MOST, /* and lanes = the largest of lanes and the rows stored */
    PRODUCT_ADD,
    PRODUCT_RESCALE, /* c = c * lanes + sum */
};

enum {
    PRODUCT_AHEAD = 32 /* steps: about 400 cycles, a miss of the second-level cache */
};

/* n >= 1. c_row, b_row: floats from row to row. lanes: [vectors], NULL where `end` names none. */
LH_OMP_INLINE void product(int rows, int vectors, enum product_end end, float *restrict c, int64_t c_row,
                           const float *restrict a, int64_t a_row, int64_t a_step, const float *restrict b,
                           int64_t b_row, int64_t n, vfloat *lanes)
{
    vfloat sum[8][4];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sum[i][v] = splat(0);
    if (end == PRODUCT_ADD || end == PRODUCT_RESCALE)
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++)
                __builtin_prefetch(c + i * c_row + v * LANES, 1);
    int64_t k = 0;
    do {
        vfloat row[4];
        for (int v = 0; v < vectors; v++)
            row[v] = *(const vfloat *)(b + k * b_row + v * LANES);
        if (a_row == 1) /* past the panel's end stands the next one, or what a prefetch ignores */
            __builtin_prefetch(a + (k + PRODUCT_AHEAD) * a_step);
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++)
                sum[i][v] += a[i * a_row + k * a_step] * row[v];
    } while (++k < n);
    for (int i = 0; i < rows; i++) {
        for (int v = 0; v < vectors; v++) {
            vfloat *to = (vfloat *)(c + i * c_row + v * LANES);
            if (end == PRODUCT_ADD)
                *to += sum[i][v];
            else if (end == PRODUCT_RESCALE)
                *to = *to * lanes[v] + sum[i][v];
            else
                *to = sum[i][v];
            if (end == PRODUCT_STORE_MOST)
                lanes[v] = vector_max(lanes[v], sum[i][v]);
        }
    }
}

#endif
