/*
 * Drivers are tried in another process first. One that compiles kernels can end the process it works in: PoCL does where
 * there is no linker in PATH or its cache lies on a file system mounted noexec. That must cost its backend alone.
 *
 * That a driver works is kept for a day, in a file of $XDG_CACHE_HOME/lighthouse that holds what the answer depends on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/folder.h"

extern char **environ;

enum {
    FACTS_SIZE = 8192,
    PATH_SIZE = LH_FOLDER + 64,
    SAID_SIZE = 200,
    VALID_SECONDS = 24 * 60 * 60
};

/* What the answer depends on, as far as it can be had without loading a driver: the file of an answer holds it. */
static size_t write_facts(char facts[FACTS_SIZE])
{
    static const char *const variables[] = {"PATH",           "HOME",           "LD_LIBRARY_PATH",
                                            "LD_PRELOAD",     "XDG_CACHE_HOME", "POCL_CACHE_DIR",
                                            "OCL_ICD_VENDORS"};
    static const int limits[] = {RLIMIT_STACK,  RLIMIT_AS,    RLIMIT_DATA,
                                 RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_FSIZE};
    int length = snprintf(facts, FACTS_SIZE, "lighthouse %s\n", lh_version());
    for (size_t i = 0; i < sizeof variables / sizeof *variables && length < FACTS_SIZE; i++) {
        const char *value = getenv(variables[i]);
        length += snprintf(facts + length, (size_t)(FACTS_SIZE - length), "%s=%s\n", variables[i],
                           value ? value : "");
    }
    for (size_t i = 0; i < sizeof limits / sizeof *limits && length < FACTS_SIZE; i++) {
        struct rlimit limit = {0, 0};
        getrlimit(limits[i], &limit);
        length +=
            snprintf(facts + length, (size_t)(FACTS_SIZE - length), "limit %ju\n", (uintmax_t)limit.rlim_cur);
    }
    return length < FACTS_SIZE ? (size_t)length : 0; /* 0: too long to be kept */
}

static bool answer_path(const lh_backend *backend, int device, bool make, char path[PATH_SIZE])
{
    char folder[LH_FOLDER];
    if (!lh_user_folder("XDG_CACHE_HOME", ".cache", make, folder))
        return false;
    snprintf(path, PATH_SIZE, "%s/%.32s%d.works", folder, backend->name, device);
    return true;
}

static bool is_known_to_work(const char *path, const char *facts, size_t size)
{
    char piece[512];
    size_t read_so_far = 0;
    ssize_t got;
    struct stat about;
    const int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return false;
    const time_t now = time(NULL);
    const bool fresh = fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_mtime <= now &&
                       about.st_mtime > now - VALID_SECONDS;
    bool same = fresh;
    while (same && (got = read(file, piece, sizeof piece)) != 0) {
        same = got > 0 && (size_t)got <= size - read_so_far &&
               memcmp(piece, facts + read_so_far, (size_t)got) == 0;
        read_so_far += same ? (size_t)got : 0;
    }
    close(file);
    return same && read_so_far == size;
}

/* Best effort: what was not kept is tried again next time. */
static void keep(const char *path, const char *facts, size_t size)
{
    char temporary[PATH_SIZE + 8];
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    const int file = mkstemp(temporary);
    if (file < 0)
        return;
    const bool whole = write(file, facts, size) == (ssize_t)size;
    if (close(file) != 0 || !whole || rename(temporary, path) != 0)
        unlink(temporary);
}

/* The first line of all that comes through the pipe. */
static void read_said(int from, char said[SAID_SIZE])
{
    char more[512];
    ssize_t got;
    size_t length = 0;
    bool whole = false;
    while ((got = read(from, more, sizeof more)) > 0) {
        for (ssize_t i = 0; i < got && !whole; i++) {
            whole = more[i] == '\n' ? length > 0 : length + 1 == SAID_SIZE;
            if (!whole && more[i] != '\n')
                said[length++] = more[i];
        }
    }
    said[length] = '\0';
}

/* Runs `lighthouse devices --probe`; false where no process could be had. `how` is as waitpid has it. */
static bool try_driver(const lh_backend *backend, int device, int *how, char said[SAID_SIZE])
{
    char name[64], number[16], program[4096];
    char *arguments[] = {
        program, (char[]){"devices"}, (char[]){"--probe"}, name, (char[]){"--device"}, number, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];
    pid_t child = 0;
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0 || pipe2(ends, O_CLOEXEC) != 0)
        return false;
    program[length] = '\0';
    snprintf(name, sizeof name, "%s", backend->name);
    snprintf(number, sizeof number, "%d", device);
    if (device == CLI_ALL_DEVICES)
        arguments[4] = NULL;
    bool spawned = posix_spawn_file_actions_init(&actions) == 0;
    if (spawned) {
        spawned = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0 &&
                  posix_spawn_file_actions_adddup2(&actions, ends[1], 1) == 0 &&
                  posix_spawn_file_actions_adddup2(&actions, ends[1], 2) == 0 &&
                  posix_spawn(&child, program, &actions, NULL, arguments, environ) == 0;
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (spawned)
        read_said(ends[0], said);
    close(ends[0]);
    return spawned && waitpid(child, how, 0) == child;
}

lh_status cli_probe(const lh_backend *backend, int device, lh_error *error)
{
    char facts[FACTS_SIZE], path[PATH_SIZE], said[SAID_SIZE] = "", end[64];
    int how = 0;
    if (!backend->compiles)
        return LH_OK;
    const size_t size = write_facts(facts);
    if (size > 0 && answer_path(backend, device, false, path) && is_known_to_work(path, facts, size))
        return LH_OK;
    if (!try_driver(backend, device, &how, said))
        return LH_OK;
    if (WIFEXITED(how)) {
        const int status = WEXITSTATUS(how);
        if (status == CLI_DONE && size > 0 && answer_path(backend, device, true, path))
            keep(path, facts, size);
        if (status == CLI_DONE || status == CLI_NO_DEVICE)
            return LH_OK;
        snprintf(end, sizeof end, "with status %d", status);
    } else {
        snprintf(end, sizeof end, "by signal %d, %s", WTERMSIG(how), strsignal(WTERMSIG(how)));
    }
    return lh_fail(
        error, LH_NO_DEVICE,
        "%s's driver ended the process in which it was tried (%s; its first words: %s), wanted one "
        "that builds and runs kernels",
        backend->name, end, said[0] ? lh_clean(said) : "none");
}
