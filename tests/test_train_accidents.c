/* What happens to runs of `lighthouse train`: signals, two in one folder, names that are code, files that are not. */
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
#include "tests/suite.h"

static const char *folder;
static char home[4096], said[1 << 16];

static const char settings_text[] =
    "[model]\nwidth=16\nlayers=2\nheads=2\nkv-heads=1\ndim=8\nhidden=24\n"
    "[attention]\ntopk=8\ntile-topk=4\nbackend=ref\n[data]\ncontext=64\ntext=text\n"
    "[recipe]\nwarmup=5\nlighthouse-steps=6\ndense-steps=4\n"
    "[record]\ncheckpoint-every=3\nprobes=0\nheld-out-windows=2\nretrieval-trials=0\n";

static void setup(void)
{
    char words[4000];
    ck_assert_ptr_nonnull(getcwd(home, sizeof home));
    folder = scratch_folder();
    ck_assert_int_eq(chdir(folder), 0);
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = (char)('a' + (int)(lh_random_uniform(1, 0, i / 3) * 26));
    write_bytes("text", words, sizeof words);
    write_bytes("t.ini", settings_text, sizeof settings_text - 1);
}

static void teardown(void)
{
    char command[300];
    ck_assert_int_eq(chdir(home), 0);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Starts `lighthouse train --config t.ini WORDS...`, the list ended by NULL, with what it says in "said". */
static pid_t start(const char *const *words)
{
    const char *argv[40] = {"lighthouse", "train", "--config", "t.ini"};
    for (int i = 0; words[i]; i++) {
        ck_assert_int_lt(i, 30);
        argv[4 + i] = words[i];
    }
    fflush(NULL);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child > 0)
        return child;
    const int out = open("said", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
        _exit(99);
    execv(getenv("LIGHTHOUSE"), (char *const *)argv);
    _exit(98);
}

/* Exit status, 1000 and the signal where one ended it; `said` holds what it said. */
static int finish(pid_t child)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    said[read_bytes("said", said, sizeof said - 1)] = '\0';
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define TRAIN(...) finish(start((const char *const[]){__VA_ARGS__, NULL}))

static void expect(int status, int wanted, const char *part)
{
    ck_assert_msg(status == wanted && strstr(said, part), "exit status %d, wanted %d and \"%s\": %s", status,
                  wanted, part, said);
}

static void wait_for(const char *path)
{
    for (int i = 0; access(path, F_OK) != 0; i++) {
        ck_assert_msg(i < 6000, "%s does not come", path);
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
}

static bool holds(const char *path, const char *part)
{
    static char text[1 << 20];
    text[read_bytes(path, text, sizeof text - 1)] = '\0';
    return strstr(text, part) != NULL;
}

START_TEST(a_signal_ends_a_run_with_a_checkpoint)
{
    static const struct {
        int number, status;
    } signals[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGHUP, 129}};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        char name[32], log[64], picture[64], checkpoint[64];
        snprintf(name, sizeof name, "runs/deep/it's %zu", i);
        snprintf(log, sizeof log, "%s/log.jsonl", name);
        snprintf(picture, sizeof picture, "%s/curves.svg", name);
        snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint.safetensors", name);
        const pid_t child = start((const char *const[]){"--lighthouse-steps", "3000000", "--checkpoint-every",
                                                        "1000000", "--quiet", name, NULL});
        wait_for(log);
        nanosleep(&(struct timespec){0, 300000000}, NULL);
        ck_assert_int_eq(kill(child, signals[i].number), 0);
        expect(finish(child), signals[i].status, "To go on: lighthouse train --resume 'runs/deep/it'\\''s ");
        ck_assert_int_eq(access(checkpoint, F_OK), 0);
        ck_assert_int_eq(access(picture, F_OK), 0);
    }
    expect(TRAIN("--resume", "--lighthouse-steps", "3000000", "--dense-steps", "-1", "runs/deep/it's 0"), 2,
           "dense-steps is -1");
}
END_TEST

