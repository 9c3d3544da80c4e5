/* A run's log: what is kept after a resume, and what is refused. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/suite.h"
#include "train/journal.h"
#include "train/ledger.h"

#define LAYERS "\"attention\":[1,1],\"outside\":[1,1],\"rest\":1}\n"
#define STEP(n)                                                                                              \
    "{\"kind\":\"step\",\"step\":" n ",\"stage\":\"dense\",\"loss\":1,\"norm\":1,\"rate\":1,\"tokens\":8,"   \
    "\"seconds\":2," LAYERS

static const char *folder;
static char path[512];

static void setup(void)
{
    folder = scratch_folder();
    snprintf(path, sizeof path, "%s/log.jsonl", folder);
}

static void teardown(void)
{
    remove_folder(folder);
}

static lh_status count(void *user, const journal_entry *e, lh_error *error)
{
    (void)e;
    (void)error;
    ++*(int *)user;
    return LH_OK;
}

static size_t file_size(void)
{
    struct stat about;
    ck_assert_int_eq(stat(path, &about), 0);
    return (size_t)about.st_size;
}

START_TEST(a_journal_forgets_what_the_checkpoint_does_not_know)
{
    static const char before[] = STEP(
        "1") "{\"kind\":\"change\",\"step\":1,\"setting\":\"rate\",\"from\":\"1\",\"to\":\"2\"}\n" STEP("2")
        STEP("3") "{\"kind\":\"change\",\"step\":2,\"setting\":\"rate\",\"from\":\"2\",\"to\":\"3\"}\n" STEP(
            "4") "{\"st";
    journal j;
    int lines = 0;
    write_bytes(path, before, sizeof before - 1);
    ck_assert_int_eq(journal_open(folder, 2, &j, NULL), LH_OK);
    ck_assert_int_eq(
        journal_write(
            &j, json_pack("{s:s s:i s:i s:i}", "kind", "probe", "step", 2, "layer", 1, "seconds", 3), NULL),
        LH_OK);
    journal_close(&j);
    ck_assert_int_eq(journal_read(folder, count, &lines, NULL), LH_OK);
    ck_assert_int_eq(lines, 4); /* 1, the change that came with it, 2, and the probe */
    ck_assert_int_eq(folder_entries(folder), 1);
}
END_TEST

/* Kept lines are kept to the byte. */
START_TEST(kept_lines_are_not_written_anew)
{
    static const char before[] = STEP("1.0") STEP("2");
    char after[sizeof before];
    journal j;
    write_bytes(path, before, sizeof before - 1);
    ck_assert_int_eq(journal_open(folder, 7, &j, NULL), LH_OK);
    journal_close(&j);
    ck_assert_uint_eq(read_bytes(path, after, sizeof after), sizeof before - 1);
    ck_assert_mem_eq(before, after, sizeof before - 1);
}
END_TEST

