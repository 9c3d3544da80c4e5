/*
 * The program with one allocation failing, whoever asked for it: ours, jansson's, argp's, the OpenMP runtime's; on a device
 * with memory of its own ours and jansson's alone. It ends
 * with its results, the very same, or with exit status 2 and one line and no file. Argument 1 is the backend; those after
 * it are the built fail_allocation.so and what else a test needs: see meson.build.
 *
 * ALLOCATIONS_EVERY: which allocations fail, every so many-th (else each a third later than the last);
 * ALLOCATIONS_MOST: the last (2,000); ALLOCATIONS_UNDER: a command to run the program under (valgrind), its words
 * separated by spaces; ALLOCATIONS_ONLY: rows that begin so.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/layer.h"
#include "tests/program.h"
#include "tests/small_layer.h"
#include "tests/suite.h"

enum {
    MOST = 2000,
    WORDS = 40,
    TEXT = 1 << 16
};

enum {
    ANY_BACKEND = 1, /* the backend has no part in it */
    MAY_DIFFER = 2,  /* seconds in what it prints, drivers that are not found */
    LIBRARIES = 8,   /* all that it allocates is libraries' own */
    SLOW = 4         /* by name alone, or with ALLOCATIONS_EVERY */
};

static const struct row {
    const char *line; /* @ is the backend */
    const char *file; /* what it writes, where that is the same every time */
    int leaves;       /* files that may be there at exit status 2: whole reports, a training's folder */
    unsigned how;
} rows[] = {
    {"run --backend @ in out", "out", 0, 0},
    {"run --backend @ --trace --index trace in out", "out", 0, 0},
    {"verify --backend @ --case one-token --json v", NULL, 0, MAY_DIFFER},
    {"check --json v --junit j --sarif s trace", "v", 2, ANY_BACKEND},
    {"check --sample 8 --json v trace", "v", 0, ANY_BACKEND},
    {"explain --svg s in", "s", 0, ANY_BACKEND},
    {"vectors out", "out", 0, ANY_BACKEND},
    {"bench --backend @ --tokens 64 --dim 8 --heads 1 --seconds 0.001 --json b", NULL, 0, MAY_DIFFER | SLOW},
#ifdef HAVE_TRAIN
    {"train --config t.ini --backend @ --quiet r", NULL, 1, MAY_DIFFER},
    {"plan --config t.ini --context 4096 --no-measure --on h200", NULL, 0, ANY_BACKEND | LIBRARIES},
#endif
};
enum {
    ROWS = sizeof rows / sizeof *rows
};

static const char *backend, *shim;

static int from_environment(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

/* ---- one run ------------------------------------------------------------------------------------ */

struct outcome {
    int status;  /* 1000 and the signal where one ended it */
    bool failed; /* the allocation was reached */
    size_t said, wrote;
    char out[TEXT], err[TEXT], file[TEXT];
};

static void add_words(char **argv, int *argc, char *text)
{
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        ck_assert_int_lt(*argc, WORDS);
        argv[(*argc)++] = strcmp(word, "@") == 0 ? (char *)backend : word;
    }
}

/* In the child: the program in the folder "here", its allocation `number` failing. */
static void become(const struct row *row, int number, const int streams[3])
{
    char under[256], line[256], text[32], *argv[WORDS + 2] = {0};
    int argc = 0;
    snprintf(under, sizeof under, "%s", getenv("ALLOCATIONS_UNDER") ? getenv("ALLOCATIONS_UNDER") : "");
    snprintf(line, sizeof line, "%s", row->line);
    add_words(argv, &argc, under);
    argv[argc++] = getenv("LIGHTHOUSE");
    add_words(argv, &argc, line);
    snprintf(text, sizeof text, "%d", number);
    if (dup2(streams[0], STDOUT_FILENO) < 0 || dup2(streams[1], STDERR_FILENO) < 0 ||
        dup2(streams[2], 9) < 0 || setenv("FAIL_ALLOCATION", text, 1) != 0 ||
        setenv("FAIL_ALLOCATION_TOLD", "9", 1) != 0 || setenv("LD_PRELOAD", shim, 1) != 0)
        _exit(99);
    alarm(300); /* a hang ends by SIGALRM */
    execvp(argv[0], argv);
    _exit(98);
}

static size_t read_back(FILE *file, char *text)
{
    rewind(file);
    const size_t size = fread(text, 1, TEXT - 1, file);
    text[size] = '\0';
    fclose(file);
    return size;
}

static void run(const struct row *row, int number, struct outcome *o)
{
    FILE *streams[3];
    int descriptors[3], status;
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_nonnull(streams[i] = tmpfile());
        descriptors[i] = fileno(streams[i]);
    }
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        become(row, number, descriptors);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    o->status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    o->said = read_back(streams[0], o->out);
    read_back(streams[1], o->err);
    o->failed = read_back(streams[2], o->file) > 0;
    o->wrote = row->file && access(row->file, F_OK) == 0 ? read_bytes(row->file, o->file, TEXT) : 0;
}

/* ---- what is wanted ----------------------------------------------------------------------------- */

static const char *const inputs[] = {"in", "trace", "t.ini", "text"};

