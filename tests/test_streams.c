/*
 * The program among files and streams that are not as it would like: output that does not arrive, descriptors that are
 * closed, inputs that would be written, names that a terminal would obey, no memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/program.h"
#include "tests/small_layer.h"
#include "tests/suite.h"

/* `line` by the shell, "$L" being the program; the exit status, and stderr (or what `line` left in "err"). */
static int shell(const char *line, char *err, size_t size)
{
    char command[1024];
    ck_assert_int_eq(setenv("L", getenv("LIGHTHOUSE"), 1), 0);
    ck_assert_int_lt(snprintf(command, sizeof command, "{ %s\n} 2>err", line), (int)sizeof command);
    const int status = system(command);
    ck_assert(WIFEXITED(status));
    err[read_bytes("err", err, size - 1)] = '\0';
    ck_assert_int_eq(remove("err"), 0);
    return WEXITSTATUS(status);
}

static void expect_line(const char *line, int wanted, const char *part)
{
    char err[4096];
    const int status = shell(line, err, sizeof err);
    ck_assert_msg(status == wanted, "%s: exit status %d, wanted %d: %s", line, status, wanted, err);
    const char *newline = strchr(err, '\n');
    ck_assert_msg(*part == '\0' ? *err == '\0' : newline && newline[1] == '\0' && strstr(err, part),
                  "%s: wanted one line with '%s', got: %s", line, part, err);
}

static const char *const talkers[] = {"--version",
                                      "--help",
                                      "run --help",
                                      "devices",
                                      "check trace",
                                      "verify --list",
                                      "verify --backend ref --case one-token",
                                      "explain"};
enum {
    TALKERS = sizeof talkers / sizeof *talkers
};

START_TEST(output_that_does_not_arrive)
{
    char line[256];
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    snprintf(line, sizeof line, "\"$L\" %s >/dev/full", talkers[_i]);
    expect_line(line, 2, "lighthouse: standard output cannot be written");
    snprintf(line, sizeof line, "\"$L\" %s >&-", talkers[_i]);
    expect_line(line, 2, "standard output cannot be written");
    snprintf(line, sizeof line, "\"$L\" %s >/dev/null", talkers[_i]);
    expect_line(line, 0, "");
}
END_TEST

/* A reader that has gone is no reason for a line; what wrote for it ends by SIGPIPE, or with 2 where that is ignored. */
START_TEST(reader_that_left)
{
    expect_line("(\"$L\" verify --list; echo $? >status) | true", 0, "");
    expect_line("(trap '' PIPE; sleep 0.1; \"$L\" verify --list; echo $? >status) | true", 0, "");
    char status[8] = "";
    read_bytes("status", status, sizeof status - 1);
    ck_assert_str_eq(status, "2\n");
}
END_TEST

/* What is opened first does not become standard output or the place of complaints. */
START_TEST(closed_descriptors)
{
    char err[256];
    write_small("in", NONE);
    expect_line("\"$L\" run in out >&-", 0, "");
    expect_line("\"$L\" run in plain", 0, "");
    ck_assert_int_eq(shell("\"$L\" run --verbose in out <&- >&- 2>&-", err, sizeof err), 0);
    ck_assert_int_eq(shell("cmp plain out", err, sizeof err), 0);
    ck_assert_int_eq(shell("\"$L\" run absent out <&- >&- 2>&-", err, sizeof err), 2);
    ck_assert_int_eq(shell("cmp plain out", err, sizeof err), 0);
}
END_TEST

static const struct {
    const char *prepare, *line;
} aliases[] = {
    {"cp in x", "run in x --index x"},
    {"cp in x", "run x x"},
    {"cp in x && ln x y", "run x y"},
    {"cp in x && ln -s x y", "run x y"},
    {"cp in x && ln -s x y", "run y x"},
    {"cp in x && mkdir d && cp in d/t", "run d/t d/../d/t; rm -r d"},
    {"cp trace x", "check --json x x"},
    {"cp trace x && ln x y", "check --json y x"},
    {"cp trace x && ln -s x y", "check --json y x"},
    {"cp in x", "explain --svg x x"},
    {"cp trace x", "run --scores x in x"},
    {"cp trace x && ln x y", "run --scores y in x"},
    {"cp trace x && ln x y", "run --index x in y"},
    {"cp trace x && ln x y", "check --junit y x"},
    {"cp trace x && ln x y", "check --sarif ./y x"},
    {"mkdir -p d/upstream && cp in d/upstream/u01.safetensors && ln d/upstream/u01.safetensors x",
     "verify --backend ref --case u01 --json x; rm -r d"},
};
enum {
    ALIASES = sizeof aliases / sizeof *aliases
};

