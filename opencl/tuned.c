/*
 * The tiles of a plan: those it was given, else LIGHTHOUSE_OPENCL_TILES, else measured ones, else the class's.
 *
 * Measured on one device by `lighthouse tune`, in $XDG_CONFIG_HOME/lighthouse/opencl.json or ~/.config/...:
 *
 *   {"NAME OF THE DEVICE": {"forward": [rows, columns, row_block, column_block, chunk], "backward": [likewise]}}
 *
 * They come before the committed table. A file that is there but cannot be used is an error that names it.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/folder.h"
#include "core/json.h"
#include "core/regular.h"
#include "core/replace.h"
#include "opencl/opencl.h"

static bool tuned_path(bool make, char path[LH_TUNED_PATH])
{
    char folder[LH_FOLDER];
    if (!lh_user_folder("XDG_CONFIG_HOME", ".config", make, folder))
        return false;
    snprintf(path, LH_TUNED_PATH, "%s/opencl.json", folder);
    return true;
}

/* The whole file: an empty object where there is none. */
static lh_status read_all(const char *path, json_t **all, lh_error *error)
{
    json_error_t reason = {.line = 1};
    FILE *file;
    *all = NULL;
    if (access(path, F_OK) != 0) {
        *all = json_object();
        return *all ? LH_OK : lh_fail(error, LH_NO_MEMORY, "measured tiles: memory could not be had");
    }
    const lh_status status =
        lh_stream_regular(path, "what `lighthouse tune` writes: remove it", LH_MOST_SETTINGS, &file, error);
    if (status != LH_OK)
        return status;
    *all = json_loadf(file, JSON_REJECT_DUPLICATES, &reason);
    fclose(file);
    if (!*all && json_error_code(&reason) == json_error_out_of_memory)
        return lh_fail(error, LH_NO_MEMORY, "%.300s: memory for its JSON could not be had", path);
    if (*all && json_is_object(*all))
        return LH_OK;
    lh_fail(error, LH_FORMAT, "%.200s: line %d: %s, wanted what `lighthouse tune` writes: remove it", path,
            *all ? 1 : reason.line, *all ? "not an object" : reason.text);
    json_decref(*all);
    *all = NULL;
    return LH_FORMAT;
}

static bool unpack(const json_t *device, const char *pass, struct lh_cl_tile *tile)
{
    const json_t *numbers = json_object_get(device, pass);
    int *const members[] = {&tile->rows, &tile->columns, &tile->row_block, &tile->column_block, &tile->chunk};
    bool right = json_array_size(numbers) == 5;
    for (size_t i = 0; i < 5 && right; i++) {
        const json_t *number = json_array_get(numbers, i);
        const json_int_t value = json_integer_value(number);
        right = json_is_integer(number) && value >= 0 && value <= 1 << 16; /* lh_cl_tuning_fits is for ints */
        *members[i] = right ? (int)value : 0;
    }
    return right;
}

static json_t *pack(const struct lh_cl_tile *t)
{
    return json_pack("[iiiii]", t->rows, t->columns, t->row_block, t->column_block, t->chunk);
}

lh_status lh_cl_tuned_read(const struct lh_cl_device *device, struct lh_cl_tuning *tuning, lh_error *error)
{
    char path[LH_TUNED_PATH];
    json_t *all;
    if (!tuned_path(false, path))
        return LH_OK;
    lh_status status = read_all(path, &all, error);
    if (status != LH_OK)
        return status;
    json_t *found = json_object_get(all, device->name);
    struct lh_cl_tuning tuned = *tuning;
    if (found && unpack(found, "forward", &tuned.forward) && unpack(found, "backward", &tuned.backward) &&
        lh_cl_tuning_fits(&tuned))
        *tuning = tuned;
    else if (found)
        status =
            lh_fail(error, LH_FORMAT,
                    "%s: tiles of %s are not possible, wanted what `lighthouse tune` measures: run it again, "
                    "or remove the file",
                    path, device->name);
    json_decref(all);
    return status;
}

