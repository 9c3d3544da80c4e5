/* Checkpoints: every flipped bit is found, and what a run can go on with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/random.h"
#include "tests/suite.h"
#include "train/folder.h"
#include "train/trainer.h"

enum {
    FILE_SIZE = 1 << 18
};

static const char *folder;
static char run[300], path[400];
static settings s;

static void setup(void)
{
    char words[4000];
    folder = scratch_folder();
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = (char)('a' + (int)(lh_random_uniform(1, 0, i / 3) * 26));
    write_bytes(scratch_path(folder, "text"), words, sizeof words);
    snprintf(run, sizeof run, "%.200s/run", folder);
    snprintf(path, sizeof path, "%s/" CHECKPOINT_NAME, run);
    settings_default(&s);
    s.width = 4;
    s.layers = 1;
    s.heads = s.kv_heads = 1;
    s.dim = 2;
    s.hidden = 4;
    s.context = 64;
    s.topk = 8;
    s.tile_topk = 4;
    s.probes = 0;
    s.lighthouse_steps = 4;
    s.dense_steps = 4;
    s.checkpoint_every = 2;
    strcpy(s.backend, "ref");
    snprintf(s.text, sizeof s.text, "%.200s/text", folder);
}

static void teardown(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

static lh_status open_run(enum trainer_start start, lh_error *error)
{
    static trainer t;
    const run_options o = {.start = start};
    const lh_status status = trainer_open(&s, run, &o, &t, error);
    trainer_close(&t);
    return status;
}

static void train(enum trainer_start start)
{
    static trainer t;
    lh_error error = {LH_OK, ""};
    const run_options o = {.start = start};
    ck_assert_msg(trainer_open(&s, run, &o, &t, &error) == LH_OK, "%s", error.text);
    ck_assert_msg(trainer_run(&t, NULL, NULL, &error) == LH_OK, "%s", error.text);
    trainer_close(&t);
}

/* A bit of each byte of the header, another one in each, and of many behind it; EVERY_BIT set: every bit of the file. */
START_TEST(every_flipped_bit_is_found)
{
    static unsigned char bytes[FILE_SIZE];
    checkpoint c;
    train(START_NEW);
    const size_t size = read_bytes(path, bytes, sizeof bytes);
    const size_t header = 8 + bytes[0] + 256u * bytes[1] + 65536u * bytes[2];
    ck_assert(size < sizeof bytes && header < size);
    ck_assert_int_eq(checkpoint_open(path, &c, NULL), LH_OK);
    checkpoint_close(&c);
    const bool every = getenv("EVERY_BIT") != NULL;
    for (size_t bit = 0; bit < 8 * size; bit += every ? 1 : bit < 8 * header ? 9 : 51) {
        lh_error error = {LH_OK, ""};
        FILE *file = fopen(path, "r+b");
        ck_assert_ptr_nonnull(file);
        fseek(file, (long)(bit / 8), SEEK_SET);
        fputc(bytes[bit / 8] ^ (1 << bit % 8), file);
        fclose(file);
        const lh_status status = checkpoint_open(path, &c, &error);
        ck_assert_msg(status == LH_FORMAT || status == LH_INVALID, "bit %zu of %zu (header %zu): %s", bit,
                      8 * size, 8 * header, lh_status_name(status));
        file = fopen(path, "r+b");
        fseek(file, (long)(bit / 8), SEEK_SET);
        fputc(bytes[bit / 8], file);
        fclose(file);
    }
    ck_assert_int_eq(checkpoint_open(path, &c, NULL), LH_OK);
    checkpoint_close(&c);
}
END_TEST

START_TEST(the_one_before_is_offered_and_taken)
{
    static unsigned char bytes[FILE_SIZE], again[FILE_SIZE];
    lh_error error;
    train(START_NEW);
    const size_t size = read_bytes(path, bytes, sizeof bytes);
    memcpy(again, bytes, size);
    again[size - 5] ^= 4;
    write_bytes(path, again, size);
    expect_status(
        open_run(START_RESUME, &error), LH_FORMAT, &error,
        "it is damaged; checkpoint-before.safetensors is whole, of step 6: --before goes on from it");
    train(START_BEFORE);
    ck_assert_uint_eq(read_bytes(path, again, sizeof again), size);
    ck_assert_mem_eq(bytes, again, size);
    /* Both damaged: nothing to offer. */
    again[size - 5] ^= 4;
    write_bytes(path, again, size);
    char before[400];
    snprintf(before, sizeof before, "%s/" BEFORE_NAME, run);
    write_bytes(before, again, size);
    expect_status(open_run(START_RESUME, &error), LH_FORMAT, &error, "it is damaged");
    ck_assert_ptr_null(strstr(error.text, "--before"));
    expect_status(open_run(START_BEFORE, &error), LH_FORMAT, &error, "it is damaged");
}
END_TEST

