/* `lighthouse tune`: measures how attention is best tiled on an OpenCL device, and keeps it for later plans. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "cli/cli.h"
#include "opencl/opencl.h"
#include "verify/verify.h"

static const char doc[] =
    "Measure how attention is best tiled on an OpenCL device, and keep the result for every later plan.\v"
    "Every tiling that fits the device is timed, forward and backward, at head dimensions 64 and 128; the one with the "
    "least time over both is judged against the reference (the cases d64 and d128 of `lighthouse verify`) and then "
    "written to $XDG_CONFIG_HOME/lighthouse/opencl.json (or ~/.config/lighthouse/opencl.json) under the device's name. "
    "Remove the file to be back at the committed table. The last line is the row of opencl/tuning.c that would commit "
    "it.\n\n"
    "Examples:\n\n"
    "  lighthouse tune                    the first OpenCL device\n"
    "  lighthouse tune --device 1 --tokens 16384 --dry-run\n\n" CLI_EXIT_STATUS_HELP;

enum {
    DEVICE = 1000,
    DRY_RUN,
    DIMS = 2
};

static const struct argp_option options[] = {
    {"backend", 'b', "NAME", 0, "opencl (default): the only one with anything to tune", 1},
    {"device", DEVICE, "N", 0, "device, as `lighthouse devices` numbers them (0)", 1},
    {"tokens", 'n', "N", 0, "tokens attended over (2048 on CPUs, 16384 on GPUs)", 1},
    {"heads", 'H', "H", 0, "query heads (4)", 1},
    {"seconds", 's', "S", 0, "repeat each pass for this long (0.3)", 1},
    {"dry-run", DRY_RUN, NULL, 0, "measure and judge, write nothing", 1},
    {0},
};

struct tune {
    int device;
    int64_t tokens, heads;
    double seconds;
    bool dry_run;
    struct lh_cl_device found;
    struct lh_cl_tuning best;
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct tune *t = state->input;
    switch (key) {
    case 'b':
        if (strcmp(argument, "opencl") != 0)
            argp_error(state, "--backend is '%s', wanted opencl", argument);
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

/* Plans made from now on use these tiles. */
static void use(const struct lh_cl_tuning *tuning)
{
    const struct lh_cl_tile *f = &tuning->forward, *b = &tuning->backward;
    char text[128];
    snprintf(text, sizeof text, "%d,%d,%d,%d,%d/%d,%d,%d,%d,%d", f->rows, f->columns, f->row_block,
             f->column_block, f->chunk, b->rows, b->columns, b->row_block, b->column_block, b->chunk);
    setenv("LIGHTHOUSE_OPENCL_TILES", text, 1);
}

/* Seconds of one pass at each dimension with the tiles in use. */
static lh_status time_pass(const struct tune *t, bench_pass pass, double seconds[DIMS], lh_error *error)
{
    static const int64_t dims[DIMS] = {64, 128};
    lh_status status = LH_OK;
    for (int i = 0; i < DIMS && status == LH_OK; i++) {
        bench_point point;
        bench_request request = {
            .backend = "opencl",
            .device = t->device,
            .dtype = LH_F32,
            .config = {1, t->heads, t->heads, t->tokens, dims[i], 1, 2, 0, 0},
            .dense = true,
            .forward_only = pass == BENCH_FORWARD,
            .patience = 60,
        };
        status = bench_measure(&request, &point, error); /* drivers compile at the first launch */
        request.seconds = t->seconds;
        if (status == LH_OK)
            status = bench_measure(&request, &point, error);
        seconds[i] = point.pass[pass].least;
    }
    return status;
}

