/* Text: what is read of a file or a folder, and what is held out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/random.h"
#include "tests/suite.h"
#include "train/folder.h"
#include "train/text.h"

static const char *folder;

static void setup(void)
{
    folder = scratch_folder();
}

static void teardown(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

/* FOLDER/NAME with `size` bytes that depend on `what`. */
static void write_text(const char *name, int what, size_t size)
{
    char *words = malloc(size);
    ck_assert_ptr_nonnull(words);
    for (size_t i = 0; i < size; i++)
        words[i] = (char)('a' + (int)(lh_random_uniform((uint64_t)what, 0, i) * 26));
    write_bytes(scratch_path(folder, name), words, size);
    free(words);
}

START_TEST(a_file_keeps_its_end_for_validation)
{
    char words[1000], path[512], hash[65];
    corpus t;
    lh_error error;
    uint8_t window[11];
    snprintf(path, sizeof path, "%s/a.txt", folder);
    for (int i = 0; i < 1000; i++)
        words[i] = (char)(i < 900 ? 'a' : 'z');
    write_bytes(path, words, sizeof words);
    ck_assert_int_eq(text_read(path, 0.1, NULL, 11, &t, &error), LH_OK);
    ck_assert_int_eq(t.train, 900);
    ck_assert_int_eq(t.size, 1000);
    ck_assert_int_eq(t.files, 1);
    lh_sha256_hex(words, sizeof words, hash);
    ck_assert_str_eq(t.sha256, hash);
    for (int64_t i = 0; i < 200; i++) {
        text_sample(&t, 1, i, sizeof window, window);
        ck_assert(!memchr(window, 'z', sizeof window));
        text_held_out(&t, i % 7, 7, sizeof window, window);
        ck_assert(!memchr(window, 'a', sizeof window));
    }
    text_free(&t);
    /* A sequence at least, on either side. */
    ck_assert_int_eq(text_read(path, 0.1, NULL, 300, &t, &error), LH_OK);
    ck_assert_int_eq(t.train, 700);
    text_free(&t);
    ck_assert_int_eq(text_read(path, 0.9, NULL, 300, &t, &error), LH_OK);
    ck_assert_int_eq(t.train, 300);
    text_free(&t);
    expect_status(text_read(path, 0.1, NULL, 501, &t, &error), LH_INVALID, &error,
                  "1000 bytes in 1 files (0 passed over), wanted at least 1002");
    words[500] = '\0';
    write_bytes(path, words, sizeof words);
    expect_status(text_read(path, 0.1, NULL, 11, &t, &error), LH_FORMAT, &error,
                  "has a NUL byte, wanted text");
    write_bytes(path, words, 0);
    expect_status(text_read(path, 0.1, NULL, 11, &t, &error), LH_INVALID, &error, "has 0 bytes in 1 files");
    expect_status(text_read("/nowhere", 0.1, NULL, 11, &t, &error), LH_IO, &error,
                  "/nowhere: cannot be opened: No such file");
    expect_status(text_read("", 0.1, NULL, 11, &t, &error), LH_INVALID, &error, "text is missing");
    expect_status(text_read("/dev/null", 0.1, NULL, 11, &t, &error), LH_INVALID, &error,
                  "text /dev/null is neither a file nor a folder");
    ck_assert_int_eq(mkfifo(scratch_path(folder, "pipe"), 0600), 0);
    expect_status(text_read(scratch_path(folder, "pipe"), 0.1, NULL, 11, &t, &error), LH_INVALID, &error,
                  "is neither a file nor a folder");
}
END_TEST

/* Whatever the files are called and however many there are. */
START_TEST(what_is_held_out_depends_on_content_alone)
{
    char name[32];
    corpus one, other;
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "a%d", i);
        write_text(name, i, 12000);
    }
    ck_assert_int_eq(text_read(folder, 0.05, NULL, 16385, &one, NULL), LH_OK);
    ck_assert_int_eq(one.size, 120000);
    ck_assert_int_eq(one.size - one.train, 16385);
    for (int i = 0; i < 10; i++) {
        char from[512], to[512];
        snprintf(from, sizeof from, "%s/a%d", folder, i);
        snprintf(to, sizeof to, "%s/b%d", folder, 9 - i);
        ck_assert_int_eq(rename(from, to), 0);
    }
    ck_assert_int_eq(text_read(folder, 0.05, NULL, 16385, &other, NULL), LH_OK);
    ck_assert_int_eq(one.train, other.train);
    ck_assert_str_eq(one.sha256, other.sha256);
    ck_assert_mem_eq(one.bytes, other.bytes, 120000);
    text_free(&other);
    write_text("between", 77, 12000);
    ck_assert_int_eq(text_read(folder, 0.05, NULL, 16385, &other, NULL), LH_OK);
    ck_assert_str_ne(one.sha256, other.sha256);
    text_free(&one);
    text_free(&other);
}
END_TEST

