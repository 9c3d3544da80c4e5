/* `lighthouse tune`: measures how attention is best tiled on a device, and keeps it for later plans. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "cli/cli.h"
#include "verify/verify.h"

static const char doc[] =
    "Measure how attention is best tiled on a device, and keep the result for every later plan.\v"
    "Every tiling that fits the device is timed, forward and backward, at head dimensions 64 and 128; the one with the "
    "least time over both is judged against the reference (the cases d64 and d128 of `lighthouse verify`) and then "
    "written to a file of $XDG_CONFIG_HOME/lighthouse (or ~/.config/lighthouse) under the device's name. Remove the file "
    "to be back at the committed tiles. The last line is the row of the source that would commit it.\n\n"
    "Examples:\n\n"
    "  lighthouse tune                    the first backend here that has anything to tune\n"
    "  lighthouse tune --device 1 --tokens 16384 --dry-run\n\n" CLI_EXIT_STATUS_HELP;

enum {
    DEVICE = 1000,
    DRY_RUN,
    DIMS = 2
};

static const struct argp_option options[] = {
    {"backend", 'b', "NAME", 0, "backend (the first built here that has anything to tune)", 1},
    {"device", DEVICE, "N", 0, "device, as `lighthouse devices` numbers them (0)", 1},
    {"tokens", 'n', "N", 0, "tokens attended over (2048 on CPUs, 16384 on GPUs)", 1},
    {"heads", 'H', "H", 0, "query heads (4)", 1},
    {"seconds", 's', "S", 0, "repeat each pass for this long (0.3)", 1},
    {"dry-run", DRY_RUN, NULL, 0, "measure and judge, write nothing", 1},
    {0},
};

struct tune {
    const char *backend;
    const lh_tuner *tuner;
    int device;
    int64_t tokens, heads;
    double seconds;
    bool dry_run;
    lh_tiles best;
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct tune *t = state->input;
    switch (key) {
    case 'b':
        t->backend = argument;
        break;
    case DEVICE:
        t->device = cli_device(state, argument);
        break;
    case 'n':
        t->tokens = cli_positive(state, "--tokens", argument);
        break;
    case 'H':
        t->heads = cli_positive(state, "--heads", argument);
        break;
    case 's':
        t->seconds = cli_number(state, "--seconds", argument);
        if (t->seconds <= 0)
            argp_error(state, "--seconds is %s, wanted more than 0", argument);
        break;
    case DRY_RUN:
        t->dry_run = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "argument is '%s', wanted none", argument);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* "opencl or cuda": the backends built here that have a tuner. */
static const char *tuned_names(char *text, size_t size)
{
    lh_known_backend known;
    text[0] = '\0';
    for (int i = 0; lh_backend_known(i, &known); i++) {
        const size_t used = strlen(text);
        if (known.row && known.row->tuner)
            snprintf(text + used, size - used, "%s%s", used ? " or " : "", known.name);
    }
    return text;
}

/* The named backend, or the first that has a tuner, and its device. */
static lh_status find_tuner(struct tune *t, lh_error *error)
{
    char names[128];
    lh_known_backend known;
    const lh_backend *row;
    tuned_names(names, sizeof names);
    for (int i = 0; !t->backend && lh_backend_known(i, &known); i++) {
        if (known.row && known.row->tuner)
            t->backend = known.name;
    }
    if (!t->backend)
        return lh_fail(error, LH_NO_DEVICE, "no backend built here has anything to tune");
    lh_status status = cli_backend_check(t->backend, t->device, error);
    if (status == LH_OK)
        status = lh_backend_find(t->backend, t->device, &row, error);
    if (status != LH_OK)
        return status;
    t->tuner = row->tuner;
    return t->tuner ? LH_OK
                    : lh_fail(error, LH_INVALID, "backend %s has nothing to tune, wanted %s", t->backend,
                              names[0] ? names : "one that has, of which none is built here");
}

/* Seconds of one pass at each dimension with the tiles in t->best. */
static lh_status time_pass(const struct tune *t, bench_pass pass, double seconds[DIMS], lh_error *error)
{
    static const int64_t dims[DIMS] = {64, 128};
    lh_status status = LH_OK;
    for (int i = 0; i < DIMS && status == LH_OK; i++) {
        bench_point point;
        bench_request request = {
            .backend = t->backend,
            .device = t->device,
            .dtype = LH_F32,
            .config = {1, t->heads, t->heads, t->tokens, dims[i], 1, 2, 0, 0},
            .dense = true,
            .forward_only = pass == BENCH_FORWARD,
            .patience = 60,
            .tiles = &t->best,
        };
        status = bench_measure(&request, &point, error); /* drivers compile at the first launch */
        request.seconds = t->seconds;
        if (status == LH_OK)
            status = bench_measure(&request, &point, error);
        seconds[i] = point.pass[pass].least;
    }
    return status;
}