/* Times every candidate of one pass and leaves the best in t->best. */
static lh_status choose(struct tune *t, bench_pass pass, lh_error *error)
{
    struct lh_cl_tile tiles[LH_CL_CANDIDATES],
        *own = pass == BENCH_BACKWARD ? &t->best.backward : &t->best.forward;
    const int count = lh_cl_tuning_candidates(&t->found, pass == BENCH_BACKWARD, tiles);
    const double operations =
        (pass == BENCH_BACKWARD ? 5.0 : 2.0) * (double)(t->tokens * t->tokens * t->heads);
    double least = 0;
    int best = -1;
    printf("\n%s: rows,columns,row_block,column_block,chunk      d = 64     d = 128 GFLOP/s\n",
           pass == BENCH_BACKWARD ? "backward" : "forward ");
    for (int i = 0; i < count; i++) {
        double seconds[DIMS] = {0};
        lh_error refused = {LH_OK, ""};
        const struct lh_cl_tile *tile = &tiles[i];
        *own = *tile;
        use(&t->best);
        const lh_status status = time_pass(t, pass, seconds, &refused);
        printf("  %3d,%3d,%d,%d,%-2d %*s", tile->rows, tile->columns, tile->row_block, tile->column_block,
               tile->chunk, 30, "");
        if (status == LH_OK)
            printf("%10.1f  %10.1f%s\n", operations * 64 / seconds[0] / 1e9,
                   operations * 128 / seconds[1] / 1e9, i == 0 ? "  (the committed table's)" : "");
        else
            printf(" refused: %s\n", refused.text);
        fflush(stdout);
        if (status == LH_OK && (best < 0 || seconds[0] + seconds[1] < least)) {
            best = i;
            least = seconds[0] + seconds[1];
        }
    }
    if (best < 0)
        return lh_fail(error, LH_DEVICE, "no tiling runs on %s, wanted one at least", t->found.name);
    *own = tiles[best];
    return LH_OK;
}

/* The cases of both dimensions under the chosen tiles. */
static lh_status judge(const struct tune *t, lh_error *error)
{
    static const char *const cases[DIMS] = {"d64", "d128"};
    lh_status status = LH_OK;
    use(&t->best);
    for (int i = 0; i < DIMS && status == LH_OK; i++) {
        const verify_wish wish = {.backend = {"opencl"},
                                  .backends = 1,
                                  .device = t->device,
                                  .pattern = cases[i],
                                  .attention = LH_ATTENTION_OWN};
        verify_report *report;
        status = verify_report_create(&wish, NULL, false, &report, error);
        if (status != LH_OK)
            return status;
        status = verify_run(&wish, report, error);
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

static void print_row(const struct lh_cl_tuning *best)
{
    const struct lh_cl_tile *f = &best->forward, *b = &best->backward;
    printf("Row of opencl/tuning.c: {%s, %d, %d, %d, {%d, %d, %d, %d, %d}, {%d, %d, %d, %d, %d}}\n",
           best->cpu_body ? "true" : "false", best->vec, best->group, best->run, f->rows, f->columns,
           f->row_block, f->column_block, f->chunk, b->rows, b->columns, b->row_block, b->column_block,
           b->chunk);
}

int cli_tune(int argc, char **argv)
{
    const struct argp argp = {.options = options, .parser = parse_option, .doc = doc};
    struct tune t = {.heads = 4, .seconds = 0.3};
    cl_device_id id;
    char path[LH_CL_PATH];
    lh_error error;
    cli_parse(&argp, argc, argv, &t);
    lh_status status = cli_backend_check("opencl", t.device, &error);
    if (status == LH_OK)
        status = lh_cl_device_find(t.device, &id, &error);
    if (status == LH_OK)
        status = lh_cl_device_describe(id, &t.found, &error);
    if (status != LH_OK)
        return cli_fail(argv[0], &error);
    if (t.tokens == 0)
        t.tokens = t.found.is_cpu ? 2048 : 16384;
    lh_cl_tuning_of_class(&t.found, &t.best);
    printf("%s: causal attention over %lld tokens, %lld heads, float32\n", t.found.name, (long long)t.tokens,
           (long long)t.heads);
    for (bench_pass pass = BENCH_FORWARD; pass < BENCH_PASSES && status == LH_OK; pass++)
        status = choose(&t, pass, &error);
    if (status == LH_OK)
        status = judge(&t, &error);
    if (status == LH_OK && !t.dry_run)
        status = lh_cl_tuned_write(&t.found, &t.best, path, &error);
    if (status != LH_OK)
        return cli_fail(argv[0], &error);
    printf("\nAll right against the reference at d = 64 and 128.%s%s\n", t.dry_run ? "" : " Kept in ",
           t.dry_run ? "" : path);
    print_row(&t.best);
    return CLI_DONE;
}
