/* How kernels are sized on each class of devices, and which tiles are worth measuring on one. */
#include <stdlib.h>
#include <string.h>

#include "opencl/opencl.h"

/* Classes from the most to the least particular: the first that fits is taken. */
static const struct row {
    bool cpu;
    cl_uint float_width;   /* at least this */
    cl_ulong local_memory; /* at least this */
    size_t group_size;     /* at least this */
    struct lh_cl_tuning tuning;
} table[] = {
    /* AVX-512: 16 sums and 2 operands of 32 registers; PoCL 3.1 spills with 24 and 3 */
    {true, 16, 0, 1, {true, 16, 1, 64, {128, 128, 8, 2, 0}, {96, 96, 8, 2, 0}}},
    /* AVX2: 12 sums of 16 registers; backward spills with 4 and 3 */
    {true, 8, 0, 1, {true, 8, 1, 64, {96, 64, 4, 3, 0}, {96, 96, 6, 2, 0}}},
    /* SSE, NEON */
    {true, 0, 0, 1, {true, 4, 1, 64, {64, 64, 4, 2, 0}, {64, 64, 4, 2, 0}}},
    /* 48 KiB of local memory or more: NVIDIA, AMD, Intel */
    {false, 0, 48 << 10, 256, {false, 4, 64, 2, {64, 64, 8, 4, 32}, {64, 64, 8, 4, 32}}},
    {false, 0, 32 << 10, 256, {false, 4, 64, 2, {64, 64, 8, 4, 16}, {64, 64, 4, 4, 16}}},
    /* the least that OpenCL 1.2 allows is 32 KiB, and 16 KiB where local memory is emulated */
    {false, 0, 16 << 10, 128, {false, 4, 64, 2, {32, 32, 4, 2, 16}, {32, 32, 4, 2, 16}}},
    {false, 0, 0, 64, {false, 4, 64, 2, {32, 32, 8, 2, 8}, {32, 32, 8, 2, 8}}},
    {false, 0, 0, 1, {false, 1, 16, 1, {8, 16, 8, 1, 4}, {8, 16, 8, 1, 4}}},
};

struct lh_cl_tile lh_cl_tile_of(const lh_tiling *t)
{
    const int *n = t->number;
    return (struct lh_cl_tile){n[0], n[1], n[2], n[3], n[4]};
}

lh_tiling lh_cl_tiling_of(const struct lh_cl_tile *t)
{
    return (lh_tiling){{t->rows, t->columns, t->row_block, t->column_block, t->chunk}};
}

/* Whether kernels can be built for it: attend_cpu.cl, panel_cpu.cl, tile_gpu.cl. */
static bool fits(const struct lh_cl_tuning *t, const struct lh_cl_tile *tile)
{
    if (tile->rows < 1 || tile->columns < 1 || tile->row_block < 1 || tile->column_block < 1 ||
        tile->rows > 256 || tile->columns > 512 || tile->column_block > 512 ||
        tile->rows % tile->row_block != 0)
        return false;
    if (t->cpu_body && tile == &t->forward)
        return tile->rows % (tile->column_block * t->vec) == 0 && tile->columns % tile->row_block == 0 &&
               tile->row_block % 4 == 0; /* a panel: pack.cl */
    if (t->cpu_body)
        return tile->columns % (tile->column_block * t->vec) == 0 && tile->columns % tile->row_block == 0;
    return tile->columns == 16 * tile->column_block && tile->chunk >= 4 && tile->chunk % 4 == 0 &&
           tile->columns % tile->chunk == 0;
}

bool lh_cl_tuning_fits(const struct lh_cl_tuning *t)
{
    return fits(t, &t->forward) && fits(t, &t->backward);
}

void lh_cl_tuning_of_class(const struct lh_cl_device *device, struct lh_cl_tuning *tuning)
{
    const char *body = getenv("LIGHTHOUSE_OPENCL_BODY");
    bool cpu = device->has_cpu_body;
    if (body && strcmp(body, "cpu") == 0)
        cpu = true;
    else if (body && strcmp(body, "gpu") == 0)
        cpu = false;
    const int count = (int)(sizeof table / sizeof *table);
    int i = 0;
    while (i + 1 < count &&
           (table[i].cpu != cpu || device->float_width < table[i].float_width ||
            device->local_memory < table[i].local_memory || device->group_size < table[i].group_size))
        i++;
    *tuning = table[i].tuning;
}

/* Adds a tile that can be built and leaves registers and local memory enough. */
static void add(const struct lh_cl_device *device, struct lh_cl_tuning *t, bool backward,
                struct lh_cl_tile tile, struct lh_cl_tile *tiles, int *count)
{
    struct lh_cl_tile *own = backward ? &t->backward : &t->forward;
    const int sums = tile.row_block * tile.column_block, most = t->vec == 16 ? 24 : 12;
    *own = tile;
    if (*count == LH_TILINGS || memcmp(&tile, &tiles[0], sizeof tile) == 0 || !fits(t, own) ||
        (t->cpu_body && (sums > most || 3 * sums < 2 * most)))
        return;
    if (!t->cpu_body) {
        const int work_items = tile.rows / tile.row_block * 16;
        const int step = tile.chunk * (tile.rows + tile.columns + 8), apply = tile.chunk * 128;
        const int weights = tile.columns * (tile.rows + 4);
        const size_t bytes = sizeof(cl_float) * (size_t)(weights + (step > apply ? step : apply));
        if (work_items < 64 || (size_t)work_items > device->group_size || bytes > device->local_memory)
            return;
    }
    tiles[(*count)++] = tile;
}

int lh_cl_tuning_candidates(const struct lh_cl_device *device, bool backward,
                            struct lh_cl_tile tiles[LH_TILINGS])
{
    struct lh_cl_tuning t;
    int count = 0;
    lh_cl_tuning_of_class(device, &t);
    tiles[count++] = backward ? t.backward : t.forward;
    for (int row_block = 4; row_block <= 8; row_block += 4)
        for (int column_block = t.cpu_body ? 1 : 2; column_block <= (t.cpu_body ? 4 : 8);
             column_block += t.cpu_body ? 1 : column_block)
            for (int times = 1; times <= 4; times *= 2) {
                const int lanes = column_block * t.vec;
                if (!t.cpu_body) {
                    for (int chunk = 8; chunk <= 32; chunk *= 2)
                        add(device, &t, backward,
                            (struct lh_cl_tile){32 * times, 16 * column_block, row_block, column_block,
                                                chunk},
                            tiles, &count);
                } else if (backward) {
                    for (int rows = 8 * row_block; rows <= 16 * row_block; rows *= 2)
                        add(device, &t, true,
                            (struct lh_cl_tile){rows, lanes * times, row_block, column_block, 0}, tiles,
                            &count);
                } else {
                    for (int keys = 8 * row_block; keys <= 16 * row_block; keys *= 2)
                        add(device, &t, false,
                            (struct lh_cl_tile){lanes * times, keys, row_block, column_block, 0}, tiles,
                            &count);
                }
            }
    return count;
}
