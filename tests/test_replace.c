/* Output files: whole or not at all, whoever is killed meanwhile, and nothing that is somebody else's is touched. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/replace.h"
#include "tests/suite.h"

static const char *folder;
static char path[512];
static lh_error error;

static void setup(void)
{
    folder = scratch_folder();
    snprintf(path, sizeof path, "%s", scratch_path(folder, "out"));
}

static void teardown(void)
{
    remove_folder(folder);
}

static void expect_text(const char *file, const char *wanted)
{
    char text[64] = "";
    ck_assert_uint_eq(read_bytes(file, text, sizeof text - 1), strlen(wanted));
    ck_assert_str_eq(text, wanted);
}

static void replace_text(const char *text)
{
    expect_status(lh_replace_text(path, text, strlen(text), &error), LH_OK, &error, "");
}

static lh_status write_and_die(int descriptor, const char *name, const void *context, lh_error *e)
{
    (void)context;
    const lh_status status = lh_write_all(descriptor, "half", 4, name, e);
    raise(SIGKILL);
    return status;
}

static void be_killed_writing(void)
{
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        (void)lh_replace_file(path, write_and_die, NULL, NULL);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Without names a killed process leaves nothing; with them the next to write there tidies up. */
START_TEST(killed)
{
    replace_text("old");
    lh_replace_name_drafts(_i == 1);
    be_killed_writing();
    expect_text(path, "old");
    const int left = folder_entries(folder);
    ck_assert_msg(left == 1 + _i || left == 2, "%d files",
                  left); /* 2: a file system that has no files without names */
    replace_text("new");
    expect_text(path, "new");
    ck_assert_int_eq(folder_entries(folder), 1);
    lh_replace_name_drafts(false);
}
END_TEST

/* What only looks like a leftover, and a running neighbour's. */
START_TEST(others_stay)
{
    static const char *const names[] = {".lighthouse-important", ".lighthouse-12", ".lighthouse-12-",
                                        ".lighthouse-12-3a",     ".lighthouse--3", "lighthouse-12-3",
                                        ".lighthouse-12-3-4"};
    const int others = sizeof names / sizeof *names;
    for (int i = 0; i < others; i++)
        write_bytes(scratch_path(folder, names[i]), "x", 1);
    const char *mine = scratch_path(folder, ".lighthouse-12-3");
    const int live = open(mine, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_eq(flock(live, LOCK_EX), 0);
    ck_assert_int_eq(mkfifo(scratch_path(folder, ".lighthouse-1-1"), 0600), 0);
    ck_assert_int_eq(symlink("nowhere", scratch_path(folder, ".lighthouse-1-2")), 0);
    replace_text("new");
    ck_assert_int_eq(folder_entries(folder), others + 4);
    close(live);
    replace_text("newer");
    ck_assert_int_eq(folder_entries(folder), others + 3);
    ck_assert_int_ne(access(scratch_path(folder, ".lighthouse-12-3"), F_OK), 0);
}
END_TEST

START_TEST(links)
{
    char target[512];
    snprintf(target, sizeof target, "%s", scratch_path(folder, "target"));
    ck_assert_int_eq(symlink("target", path), 0);
    expect_status(lh_replace_text(path, "x", 1, &error), LH_IO, &error, "out is a link to nothing, wanted");
    ck_assert_int_eq(folder_entries(folder), 1);
    write_bytes(target, "old", 3);
    replace_text("new");
    struct stat about;
    ck_assert(lstat(path, &about) == 0 && S_ISLNK(about.st_mode));
    expect_text(target, "new");
    ck_assert_int_eq(folder_entries(folder), 2);
}
END_TEST

/* A new file's mode follows the umask, a replaced one's stays. */
START_TEST(modes)
{
    struct stat about;
    lh_replace_name_drafts(_i == 1);
    const mode_t umask_before = umask(027);
    replace_text("new");
    umask(umask_before);
    ck_assert(stat(path, &about) == 0 && (about.st_mode & 0777) == 0640);
    ck_assert_int_eq(chmod(path, 0600), 0);
    replace_text("newer");
    ck_assert(stat(path, &about) == 0 && (about.st_mode & 0777) == 0600);
    lh_replace_name_drafts(false);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replace");
    TCase *files = suite_case(suite, "files");
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_add_loop_test(files, killed, 0, 2);
    tcase_add_test(files, others_stay);
    tcase_add_test(files, links);
    tcase_add_loop_test(files, modes, 0, 2);
    return suite_run(suite);
}
