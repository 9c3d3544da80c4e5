/* The command as its users meet it: arguments, bad input, files. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/program.h"
#include "tests/small_layer.h"
#include "tests/suite.h"

/* `--help` and each command that it lists. */
START_TEST(help_and_version)
{
    program_result result, detail;
    program_run(&result, "--version");
    ck_assert_int_eq(result.status, 0);
    ck_assert_str_eq(result.out, "lighthouse " LH_VERSION "\n");
    program_run(&result, "--help");
    ck_assert_int_eq(result.status, 0);
    int commands = 0;
    char name[32], words[64];
    for (const char *line = strstr(result.out, "Commands:\n") + 9; sscanf(line, "\n  %31[a-z] ", name) == 1;
         line = strchr(line + 1, '\n')) {
        commands++;
        snprintf(words, sizeof words, "%s --help", name);
        program_run(&detail, words);
        ck_assert_int_eq(detail.status, 0);
        ck_assert_str_eq(detail.err, "");
        ck_assert_msg(strstr(detail.out, "Example"), "%s has no example", words);
        ck_assert_msg(strstr(detail.out, "xit status"), "%s names no exit status", words);
        for (const char *flag = detail.out; (flag = strstr(flag, "\n  -")); flag += 4)
            ck_assert_msg(isalnum((unsigned char)flag[4]) || flag[4] == '?', "%s: short option -%c", words,
                          flag[4]);
        ck_assert_msg(strstr(detail.out, name), "%s does not name it", words);
    }
    ck_assert_int_ge(commands, 3);
}
END_TEST

START_TEST(devices_lists_every_backend)
{
    static const char *const backends[] = {"ref\n", "openmp\n", "opencl\n", "cuda\n"};
    program_result result;
    program_run(&result, "devices");
    ck_assert_int_eq(result.status, 0);
    ck_assert_str_eq(result.err, "");
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        ck_assert_ptr_nonnull(strstr(result.out, backends[i]));
    ck_assert_ptr_nonnull(strstr(result.out, "    0: scalar reference, 1 compute unit, "));
    ck_assert_ptr_null(strstr(result.out, ", 0 B\n"));
}
END_TEST

/* A backend that has no device here is neither success nor bad usage. */
START_TEST(no_device_is_77)
{
    program_result result;
    int count;
    write_small("in", NONE);
    program_run(&result, "run --backend cuda in out");
    ck_assert_int_eq(result.status, lh_device_count("cuda", &count, NULL) == LH_OK ? 0 : 77);
    ck_assert_int_eq(program_files(), result.status == 0 ? 2 : 1);
}
END_TEST

