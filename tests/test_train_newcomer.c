/* What surprised somebody who tried `lighthouse train` with only the README: texts by relative names, silence, wrong advice. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/random.h"
#include "tests/program.h"
#include "tests/suite.h"

#define SHAPE                                                                                                \
    "--width 8 --layers 1 --heads 1 --kv-heads 1 --dim 8 --hidden 8 --topk 8 --tile-topk 4 --backend ref "   \
    "--context 64 --text text --held-out-windows 2 --retrieval-trials 0 --checkpoint-every 1000000 "
#define STEPS "--lighthouse-steps 4 --dense-steps 2 "

static char home[4096];

static void setup(void)
{
    char words[4000];
    program_start();
    ck_assert_ptr_nonnull(getcwd(home, sizeof home));
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = (char)('a' + (int)(lh_random_uniform(1, 0, i / 3) * 26));
    write_bytes("text", words, sizeof words);
}

static void teardown(void)
{
    ck_assert_int_eq(chdir(home), 0);
    ck_assert_int_eq(system("rm -rf -- *"), 0);
    program_finish();
}

static program_result result;

/* Runs `lighthouse train WORDS`: exit status, and a part of what it said on either stream. */
static void train(const char *words, int wanted, const char *part)
{
    char line[2048];
    snprintf(line, sizeof line, "train %s", words);
    program_run(&result, line);
    ck_assert_msg(result.status == wanted && (strstr(result.out, part) || strstr(result.err, part)),
                  "%s: exit status %d, wanted %d and \"%s\": %s%s", words, result.status, wanted, part,
                  result.out, result.err);
}

static bool holds(const char *path, const char *part)
{
    static char text[1 << 18];
    text[read_bytes(path, text, sizeof text - 1)] = '\0';
    return strstr(text, part) != NULL;
}

START_TEST(a_run_goes_on_from_any_folder)
{
    train(SHAPE STEPS "run", 0, "Saved:");
    ck_assert_int_eq(chdir("run"), 0);
    train("--evaluate .", 0, "held-out loss");
    train("--resume --dense-steps 3 .", 0, "Saved:");
    ck_assert(!holds("log.jsonl", "\"setting\":\"text\"")); /* it is the same one */
}
END_TEST

/* A loss on bytes that were learnt from is no held-out loss. */
/* Byte after byte, while the next ones are computed: a reader that leaves after a few ends it. */
START_TEST(what_is_generated_is_seen_as_it_comes)
{
    char line[4096];
    train(SHAPE STEPS "--quiet run", 0, "Saved:");
    train("--generate=20 --prompt abc run", 0, "abc");
    snprintf(line, sizeof line, "timeout 60 '%s' train --generate=65536 --prompt abc run | head -c 8 > said",
             getenv("LIGHTHOUSE"));
    ck_assert_int_eq(system(line), 0);
    char said[9];
    ck_assert_uint_eq(read_bytes("said", said, sizeof said), 8);
    ck_assert_mem_eq(said, result.out, 8);
}
END_TEST

START_TEST(evaluation_is_of_the_text_that_was_held_out)
{
    char words[4100];
    train(SHAPE STEPS "run", 0, "Saved:");
    train("--evaluate --held-out 0.5 run", 2, "is held out from byte 2000 on, wanted from byte 3800");
    memset(words, 'x', sizeof words);
    write_bytes("text", words, sizeof words);
    train("--evaluate run", 2, "that the run began with");
    write_bytes("other", words, sizeof words);
    train("--evaluate --text other run", 0, "held-out loss");
}
END_TEST

START_TEST(what_was_not_measured_is_not_said_to_be_nothing)
{
    train(SHAPE STEPS "--probes 0 run", 0,
          "dense attention was not timed yet (--probes), so seconds are not known");
    ck_assert(holds("run/audit.json", "\"seconds\": null"));
    ck_assert_ptr_null(strstr(result.out, "dense training would have taken"));
    train(SHAPE STEPS "--probes 2 probed", 0, "s of what dense training would have taken");
    ck_assert(!holds("probed/audit.json", "null"));
    train(SHAPE "--lighthouse-steps 0 --dense-steps 2 dense", 0, "Saved: 0.0 s of what dense");
}
END_TEST

START_TEST(a_folder_stands_for_its_checkpoint)
{
    train(SHAPE STEPS "--quiet run", 0, "Saved:");
    train("--finetune run --dense-steps 2 --quiet tuned", 0, "Saved:");
    train("--finetune run/checkpoint.safetensors --dense-steps 2 --quiet again", 0, "Saved:");
    train("--finetune nothing --dense-steps 2 --quiet none", 2, "nothing cannot be opened");
}
END_TEST

START_TEST(refusals_say_what_to_do)
{
    train("--generate 50 run", 2,
          "arguments are '50' and 'run', wanted one FOLDER: --generate=50 takes a number so");
    train("one two", 2, "arguments are 'one' and 'two', wanted one FOLDER");
    train("--resume nothing", 2,
          "nothing has no checkpoint, wanted a run to go on with, or --text to begin one");
    ck_assert_int_ne(access("nothing", F_OK), 0);
    write_bytes("bad.ini", "[model]\nrate = 1\n", 17);
    train("--config bad.ini run", 2, "bad.ini:2: [model] rate is no setting, wanted it in [recipe]");
    train("--help", 0, "--before");
    ck_assert_ptr_null(strstr(result.out, "likewise")); /* options are sorted: none is beside another */
}
END_TEST

