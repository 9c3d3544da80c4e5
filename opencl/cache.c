/*
 * Built programs on disk, in $XDG_CACHE_HOME/lighthouse or ~/.cache/lighthouse, one file a program.
 *
 * The name is the key, the hash of everything the program was made from, so a stale file is never looked at; the first line
 * is the hash of key and program, so neither a damaged file nor one under another's name is used. A program is code that
 * the driver will run: folder and file must be this user's, written by nobody else, and the file a regular one. Whatever is
 * wrong with either means building from source. Files appear whole, by renaming.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/folder.h"
#include "core/hash.h"
#include "opencl/opencl.h"

enum {
    PATH_SIZE = LH_FOLDER + 80,
    HEADER_SIZE = 65,      /* 64 hexadecimal digits and a newline */
    MOST_PROGRAM = 1 << 28 /* bytes; ours are a few hundred kB */
};

static bool is_ours(const struct stat *about)
{
    return about->st_uid == geteuid() && (about->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Makes the folder when `make` is set; false when there is none that can be trusted. */
static bool cache_path(const char key[65], bool make, char path[PATH_SIZE])
{
    char folder[LH_FOLDER];
    struct stat about;
    if (!lh_user_folder("XDG_CACHE_HOME", ".cache", make, folder) || lstat(folder, &about) != 0 ||
        !S_ISDIR(about.st_mode) || !is_ours(&about))
        return false;
    snprintf(path, PATH_SIZE, "%s/%s", folder, key);
    return true;
}

/* The hash of key and program, as the first line has it. */
static void seal(const char key[65], const unsigned char *binary, size_t bytes, char hash[65])
{
    char hashes[2][65];
    memcpy(hashes[0], key, 65);
    lh_sha256_hex(binary, bytes, hashes[1]);
    lh_sha256_hex(hashes, sizeof hashes, hash);
}

/* Neither a link nor a pipe, which would be waited for, nor somebody else's. */
static FILE *open_trusted(const char *path, off_t *size)
{
    struct stat about;
    const int descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0)
        return NULL;
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode) || !is_ours(&about)) {
        close(descriptor);
        return NULL;
    }
    *size = about.st_size;
    FILE *file = fdopen(descriptor, "rb");
    if (!file)
        close(descriptor);
    return file;
}

lh_status lh_cl_cache_read(const char key[65], unsigned char **binary, size_t *bytes, lh_error *error)
{
    char path[PATH_SIZE], stored[HEADER_SIZE], actual[65];
    off_t size = 0;
    *binary = NULL;
    FILE *file = cache_path(key, false, path) ? open_trusted(path, &size) : NULL;
    if (!file)
        return LH_OK;
    void *content = NULL;
    lh_status status = LH_OK;
    if (size > HEADER_SIZE && size <= MOST_PROGRAM && fread(stored, 1, HEADER_SIZE, file) == HEADER_SIZE) {
        *bytes = (size_t)size - HEADER_SIZE;
        status = lh_alloc(&content, *bytes, "program from the cache", error);
    }
    if (content && fread(content, 1, *bytes, file) == *bytes) {
        seal(key, content, *bytes, actual);
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
    seal(key, binary, bytes, hash);
    bool good = fprintf(file, "%s\n", hash) == HEADER_SIZE && fwrite(binary, 1, bytes, file) == bytes;
    good = fclose(file) == 0 && good;
    if (!good || rename(temporary, path) != 0)
        unlink(temporary);
}