lh_status lh_cl_tuned_write(const struct lh_cl_device *device, const struct lh_cl_tuning *tuning,
                            char path[LH_TUNED_PATH], lh_error *error)
{
    json_t *all;
    if (!tuned_path(true, path))
        return lh_fail(error, LH_IO,
                       "HOME is no folder that can be written to, wanted one for the tuned tiles");
    lh_status status = read_all(path, &all, error);
    if (status != LH_OK)
        return status;
    char *text = NULL;
    all = lh_json_set(
        all, device->name,
        json_pack("{s:o s:o}", "forward", pack(&tuning->forward), "backward", pack(&tuning->backward)));
    status = lh_json_text(all, JSON_INDENT(2), path, &text, error);
    if (status == LH_OK)
        status = lh_replace_text(path, text, strlen(text), error);
    free(text);
    return status;
}

/* "rows,columns,row_block,column_block,chunk" of the forward tile, a slash, and the backward's. */
static bool read_tiles(const char *text, struct lh_cl_tuning *t)
{
    struct lh_cl_tuning given = *t;
    struct lh_cl_tile *f = &given.forward, *b = &given.backward;
    if (!text ||
        sscanf(text, "%d,%d,%d,%d,%d/%d,%d,%d,%d,%d", &f->rows, &f->columns, &f->row_block, &f->column_block,
               &f->chunk, &b->rows, &b->columns, &b->row_block, &b->column_block, &b->chunk) != 10 ||
        !lh_cl_tuning_fits(&given))
        return false;
    *t = given;
    return true;
}

/* Floats of a head dimension's width that the CPU body keeps of a tile on a thread's stack: a query's row and its sum forward, dk and
 * dv backward. */
static int64_t stack_rows(const struct lh_cl_tuning *t)
{
    const int64_t forward = 2 * (int64_t)t->forward.rows;
    const int64_t backward = 2 * (int64_t)t->backward.columns;
    return forward > backward ? forward : backward;
}

/* Halves one side of a tile as often as a wide head asks for and kernels can be built. */
static void shorten(struct lh_cl_tuning *t, int *side, int64_t dim)
{
    while (*side % 2 == 0 && dim * *side > 1 << 16) {
        const int before = *side;
        *side /= 2;
        if (!lh_cl_tuning_fits(t)) {
            *side = before;
            return;
        }
    }
}

/* A CPU's tiles so that a wide head leaves them within a thread's stack, of which drivers say nothing: 8 MiB is usual. */
static lh_status shorten_tiles(struct lh_cl_tuning *t, int64_t dim, lh_error *error)
{
    enum {
        STACK = 6 << 20
    };
    shorten(t, &t->forward.rows, dim);
    shorten(t, &t->backward.columns, dim);
    const int64_t most = STACK / (4 * stack_rows(t));
    return dim <= most
               ? LH_OK
               : lh_fail(error, LH_UNSUPPORTED,
                         "dim is %lld, rounded up to a program's width, wanted at most %lld in OpenCL on a "
                         "CPU: a tile's rows are on a thread's stack",
                         (long long)dim, (long long)most);
}

lh_status lh_cl_tuning_find(const struct lh_cl_device *device, const lh_tiles *given, int64_t dim,
                            struct lh_cl_tuning *tuning, lh_error *error)
{
    lh_cl_tuning_of_class(device, tuning);
    if (given) {
        tuning->forward = lh_cl_tile_of(&given->forward);
        tuning->backward = lh_cl_tile_of(&given->backward);
        if (!lh_cl_tuning_fits(tuning))
            return lh_fail(error, LH_INVALID,
                           "the given tiles are not possible on %s, wanted what its tuner offers",
                           device->name);
    } else if (!read_tiles(getenv("LIGHTHOUSE_OPENCL_TILES"), tuning) &&
               tuning->cpu_body == device->has_cpu_body) {
        const lh_status status = lh_cl_tuned_read(device, tuning, error);
        if (status != LH_OK)
            return status;
    }
    return tuning->cpu_body ? shorten_tiles(tuning, dim, error) : LH_OK;
}
