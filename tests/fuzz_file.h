/*
 * fuzz_file.h: bytes as a file, for readers that take a path. One path at a time is served: targets are linked with
 * --wrap of open, and opening it opens a file in memory that lives as long as the process, so that an execution neither
 * makes nor removes a file. All else is the reader's own: what it asks of the descriptor, how it reads. Writers get a
 * folder, made when first asked for.
 */
#ifndef LH_TESTS_FUZZ_FILE_H
#define LH_TESTS_FUZZ_FILE_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lighthouse.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static char fuzz_folder[64];
static char fuzz_served[256]; /* the path, or "" */
static int fuzz_memory = -1;

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* What the linker puts in the place of open; open64 is open where files have 64-bit offsets anyway. */
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, int) : 0;
    va_end(more);
    if (strcmp(path, fuzz_served) != 0)
        return __real_open64(path, flags, mode);
    require((flags & O_ACCMODE) == O_RDONLY && lseek(fuzz_memory, 0, SEEK_SET) == 0);
    return fcntl(fuzz_memory, F_DUPFD_CLOEXEC, 0);
}

/* From now on `path` reads as these bytes. */
static inline void fuzz_serve(const char *path, const void *bytes, size_t size)
{
    static size_t before;
    if (fuzz_memory < 0) {
        require((fuzz_memory = memfd_create("fuzz", MFD_CLOEXEC)) >= 0);
        require(fchmod(fuzz_memory, 0600) == 0);
    }
    require(strlen(path) < sizeof fuzz_served);
    strcpy(fuzz_served, path);
    require(pwrite(fuzz_memory, bytes, size, 0) == (ssize_t)size);
    require(size == before || ftruncate(fuzz_memory, (off_t)size) == 0);
    before = size;
}

static void fuzz_remove(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", fuzz_folder);
    require(system(command) == 0);
}

/* Makes fuzz_folder at the first call, removed at exit. */
static inline const char *fuzz_make_folder(void)
{
    if (*fuzz_folder)
        return fuzz_folder;
    strcpy(fuzz_folder,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/lighthouse-fuzz-XXXXXX" : "/tmp/lighthouse-fuzz-XXXXXX");
    require(mkdtemp(fuzz_folder) != NULL);
    atexit(fuzz_remove);
    return fuzz_folder;
}

/* On the disk, where writers find it too; the path is served no longer. */
static inline void fuzz_write(const char *path, const void *bytes, size_t size)
{
    *fuzz_served = '\0';
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    require(file >= 0 && write(file, bytes, size) == (ssize_t)size && close(file) == 0);
}

/* One input in so many, by what it holds: what touches the disk is 30 times as slow as the readers. */
__attribute__((no_sanitize("coverage"))) static inline bool fuzz_seldom(const uint8_t *bytes, size_t size,
                                                                        unsigned one_in)
{
    uint32_t mix = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        mix = (mix ^ bytes[i]) * 16777619u;
    return (mix >> 12) % one_in == 0;
}

/* An error is one line. */
static inline void fuzz_check_error(const lh_error *error)
{
    require(error->status != LH_OK && *error->text);
    for (const char *c = error->text; *c; c++)
        require((unsigned char)*c >= ' ' && *c != 0x7f);
}

#endif
