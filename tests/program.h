/* program.h: for suites that run the built `lighthouse` as a child, in a scratch folder of their own. */
#ifndef LH_TESTS_PROGRAM_H
#define LH_TESTS_PROGRAM_H

#include <stddef.h>
#include <sys/resource.h>

#include "tests/large_frames.h"

typedef struct program_result {
    int status; /* exit status; 1000 + the signal where one ended it */
    char out[32768], err[8192];
} program_result;

/* Makes an empty folder and works in it; program_finish removes it and what is in it. The program's path is
 * in the environment variable LIGHTHOUSE. */
void program_start(void);
void program_finish(void);

/* Runs `lighthouse WORDS`, words separated by single spaces. */
void program_run(program_result *result, const char *words);
/* The same where no file may grow past `bytes`: what a full disk looks like to write(). */
void program_run_limited(program_result *result, const char *words, rlim_t bytes);

/* Runs it and insists on exit status 0 and silence. */
void program_succeeds(const char *words);
/* Runs it and insists on program_check_refused. */
void program_refused(const char *words, const char *parts);
/* Exit status 2, one line on stderr that holds each of `parts` (separated by '|'), and no more files in the
 * scratch folder than before. */
void program_check_refused(const program_result *result, const char *words, const char *parts,
                           int files_before);

/* How many files the scratch folder holds, hidden ones too. */
int program_files(void);

#endif
