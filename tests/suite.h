/* suite.h: what every Check suite here shares. */
#ifndef LH_TESTS_SUITE_H
#define LH_TESTS_SUITE_H

#include <check.h>

#include "core/base.h"
#include "tests/large_frames.h"

/* Check notes every assertion that holds, and not for several threads at once: suites whose threads assert do without. */
#ifdef SUITE_OF_THREADS
#define _mark_point(file, line) ((void)0)
#endif

/* A new case of `suite`, with time enough for sanitizers and valgrind. */
TCase *suite_case(Suite *suite, const char *name);

/* Runs and frees the suite; the exit status of a test program. */
int suite_run(Suite *suite);

/* status is what was wanted, and for an error its line is one line that contains `part`. */
void expect_status(lh_status status, lh_status wanted, const lh_error *error, const char *part);

/* A new folder under TMPDIR or /tmp, and "FOLDER/name"; both last until the next call. */
const char *scratch_folder(void);
const char *scratch_path(const char *folder, const char *name);
/* Entries in a folder, "." and ".." not counted. */
int folder_entries(const char *folder);
/* Removes a scratch folder and the files in it. */
void remove_folder(const char *folder);

/* Writes or reads a whole file. */
void write_bytes(const char *path, const void *bytes, size_t size);
size_t read_bytes(const char *path, void *bytes, size_t most);

#endif
