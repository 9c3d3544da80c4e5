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
};

/* buffer: [n,d] <- rows first ... first+n */
LH_OMP_INLINE void pack_read(const struct lh_omp_rows *rows, int64_t first, int64_t n, int64_t end,
                             float *buffer)
{
    const int64_t d = rows->plan->config.dim;
    for (int64_t r = 0; r < n; r++) {
        if (first + r < end)
            lh_omp_read_row(rows, first + r, buffer + r * d);
        else
            memset(buffer + r * d, 0, sizeof *buffer * (size_t)d);
    }
}

typedef float vfour __attribute__((vector_size(16), may_alias, aligned(4)));

/* to: [4][step] <- transpose of buffer: [4][d] */
LH_OMP_INLINE void transpose_four(const float *restrict buffer, int64_t d, float *restrict to, int64_t step)
{
    const vfour a = *(const vfour *)buffer, b = *(const vfour *)(buffer + d);
    const vfour c = *(const vfour *)(buffer + 2 * d), e = *(const vfour *)(buffer + 3 * d);
    const vfour ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                ce = __builtin_shufflevector(c, e, 0, 4, 1, 5);
    const vfour AB = __builtin_shufflevector(a, b, 2, 6, 3, 7),
                CE = __builtin_shufflevector(c, e, 2, 6, 3, 7);
    *(vfour *)to = __builtin_shufflevector(ab, ce, 0, 1, 4, 5);
    *(vfour *)(to + step) = __builtin_shufflevector(ab, ce, 2, 3, 6, 7);
    *(vfour *)(to + 2 * step) = __builtin_shufflevector(AB, CE, 0, 1, 4, 5);
    *(vfour *)(to + 3 * step) = __builtin_shufflevector(AB, CE, 2, 3, 6, 7);
}

/* to: [d][n] <- buffer: [n][d], n = GROUP or BLOCK */
LH_OMP_INLINE void pack_lanes(const float *restrict buffer, int n, int64_t d, float *restrict to)
{
    const int64_t whole = d / 4 * 4;
    for (int64_t r = 0; r < n; r += 4)
        for (int64_t c = 0; c < whole; c += 4)
            transpose_four(buffer + r * d + c, d, to + c * n + r, n);
    for (int64_t c = whole; c < d; c++)
        for (int64_t r = 0; r < n; r++)
            to[c * n + r] = buffer[r * d + c];
}

/* The scale of dS, taken by the rows that it is multiplied with: once each, where dS is made anew for every pair. */
LH_OMP_INLINE void scale_rows(float *rows, int64_t dim, int64_t n)
{
    const float scale = (float)(1 / sqrt((double)dim));
    for (int64_t i = 0; i < n * dim; i++)
        rows[i] *= scale;
}

/* to: [BLOCK][d] <- buffer: [d][BLOCK] */
LH_OMP_INLINE void unpack_lanes(const float *restrict buffer, int64_t d, float *restrict to)
{
    const int64_t whole = d / 4 * 4;
    for (int64_t i = 0; i < BLOCK; i += 4)
        for (int64_t c = 0; c < whole; c += 4)
            transpose_four(buffer + c * BLOCK + i, BLOCK, to + i * d + c, d);
    for (int64_t c = whole; c < d; c++)
        for (int64_t i = 0; i < BLOCK; i++)
            to[i * d + c] = buffer[c * BLOCK + i];
}

/* to: [key_rows/TILE][dim_group/GROUP][TILE][GROUP], rows first ... first+n of one tile: GROUP columns side by side */
LH_OMP_INLINE void pack_columns(const float *restrict buffer, int64_t n, const struct lh_omp_sizes *sizes,
                                int64_t first, float *restrict to)
{
    const int64_t d = sizes->dim;
    for (int64_t c = 0; c < sizes->dim_group; c += GROUP) {
        float *column = to + (first - first % LH_OMP_TILE) * sizes->dim_group + c * LH_OMP_TILE +
                        first % LH_OMP_TILE * GROUP;
        const int64_t width = d - c < GROUP ? d - c : GROUP;
        if (width == GROUP) {
            for (int64_t r = 0; r < n; r++)
                memcpy(column + r * GROUP, buffer + r * d + c, sizeof *column * GROUP);
            continue;
        }
        for (int64_t r = 0; r < n; r++) {
            for (int64_t i = 0; i < width; i++)
                column[r * GROUP + i] = buffer[r * d + c + i];
            for (int64_t i = width; i < GROUP; i++)
                column[r * GROUP + i] = 0;
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

/* to: [panel][LH_OMP_TILE][panel's columns], rows first ... first+n of the tile */
LH_OMP_INLINE void pack_panels(const float *restrict buffer, int64_t n, const struct lh_omp_sizes *sizes,
                               int64_t first, float *restrict to)
{
    const int64_t d = sizes->dim;
    for (int64_t c = 0, i = 0, columns; (columns = panel_columns(sizes, i)) > 0; c += columns, i++) {
        const int64_t width = d - c < columns ? d - c : columns;
        for (int64_t r = 0; r < n; r++) {
            float *row = to + LH_OMP_TILE * c + (first + r) * columns;
            memcpy(row, buffer + r * d + c, sizeof *row * (size_t)width);
            memset(row + width, 0, sizeof *row * (size_t)(columns - width));
        }
    }
}

#endif