START_TEST(files_that_are_read)
{
    char line[256], err[512];
    ck_assert_int_eq(setenv("LIGHTHOUSE_DATA", "d", 1), 0);
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    ck_assert_int_eq(shell(aliases[_i].prepare, err, sizeof err), 0);
    ck_assert_int_eq(shell("test -e x || cp d/t x; cp x kept", err, sizeof err), 0);
    snprintf(line, sizeof line, "\"$L\" %s", aliases[_i].line);
    shell(line, err, sizeof err);
    ck_assert_msg(strstr(err, "which is read, wanted another file"), "%s: %s", line, err);
    ck_assert_int_eq(shell("cmp kept x", err, sizeof err), 0);
}
END_TEST

/* Two results do not fit into one file. */
START_TEST(outputs_given_twice)
{
    static const char *const lines[] = {"check --json x --junit x trace", "check --json x --sarif ./x trace",
                                        "check --junit here --sarif there trace"};
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    write_bytes("here", "old", 3);
    ck_assert_int_eq(link("here", "there"), 0);
    program_refused(lines[_i], "twice, wanted a file for each");
    ck_assert_int_ne(access("x", F_OK), 0);
}
END_TEST

START_TEST(link_to_nothing)
{
    write_small("in", NONE);
    ck_assert_int_eq(symlink("nowhere", "out"), 0);
    expect_line("\"$L\" run in out", 2, "out is a link to nothing, wanted a regular file or none");
    ck_assert_int_ne(access("nowhere", F_OK), 0);
}
END_TEST

START_TEST(not_regular_files)
{
    write_small("in", NONE);
    ck_assert_int_eq(mkfifo("fifo", 0600), 0);
    expect_line("\"$L\" run fifo out", 2, "fifo is not a regular file, wanted a file of tensors");
    expect_line("\"$L\" run --index fifo in out", 2, "fifo is not a regular file, wanted a file of tensors");
    expect_line("\"$L\" check fifo", 2, "fifo is not a regular file, wanted a file of tensors");
    expect_line("\"$L\" run in fifo", 2, "fifo is not a regular file, wanted one or none");
    expect_line("\"$L\" run '' out", 2, "path is empty, wanted a file of tensors");
    expect_line("\"$L\" run in ''", 2, "output path is empty");
    expect_line("\"$L\" verify --backend ref --case one-token --json ''", 2, "output path is empty");
    expect_line("\"$L\" run . out", 2, ". is not a regular file, wanted a file of tensors");
}
END_TEST

/* A file's names reach the terminal as one line of characters. */
START_TEST(names_that_terminals_obey)
{
    lh_error error;
    program_result result;
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    lh_file *file = read_whole("trace");
    lh_file_entry entries[LH_TENSOR_COUNT + 1];
    int count = 0;
    for (; count < lh_file_count(file); count++)
        entries[count] = (lh_file_entry){lh_file_name(file, count), *lh_file_tensor(file, count)};
    entries[count++] = (lh_file_entry){"\x1b[2Jx\nall right\xc2\x9b\xe2\x80\xae", *lh_file_find(file, "lse")};
    ck_assert_int_eq(lh_file_write("dump", entries, count, &(lh_file_meta){"levels", "3"}, 1, &error), LH_OK);
    program_run(&result, "check --pool 2 --topk 8 --tile-topk 4 dump");
    ck_assert_msg(strstr(result.out, "tensor '?[2Jx?all right\x3f\x3f' is none of the trace's"), "%s",
                  result.out);
    ck_assert_ptr_null(strchr(result.out, 0x1b));
    ck_assert_ptr_null(strstr(result.out, "\nall right\xc2"));
    lh_file_free(file);
}
END_TEST

/* What complaints quote of the arguments, argp's own and getopt's too. */
START_TEST(arguments_that_terminals_obey)
{
    static const char *const arguments[] = {"--levels=", "--", "--backend=", "--fo", "--dtype="};
    char err[1200];
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++) {
        char command[200];
        snprintf(command, sizeof command, "\"$L\" run \"$(printf %%b '%s\\033[2Jx\\nall right')\" a b",
                 arguments[i]);
        ck_assert_int_eq(shell(command, err, sizeof err), 2);
        ck_assert_msg(strstr(err, "?[2Jx?all right") && strchr(err, '\n') == err + strlen(err) - 1,
                      "%s: wanted one line, got: %s", arguments[i], err);
    }
    expect_line("\"$L\" run --levels=$(head -c 60000 /dev/zero | tr '\\0' x) a b 2>long; test $? -eq 2 && "
                "test $(wc -l <long) -eq 1 && grep -q 'wanted an integer' long",
                0, "");
}
END_TEST

