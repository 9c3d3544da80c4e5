/*
 * pack.h: rows rearranged into the operands of product.h. Rows past the last are zero.
 */
#ifndef LH_OPENMP_PACK_H
#define LH_OPENMP_PACK_H

#include <string.h>

#include "openmp/openmp.h"
#include "openmp/vector.h"

enum {
    PACK_ROWS = 32, /* key rows packed at a time: whole groups, and a whole number of times in a key tile */
    PACK_MOST = BLOCK > PACK_ROWS ? BLOCK : PACK_ROWS,
};

/* buffer: [n,d] <- rows first ... first+n */
CPU_INLINE void pack_read(const struct cpu_rows *rows, int64_t first, int64_t n, int64_t end, float *buffer)
{
    const int64_t d = rows->plan->config.dim;
    for (int64_t r = 0; r < n; r++) {
        if (first + r < end)
            cpu_read_row(rows, first + r, buffer + r * d);
        else
            memset(buffer + r * d, 0, sizeof *buffer * (size_t)d);
    }
}

/* to: [d][n], n = GROUP or BLOCK: a row a lane */
CPU_INLINE void pack_lanes(const float *restrict buffer, int n, int64_t d, float *restrict to)
{
    for (int64_t c = 0; c < d; c++)
        for (int r = 0; r < n; r++)
            to[c * n + r] = buffer[r * d + c];
}

/* to: [dim_group/GROUP][key_rows][GROUP], rows first ... first+n: GROUP columns side by side */
CPU_INLINE void pack_columns(const float *restrict buffer, int64_t n, const struct cpu_sizes *sizes,
                             int64_t first, float *restrict to)
{
    const int64_t d = sizes->dim;
    for (int64_t c = 0; c < sizes->dim_group; c += GROUP) {
        float *column = to + c * sizes->key_rows + first * GROUP;
        const int64_t width = d - c < GROUP ? d - c : GROUP;
        for (int64_t r = 0; r < n; r++) {
            for (int64_t i = 0; i < width; i++)
                column[r * GROUP + i] = buffer[r * d + c + i];
            for (int64_t i = width; i < GROUP; i++)
                column[r * GROUP + i] = 0;
        }
    }
}

/* Vectors in the panel that begins at column c: panels are VECTORS wide, the last may be narrower. */
CPU_INLINE int panel_vectors(const struct cpu_sizes *sizes, int64_t c)
{
    const int64_t left = (sizes->dim_vector - c) / LANES;
    return left < VECTORS ? (int)left : VECTORS;
}

/* to: [panel][CPU_TILE][panel's columns], rows first ... first+n of the tile */
CPU_INLINE void pack_panels(const float *restrict buffer, int64_t n, const struct cpu_sizes *sizes,
                            int64_t first, float *restrict to)
{
    const int64_t d = sizes->dim;
    for (int64_t c = 0; c < sizes->dim_vector; c += BLOCK) {
        const int64_t columns = panel_vectors(sizes, c) * LANES;
        const int64_t width = d - c < columns ? d - c : columns;
        for (int64_t r = 0; r < n; r++) {
            float *row = to + CPU_TILE * c + (first + r) * columns;
            memcpy(row, buffer + r * d + c, sizeof *row * (size_t)width);
            memset(row + width, 0, sizeof *row * (size_t)(columns - width));
        }
    }
}

#endif
