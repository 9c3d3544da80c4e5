/*
 * The world changes under a run: the machine's clock jumps, a text grows or shrinks while it is read.
 *
 * Linked with --wrap: lh_seconds and read of the program's own objects come here.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/random.h"
#include "tests/suite.h"
#include "train/audit.h"
#include "train/trainer.h"

enum {
    CHECKPOINT_SIZE = 1 << 18,
    TEXT_SIZE = 3 << 20 /* a few pieces of what is read at a time */
};

double __real_lh_seconds(void);
double __wrap_lh_seconds(void);
ssize_t __real_read(int descriptor, void *bytes, size_t size);
ssize_t __wrap_read(int descriptor, void *bytes, size_t size);

static bool jumping;

/* Every other reading is of a clock that an hour, a year or an age has been taken from or given to. */
double __wrap_lh_seconds(void)
{
    static const double jumps[] = {0, -3600, 0, 3.2e7, -3.2e7, 0, 1e9, -1e9, 1e-9};
    static size_t readings;
    const double now = __real_lh_seconds();
    return jumping ? now + jumps[readings++ % (sizeof jumps / sizeof *jumps)] : now;
}

static const char *changing; /* the file that changes each time something is read */
static bool shrinking;

ssize_t __wrap_read(int descriptor, void *bytes, size_t size)
{
    struct stat about;
    if (changing && shrinking)
        ck_assert_int_eq(truncate(changing, TEXT_SIZE / 2 + 7), 0);
    if (changing && !shrinking && stat(changing, &about) == 0) {
        FILE *file = fopen(changing, "a");
        ck_assert_ptr_nonnull(file);
        fputs("and more of it\n", file);
        fclose(file);
    }
    return __real_read(descriptor, bytes, size);
}

static const char *folder;
static char text[300];

static void setup(void)
{
    folder = scratch_folder();
    snprintf(text, sizeof text, "%.250s/text", folder);
}

static void teardown(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%.250s'", folder);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

static void write_words(size_t size, char *words)
{
    for (size_t i = 0; i < size; i++)
        words[i] = (char)('a' + (int)(lh_random_uniform(1, 0, i / 3) * 26));
    write_bytes(text, words, size);
}

static settings small(void)
{
    settings s;
    settings_default(&s);
    s.width = s.hidden = 8;
    s.layers = 2;
    s.heads = s.kv_heads = 2;
    s.dim = 4;
    s.context = 64;
    s.topk = 16;
    s.tile_topk = 8;
    s.probes = 2;
    s.eval_every = 3;
    s.budget_every = 2;
    s.lighthouse_steps = s.dense_steps = 5;
    s.held_out_windows = 2;
    strcpy(s.budget, "entropy");
    strcpy(s.backend, "ref");
    snprintf(s.text, sizeof s.text, "%.250s", text);
    return s;
}

static size_t train(const settings *s, const char *name, enum trainer_start start, char *bytes)
{
    static trainer t;
    char run[300], path[400];
    lh_error error = {LH_OK, ""};
    snprintf(run, sizeof run, "%.250s/%s", folder, name);
    snprintf(path, sizeof path, "%s/" CHECKPOINT_NAME, run);
    ck_assert_msg(trainer_open(s, run, &(run_options){.start = start}, &t, &error) == LH_OK, "%s",
                  error.text);
    ck_assert_msg(trainer_run(&t, NULL, NULL, &error) == LH_OK, "%s", error.text);
    json_t *audit;
    ck_assert_msg(audit_make(run, s, &t.recipe, &t.text, NULL, NULL, &audit, &error) == LH_OK, "%s",
                  error.text);
    json_decref(audit);
    ck_assert(isfinite(t.seconds) && t.seconds >= 0);
    trainer_close(&t);
    return read_bytes(path, bytes, CHECKPOINT_SIZE);
}

START_TEST(a_clock_that_jumps_changes_no_bit_and_stops_no_run)
{
    static char words[4000], steady[CHECKPOINT_SIZE], jumped[CHECKPOINT_SIZE];
    settings s = small();
    write_words(sizeof words, words);
    const size_t size = train(&s, "steady", START_NEW, steady);
    jumping = true;
    s.dense_steps = 2;
    train(&s, "jumped", START_NEW, jumped);
    s.dense_steps = 5;
    ck_assert_uint_eq(train(&s, "jumped", START_RESUME, jumped), size); /* which reads its log */
    jumping = false;
    ck_assert_mem_eq(jumped, steady, size);
}
END_TEST

START_TEST(a_text_that_grows_is_read_as_it_was)
{
    static char words[TEXT_SIZE];
    char hash[65];
    corpus t;
    lh_error error = {LH_OK, ""};
    write_words(sizeof words, words);
    lh_sha256_hex(words, sizeof words, hash);
    changing = text;
    shrinking = false;
    const lh_status status = text_read(text, 0.1, NULL, 100, &t, &error);
    changing = NULL;
    ck_assert_msg(status == LH_OK, "%s", error.text);
    ck_assert_int_eq(t.size, TEXT_SIZE);
    ck_assert_str_eq(t.sha256, hash);
    text_free(&t);
    struct stat about;
    ck_assert_int_eq(stat(text, &about), 0);
    ck_assert_int_gt(about.st_size, TEXT_SIZE); /* it did grow */
}
END_TEST

START_TEST(a_text_that_shrinks_is_read_as_it_is)
{
    static char words[TEXT_SIZE];
    char hash[65];
    corpus t;
    lh_error error = {LH_OK, ""};
    write_words(sizeof words, words);
    lh_sha256_hex(words, TEXT_SIZE / 2 + 7, hash);
    changing = text;
    shrinking = true;
    const lh_status status = text_read(folder, 0.1, NULL, 100, &t, &error);
    changing = NULL;
    ck_assert_msg(status == LH_OK, "%s", error.text);
    ck_assert_int_eq(t.size, TEXT_SIZE / 2 + 7);
    ck_assert_str_eq(t.sha256, hash);
    text_free(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_world");
    TCase *world = suite_case(suite, "world");
    tcase_add_checked_fixture(world, setup, teardown);
    tcase_add_test(world, a_clock_that_jumps_changes_no_bit_and_stops_no_run);
    tcase_add_test(world, a_text_that_grows_is_read_as_it_was);
    tcase_add_test(world, a_text_that_shrinks_is_read_as_it_is);
    return suite_run(suite);
}
