/* Child processes for the suites of the command. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/program.h"
#include "tests/suite.h"

static char folder[256], home[4096];

void program_start(void)
{
    ck_assert_ptr_nonnull(getenv("LIGHTHOUSE"));
    ck_assert_ptr_nonnull(getcwd(home, sizeof home));
    snprintf(folder, sizeof folder, "%s", scratch_folder());
    ck_assert_int_eq(chdir(folder), 0);
}

void program_finish(void)
{
    ck_assert_int_eq(chdir(home), 0);
    remove_folder(folder);
}

int program_files(void)
{
    return folder_entries(folder);
}

/* Everything in a temporary file, as far as it fits. */
static void read_back(FILE *file, char *text, size_t size)
{
    rewind(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

void program_run_limited(program_result *result, const char *words, rlim_t bytes)
{
    enum {
        WORDS = 40
    };
    char copy[2048];
    char *argv[WORDS + 2] = {getenv("LIGHTHOUSE")};
    ck_assert_uint_lt(strlen(words), sizeof copy);
    strcpy(copy, words);
    int argc = 1;
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        ck_assert_int_le(argc, WORDS);
        argv[argc++] = word;
    }
    FILE *out = tmpfile(), *err = tmpfile();
    ck_assert(out && err);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        const struct rlimit limit = {bytes, bytes};
        if (dup2(fileno(out), STDOUT_FILENO) < 0 || dup2(fileno(err), STDERR_FILENO) < 0 ||
            setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(99);
        execv(argv[0], argv);
        _exit(98);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    result->status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    read_back(out, result->out, sizeof result->out);
    read_back(err, result->err, sizeof result->err);
}

void program_run(program_result *result, const char *words)
{
    program_run_limited(result, words, RLIM_INFINITY);
}

void program_succeeds(const char *words)
{
    program_result result;
    program_run(&result, words);
    ck_assert_msg(result.status == 0, "lighthouse %s: exit status %d: %s", words, result.status, result.err);
    ck_assert_str_eq(result.out, "");
    ck_assert_str_eq(result.err, "");
}

void program_check_refused(const program_result *result, const char *words, const char *parts,
                           int files_before)
{
    ck_assert_msg(result->status == 2, "lighthouse %s: exit status %d: %s", words, result->status,
                  result->err);
    ck_assert_str_eq(result->out, "");
    const char *newline = strchr(result->err, '\n');
    ck_assert_msg(newline && newline[1] == '\0', "lighthouse %s: wanted one line, got: %s", words,
                  result->err);
    char copy[512];
    snprintf(copy, sizeof copy, "%s", parts);
    for (char *part = strtok(copy, "|"); part; part = strtok(NULL, "|"))
        ck_assert_msg(strstr(result->err, part), "lighthouse %s: wanted '%s' in: %s", words, part,
                      result->err);
    ck_assert_msg(program_files() == files_before, "lighthouse %s: left a file behind", words);
}

void program_refused(const char *words, const char *parts)
{
    program_result result;
    const int files = program_files();
    program_run(&result, words);
    program_check_refused(&result, words, parts, files);
}
