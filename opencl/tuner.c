/* What `lighthouse tune` asks of this backend. */
#include <stdio.h>

#include "opencl/opencl.h"

static lh_status describe(int number, struct lh_cl_device *device, lh_error *error)
{
    cl_device_id id = NULL;
    const lh_status status = lh_cl_device_find(number, &id, error);
    return status == LH_OK ? lh_cl_device_describe(id, device, error) : status;
}

static struct lh_cl_tuning tuning_of(const struct lh_cl_device *device, const lh_tiles *tiles)
{
    struct lh_cl_tuning tuning;
    lh_cl_tuning_of_class(device, &tuning);
    tuning.forward = lh_cl_tile_of(&tiles->forward);
    tuning.backward = lh_cl_tile_of(&tiles->backward);
    return tuning;
}

static lh_status committed(int number, lh_tiles *tiles, int64_t *tokens, lh_error *error)
{
    struct lh_cl_device device;
    struct lh_cl_tuning tuning;
    const lh_status status = describe(number, &device, error);
    if (status != LH_OK)
        return status;
    lh_cl_tuning_of_class(&device, &tuning);
    *tiles = (lh_tiles){lh_cl_tiling_of(&tuning.forward), lh_cl_tiling_of(&tuning.backward)};
    *tokens = device.is_cpu ? 2048 : 16384;
    return LH_OK;
}

static lh_status candidates(int number, bool backward, lh_tiling tilings[LH_TILINGS], int *count,
                            lh_error *error)
{
    struct lh_cl_device device;
    struct lh_cl_tile tiles[LH_TILINGS];
    const lh_status status = describe(number, &device, error);
    *count = status == LH_OK ? lh_cl_tuning_candidates(&device, backward, tiles) : 0;
    for (int i = 0; i < *count; i++)
        tilings[i] = lh_cl_tiling_of(&tiles[i]);
    return status;
}

static lh_status keep(int number, const lh_tiles *tiles, char path[LH_TUNED_PATH], lh_error *error)
{
    struct lh_cl_device device;
    const lh_status status = describe(number, &device, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_tuning tuning = tuning_of(&device, tiles);
    return lh_cl_tuned_write(&device, &tuning, path, error);
}

static lh_status row(int number, const lh_tiles *tiles, char text[LH_TUNED_ROW], lh_error *error)
{
    struct lh_cl_device device;
    const lh_status status = describe(number, &device, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_tuning t = tuning_of(&device, tiles);
    const struct lh_cl_tile *f = &t.forward, *b = &t.backward;
    snprintf(text, LH_TUNED_ROW, "{%s, %d, %d, %d, {%d, %d, %d, %d, %d}, {%d, %d, %d, %d, %d}}",
             t.cpu_body ? "true" : "false", t.vec, t.group, t.run, f->rows, f->columns, f->row_block,
             f->column_block, f->chunk, b->rows, b->columns, b->row_block, b->column_block, b->chunk);
    return LH_OK;
}

const lh_tuner lh_cl_tuner = {
    .columns = "rows,columns,row_block,column_block,chunk",
    .numbers = 5,
    .source = "opencl/tiles.c",
    .committed = committed,
    .candidates = candidates,
    .keep = keep,
    .row = row,
};
