/* fuzz_file.h: bytes as a file in a folder of this process, for readers that take a path. */
#ifndef LH_TESTS_FUZZ_FILE_H
#define LH_TESTS_FUZZ_FILE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lighthouse.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static char fuzz_folder[64];

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void fuzz_remove(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", fuzz_folder);
    require(system(command) == 0);
}

/* Makes fuzz_folder at the first call, removed at exit. */
static const char *fuzz_make_folder(void)
{
    if (*fuzz_folder)
        return fuzz_folder;
    strcpy(fuzz_folder,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/lighthouse-fuzz-XXXXXX" : "/tmp/lighthouse-fuzz-XXXXXX");
    require(mkdtemp(fuzz_folder) != NULL);
    atexit(fuzz_remove);
    return fuzz_folder;
}

static void fuzz_write(const char *path, const void *bytes, size_t size)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    require(file >= 0 && write(file, bytes, size) == (ssize_t)size && close(file) == 0);
}

/* An error is one line. */
static inline void fuzz_check_error(const lh_error *error)
{
    require(error->status != LH_OK && *error->text);
    for (const char *c = error->text; *c; c++)
        require((unsigned char)*c >= ' ' && *c != 0x7f);
}

#endif
