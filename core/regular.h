/*
 * regular.h: opening what is to be read. A regular file and nothing else: a pipe would be waited for, a folder or device
 * would read as empty or without an end. What was opened is what was looked at, whatever the path leads to meanwhile.
 */
#ifndef LH_REGULAR_H
#define LH_REGULAR_H

#include <stdint.h>
#include <stdio.h>

#include "lighthouse.h"

/* *descriptor is the caller's to close, *size (may be NULL) the file's bytes now. LH_IO names the path and `wanted`. */
lh_status lh_open_regular(const char *path, const char *wanted, int *descriptor, int64_t *size,
                          lh_error *error);
/* The same as a stream of at most `most` bytes, else LH_FORMAT: a sparse file may be larger than any memory and is read as
 * zeros for days. LH_NO_MEMORY when there is none for a stream. *file is NULL on error. */
lh_status lh_stream_regular(const char *path, const char *wanted, int64_t most, FILE **file, lh_error *error);

#define LH_MOST_SETTINGS (1 << 20) /* bytes of a file that people or `lighthouse tune` write */

#endif
