/* replace.h: output files that are there whole or not at all. */
#ifndef LH_REPLACE_H
#define LH_REPLACE_H

#include "lighthouse.h"

/* Writes a file's bytes to `descriptor`; `path` is for errors. */
typedef lh_status lh_contents_fn(int descriptor, const char *path, const void *context, lh_error *error);

/* A temporary file in the same folder, synced, takes the place of `path` when it is complete; on error `path` is
 * as it was and nothing else is left behind. Only regular files are replaced; a link is followed, and refused where it
 * points to nothing. What a killed process left in the folder is removed: files of ours named ".lighthouse-PID-SERIAL"
 * that nobody holds locked; where the file system has files without a name, a killed process leaves nothing. */
lh_status lh_replace_file(const char *path, lh_contents_fn *contents, const void *context, lh_error *error);
lh_status lh_replace_text(const char *path, const char *text, size_t size, lh_error *error);

/* For tests: whether drafts have names even where they need none. */
void lh_replace_name_drafts(bool always);

/* write(2) until all is written. */
lh_status lh_write_all(int descriptor, const void *bytes, size_t size, const char *path, lh_error *error);

#endif