START_TEST(two_runs_cannot_have_one_folder)
{
    const pid_t child = start((const char *const[]){"--lighthouse-steps", "3000000", "--quiet", "run", NULL});
    wait_for("run/checkpoint.safetensors");
    expect(TRAIN("--resume", "run"), 2, "run is in use by process ");
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(finish(child), 1000 + SIGKILL);
    /* The lock of one that was killed is no lock. */
    const pid_t again =
        start((const char *const[]){"--resume", "--lighthouse-steps", "3000000", "--quiet", "run", NULL});
    char owner[40];
    snprintf(owner, sizeof owner, "process %ld ", (long)again);
    for (int tries = 0; !holds("run/.lighthouse.lock", owner); tries++) {
        ck_assert_msg(tries < 6000, "the folder is not taken over");
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    kill(again, SIGINT);
    ck_assert_int_eq(finish(again), 130);
}
END_TEST

START_TEST(names_are_names)
{
    static const char *const names[] = {"x'; system('touch pwned'); set label 'y",
                                        "x';system(\"touch pwned\");'",
                                        "run[12]",
                                        "*",
                                        "$(touch pwned)",
                                        "a\nb"};
    ck_assert_int_eq(mkdir("run1", 0700), 0);
    write_bytes("run1/.lighthouse-important", "precious", 8);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char picture[200];
        expect(TRAIN("--quiet", names[i]), 0, "Saved:");
        snprintf(picture, sizeof picture, "%s/curves.svg", names[i]);
        ck_assert_int_eq(access(picture, F_OK), 0);
        expect(TRAIN("--quiet", "--resume", "--dense-steps", "5", names[i]), 0, "Saved:");
    }
    ck_assert_int_ne(access("pwned", F_OK), 0);
    ck_assert_int_eq(access("run1/.lighthouse-important", F_OK), 0);
    char *longest = malloc(5001);
    ck_assert_ptr_nonnull(longest);
    memset(longest, 'x', 5000);
    longest[5000] = '\0';
    expect(TRAIN("--quiet", longest), 2, "has 5000 characters, wanted a folder of at most");
    free(longest);
}
END_TEST

START_TEST(a_picture_that_cannot_be_written_is_a_warning)
{
    ck_assert_int_eq(mkdir("run", 0700), 0);
    ck_assert_int_eq(mkdir("run/curves.svg", 0700), 0);
    expect(TRAIN("--quiet", "run"), 0, "run/curves.svg is not a regular file");
    ck_assert_ptr_nonnull(strstr(said, "lighthouse train: warning: "));
    ck_assert_ptr_nonnull(strstr(said, "Saved:"));
}
END_TEST

/* Said before the training, whose checkpoints could not keep it. */
START_TEST(a_text_by_a_name_that_is_no_text)
{
    ck_assert_int_eq(system("cp text \"$(printf 'caf\\351.txt')\""), 0);
    expect(TRAIN("--quiet", "--text", "caf\xe9.txt", "r"), 2,
           "text is caf?.txt, wanted UTF-8 without control characters");
    ck_assert_int_ne(access("r", F_OK), 0);
}
END_TEST

START_TEST(pipes_and_folders_are_no_files)
{
    ck_assert_int_eq(mkfifo("pipe", 0600), 0);
    expect(TRAIN("--config", "pipe", "run"), 2, "pipe is not a regular file, wanted settings");
    expect(TRAIN("--config", ".", "run"), 2, "is not a regular file, wanted settings");
    expect(TRAIN("--text", "pipe", "run"), 2, "text pipe is neither a file nor a folder");
    expect(TRAIN("--text", "/nonexistent", "run"), 2, "text /nonexistent: cannot be opened");
    ck_assert_int_ne(access("run", F_OK), 0); /* nothing was begun */
    ck_assert_int_eq(mkdir("run", 0700), 0);
    ck_assert_int_eq(mkfifo("run/.lighthouse.lock", 0600), 0);
    expect(TRAIN("run"), 2, "is not a regular file, wanted one or none");
}
END_TEST

