/*
 * Whole runs of the program: killed at any moment and resumed, resumed with a changed mind, out of disk.
 *
 * Above 400 lines: one fixture and one way to start runs for all of them. LIGHTHOUSE names the program. Every run is a process of its own. KILLS: how often a test kills one, 10 unless it is set.
 */
#include <math.h>
#include <signal.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/random.h"
#include "tests/suite.h"

enum {
    LINE = 1024,
    MAX_ARGS = 64,
    FINAL = 1 << 20
};

static const char *folder;     /* of the test */
static char run_folder[LINE];  /* FOLDER/run */
static char text_path[LINE];   /* FOLDER/text */
static char stderr_path[LINE]; /* FOLDER/stderr */

static const char *const shape_flags[] = {"--width",
                                          "16",
                                          "--layers",
                                          "3",
                                          "--heads",
                                          "2",
                                          "--kv-heads",
                                          "1",
                                          "--dim",
                                          "8",
                                          "--hidden",
                                          "24",
                                          "--context",
                                          "64",
                                          "--topk",
                                          "8",
                                          "--tile-topk",
                                          "4",
                                          "--warmup",
                                          "5",
                                          "--checkpoint-every",
                                          "3",
                                          "--dense-layers",
                                          "-1",
                                          "--probes",
                                          "2",
                                          "--passkey",
                                          "0.2",
                                          "--lighthouse-steps",
                                          "20",
                                          "--dense-steps",
                                          "15",
                                          "--held-out-windows",
                                          "2",
                                          "--quiet"};

static void setup(void)
{
    char words[20000];
    folder = scratch_folder();
    snprintf(run_folder, sizeof run_folder, "%s/run", folder);
    snprintf(text_path, sizeof text_path, "%s/text", folder);
    snprintf(stderr_path, sizeof stderr_path, "%s/stderr", folder);
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = (char)('a' + (int)(lh_random_uniform(1, 0, i / 3) * 26));
    write_bytes(text_path, words, sizeof words);
}

