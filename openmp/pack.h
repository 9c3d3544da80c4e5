/*
 * pack.h: rows rearranged into the operands of product.h. Rows past the last are zero.
 */
#ifndef LH_OPENMP_PACK_H
#define LH_OPENMP_PACK_H

#include <string.h>

#include "openmp/openmp.h"
#include "openmp/vector.h"

enum {
    PACK_ROWS = 32, /* key rows packed at a time: whole groups, and a whole number of times in a tile */
    PACK_MOST = BLOCK > PACK_ROWS ? BLOCK : PACK_ROWS,
    PACK_AHEAD = 16, /* rows fetched before they are read: the processor guesses up to the end of a page */
};

/* row: [n] <- rows first ... first+n, which stand in `buffer`: [n,d] where they do not as they are in the tensor. Windows
 * are not fetched: they lie in order, and to look them up twice costs more. */
LH_OMP_INLINE void pack_read(const struct lh_omp_rows *rows, int64_t first, int64_t n, int64_t end,
                             float *buffer, const float **row)
{
    const int64_t d = rows->plan->config.dim;
    for (int64_t r = 0; r < n; r++) {
        if (rows->reading == LH_OMP_ROW && first + r + PACK_AHEAD < end)
            lh_omp_fetch_row(rows, first + r + PACK_AHEAD);
        row[r] = buffer + r * d;
        if (first + r < end)
            row[r] = lh_omp_row(rows, first + r, buffer + r * d);
        else
            memset(buffer + r * d, 0, sizeof *buffer * (size_t)d);
    }
}

typedef float vfour __attribute__((vector_size(16), may_alias, aligned(4)));

/* to: [4][step] <- transpose of the four rows */
LH_OMP_INLINE void transpose_four(const float *row0, const float *row1, const float *row2, const float *row3,
                                  float *restrict to, int64_t step)
{
    const vfour a = *(const vfour *)row0, b = *(const vfour *)row1;
    const vfour c = *(const vfour *)row2, e = *(const vfour *)row3;
    const vfour ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                ce = __builtin_shufflevector(c, e, 0, 4, 1, 5);
    const vfour AB = __builtin_shufflevector(a, b, 2, 6, 3, 7),
                CE = __builtin_shufflevector(c, e, 2, 6, 3, 7);
    *(vfour *)to = __builtin_shufflevector(ab, ce, 0, 1, 4, 5);
    *(vfour *)(to + step) = __builtin_shufflevector(ab, ce, 2, 3, 6, 7);
    *(vfour *)(to + 2 * step) = __builtin_shufflevector(AB, CE, 0, 1, 4, 5);
    *(vfour *)(to + 3 * step) = __builtin_shufflevector(AB, CE, 2, 3, 6, 7);
}

/* to: [d][n] <- row: [n][d], n = GROUP or BLOCK */
LH_OMP_INLINE void pack_lanes(const float *const *row, int n, int64_t d, float *restrict to)
{
    const int64_t whole = d / 4 * 4;
    for (int64_t c = 0; c < whole; c += 4)
        for (int64_t r = 0; r < n; r += 4)
            transpose_four(row[r] + c, row[r + 1] + c, row[r + 2] + c, row[r + 3] + c, to + c * n + r, n);
    for (int64_t c = whole; c < d; c++)
        for (int64_t r = 0; r < n; r++)
            to[c * n + r] = row[r][c];
}

/* to: [BLOCK][d] <- buffer: [d][BLOCK] */
LH_OMP_INLINE void unpack_lanes(const float *restrict buffer, int64_t d, float *restrict to)
{
    const int64_t whole = d / 4 * 4;
    for (int64_t i = 0; i < BLOCK; i += 4) {
        for (int64_t c = 0; c < whole; c += 4) {
            const float *from = buffer + c * BLOCK + i;
            transpose_four(from, from + BLOCK, from + 2 * BLOCK, from + 3 * BLOCK, to + i * d + c, d);
        }
    }
    for (int64_t c = whole; c < d; c++)
        for (int64_t i = 0; i < BLOCK; i++)
            to[i * d + c] = buffer[c * BLOCK + i];
}

/* The scale of dS, taken by the rows that it is multiplied with: once each, where dS is made anew for every pair. */
LH_OMP_INLINE float pack_scale(const struct lh_omp_sizes *sizes)
{
    return (float)(1 / sqrt((double)sizes->dim));
}

/* to: [width] <- from: [n] times scale, 0 past n */
LH_OMP_INLINE void pack_scaled(const float *restrict from, int64_t n, int64_t width, float scale,
                               float *restrict to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] * scale;
    for (int64_t i = n; i < width; i++)
        to[i] = 0;
}

/* to: [key_rows/TILE][dim_group/GROUP][TILE][GROUP] <- row: [n][d] times scale, rows first ... first+n of one tile: GROUP
 * columns side by side */
LH_OMP_INLINE void pack_columns(const float *const *row, int64_t n, const struct lh_omp_sizes *sizes,
                                int64_t first, float scale, float *restrict to)
{
    const int64_t d = sizes->dim, in_tile = first % LH_OMP_TILE;
    for (int64_t c = 0; c < sizes->dim_group; c += GROUP) {
        float *column = to + (first - in_tile) * sizes->dim_group + c * LH_OMP_TILE + in_tile * GROUP;
        if (d - c < GROUP) {
            for (int64_t r = 0; r < n; r++)
                pack_scaled(row[r] + c, d - c, GROUP, scale, column + r * GROUP);
        } else {
            for (int64_t r = 0; r < n; r++)
                pack_scaled(row[r] + c, GROUP, GROUP, scale, column + r * GROUP);
        }
    }
}

/* Columns of panel i of the fewest that have at most PANEL each: even to a vector, as a narrow one would not fill the
 * multipliers. 0 past the last. */
LH_OMP_INLINE int64_t panel_columns(const struct lh_omp_sizes *sizes, int64_t i)
{
    const int64_t panels = (sizes->dim_vector + PANEL - 1) / PANEL, vectors = sizes->dim_vector / LANES;
    return i < panels ? (vectors / panels + (i < vectors % panels)) * LANES : 0;
}

/* to: [panel][LH_OMP_TILE][panel's columns] <- row: [n][d] times scale, rows first ... first+n of the tile */
LH_OMP_INLINE void pack_panels(const float *const *row, int64_t n, const struct lh_omp_sizes *sizes,
                               int64_t first, float scale, float *restrict to)
{
    const int64_t d = sizes->dim;
    for (int64_t c = 0, i = 0, columns; (columns = panel_columns(sizes, i)) > 0; c += columns, i++)
        for (int64_t r = 0; r < n; r++)
            pack_scaled(row[r] + c, lh_omp_least(d - c, columns), columns, scale,
                        to + LH_OMP_TILE * c + (first + r) * columns);
}

#endif