/* The run's own log lies within the text, and another run's. */
/* Settings, a text or a checkpoint by the name of what a run writes, or linked to it. */
START_TEST(what_is_read_is_not_written)
{
    static const struct {
        const char *prepare, *file, *words[4];
    } cases[] = {
        {"cp t.ini r/log.jsonl", "r/log.jsonl", {"--config", "r/log.jsonl", "r"}},
        {"cp t.ini r/audit.json", "r/audit.json", {"--config", "r/audit.json", "r"}},
        {"cp text r/curves.svg", "r/curves.svg", {"--text", "r/curves.svg", "r"}},
        {"ln text r/log.jsonl", "r/log.jsonl", {"--text", "text", "r"}},
        {"mkdir r/dense; cp text r/dense/log.jsonl",
         "r/dense/log.jsonl",
         {"--compare", "--text", "r/dense/log.jsonl", "r"}},
        {"cp r0/checkpoint.safetensors r/x; ln r/x r/audit.json", "r/x", {"--finetune", "r/x", "r"}},
        {"cp r0/checkpoint.safetensors r",
         "r/checkpoint.safetensors",
         {"--finetune", "r/checkpoint.safetensors", "r"}},
    };
    expect(TRAIN("--quiet", "r0"), 0, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static char before[1 << 18], after[1 << 18];
        char command[256];
        const char *const *w = cases[i].words;
        snprintf(command, sizeof command, "rm -rf r; mkdir r; %s", cases[i].prepare);
        ck_assert_int_eq(system(command), 0);
        const size_t size = read_bytes(cases[i].file, before, sizeof before);
        expect(TRAIN("--quiet", w[0], w[1], w[2], w[3]), 2, "which is read, wanted another file");
        ck_assert_uint_eq(read_bytes(cases[i].file, after, sizeof after), size);
        ck_assert_mem_eq(before, after, size);
    }
}
END_TEST

START_TEST(a_run_within_its_text_resumes_to_the_bit)
{
    static char whole[1 << 18], resumed[1 << 18];
    ck_assert_int_eq(mkdir("all", 0700), 0);
    ck_assert_int_eq(rename("text", "all/text"), 0);
    expect(TRAIN("--quiet", "--text", "all", "all/whole"), 0, "Saved:");
    expect(TRAIN("--quiet", "--text", "all", "--dense-steps", "1", "all/run"), 0, "Saved:");
    expect(TRAIN("--quiet", "--text", "all", "--resume", "all/run"), 0, "Saved:");
    const size_t size = read_bytes("all/whole/checkpoint.safetensors", whole, sizeof whole);
    ck_assert_uint_eq(read_bytes("all/run/checkpoint.safetensors", resumed, sizeof resumed), size);
    ck_assert_mem_eq(whole, resumed, size);
    write_bytes("all/between", "something else", 14);
    expect(TRAIN("--quiet", "--text", "all", "--resume", "--dense-steps", "5", "all/run"), 2,
           "that the run began with");
}
END_TEST

