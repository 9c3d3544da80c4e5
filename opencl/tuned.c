/*
 * Tiles measured on one device by `lighthouse tune`, in $XDG_CONFIG_HOME/lighthouse/opencl.json or ~/.config/...:
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

#include "core/replace.h"
#include "opencl/opencl.h"

static bool tuned_path(bool make, char path[LH_CL_PATH])
{
    char folder[LH_CL_FOLDER];
    if (!lh_cl_folder("XDG_CONFIG_HOME", ".config", make, folder))
        return false;
    snprintf(path, LH_CL_PATH, "%s/opencl.json", folder);
    return true;
}

/* The whole file: an empty object where there is none. */
static lh_status read_all(const char *path, json_t **all, lh_error *error)
{
    json_error_t reason;
    *all = access(path, F_OK) == 0 ? json_load_file(path, 0, &reason) : json_object();
    if (!*all)
        return lh_fail(error, LH_FORMAT, "%s: line %d: %s, wanted what `lighthouse tune` writes: remove it",
                       path, reason.line, reason.text);
    return LH_OK;
}

static bool unpack(json_t *device, const char *pass, struct lh_cl_tile *tile)
{
    json_t *numbers = json_object_get(device, pass);
    return json_unpack(numbers, "[iiiii!]", &tile->rows, &tile->columns, &tile->row_block,
                       &tile->column_block, &tile->chunk) == 0;
}

static json_t *pack(const struct lh_cl_tile *t)
{
    return json_pack("[iiiii]", t->rows, t->columns, t->row_block, t->column_block, t->chunk);
}

lh_status lh_cl_tuned_read(const struct lh_cl_device *device, struct lh_cl_tuning *tuning, lh_error *error)
{
    char path[LH_CL_PATH];
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
                            char path[LH_CL_PATH], lh_error *error)
{
    json_t *all;
    if (!tuned_path(true, path))
        return lh_fail(error, LH_IO,
                       "HOME is no folder that can be written to, wanted one for the tuned tiles");
    lh_status status = read_all(path, &all, error);
    if (status != LH_OK)
        return status;
    json_object_set_new(
        all, device->name,
        json_pack("{s:o s:o}", "forward", pack(&tuning->forward), "backward", pack(&tuning->backward)));
    char *text = json_dumps(all, JSON_INDENT(2));
    status = text ? lh_replace_text(path, text, strlen(text), error)
                  : lh_fail(error, LH_NO_MEMORY, "%s: could not be put in words", path);
    free(text);
    json_decref(all);
    return status;
}