START_TEST(a_folder_with_a_single_file_is_enough)
{
    corpus t;
    write_text("a", 1, 86000);
    ck_assert_int_eq(text_read(folder, 0.05, NULL, 16385, &t, NULL), LH_OK);
    ck_assert_int_eq(t.train, 86000 - 16385);
    text_free(&t);
}
END_TEST

START_TEST(links_are_followed_and_files_read_once)
{
    char path[512];
    corpus t;
    write_text("a", 1, 1000);
    write_text("b", 2, 1000);
    ck_assert_int_eq(mkdir(scratch_path(folder, "links"), 0700), 0);
    ck_assert_int_eq(symlink("../a", scratch_path(folder, "links/a")), 0);
    ck_assert_int_eq(symlink("../b", scratch_path(folder, "links/b")), 0);
    ck_assert_int_eq(symlink("..", scratch_path(folder, "links/loop")), 0);
    ck_assert_int_eq(symlink("nowhere", scratch_path(folder, "links/dangling")), 0);
    snprintf(path, sizeof path, "%s/links", folder);
    ck_assert_int_eq(text_read(path, 0.1, NULL, 11, &t, NULL), LH_OK);
    ck_assert_int_eq(t.size, 2000);
    ck_assert_int_eq(t.files, 2);
    ck_assert_int_ge(t.passed, 1);
    text_free(&t);
    snprintf(path, sizeof path, "%s/links/a", folder);
    ck_assert_int_eq(text_read(path, 0.1, NULL, 11, &t, NULL), LH_OK);
    ck_assert_int_eq(t.size, 1000);
    text_free(&t);
    ck_assert_int_eq(symlink("links", scratch_path(folder, "way")), 0);
    snprintf(path, sizeof path, "%s/way", folder);
    ck_assert_int_eq(text_read(path, 0.1, NULL, 11, &t, NULL), LH_OK);
    ck_assert_int_eq(t.files, 2);
    text_free(&t);
}
END_TEST

START_TEST(runs_are_no_text)
{
    char own[512];
    corpus t;
    write_text("a", 1, 1000);
    ck_assert_int_eq(mkdir(scratch_path(folder, "run"), 0700), 0);
    ck_assert_int_eq(mkdir(scratch_path(folder, "other"), 0700), 0);
    write_text("run/log.jsonl", 2, 1000);
    write_text("other/log.jsonl", 3, 1000);
    write_text("other/" LOCK_NAME, 4, 10);
    snprintf(own, sizeof own, "%s/run", folder);
    ck_assert_int_eq(text_read(folder, 0.1, own, 11, &t, NULL), LH_OK);
    ck_assert_int_eq(t.size, 1000);
    text_free(&t);
    ck_assert_int_eq(text_read(folder, 0.1, NULL, 11, &t, NULL), LH_OK);
    ck_assert_int_eq(t.size, 2000);
    text_free(&t);
}
END_TEST

START_TEST(what_is_no_text_is_passed_over_and_counted)
{
    corpus t;
    write_text("a", 1, 1000);
    write_bytes(scratch_path(folder, "b"), "a\0b", 3);
    write_text("c", 2, 500);
    ck_assert_int_eq(mkfifo(scratch_path(folder, "pipe"), 0600), 0);
    ck_assert_int_eq(text_read(folder, 0.1, NULL, 11, &t, NULL), LH_OK);
    ck_assert_int_eq(t.size, 1500);
    ck_assert_int_eq(t.files, 2);
    ck_assert_int_eq(t.passed, 1);
    text_free(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_text");
    TCase *texts = suite_case(suite, "texts");
    tcase_add_checked_fixture(texts, setup, teardown);
    tcase_add_test(texts, a_file_keeps_its_end_for_validation);
    tcase_add_test(texts, what_is_held_out_depends_on_content_alone);
    tcase_add_test(texts, a_folder_with_a_single_file_is_enough);
    tcase_add_test(texts, links_are_followed_and_files_read_once);
    tcase_add_test(texts, runs_are_no_text);
    tcase_add_test(texts, what_is_no_text_is_passed_over_and_counted);
    return suite_run(suite);
}