static const struct {
    const char *words, *parts;
} bad_usage[] = {
    {"", "command is missing|lighthouse --help"},
    {"rum", "'rum'|did you mean 'run'"},
    {"frobnicate", "'frobnicate'|lighthouse --help"},
    {"run", "IN.safetensors is missing"},
    {"run in", "OUT.safetensors is missing"},
    {"run in out third", "'third'|wanted IN.safetensors and OUT.safetensors"},
    {"run --frobnicate in out", "--frobnicate"},
    {"run --levels", "--levels"},
    {"run --t in out", "--t"},
    {"run --levels three in out", "--levels|'three'|integer"},
    {"run --levels 99999999999999999999 in out", "--levels|99999999999999999999|integer"},
    {"run --levels 0 in out", "--levels|0|at least 1"},
    {"run --levels 7 in out", "tokens is 48|2^6"},
    {"run --pool 1 in out", "pool is 1|at least 2"},
    {"run --topk 6 in out", "topk is 6|multiple of tile_topk 4"},
    {"run --tile-topk 3 --topk 6 in out", "tile_topk is 3|even"},
    {"run --topk 16 in out", "tile_topk is 4|at most|3"},
    {"run --kv-heads 2 in out", "kv_heads is 2|--kv-heads|wanted 1"},
    {"run --dense --levels 3 in out", "--levels is 3|--dense"},
    {"run --backend abacus in out", "backend is 'abacus'|ref, openmp, opencl or cuda"},
    {"run --device 7 in out", "device is 7|0"},
    {"run --device -1 in out", "--device is -1|wanted"},
    {"run --dtype i32 in out", "--dtype is 'i32'|f32, f64, bf16 or f16"},
    {"run absent out", "absent|No such file"},
    {"run in in", "output is in, which is read|wanted another file"},
    {"run in .", ".|regular file"},
    {"run in absent/out", "absent|No such file"},
    {"run --index in in out", "index is absent"},
    {"run --index absent in out", "absent|No such file"},
    {"bench extra", "'extra'|options only"},
    {"bench --tokens 64,x", "--tokens|'x'|integer"},
    {"bench --tokens 100", "tokens is 100|4^2"},
    {"bench --topk 130", "topk is 130|tile_topk 128"},
    {"bench --seconds 0", "--seconds is 0|more than 0"},
    {"bench --backend abacus", "backend is 'abacus'|ref, openmp, opencl or cuda"},
    {"bench --json absent/file", "absent|No such file"},
    {"devices extra", "'extra'|wanted none"},
    {"verify --case nosuch", "--case is 'nosuch'|wanted|--list"},
    {"verify --list --case nosuch", "--case is 'nosuch'|wanted|--list"},
};

START_TEST(bad_usage_is_one_line)
{
    write_small("in", NONE);
    program_refused(bad_usage[_i].words, bad_usage[_i].parts);
}
END_TEST

static const struct {
    enum fault fault;
    const char *words, *parts;
} bad_input[] = {
    {NAN_IN_Q, "run in out", "q[1,0,47,2]|NaN"},
    {NAN_IN_Q, "run --trace in out", "q[1,0,47,2]|NaN"},
    {NAN_IN_Q, "run --dtype f32 in out", "q[1,0,47,2]|NaN"},
    {INF_IN_DOUT, "run in out", "dout[0,1,5,0]|-Inf"},
    {INTEGER_Q, "run in out", "q is I32|F64"},
    {WIDE_K, "run in out", "k has shape [2,1,48,4]|wanted [2,G,48,3]"},
    {SHORT_V, "run in out", "v has shape [2,1,47,3]|wanted [2,1,48,3]"},
    {RANK_3_Q, "run in out", "q has shape [2,2,48]|[B,H,N,d]"},
    {HUGE_V, "run --dtype f32 in out", "v[0,0,7,1]|Inf|as F32"},
    {NO_V, "run in out", "v is absent"},
    {WORD_FOR_LEVELS, "run in out", "levels is 'three'|integer"},
    {GLA_SCORER, "run in out", "scorer is 'gla'|norm"},
    {KV_HEADS_SAID_2, "run in out", "kv_heads is 2|__metadata__|wanted 1"},
    {NO_METADATA, "run in out", "levels|__metadata__|--levels"},
    {NO_METADATA, "run --levels 3 --pool 2 in out", "topk|__metadata__|--topk"},
};

START_TEST(bad_input_is_one_line)
{
    write_small("in", bad_input[_i].fault);
    program_refused(bad_input[_i].words, bad_input[_i].parts);
}
END_TEST

