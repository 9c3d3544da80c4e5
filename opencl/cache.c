/*
 * Built programs on disk, in $XDG_CACHE_HOME/lighthouse or ~/.cache/lighthouse, one file a program.
 *
 * The name is the hash of everything the program was made from, so a stale file is never looked at; the first
 * line is the hash of the rest, so a damaged one is not used. Files appear whole, by renaming.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/hash.h"
#include "opencl/opencl.h"

enum {
    PATH_SIZE = LH_CL_FOLDER + 80,
    HEADER_SIZE = 65
}; /* 64 hexadecimal digits and a newline */

/* Makes the folder when `make` is set; false when there is nowhere to put one. */
static bool cache_path(const char key[65], bool make, char path[PATH_SIZE])
{
    char folder[LH_CL_FOLDER];
    if (!lh_cl_folder("XDG_CACHE_HOME", ".cache", make, folder))
        return false;
    snprintf(path, PATH_SIZE, "%s/%s", folder, key);
    return true;
}

lh_status lh_cl_cache_read(const char key[65], unsigned char **binary, size_t *bytes, lh_error *error)
{
    char path[PATH_SIZE], stored[HEADER_SIZE], actual[65];
    *binary = NULL;
    FILE *file = cache_path(key, false, path) ? fopen(path, "rb") : NULL;
    if (!file)
        return LH_OK;
    void *content = NULL;
    long size = -1;
    lh_status status = LH_OK;
    if (fread(stored, 1, HEADER_SIZE, file) == HEADER_SIZE && fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    if (size > HEADER_SIZE) {
        *bytes = (size_t)size - HEADER_SIZE;
        status = lh_alloc(&content, *bytes, "program from the cache", error);
    }
    if (content && fseek(file, HEADER_SIZE, SEEK_SET) == 0 && fread(content, 1, *bytes, file) == *bytes) {
        lh_sha256_hex(content, *bytes, actual);
        if (memcmp(stored, actual, 64) == 0)
            *binary = content;
    }
    if (!*binary)
        lh_free(content);
    fclose(file);
    return status;
}

void lh_cl_cache_write(const char key[65], const unsigned char *binary, size_t bytes)
{
    char path[PATH_SIZE], temporary[PATH_SIZE + 16], hash[65];
    if (!cache_path(key, true, path))
        return;
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    const int descriptor = mkstemp(temporary);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (!file) {
        if (descriptor >= 0)
            close(descriptor);
        return;
    }
    lh_sha256_hex(binary, bytes, hash);
    bool good = fprintf(file, "%s\n", hash) == HEADER_SIZE && fwrite(binary, 1, bytes, file) == bytes;
    good = fclose(file) == 0 && good;
    if (!good || rename(temporary, path) != 0)
        unlink(temporary);
}