/* Removes what a run wrote; how many files it was. */
static int sweep(void)
{
    int files = program_files();
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        files -= access(inputs[i], F_OK) == 0;
    ck_assert_int_eq(system("rm -rf out v j s b r .lighthouse*"), 0);
    return files;
}

/* One line, or what a runtime says that ends the process: OpenMP's begins with an empty line, Fortran's has two. */
static bool is_one_line(const char *text)
{
    static const char fortran[] = "Operating system error: Cannot allocate memory\n";
    text += *text == '\n';
    if (strncmp(text, fortran, sizeof fortran - 1) == 0)
        text += sizeof fortran - 1;
    const char *newline = strchr(text, '\n');
    return newline && newline > text && newline[1] == '\0';
}

static void judge(const struct row *row, int number, const struct outcome *plain, const struct outcome *o)
{
    const int files = sweep();
    ck_assert_msg(o->status == 0 || o->status == 2, "allocation %d of '%s': exit status %d: %s", number,
                  row->line, o->status, o->err);
    if (o->status == 2) {
        ck_assert_msg(is_one_line(o->err), "allocation %d of '%s': wanted one line, got: %s", number,
                      row->line, o->err);
        ck_assert_msg(files <= row->leaves, "allocation %d of '%s': %d files are left", number, row->line,
                      files);
        return;
    }
    ck_assert_msg((row->how & MAY_DIFFER) ||
                      (o->said == plain->said && memcmp(o->out, plain->out, o->said) == 0),
                  "allocation %d of '%s': prints other text: %s", number, row->line, o->out);
    ck_assert_msg(o->wrote == plain->wrote && memcmp(o->file, plain->file, o->wrote) == 0,
                  "allocation %d of '%s': writes another %s", number, row->line, row->file);
}

START_TEST(one_fails)
{
    static struct outcome plain, o;
    const struct row *row = &rows[_i];
    const char *only = getenv("ALLOCATIONS_ONLY");
    const int every = from_environment("ALLOCATIONS_EVERY", 0),
              most = from_environment("ALLOCATIONS_MOST", MOST);
    int runs = 0, ended = 0;
    if (((row->how & ANY_BACKEND) && strcmp(backend, "ref") != 0) ||
        ((row->how & SLOW) && every == 0 && !only) || (only && strncmp(row->line, only, strlen(only)) != 0))
        return;
    run(row, 0, &plain);
    sweep();
    ck_assert_msg(plain.status == 0 && !plain.failed, "'%s': exit status %d: %s", row->line, plain.status,
                  plain.err);
    for (int number = 1; number <= most; number += every > 0 ? every : 1 + (number + _i) / 3) {
        run(row, number, &o);
        if (!o.failed)
            break;
        judge(row, number, &plain, &o);
        runs++;
        ended += o.status == 2;
    }
    sweep();
    ck_assert((runs > 0) != ((row->how & LIBRARIES) && getenv("FAIL_ALLOCATION_OWN")));
    printf("%s: %d allocations failed one at a time; %d runs ended with a line, %d had what they needed\n",
           row->line, runs, ended, runs - ended);
}
END_TEST

static void setup(void)
{
    static const char settings[] =
        "[model]\nwidth=16\nlayers=1\nheads=2\nkv-heads=1\ndim=8\nhidden=24\n"
        "[attention]\ntopk=8\ntile-topk=4\n[data]\ncontext=64\ntext=text\n"
        "[recipe]\nwarmup=1\nlighthouse-steps=1\ndense-steps=1\n"
        "[record]\ncheckpoint-every=1\nprobes=0\nheld-out-windows=1\nretrieval-trials=0\n";
    char words[4000];
    program_start();
    ck_assert_int_eq(setenv("OMP_WAIT_POLICY", "passive", 1), 0); /* and no second start of the program */
    ck_assert_int_eq(setenv("OMP_NUM_THREADS", "2", 1), 0);
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = (char)('a' + i % 7 * (i / 50 % 3));
    write_bytes("text", words, sizeof words);
    write_bytes("t.ini", settings, sizeof settings - 1);
    write_small("in", NONE);
    program_succeeds("run --trace in trace");
}

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    shim = argc > 2 ? realpath(argv[2], NULL) : NULL; /* the program runs in a folder of its own */
    if (!shim)
        return 2;
    lh_capabilities can;
    lh_error error;
    int devices;
    if (lh_device_count(backend, &devices, &error) != LH_OK) {
        printf("SKIP: %s\n", error.text);
        return 77;
    }
    if (getenv("RUNTIME_LINKED_IN")) { /* its allocations cannot be told from the program's own */
        printf("SKIP: the runtime of %s is linked in, and ends a process that is refused memory\n", backend);
        return 77;
    }
    /* Most allocations are those of a device's driver, which promises nothing. */
    if (lh_backend_query(backend, &can, NULL) == LH_OK && can.device_memory)
        setenv("FAIL_ALLOCATION_OWN", "1", 1);
    snprintf(name, sizeof name, "allocations %s", backend);
    Suite *suite = suite_create(name);
    TCase *tests = suite_case(suite, "allocations");
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, setup, program_finish);
    tcase_add_loop_test(tests, one_fails, 0, ROWS);
    return suite_run(suite);
}
