/* Paths in a run's folder. */
#include "train/folder.h"

#include <stdio.h>
#include <string.h>

#include "core/base.h"

lh_status folder_path(const char *folder, const char *name, char path[PATH_SIZE], lh_error *error)
{
    const int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
    if (length >= 0 && length < PATH_SIZE)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "%.200s... has %zu characters, wanted a folder of at most %zu", folder,
                   strlen(folder), PATH_SIZE - 2 - strlen(name));
}