START_TEST(comparisons_are_told_from_runs)
{
    train(SHAPE STEPS "--quiet run", 0, "Saved:");
    train(SHAPE STEPS "--compare run", 2, "run holds a run, wanted another folder for a comparison");
    train(SHAPE STEPS "--compare one", 0, "one/two-stage: 4000 bytes of text");
    ck_assert_ptr_nonnull(strstr(result.err, "one/dense: 4000 bytes of text"));
    ck_assert_ptr_nonnull(strstr(result.err, " to go in this run\n"));
    train("--resume one", 2, "one holds a comparison, wanted --compare, or the folder of one of its runs");
    train("--evaluate one", 2, "one holds a comparison, wanted --compare");
    train(SHAPE STEPS "--compare one", 2, "one holds a comparison, wanted --resume or another folder");
    train("--compare --seeds 2 --resume one", 2, "one holds a comparison of one seed, wanted no --seeds");
    train("--compare --resume --quiet one", 0, "two-stage");
}
END_TEST

/* Settings come from the first seed's run, whichever seed that is. */
START_TEST(a_comparison_of_seeds_goes_on_without_its_flags)
{
    train(SHAPE STEPS "--quiet --compare --seed 5 --seeds 2 all", 0, "Mean of 2 seeds");
    train("--quiet --compare --resume all", 2, "all holds a comparison of several seeds, wanted --seeds N");
    train("--quiet --compare --resume --seeds 2 all", 0, "Seed 6\n");
}
END_TEST

/* Starts `lighthouse train` on three million steps in FOLDER run, with more flags and its streams in `to`. */
static pid_t start(const char *more, int to)
{
    char line[1024];
    char *argv[64] = {getenv("LIGHTHOUSE"), (char *)"train"};
    snprintf(line, sizeof line, SHAPE "--lighthouse-steps 3000000 %s run", more);
    int n = 2;
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
        argv[n++] = word;
    fflush(NULL);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child > 0)
        return child;
    if (dup2(to, STDOUT_FILENO) < 0 || dup2(to, STDERR_FILENO) < 0)
        _exit(99);
    execv(argv[0], argv);
    _exit(98);
}

static void wait_for(const char *path, const char *part)
{
    for (int i = 0; access(path, F_OK) != 0 || !holds(path, part); i++) {
        ck_assert_msg(i < 6000, "%s does not come", path);
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
}

START_TEST(a_signal_is_answered_at_once)
{
    int status;
    const int said = open("said", O_WRONLY | O_CREAT, 0600);
    const pid_t child = start("--checkpoint-minutes 0", said);
    close(said);
    wait_for("run/log.jsonl", "\"step\":1,");
    ck_assert_int_eq(kill(child, SIGINT), 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 130);
    ck_assert(holds("said", "\nStopping after this step, with a checkpoint; once more stops at once\n"));
    ck_assert(holds("said", "To go on: lighthouse train --resume 'run'\n"));
}
END_TEST

/* `train 2>&1 | tee log`: the signal that stops the run has ended tee. */
START_TEST(a_reader_that_is_gone_costs_no_checkpoint)
{
    int ends[2], status;
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = start("--checkpoint-minutes 0", ends[1]);
    close(ends[1]);
    wait_for("run/log.jsonl", "\"step\":1,");
    close(ends[0]);
    ck_assert_int_eq(kill(child, SIGINT), 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "signal %d ended it", WTERMSIG(status));
    ck_assert_int_eq(access("run/checkpoint.safetensors", F_OK), 0);
    ck_assert_int_eq(access("run/audit.json", F_OK), 0);
}
END_TEST

/* Steps may take a minute each: a hundred of them are too much to lose. */
START_TEST(time_makes_a_checkpoint_due)
{
    int status;
    const int null = open("/dev/null", O_WRONLY);
    const pid_t child = start("--checkpoint-minutes 0.001", null);
    close(null);
    wait_for("run/checkpoint.safetensors", "");
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
}
END_TEST

#ifdef _OPENMP
/* Of a step whose products and losses are worth several threads. A sanitizer may have one of its own. */
START_TEST(threads_are_those_of_the_whole_process)
{
    int alone = 0;
    for (int threads = 1; threads <= 3; threads++) {
        char more[80], tasks[64];
        int status;
        const int null = open("/dev/null", O_WRONLY);
        snprintf(more, sizeof more, "--context 512 --threads %d", threads);
        const pid_t child = start(more, null);
        close(null);
        wait_for("run/log.jsonl", "\"step\":1,");
        snprintf(tasks, sizeof tasks, "/proc/%ld/task", (long)child);
        const int found = folder_entries(tasks);
        alone = threads == 1 ? found : alone;
        ck_assert_int_eq(found, alone + threads - 1);
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(system("rm -rf run"), 0);
    }
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("train_newcomer");
    TCase *newcomer = suite_case(suite, "newcomer");
    tcase_add_checked_fixture(newcomer, setup, teardown);
    tcase_add_test(newcomer, a_run_goes_on_from_any_folder);
    tcase_add_test(newcomer, what_is_generated_is_seen_as_it_comes);
    tcase_add_test(newcomer, evaluation_is_of_the_text_that_was_held_out);
    tcase_add_test(newcomer, what_was_not_measured_is_not_said_to_be_nothing);
    tcase_add_test(newcomer, a_folder_stands_for_its_checkpoint);
    tcase_add_test(newcomer, refusals_say_what_to_do);
    tcase_add_test(newcomer, comparisons_are_told_from_runs);
    tcase_add_test(newcomer, a_comparison_of_seeds_goes_on_without_its_flags);
    tcase_add_test(newcomer, a_signal_is_answered_at_once);
    tcase_add_test(newcomer, a_reader_that_is_gone_costs_no_checkpoint);
    tcase_add_test(newcomer, time_makes_a_checkpoint_due);
#ifdef _OPENMP
    tcase_add_test(newcomer, threads_are_those_of_the_whole_process);
#endif
    return suite_run(suite);
}