/* A file's own name in a report that is UTF-8. */
START_TEST(names_that_are_no_text)
{
    char err[256];
    write_small("in", NONE);
    ck_assert_int_eq(shell("mv in \"$(printf 'caf\\351.st')\"", err, sizeof err), 0);
    expect_line(
        "\"$L\" check --require out --json j --junit u --sarif s caf*; test $? -eq 1 && grep -q 'caf?.st' s",
        0, "");
}
END_TEST

START_TEST(lines_are_text)
{
    static const struct {
        const char *from, *to;
    } lines[] = {
        {"plain", "plain"},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"a\tb\nc\x1b"
         "d\x7f",
         "a?b?c?d?"},
        {"\xc2\x9b"
         "2J",
         "?2J"},
        {"caf\xe9.x", "caf?.x"},
        {"cut\xe2\x82", "cut"},
        {"cut\xf0", "cut"},
        {"cut\xe2\x82' more", "cut?' more"},
        {"\xc0\xaf \xed\xa0\x80 \xf5", "?? ??? "},
        {"\xe2\x80\xae"
         "gpj.exe",
         "?gpj.exe"},
        {"\x80\x80", "??"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", lines[i].from);
        ck_assert_msg(strcmp(lh_clean(text), lines[i].to) == 0, "%s became %s", lines[i].from, text);
    }
    /* An error of many bytes ends between characters. */
    lh_error error;
    char name[1200] = "";
    for (int i = 0; i < 300; i++)
        strcat(name, "\xe2\x82\xac");
    for (int i = 0; i < 3; i++) {
        lh_fail(&error, LH_INVALID, "%.*s%s", i, "abc", name);
        const size_t length = strlen(error.text);
        ck_assert_int_eq((int)(length - (size_t)i) % 3, 0);
    }
}
END_TEST

#ifdef LITTLE_MEMORY
/* Addresses for the program and not for what only some commands load. */
START_TEST(little_memory)
{
    expect_line("ulimit -v 300000; \"$L\" --version >/dev/null", 0, "");
    expect_line("ulimit -v 300000; \"$L\" devices >/dev/null", 0, "");
}
END_TEST

/* Threads with stacks that hold next to nothing; where openmp was not built there are none. */
START_TEST(small_stacks)
{
    write_small("in", NONE);
    expect_line("OMP_STACKSIZE=32k OMP_NUM_THREADS=16 \"$L\" run --backend openmp in out 2>said || "
                "{ test $? -eq 77 && grep -q 'not built' said; }",
                0, "");
}
END_TEST

/* Every command where the stack is 64 KiB. */
START_TEST(a_small_stack)
{
    static const char *const lines[] = {"check trace >said", "check --sample 4 trace >said",
                                        "verify --backend ref --case one-token >said", "run in out",
                                        "explain >said"};
    char line[256];
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
    snprintf(line, sizeof line, "ulimit -s 64; \"$L\" %s", lines[_i]);
    expect_line(line, 0, "");
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("streams");
    TCase *tests = suite_case(suite, "streams");
    tcase_add_checked_fixture(tests, program_start, program_finish);
    tcase_add_loop_test(tests, output_that_does_not_arrive, 0, TALKERS);
    tcase_add_test(tests, reader_that_left);
    tcase_add_test(tests, closed_descriptors);
    tcase_add_loop_test(tests, files_that_are_read, 0, ALIASES);
    tcase_add_loop_test(tests, outputs_given_twice, 0, 3);
    tcase_add_test(tests, link_to_nothing);
    tcase_add_test(tests, not_regular_files);
    tcase_add_test(tests, names_that_terminals_obey);
    tcase_add_test(tests, arguments_that_terminals_obey);
    tcase_add_test(tests, names_that_are_no_text);
    tcase_add_test(tests, lines_are_text);
#ifdef LITTLE_MEMORY
    tcase_add_test(tests, little_memory);
    tcase_add_test(tests, small_stacks);
    tcase_add_loop_test(tests, a_small_stack, 0, 5);
#endif
    return suite_run(suite);
}
