/* Opening files that are read: what is there when it is opened decides, not what was there before. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/regular.h"
#include "core/safetensors.h"
#include "tests/suite.h"

static char path[256];
static bool swapped;

/* What the linker puts in the place of open: between a reader's look at `path`, if it takes one, and its opening, a pipe
 * that nobody writes to takes the file's place. */
int __real_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const int mode = flags & O_CREAT ? va_arg(more, int) : 0;
    va_end(more);
    if (strcmp(name, path) == 0 && !swapped) {
        ck_assert_int_eq(remove(path), 0);
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        swapped = true;
    }
    return __real_open64(name, flags, mode);
}

static lh_status open_it(lh_error *error)
{
    int descriptor = -1;
    const lh_status status = lh_open_regular(path, "a file", &descriptor, NULL, error);
    ck_assert((descriptor >= 0) == (status == LH_OK));
    if (descriptor >= 0)
        close(descriptor);
    return status;
}

static lh_status stream_it(lh_error *error)
{
    FILE *file;
    const lh_status status = lh_stream_regular(path, "a file", 4, &file, error);
    ck_assert((file != NULL) == (status == LH_OK));
    if (file)
        fclose(file);
    return status;
}

static lh_status read_it(lh_error *error)
{
    lh_file *file;
    const lh_status status = lh_file_read(path, &file, error);
    ck_assert_ptr_null(file); /* four bytes are no tensors */
    return status;
}

static lh_status (*const readers[])(lh_error *) = {open_it, stream_it, read_it};
enum {
    READERS = sizeof readers / sizeof *readers
};

static void make_file(const char *folder)
{
    strcpy(path, scratch_path(folder, "file"));
    write_bytes(path, "four", 4);
}

START_TEST(a_pipe_takes_its_place)
{
    const char *folder = scratch_folder();
    lh_error error;
    swapped = true;
    make_file(folder);
    swapped = false;
    expect_status(readers[_i](&error), LH_IO, &error, "is not a regular file");
    ck_assert(swapped);
    remove_folder(folder);
}
END_TEST

START_TEST(what_cannot_be_opened)
{
    const char *folder = scratch_folder();
    struct rlimit usual, none;
    lh_error error;
    swapped = true;
    make_file(folder);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &usual), 0);
    none = usual;
    none.rlim_cur = 3;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    const lh_status status = readers[_i](&error);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
    expect_status(status, LH_IO, &error, "cannot be opened: Too many open files");

    ck_assert_int_eq(chmod(path, 0), 0);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    const bool root = geteuid() == 0;
    ck_assert(!root || seteuid(65534) == 0);
    const lh_status forbidden = readers[_i](&error);
    ck_assert(!root || seteuid(0) == 0);
    expect_status(forbidden, LH_IO, &error, "cannot be opened: Permission denied");
    remove_folder(folder);

    *path = '\0';
    expect_status(readers[_i](&error), LH_IO, &error, "path is empty, wanted ");
}
END_TEST

START_TEST(a_stream_has_a_bound)
{
    const char *folder = scratch_folder();
    lh_error error;
    swapped = true;
    make_file(folder);
    ck_assert_int_eq(stream_it(&error), LH_OK);
    write_bytes(path, "fives", 5);
    expect_status(stream_it(&error), LH_FORMAT, &error, "has 5 bytes, wanted a file, at most 4");
    remove_folder(folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("regular");
    TCase *tests = suite_case(suite, "regular");
    tcase_add_loop_test(tests, a_pipe_takes_its_place, 0, READERS);
    tcase_add_loop_test(tests, what_cannot_be_opened, 0, READERS);
    tcase_add_test(tests, a_stream_has_a_bound);
    return suite_run(suite);
}
