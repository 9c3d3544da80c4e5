/* The `lighthouse` program: finds the subcommand and hands over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/openmp_environment.h"
#include "core/mode.h"

static const lh_command commands[] = {
    {"run", "run one layer over your own q, k, v and write every tensor you ask for", cli_run},
    {"bench", "time Lighthouse and dense attention as the number of tokens grows", cli_bench},
    {"verify", "judge every backend here against the reference, tensor by tensor", cli_verify},
    {"check", "judge another implementation's tensors and name the bug", cli_check},
    {"explain", "show what happens to a small input, step by step, as text and pictures", cli_explain},
    {"vectors", "write conformance vectors: cases with every tensor", cli_vectors},
    {"tune", "measure how attention is best tiled on a device", cli_tune},
    {"devices", "list the backends built here and their devices", cli_devices},
#ifdef LH_WITH_TRAIN
    {"train", "pre-train a small model: Lighthouse first, dense at the end", cli_train},
    {"plan", "what a training run will cost, over (levels, pool, topk), and which to take", cli_plan},
#endif
};

enum {
    COMMANDS = sizeof commands / sizeof *commands
};

static int help(void)
{
    printf(
        "Usage: lighthouse COMMAND [OPTION...]\n"
        "Lighthouse Attention (arXiv 2605.06554): a scalar reference and the ports verified against it.\n\n"
        "Commands:\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    printf("\n"
           "`lighthouse COMMAND --help` explains one of them, with an example.\n"
           "`lighthouse --version` prints the version.\n\n"
           "Exit status of every command:\n"
           "   0  done, or verified\n"
           "   1  a comparison failed\n"
           "   2  bad usage or bad input; one line on stderr names it, the value found and the value wanted\n"
           "  77  the backend has no device on this machine\n");
    return CLI_DONE;
}

/* Edits (insert, delete, replace, swap of neighbours) from one short word to another. */
static int edit_distance(const char *a, const char *b)
{
    enum {
        LONGEST = 32
    };
    const int n = (int)strlen(a), m = (int)strlen(b);
    if (n >= LONGEST || m >= LONGEST)
        return LONGEST;
    int d[LONGEST][LONGEST];
    for (int i = 0; i <= n; i++) {
        for (int j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

static int unknown(const char *word)
{
    lh_error error;
    const char *nearest = NULL;
    int least = 3; /* more than two edits away is another word */
    for (int i = 0; i < COMMANDS; i++) {
        const int distance = edit_distance(word, commands[i].name);
        if (distance < least) {
            least = distance;
            nearest = commands[i].name;
        }
    }
    if (nearest)
        lh_fail(&error, LH_INVALID, "command is '%.200s', did you mean '%s'?", word, nearest);
    else
        lh_fail(&error, LH_INVALID, "command is '%.200s', wanted one of those in 'lighthouse --help'", word);
    return cli_fail("lighthouse", &error);
}

int main(int argc, char **argv)
{
    lh_mode mode;
    lh_mode_begin(&mode); /* a library that was loaded may have set another; it is the program's for good */
    cli_guard_streams();
    if (argc < 2) {
        fprintf(stderr, "lighthouse: command is missing, wanted one of those in 'lighthouse --help'\n");
        return CLI_REFUSED;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-?") == 0 || strcmp(word, "-h") == 0 ||
        strcmp(word, "help") == 0)
        return help();
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        printf("lighthouse %s\n", lh_version());
        return CLI_DONE;
    }
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(word, commands[i].name) == 0) {
            openmp_environment(word, argv);
            char name[32];
            snprintf(name, sizeof name, "lighthouse %s", commands[i].name);
            argv[1] = name;
            return cli_leave(commands[i].run(argc - 1, argv + 1));
        }
    }
    return unknown(word);
}
