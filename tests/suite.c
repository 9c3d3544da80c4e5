#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/suite.h"

TCase *suite_case(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 600);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int suite_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    /* nohup and shells in the background leave these ignored, and a program under test heeds that. */
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner), run = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed == 0 && run > 0 ? 0 : 1;
}

void expect_status(lh_status status, lh_status wanted, const lh_error *error, const char *part)
{
    ck_assert_msg(status == wanted, "status is %s, wanted %s (%s)", lh_status_name(status),
                  lh_status_name(wanted), status == LH_OK ? "" : error->text);
    if (wanted == LH_OK)
        return;
    ck_assert_int_eq(error->status, wanted);
    ck_assert_msg(strstr(error->text, part), "the error is \"%s\", wanted \"%s\" in it", error->text, part);
    for (const char *c = error->text; *c; c++)
        ck_assert_msg((unsigned char)*c >= ' ' && *c != 0x7f, "control character %d in the error", *c);
}

const char *scratch_folder(void)
{
    static char folder[256];
    const char *where = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/lighthouse-test-XXXXXX", where ? where : "/tmp");
    ck_assert_msg(mkdtemp(folder) != NULL, "no scratch folder %s", folder);
    return folder;
}

const char *scratch_path(const char *folder, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int each_entry(const char *folder, bool remove_it)
{
    DIR *open_folder = opendir(folder);
    ck_assert_msg(open_folder != NULL, "%s cannot be opened", folder);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(open_folder)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        count++;
        if (remove_it)
            ck_assert_int_eq(unlinkat(dirfd(open_folder), entry->d_name, 0), 0);
    }
    closedir(open_folder);
    return count;
}

int folder_entries(const char *folder)
{
    return each_entry(folder, false);
}

void remove_folder(const char *folder)
{
    each_entry(folder, true);
    ck_assert_int_eq(rmdir(folder), 0);
}

void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    ck_assert_msg(file != NULL, "%s cannot be created", path);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

size_t read_bytes(const char *path, void *bytes, size_t most)
{
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    const size_t size = fread(bytes, 1, most, file);
    fclose(file);
    return size;
}