static const char *numbers_text(const lh_tuner *tuner, const lh_tiling *tiling, char text[96])
{
    text[0] = '\0';
    for (int i = 0; i < tuner->numbers; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, 96 - used, "%s%d", i ? "," : "", tiling->number[i]);
    }
    return text;
}

/* Times every candidate of one pass and leaves the best in t->best. */
static lh_status choose(struct tune *t, bench_pass pass, lh_error *error)
{
    lh_tiling tilings[LH_TILINGS], *own = pass == BENCH_BACKWARD ? &t->best.backward : &t->best.forward;
    int count, best = -1;
    const lh_status status = t->tuner->candidates(t->device, pass == BENCH_BACKWARD, tilings, &count, error);
    if (status != LH_OK)
        return status;
    const double operations =
        (pass == BENCH_BACKWARD ? 5.0 : 2.0) * (double)(t->tokens * t->tokens * t->heads);
    double least = 0;
    printf("\n%s: %-44s  d = 64     d = 128 GFLOP/s\n", pass == BENCH_BACKWARD ? "backward" : "forward ",
           t->tuner->columns);
    for (int i = 0; i < count; i++) {
        double seconds[DIMS] = {0};
        lh_error refused = {LH_OK, ""};
        char text[96];
        *own = tilings[i];
        const lh_status timed = time_pass(t, pass, seconds, &refused);
        printf("  %-50s", numbers_text(t->tuner, &tilings[i], text));
        if (timed == LH_OK)
            printf("%10.1f  %10.1f%s\n", operations * 64 / seconds[0] / 1e9,
                   operations * 128 / seconds[1] / 1e9, i == 0 ? "  (the committed tile)" : "");
        else
            printf(" refused: %s\n", refused.text);
        fflush(stdout);
        if (timed == LH_OK && (best < 0 || seconds[0] + seconds[1] < least)) {
            best = i;
            least = seconds[0] + seconds[1];
        }
    }
    if (best < 0)
        return lh_fail(error, LH_DEVICE, "no tiling runs on device %d of backend %s, wanted one at least",
                       t->device, t->backend);
    *own = tilings[best];
    return LH_OK;
}

/* The cases of both dimensions under the chosen tiles. */
static lh_status judge(const struct tune *t, lh_error *error)
{
    static const char *const cases[DIMS] = {"d64", "d128"};
    lh_status status = LH_OK;
    for (int i = 0; i < DIMS && status == LH_OK; i++) {
        const verify_wish wish = {.backend = {t->backend},
                                  .backends = 1,
                                  .device = t->device,
                                  .pattern = cases[i],
                                  .attention = LH_ATTENTION_OWN,
                                  .tiles = &t->best};
        verify_report *report;
        status = verify_report_create(&wish, NULL, false, &report, error);
        if (status != LH_OK)
            return status;
        status = verify_run(&wish, report, error);
        if (status == LH_OK)
            status = verify_report_summary(report, error);
        if (status == LH_OK && verify_report_failures(report) > 0)
            status = lh_fail(
                error, LH_MISMATCH,
                "case %s is wrong with these tiles (%lld of %lld tensors), wanted all right: nothing was "
                "kept",
                cases[i], (long long)verify_report_failures(report),
                (long long)verify_report_tensors(report));
        verify_report_destroy(report);
    }
    return status;
}

int cli_tune(int argc, char **argv)
{
    const struct argp argp = {.options = options, .parser = parse_option, .doc = doc};
    struct tune t = {.heads = 4, .seconds = 0.3};
    char path[LH_TUNED_PATH], row[LH_TUNED_ROW];
    int64_t tokens;
    lh_device_info info;
    lh_error error;
    cli_parse(&argp, argc, argv, &t);
    lh_status status = find_tuner(&t, &error);
    if (status == LH_OK)
        status = lh_device_query(t.backend, t.device, &info, &error);
    if (status == LH_OK)
        status = t.tuner->committed(t.device, &t.best, &tokens, &error);
    if (status != LH_OK)
        return cli_fail(argv[0], &error);
    t.tokens = t.tokens ? t.tokens : tokens;
    printf("%s: causal attention over %lld tokens, %lld heads, float32\n", info.name, (long long)t.tokens,
           (long long)t.heads);
    for (bench_pass pass = BENCH_FORWARD; pass < BENCH_PASSES && status == LH_OK; pass++)
        status = choose(&t, pass, &error);
    if (status == LH_OK)
        status = judge(&t, &error);
    if (status == LH_OK && !t.dry_run)
        status = t.tuner->keep(t.device, &t.best, path, &error);
    if (status == LH_OK)
        status = t.tuner->row(t.device, &t.best, row, &error);
    if (status != LH_OK)
        return cli_fail(argv[0], &error);
    printf("\nAll right against the reference at d = 64 and 128.%s%s\n", t.dry_run ? "" : " Kept in ",
           t.dry_run ? "" : path);
    printf("Row of %s: %s\n", t.tuner->source, row);
    return CLI_DONE;
}