/* By a signal while it reads its text. */
START_TEST(a_run_that_is_stopped_before_its_first_step_goes_on)
{
    static unsigned char whole[FILE_SIZE], resumed[FILE_SIZE];
    static trainer t;
    const volatile sig_atomic_t stop = 1;
    lh_error error = {LH_OK, ""};
    train(START_NEW);
    const size_t size = read_bytes(path, whole, sizeof whole);
    snprintf(run, sizeof run, "%.200s/stopped", folder);
    snprintf(path, sizeof path, "%s/" CHECKPOINT_NAME, run);
    ck_assert_int_eq(trainer_open(&s, run, &(run_options){.start = START_NEW, .stop = &stop}, &t, &error),
                     LH_OK);
    ck_assert_int_eq(trainer_run(&t, NULL, NULL, &error), LH_OK);
    ck_assert(t.stopped && t.recipe.step == 0);
    trainer_close(&t);
    ck_assert_int_eq(access(path, F_OK), 0);
    train(START_RESUME);
    ck_assert_uint_eq(read_bytes(path, resumed, sizeof resumed), size);
    ck_assert_mem_eq(resumed, whole, size);
}
END_TEST

START_TEST(a_run_goes_on_with_what_it_began_with)
{
    static const struct {
        const char *name, *value, *line;
    } fixed[] = {
        {"seed", "2", "seed is 1 in the checkpoint, wanted 2"},
        {"context", "128", "context is 64 in the checkpoint, wanted 128"},
        {"batch", "2", "batch is 1 in the checkpoint, wanted 2"},
        {"held-out", "0.1", "held-out is"},
        {"passkey", "0.5", "passkey is 0 in the checkpoint"},
        {"topk", "4", "topk is 8 in the checkpoint, wanted 4"},
        {"levels", "2", "levels is 3 in the checkpoint, wanted 2"},
        {"dense-layers", "0", "dense-layers is"},
        {"rotary-base", "10000", "rotary-base is 500000 in the checkpoint"},
        {"width", "8", "width is 4 in the checkpoint, wanted 8"},
    };
    lh_error error;
    train(START_NEW);
    const settings before = s;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        s = before;
        ck_assert_int_eq(setting_parse(&s, setting_find(fixed[i].name), fixed[i].value, NULL), LH_OK);
        expect_status(open_run(START_RESUME, &error), LH_INVALID, &error, fixed[i].line);
    }
    s = before;
    write_bytes(scratch_path(folder, "text"), "", 0);
    char words[4000];
    memset(words, 'x', sizeof words);
    write_bytes(scratch_path(folder, "text"), words, sizeof words);
    expect_status(open_run(START_RESUME, &error), LH_INVALID, &error, "that the run began with");
}
END_TEST

START_TEST(what_may_change_is_journalled)
{
    static char log[FILE_SIZE];
    char name[400];
    train(START_NEW);
    s.rate = 0.5;
    s.dense_steps = 6;
    train(START_RESUME);
    snprintf(name, sizeof name, "%s/" JOURNAL_NAME, run);
    log[read_bytes(name, log, sizeof log - 1)] = '\0';
    ck_assert_ptr_nonnull(strstr(log, "{\"kind\":\"change\",\"step\":8,\"setting\":\"rate\",\"from\":"));
    ck_assert_ptr_nonnull(strstr(log, "\"setting\":\"dense-steps\",\"from\":\"4\",\"to\":\"6\"}"));
    ck_assert_ptr_null(strstr(log, "\"setting\":\"seed\""));
}
END_TEST

/* Whoever wrote it: a file of the right form and hash with a monitor that no run can have. */
START_TEST(a_monitor_that_cannot_be_is_refused)
{
    recipe r;
    lh_error error;
    recipe_start(&s, &r);
    ck_assert_int_eq(recipe_check(&r, &error), LH_OK);
    r.step = 1;
    r.monitor.seen = 25;
    expect_status(recipe_check(&r, &error), LH_FORMAT, &error, "monitor has seen 25 losses at step 1");
    r.monitor.seen = 0.5;
    expect_status(recipe_check(&r, &error), LH_FORMAT, &error, "monitor has seen 0.5");
    r.monitor.seen = -1;
    expect_status(recipe_check(&r, &error), LH_FORMAT, &error, "monitor has seen -1");
    r.monitor.seen = 1;
    r.monitor.jump = (double)NAN;
    expect_status(recipe_check(&r, &error), LH_FORMAT, &error, "wanted a finite number");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_checkpoint");
    TCase *checkpoints = suite_case(suite, "checkpoints");
    tcase_add_checked_fixture(checkpoints, setup, teardown);
    tcase_add_test(checkpoints, every_flipped_bit_is_found);
    tcase_add_test(checkpoints, the_one_before_is_offered_and_taken);
    tcase_add_test(checkpoints, a_run_that_is_stopped_before_its_first_step_goes_on);
    tcase_add_test(checkpoints, a_run_goes_on_with_what_it_began_with);
    tcase_add_test(checkpoints, what_may_change_is_journalled);
    tcase_add_test(checkpoints, a_monitor_that_cannot_be_is_refused);
    return suite_run(suite);
}
