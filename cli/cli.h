/*
 * cli.h: what the subcommands of `lighthouse` share.
 *
 * A subcommand is one file with one function `int cli_<name>(int argc, char **argv)` and one line of the
 * table in main.c. It parses with cli_parse, so that bad usage is one line on stderr and exit status 2.
 */
#ifndef LH_CLI_H
#define LH_CLI_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/backend.h"

/* The program's exit statuses, the same for every subcommand. */
enum cli_exit {
    CLI_DONE = 0,       /* done, or verified */
    CLI_MISMATCH = 1,   /* a comparison failed */
    CLI_REFUSED = 2,    /* bad usage or bad input: one line on stderr */
    CLI_NO_DEVICE = 77, /* the backend has no device here */
};

/* Closes the --help of a subcommand. */
#define CLI_EXIT_STATUS_HELP                                                                                 \
    "Exit status: 0 done; 1 a comparison failed; 2 bad usage or bad input, with one line on stderr that "    \
    "names what was wrong, the value found and the value wanted; 77 the backend has no device here."

typedef struct lh_command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
} lh_command;

int cli_check(int argc, char **argv);
int cli_vectors(int argc, char **argv);
int cli_run(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_verify(int argc, char **argv);
int cli_devices(int argc, char **argv);
int cli_explain(int argc, char **argv);
int cli_tune(int argc, char **argv);
#ifdef LH_WITH_TRAIN
int cli_train(int argc, char **argv);
int cli_plan(int argc, char **argv);
#endif

/* First of all: descriptors 0 to 2 are open, and at exit output that did not arrive is a line and exit status 2. */
void cli_guard_streams(void);
/* `status`, which main returns: exit status 1 of an end that came another way becomes 2. */
int cli_leave(int status);

/* argp_parse, but bad usage is exactly one line on stderr and exit status 2. --help and --version exit 0.
 * argv[0] is the command as a user types it, "lighthouse run". */
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);
/* Parses the argument of option `name` or refuses it (argp_error, which exits). */
int64_t cli_integer(const struct argp_state *state, const char *name, const char *text);
int64_t cli_positive(const struct argp_state *state, const char *name, const char *text); /* at least 1 */
int cli_device(const struct argp_state *state, const char *text);
double cli_number(const struct argp_state *state, const char *name, const char *text);
lh_dtype cli_dtype(const struct argp_state *state, const char *text);
/* "own", "cudnn" or "auto" of --attention. */
lh_attention cli_attention(const struct argp_state *state, const char *text);

/* Prints "COMMAND: TEXT", one line whatever the text holds, and returns the exit status it stands for. */
int cli_fail(const char *command, const lh_error *error);

/* "ref, openmp, ... or ...": the table's names, built or not; returns text. */
const char *cli_backend_names(char *text, size_t size);
/* LH_INVALID for a backend nobody knows, LH_NO_DEVICE for one that is not built, has no such device, or whose driver ends
 * the process that tries it. */
lh_status cli_backend_check(const char *name, int device, lh_error *error);

/* probe.c. LH_NO_DEVICE, with what the driver said last, when a backend that compiles ends a process which looks for its
 * devices and, where `device` is not CLI_ALL_DEVICES, runs one small layer on that one; else LH_OK, also for what
 * fails in an orderly way: the backend itself will say it. */
enum {
    CLI_ALL_DEVICES = -1
};
lh_status cli_probe(const lh_backend *backend, int device, lh_error *error);

/* `path` is read: cli_check_output refuses it from now on, whatever it is called there. */
void cli_input(const char *path);
/* LH_INVALID where `path` is a file that is read. */
lh_status cli_check_read(const char *path, lh_error *error);
/* What would fail after long work fails before it: `path` can be created or replaced, is none of the files read and none
 * of the outputs asked about before. */
lh_status cli_check_output(const char *path, lh_error *error);

/* "1.5 GiB"; text holds at least 32 bytes and is returned. */
char *cli_bytes(double bytes, char *text);

#endif