START_TEST(runs_say_what_they_read_and_are_made_of)
{
    expect(TRAIN("--eval-every", "4", "--watch", "run"), 0, "4000 bytes of text in 1 file, ");
    ck_assert_ptr_nonnull(strstr(said, "iB of memory; ref on "));
    ck_assert_ptr_nonnull(strstr(said, "The first step took "));
    ck_assert_ptr_nonnull(strstr(said, "  held-out "));
    static const char *const keys[] = {"\"sha256\":",     "/text\"",   "\"topk\": \"8\"",
                                       "\"seed\": \"1\"", "\"rate\":", "\"program\":",
                                       "\"host\":",       "\"date\":", "\"products\": \"OpenBLAS"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        ck_assert_msg(holds("run/audit.json", keys[i]), "no %s in the audit", keys[i]);
    ck_assert(holds("run/curves.html", "http-equiv=refresh"));
    ck_assert(holds("run/curves.svg", "held-out loss"));
    /* Every fourth step, and the ends of both stages. */
    for (int step = 1; step <= 10; step++) {
        char line[64];
        snprintf(line, sizeof line, "{\"kind\":\"held-out\",\"step\":%d,", step);
        ck_assert_int_eq(holds("run/log.jsonl", line), step == 4 || step == 6 || step == 8 || step == 10);
    }
}
END_TEST

/* Threads that wait sleep, unless somebody wants them otherwise. OMP_DISPLAY_ENV makes the runtime say what it read. */
START_TEST(threads_wait_asleep_unless_told_otherwise)
{
    unsetenv("OMP_WAIT_POLICY");
    setenv("OMP_DISPLAY_ENV", "true", 1);
    expect(TRAIN("--quiet", "passive"), 0, "Saved:");
    if (!strstr(said, "OMP_WAIT_POLICY"))
        return; /* built without OpenMP */
    ck_assert_ptr_nonnull(strstr(said, "OMP_WAIT_POLICY = 'PASSIVE'"));
    ck_assert_ptr_null(strstr(said, "warning"));
    setenv("OMP_WAIT_POLICY", "active", 1);
    expect(TRAIN("--quiet", "active"), 0, "OMP_WAIT_POLICY = 'ACTIVE'");
    ck_assert_ptr_null(strstr(said, "PASSIVE"));
    ck_assert_ptr_nonnull(strstr(said, "lighthouse train: warning: OMP_WAIT_POLICY is active"));
    setenv("OMP_DYNAMIC", "TRUE", 1);
    expect(TRAIN("--quiet", "dynamic"), 0, "lighthouse train: warning: OMP_DYNAMIC is true");
}
END_TEST

/* From any folder, those that lie beside the program. */
START_TEST(settings_that_come_with_the_program_are_found)
{
    expect(TRAIN("--config", "laptop.ini", "--text", "nowhere", "run"), 2, "text nowhere: cannot be opened");
    expect(TRAIN("--config", "desktop.ini", "--text", "nowhere", "run"), 2, "desktop.ini cannot be opened");
    expect(TRAIN("--config", "./laptop.ini", "--text", "nowhere", "run"), 2, "./laptop.ini cannot be opened");
}
END_TEST

START_TEST(several_seeds_have_a_mean)
{
    expect(TRAIN("--quiet", "--compare", "--seeds", "2", "--schedule", "cosine", "all"), 0,
           "Mean of 2 seeds and, after the sign, the standard deviation of one");
    ck_assert(holds("all/compare.json", "\"deviation\":"));
    ck_assert_int_eq(access("all/seed-2/two-stage/checkpoint.safetensors", F_OK), 0);
    ck_assert_int_eq(access("all/compare.svg", F_OK), 0);
    expect(TRAIN("--quiet", "--compare", "--seeds", "2", "--schedule", "cosine", "--resume", "all"), 0,
           "Mean of 2");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_accidents");
    TCase *accidents = suite_case(suite, "accidents");
    tcase_add_checked_fixture(accidents, setup, teardown);
    tcase_add_test(accidents, a_signal_ends_a_run_with_a_checkpoint);
    tcase_add_test(accidents, two_runs_cannot_have_one_folder);
    tcase_add_test(accidents, names_are_names);
    tcase_add_test(accidents, a_picture_that_cannot_be_written_is_a_warning);
    tcase_add_test(accidents, a_text_by_a_name_that_is_no_text);
    tcase_add_test(accidents, pipes_and_folders_are_no_files);
    tcase_add_test(accidents, what_is_read_is_not_written);
    tcase_add_test(accidents, a_run_within_its_text_resumes_to_the_bit);
    tcase_add_test(accidents, runs_say_what_they_read_and_are_made_of);
    tcase_add_test(accidents, threads_wait_asleep_unless_told_otherwise);
    tcase_add_test(accidents, settings_that_come_with_the_program_are_found);
    tcase_add_test(accidents, several_seeds_have_a_mean);
    return suite_run(suite);
}