START_TEST(what_is_no_line_of_a_log_is_refused_by_its_number)
{
#define LINE(text, error)                                                                                    \
    {                                                                                                        \
        text "\n", sizeof text, error                                                                        \
    }
    static const struct {
        const char *line;
        size_t size;
        const char *error;
    } bad[] = {
        LINE("", "wanted a JSON object"),
        LINE("[1,2]", "wanted a JSON object"),
        LINE("\0\0\0\0", "wanted a JSON object"),
        LINE("{\"step\":1}", "kind is missing"),
        LINE("{\"kind\":\"step\"}", "step is missing or out of bounds"),
        LINE("{\"kind\":\"step\",\"step\":1}", "stage of a step is missing"),
        LINE("{\"kind\":7,\"step\":1}", "kind is missing"),
        LINE("{\"kind\":\"night\",\"step\":1}", "kind is night, wanted"),
        LINE("{\"kind\":\"probe\",\"step\":1,\"layer\":-500,\"seconds\":1}", "layer of a probe"),
        LINE("{\"kind\":\"probe\",\"step\":1,\"layer\":512,\"seconds\":1}", "layer of a probe"),
        LINE("{\"kind\":\"probe\",\"step\":1,\"layer\":1e300,\"seconds\":1}", "layer of a probe"),
        LINE("{\"kind\":\"probe\",\"step\":1e300,\"layer\":1,\"seconds\":1}", "step is missing or out"),
        LINE("{\"kind\":\"probe\",\"step\":1,\"layer\":1,\"seconds\":-1}", "seconds of a probe"),
        LINE("{\"kind\":\"probe\",\"step\":1,\"layer\":1,\"seconds\":\"1\"}", "seconds of a probe"),
        LINE("{\"kind\":\"stage\",\"step\":1,\"stage\":\"finished\"}", "stage of a stage"),
        LINE(
            "{\"kind\":\"stage\",\"step\":1,\"stage\":\"dense\",\"activations\":1,\"plans\":1e30,\"weights\":1}",
            "plans of a stage"),
        LINE("{\"kind\":\"budget\",\"step\":1,\"plans\":1,\"seconds\":1,\"tile_topk\":[1],\"spread\":[]}",
             "tile_topk of a budget"),
        LINE("{\"kind\":\"change\",\"step\":1,\"setting\":1,\"from\":\"\",\"to\":\"\"}",
             "setting of a change"),
        LINE(
            "{\"kind\":\"step\",\"step\":1,\"stage\":\"dense\",\"loss\":1,\"norm\":1,\"rate\":1,\"tokens\":8,"
            "\"seconds\":1,\"attention\":[1],\"outside\":[1,2],\"rest\":1}",
            "outside of a step"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[2048];
        int lines = 0;
        journal j = {0};
        lh_error error;
        size_t size = strlen(strcpy(text, STEP("1")));
        memcpy(text + size, bad[i].line, bad[i].size);
        size += bad[i].size;
        strcpy(text + size, STEP("2"));
        size += strlen(STEP("2"));
        write_bytes(path, text, size);
        expect_status(journal_read(folder, count, &lines, &error), LH_FORMAT, &error, bad[i].error);
        ck_assert_ptr_nonnull(strstr(error.text, "log.jsonl:2: "));
        expect_status(journal_open(folder, 5, &j, &error), LH_FORMAT, &error, bad[i].error);
        journal_close(&j);
        ck_assert_uint_eq(file_size(), size); /* nothing of it is lost */
    }
}
END_TEST

START_TEST(lines_that_do_not_fit_the_run_are_refused)
{
    static const char layers[] = STEP("1");
    static const char group[] =
        "{\"kind\":\"budget\",\"step\":1,\"plans\":1,\"seconds\":1,\"tile_topk\":[[1e9]],"
        "\"spread\":[[1]]}\n";
    static run_ledger ledger;
    settings s;
    lh_error error;
    settings_default(&s);
    write_bytes(path, layers, sizeof layers - 1);
    expect_status(ledger_read(folder, &s, &ledger, &error), LH_FORMAT, &error,
                  "attention has 2 layers, wanted 6");
    ledger_free(&ledger);
    write_bytes(path, group, sizeof group - 1);
    expect_status(ledger_read(folder, &s, &ledger, &error), LH_FORMAT, &error, "tile_topk is 1e+09, wanted");
    ledger_free(&ledger);
}
END_TEST

/* A planted link beside the log is no file of ours, and a pipe would wait for ever. */
START_TEST(a_log_is_a_regular_file)
{
    char link[512], words[8];
    int lines = 0;
    journal j = {0};
    lh_error error;
    snprintf(link, sizeof link, "%s/log.jsonl.new", folder);
    write_bytes(scratch_path(folder, "precious"), "precious", 8);
    ck_assert_int_eq(symlink("precious", link), 0);
    ck_assert_int_eq(journal_open(folder, 0, &j, NULL), LH_OK);
    journal_close(&j);
    ck_assert_uint_eq(read_bytes(scratch_path(folder, "precious"), words, sizeof words), 8);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_status(journal_read(folder, count, &lines, &error), LH_IO, &error, "is not a regular file");
    expect_status(journal_open(folder, 1, &j, &error), LH_IO, &error, "is not a regular file");
}
END_TEST

/* A hole of a TiB in the place of a line is neither read to its end nor into memory. */
START_TEST(a_line_has_a_bound)
{
    int lines = 0;
    lh_error error;
    write_bytes(path, "\n", 1);
    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0);
    expect_status(journal_read(folder, count, &lines, &error), LH_FORMAT, &error, ":1: wanted a JSON object");
    ck_assert_int_eq(truncate(path, 0), 0);
    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0);
    expect_status(journal_read(folder, count, &lines, &error), LH_FORMAT, &error,
                  ":1: is longer than 16777216 bytes");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_journal");
    TCase *lines = suite_case(suite, "lines");
    tcase_add_checked_fixture(lines, setup, teardown);
    tcase_add_test(lines, a_journal_forgets_what_the_checkpoint_does_not_know);
    tcase_add_test(lines, kept_lines_are_not_written_anew);
    tcase_add_test(lines, a_line_has_a_bound);
    tcase_add_test(lines, what_is_no_line_of_a_log_is_refused_by_its_number);
    tcase_add_test(lines, lines_that_do_not_fit_the_run_are_refused);
    tcase_add_test(lines, a_log_is_a_regular_file);
    return suite_run(suite);
}