START_TEST(malformed_file_is_one_line)
{
    struct stat whole;
    write_small("in", NONE);
    ck_assert_int_eq(stat("in", &whole), 0);
    ck_assert_int_eq(truncate("in", whole.st_size - 1), 0);
    program_refused("run in out", "in");
    write_bytes("in", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    program_refused("run in out", "in");
    write_bytes("in", "", 0);
    program_refused("run in out", "in");
}
END_TEST

START_TEST(full_disk_leaves_nothing)
{
    program_result result;
    write_small("in", NONE);
    const int files = program_files();
    program_run_limited(&result, "run --trace in out", 4096);
    program_check_refused(&result, "run under a file size limit", "out", files);
    /* An older result survives. */
    write_bytes("out", "old", 3);
    program_run_limited(&result, "run --trace in out", 4096);
    program_check_refused(&result, "run under a file size limit", "out", files + 1);
    struct stat old;
    ck_assert_int_eq(stat("out", &old), 0);
    ck_assert_int_eq(old.st_size, 3);
}
END_TEST

START_TEST(unwritable_folder_is_named)
{
    write_small("in", NONE);
    if (geteuid() == 0) { /* permissions do not hold root back, procfs does */
        program_refused("run in /proc/out", "/proc");
        return;
    }
    ck_assert_int_eq(mkdir("locked", 0555), 0);
    program_refused("run in locked/out", "locked|Permission denied");
    ck_assert_int_eq(rmdir("locked"), 0);
}
END_TEST

/* What a wrong index says of itself; position of the damage, entry put there. */
static const struct {
    int64_t at, entry;
    const char *parts;
} bad_index[] = {
    {0, 999, "index[0,0,0] is 999|0 to 83"},
    {3, -1, "index[0,0,3] is -1|0 to 83"},
    {0, 83, "index[0,0,0] is 83"},
};

START_TEST(damaged_index_is_refused)
{
    lh_error error;
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    lh_file *trace = read_whole("trace");
    lh_file_entry entry = {"index", *lh_file_find(trace, "index")};
    int32_t *index = entry.tensor.data;
    if (_i < 3)
        index[bad_index[_i].at] = (int32_t)bad_index[_i].entry;
    else
        index[2] = index[1]; /* not ascending */
    ck_assert_int_eq(lh_file_write("index", &entry, 1, NULL, 0, &error), LH_OK);
    lh_file_free(trace);
    program_refused("run --index index in out", _i < 3 ? bad_index[_i].parts : "index[0,0,2]");
    program_refused("run --index index --topk 4 in out", "index has shape [2,2,44]|wanted [2,2,28]");
}
END_TEST

/* Every build has it, and says by name what has nothing to tune. */
/* Attention that a backend does not have is skipped with the reason, and nothing of it counts as failed or as compared. */
START_TEST(attention_not_taken_is_skipped)
{
    program_result result;
    program_run(&result, "verify --backend ref --attention cudnn --case hand-ties");
    ck_assert_int_eq(result.status, 0);
    ck_assert_str_eq(result.err, "");
    ck_assert_msg(strstr(result.out, "F32: skipped: attention is cudnn"), "%s", result.out);
    ck_assert_msg(strstr(result.out, " 0 failed") && strstr(result.out, "8 plans skipped"), "%s", result.out);
}
END_TEST

START_TEST(tune_refuses)
{
    program_refused("tune --backend ref", "backend ref has nothing to tune|wanted ");
    program_refused("tune --backend nosuch", "'nosuch'|wanted ref");
    program_refused("tune --seconds 0", "--seconds|0|more than 0");
    program_refused("tune --tokens 0", "--tokens|0|at least 1");
    program_refused("tune here", "'here'|wanted none");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli");
    TCase *tests = suite_case(suite, "cli");
    tcase_add_checked_fixture(tests, program_start, program_finish);
    tcase_add_test(tests, help_and_version);
    tcase_add_test(tests, devices_lists_every_backend);
    tcase_add_test(tests, no_device_is_77);
    tcase_add_loop_test(tests, bad_usage_is_one_line, 0, sizeof bad_usage / sizeof *bad_usage);
    tcase_add_loop_test(tests, bad_input_is_one_line, 0, sizeof bad_input / sizeof *bad_input);
    tcase_add_test(tests, attention_not_taken_is_skipped);
    tcase_add_test(tests, tune_refuses);
    tcase_add_test(tests, malformed_file_is_one_line);
    tcase_add_test(tests, full_disk_leaves_nothing);
    tcase_add_test(tests, unwritable_folder_is_named);
    tcase_add_loop_test(tests, damaged_index_is_refused, 0, 4);
    return suite_run(suite);
}