static void teardown(void)
{
    char command[LINE + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Starts `lighthouse train ARGUMENTS...`; file_limit: bytes a file may reach, 0 for no limit. */
static pid_t start(const char *const *arguments, int count, rlim_t file_limit)
{
    const char *argv[MAX_ARGS + 4] = {"lighthouse", "train"};
    memcpy(argv + 2, arguments, (size_t)count * sizeof *argv);
    fflush(NULL);
    const pid_t child = fork();
    if (child != 0)
        return child;
    if (file_limit > 0) {
        const struct rlimit limit = {file_limit, file_limit};
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (!freopen(stderr_path, "w", stderr) || !freopen("/dev/null", "w", stdout))
        _exit(100);
    execv(getenv("LIGHTHOUSE"), (char *const *)argv);
    _exit(101);
}

/* Exit status, or -1 when a signal ended it. */
static int finish(pid_t child)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Shape flags, then more, then the folder. */
static pid_t start_run(const char *to, const char *const *more, int count, rlim_t file_limit)
{
    const char *arguments[MAX_ARGS];
    int n = 0;
    for (size_t i = 0; i < sizeof shape_flags / sizeof *shape_flags; i++)
        arguments[n++] = shape_flags[i];
    arguments[n++] = "--text";
    arguments[n++] = text_path;
    for (int i = 0; i < count; i++)
        arguments[n++] = more[i];
    arguments[n++] = to;
    ck_assert_int_le(n, MAX_ARGS);
    return start(arguments, n, file_limit);
}

static int run(const char *to, const char *const *more, int count)
{
    return finish(start_run(to, more, count, 0));
}

/* SHA-256 of a run's checkpoint. */
static void hash(const char *of, char hex[65])
{
    char path[LINE + 32];
    static char bytes[FINAL];
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", of);
    lh_sha256_hex(bytes, read_bytes(path, bytes, sizeof bytes), hex);
}

/* The one line that a refused command left. */
static void expect_line(int status, int wanted, const char *part)
{
    char line[LINE];
    const size_t n = read_bytes(stderr_path, line, sizeof line - 1);
    line[n] = '\0';
    ck_assert_msg(status == wanted, "exit status %d, wanted %d: %s", status, wanted, line);
    ck_assert_msg(strstr(line, part), "stderr is \"%s\", wanted \"%s\" in it", line, part);
    ck_assert_ptr_eq(strchr(line, '\n'), line + n - 1);
}

/* Kills a run with these flags (at most 16) again and again; leaves the same run undisturbed in FOLDER/whole. */
static void kill_and_resume(const char *const *flags, int count)
{
    char whole_folder[LINE], whole[65], resumed[65];
    const char *resume[17] = {"--resume"};
    memcpy(resume + 1, flags, (size_t)count * sizeof *flags);
    snprintf(whole_folder, sizeof whole_folder, "%s/whole", folder);
    const double since = lh_seconds();
    ck_assert_int_eq(run(whole_folder, flags, count), 0);
    const double undisturbed = lh_seconds() - since;
    hash(whole_folder, whole);
    const int wanted = getenv("KILLS") ? atoi(getenv("KILLS")) : 10;
    int kills = 0, status = -1;
    uint64_t draw = 0;
    for (int attempt = 0; kills < wanted || status != 0; attempt++) {
        /* Up to a quarter of a whole run at first, so from before the first checkpoint to the reports. Longer and
         * longer, so that a machine that grows slow finishes too. */
        const double wait = lh_random_uniform(4, 0, draw++) * undisturbed / 4 * pow(1.12, (double)attempt);
        const pid_t child = start_run(run_folder, resume, count + 1, 0);
        nanosleep(&(struct timespec){(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)}, NULL);
        kill(child, SIGKILL);
        status = finish(child);
        kills += status == -1;
        ck_assert_msg(status <= 0, "a resumed run exited with %d", status);
        if (status != 0)
            continue;
        hash(run_folder, resumed);
        ck_assert_str_eq(resumed, whole);
        if (kills < wanted) { /* another run */
            char command[LINE + 16];
            snprintf(command, sizeof command, "rm -rf '%s'", run_folder);
            ck_assert_int_eq(system(command), 0);
            attempt = -1;
        }
    }
    printf("%d kills\n", kills);
}

START_TEST(a_killed_run_ends_as_if_it_had_not_been)
{
    kill_and_resume((const char *const[]){"--dense-steps", "15"}, 2);
}
END_TEST

/* Checkpoints every 3 steps, budgets every 4: most resumes start from budgets that an earlier process measured.
 * m is 48 for a head when even, large enough for a small difference in spread to be one of two entries. */
static const char *const entropy[] = {"--kv-heads",     "2",  "--context",   "256", "--levels", "2",
                                      "--topk",         "48", "--tile-topk", "48",  "--budget", "entropy",
                                      "--budget-every", "4"};

/* Budget lines in a run's log in which not all have `even`, the first line's start. */
static int uneven_lines(const char *of, const char *even)
{
    char path[LINE + 32];
    static char log[FINAL];
    int count = 0;
    snprintf(path, sizeof path, "%s/log.jsonl", of);
    log[read_bytes(path, log, sizeof log - 1)] = '\0';
    for (const char *at = log; (at = strstr(at, "\"tile_topk\"")); at++)
        count += strncmp(at, even, strlen(even)) != 0;
    return count;
}

START_TEST(a_killed_run_remembers_its_budgets)
{
    char whole_folder[LINE];
    snprintf(whole_folder, sizeof whole_folder, "%s/whole", folder);
    kill_and_resume(entropy, 14);
    ck_assert_int_ge(uneven_lines(whole_folder, "\"tile_topk\":[[48,48],[48,48],[]]"), 3);
}
END_TEST

START_TEST(a_run_may_change_its_mind_about_budgets)
{
    const char *flags[19];
    memcpy(flags, entropy, sizeof entropy);
    flags[14] = "--resume";
    flags[15] = "--dense-steps";
    flags[16] = "16";
    flags[17] = "--budget";
    flags[18] = "even";
    ck_assert_int_eq(run(run_folder, flags, 14), 0);
    ck_assert_int_eq(run(run_folder, flags, 19), 0);
    flags[16] = "17";
    ck_assert_int_eq(run(run_folder, flags, 17), 0);
}
END_TEST

START_TEST(threads_do_not_change_a_bit)
{
    char other[LINE], one[65], two[65];
    const char *const larger[] = {
        "--context",          "1024", "--width",       "48", "--hidden",           "96",
        "--lighthouse-steps", "3",    "--dense-steps", "2",  "--retrieval-trials", "0",
        "--held-out",         "0.2"};
    snprintf(other, sizeof other, "%s/other", folder);
    setenv("OMP_NUM_THREADS", "1", 1);
    ck_assert_int_eq(run(run_folder, larger, 14), 0);
    setenv("OMP_NUM_THREADS", "3", 1);
    setenv("OMP_WAIT_POLICY", "passive", 1);
    ck_assert_int_eq(run(other, larger, 14), 0);
    hash(run_folder, one);
    hash(other, two);
    ck_assert_str_eq(one, two);
}
END_TEST

static int entries(const char *of)
{
    int count = 0;
    DIR *open = opendir(of);
    ck_assert_ptr_nonnull(open);
    for (const struct dirent *entry; (entry = readdir(open));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(open);
    return count;
}

START_TEST(lighthouse_must_be_off_before_the_model_is_used)
{
    const char *const short_run[] = {"--lighthouse-steps", "9", "--dense-steps", "3000000"};
    const char *const evaluate[] = {"--evaluate", run_folder};
    const char *const generate[] = {"--generate=5", "--prompt", "ab", run_folder};
    char checkpoint[LINE + 32], other[LINE], llama[LINE], nowhere[LINE + 32];
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint.safetensors", run_folder);
    snprintf(other, sizeof other, "%s/other", folder);
    snprintf(llama, sizeof llama, "%s/llama", folder);
    snprintf(nowhere, sizeof nowhere, "%s/nowhere/llama", folder);
    const char *const finetune[] = {"--finetune", checkpoint, other};
    const char *const export[] = {"--export", llama, run_folder};
    const char *const export_nowhere[] = {"--export", nowhere, run_folder};

    /* Stopped in the Lighthouse stage by a limit on the size of its log. */
    expect_line(
        finish(start_run(run_folder, (const char *const[]){"--lighthouse-steps", "3000000"}, 2, 300000)), 2,
        "cannot be written");
    expect_line(finish(start(evaluate, 2, 0)), 2,
                "stage is lighthouse, wanted dense or finished before evaluation");
    expect_line(finish(start(generate, 4, 0)), 2,
                "stage is lighthouse, wanted dense or finished before generation");
    expect_line(finish(start(finetune, 3, 0)), 2, "stage is lighthouse, wanted finished before fine-tuning");
    expect_line(finish(start(export, 3, 0)), 2, "stage is lighthouse, wanted finished before export");

    /* Likewise in the dense stage. */
    ck_assert_int_eq(unlink(checkpoint), 0);
    expect_line(finish(start_run(run_folder, short_run, 4, 300000)), 2, "cannot be written");
    ck_assert_int_eq(finish(start(evaluate, 2, 0)), 0);
    ck_assert_int_eq(finish(start(generate, 4, 0)), 0);
    expect_line(finish(start(finetune, 3, 0)), 2, "stage is dense, wanted finished before fine-tuning");
    expect_line(finish(start(export, 3, 0)), 2, "stage is dense, wanted finished before export");
    ck_assert_int_ne(access(llama, F_OK), 0);

    ck_assert_int_eq(unlink(checkpoint), 0);
    ck_assert_int_eq(run(run_folder, NULL, 0), 0);
    ck_assert_int_eq(finish(start(finetune, 3, 0)), 0);
    expect_line(finish(start(export, 3, 2000)), 2,
                "cannot be written"); /* LLVM's OpenMP has a file of 1,024 */
    expect_line(finish(start(export_nowhere, 3, 0)), 2, "cannot be made");
    ck_assert_int_eq(entries(folder), 4); /* text, stderr, run, other */
    ck_assert_int_eq(finish(start(export, 3, 0)), 0);
    ck_assert_int_eq(entries(llama), 4);
    expect_line(finish(start(export, 3, 0)), 2, "wanted a folder that is not there yet");
}
END_TEST

START_TEST(a_full_disk_leaves_the_last_good_checkpoint)
{
    char before[65], after[65];
    const char *const longer[] = {"--resume", "--dense-steps", "1000"};
    ck_assert_int_eq(run(run_folder, NULL, 0), 0);
    hash(run_folder, before);
    expect_line(finish(start_run(run_folder, longer, 3, 100000)), 2, "File too large");
    hash(run_folder, after);
    ck_assert_str_eq(before, after);
    ck_assert_int_eq(run(run_folder, longer, 3), 0);
}
END_TEST

START_TEST(checkpoints_that_do_not_fit_are_refused)
{
    char path[LINE + 32];
    static char bytes[FINAL];
    const char *const wider[] = {"--resume", "--width", "32"};
    const char *const resume[] = {"--resume"};
    ck_assert_int_eq(run(run_folder, NULL, 0), 0);
    expect_line(run(run_folder, NULL, 0), 2, "is there already, wanted --resume or another folder");
    expect_line(run(run_folder, wider, 3), 2, "width is 16 in the checkpoint, wanted 32");
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", run_folder);
    const size_t size = read_bytes(path, bytes, sizeof bytes);
    const size_t cuts[] = {0, 7, 100, size / 2, size - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        write_bytes(path, bytes, cuts[i]);
        expect_line(run(run_folder, resume, 1), 2, "checkpoint.safetensors");
    }
}
END_TEST

START_TEST(bad_input_is_one_line)
{
    const struct {
        const char *flags[4];
        int count;
        const char *line;
    } bad[] = {
        {{"--context", "66"}, 2, "tokens is 66, wanted a multiple of pool^(levels-1) = 2^2"},
        {{"--text", "/nowhere"}, 2, "text /nowhere: cannot be opened"},
        {{"--text", "/dev/null"}, 2, "text /dev/null is neither a file nor a folder"},
        {{"--backend", "abacus"}, 2, "backend is 'abacus', wanted ref, openmp, opencl or cuda"},
        {{"--config", "/nowhere.ini"}, 2, "/nowhere.ini cannot be opened"},
        {{"--compare", "--evaluate"}, 2, "wanted one of them at most"},
        {{"--budget", "lavish"}, 2, "budget is lavish, wanted even or entropy"},
        {{"--budget", "entropy"}, 2, "kv-heads is 1, wanted at least 2 with budget entropy"},
        {{"--generate=0"}, 1, "--generate is 0, wanted 1"},
        {{"--generate", "--temperature=-1"}, 2, "--temperature is -1, wanted 0 or more"},
        {{"--temperature", "1"}, 2, "--prompt and --temperature want --generate"},
        {{"--prompt", "a"}, 2, "--prompt and --temperature want --generate"},
        {{"--seed", "-1"}, 2, "seed is -1, wanted an integer from 0"},
        {{"--seeds", "2"}, 2, "--seeds wants --compare"},
        {{"--seeds", "0", "--compare"}, 3, "--seeds is 0, wanted at least 1"},
        {{"--finetune", "x", "--lighthouse-steps", "10"},
         4,
         "--lighthouse-steps is 20, wanted 0 with --finetune"},
        {{"--resume", "--auto"}, 2, "--resume and --before want neither"},
        {{"--schedule", "cosign"}, 2, "schedule is cosign, wanted constant, cosine, linear or wsd"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_line(run(run_folder, bad[i].flags, bad[i].count), 2, bad[i].line);
    expect_line(run("/dev/null/run", NULL, 0), 2, "/dev/null/run: cannot be made: Not a directory");
}
END_TEST

START_TEST(a_rate_out_of_hand_is_a_divergence)
{
    const char *const wild[] = {"--resume", "--dense-steps", "400", "--rate", "1", "--clip",
                                "0",        "--divergence",  "0.5"};
    const char *const evaluate[] = {"--evaluate", run_folder};
    ck_assert_int_eq(run(run_folder, NULL, 0), 0);
    expect_line(run(run_folder, wild, 9), 1, "wanted");
    ck_assert_int_eq(finish(start(evaluate, 2, 0)), 0);
}
END_TEST

START_TEST(lighthouse_stays_off_once_it_is)
{
    const char *const again[] = {"--resume", "--lighthouse-steps", "100"};
    const char *const later[] = {"--resume", "--lighthouse-steps", "21"};
    const char *const fewer[] = {"--resume", "--dense-steps", "14"};
    ck_assert_int_eq(run(run_folder, NULL, 0), 0);
    expect_line(run(run_folder, again, 3), 2, "lighthouse-steps is 100, wanted the 20 done");
    expect_line(run(run_folder, later, 3), 2, "lighthouse-steps is 21, wanted the 20 done");
    expect_line(run(run_folder, fewer, 3), 2, "dense-steps is 14, wanted at least the 15 done");
}
END_TEST

START_TEST(bf16_learns_and_resumes)
{
    const char *const bf16[] = {"--dtype", "bf16"};
    const char *const longer[] = {"--dtype", "bf16", "--resume", "--dense-steps", "20"};
    char other[LINE];
    const char *flags[16] = {"--dtype", "bf16"};
    ck_assert_int_eq(run(run_folder, bf16, 2), 0);
    ck_assert_int_eq(run(run_folder, longer, 5), 0);
    snprintf(other, sizeof other, "%s/other", folder);
    memcpy(flags + 2, entropy, sizeof entropy);
    ck_assert_int_eq(run(other, flags, 16), 0);
}
END_TEST

START_TEST(a_comparison_ends_with_its_table)
{
    char path[LINE + 32];
    static char json[FINAL];
    ck_assert_int_eq(run(run_folder, (const char *const[]){"--compare"}, 1), 0);
    snprintf(path, sizeof path, "%s/compare.json", run_folder);
    json[read_bytes(path, json, sizeof json - 1)] = '\0';
    ck_assert_ptr_nonnull(strstr(json, "dense, equal time"));
    ck_assert_ptr_nonnull(strstr(json, "\"held_out_loss\""));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_runs");
    TCase *kills = suite_case(suite, "kills");
    tcase_add_checked_fixture(kills, setup, teardown);
    tcase_add_test(kills, a_killed_run_ends_as_if_it_had_not_been);
    tcase_add_test(kills, a_killed_run_remembers_its_budgets);
    TCase *runs = suite_case(suite, "runs");
    tcase_add_checked_fixture(runs, setup, teardown);
    tcase_add_test(runs, a_run_may_change_its_mind_about_budgets);
    tcase_add_test(runs, threads_do_not_change_a_bit);
    tcase_add_test(runs, lighthouse_must_be_off_before_the_model_is_used);
    tcase_add_test(runs, a_full_disk_leaves_the_last_good_checkpoint);
    tcase_add_test(runs, checkpoints_that_do_not_fit_are_refused);
    tcase_add_test(runs, bad_input_is_one_line);
    tcase_add_test(runs, a_rate_out_of_hand_is_a_divergence);
    tcase_add_test(runs, lighthouse_stays_off_once_it_is);
    tcase_add_test(runs, bf16_learns_and_resumes);
    tcase_add_test(runs, a_comparison_ends_with_its_table);
    return suite_run(suite);
}
