/* `lighthouse bench`: Lighthouse and dense attention as the number of tokens grows. */
#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "chart/chart.h"
#include "cli/bench_ranks.h"
#include "cli/cli.h"
#include "cli/options.h"

static const char doc[] =
    "Time Lighthouse and dense attention, forward and backward, as the number of tokens grows.\v"
    "Each backend with a device here is timed (ref only when named or alone: it is for reading), beside this "
    "machine's own matrix product and copy rate, measured first in the same process on the same threads, the product "
    "again in turns with each pass if there is time for three; a GPU beside its own. Long runs "
    "of dense attention are done on one head and scaled, which the table says.\n\n"
    "Unless said otherwise: levels 3, pool 4, topk about tokens/64, tile-topk 128, as many key/value heads as query heads, "
    "every backend with a device.\n\n"
    "Example: a table, a picture and the figures for other programs:\n\n"
    "  lighthouse bench --backend openmp --tokens 8192,16384,32768,65536 \\\n"
    "                   --svg bench.svg --json bench.json\n\n"
    "Where the time of one layer goes, stage by stage:\n\n"
    "  lighthouse bench --tokens 98304 --dim 128 --topk 1536 --per-stage --seconds 3\n\n"
    "A layer over ranks beside one machine with as many threads in all, in turns:\n\n"
    "  lighthouse bench --ranks 4 --tokens 98304\n"
    "  mpirun -n 4 --bind-to none lighthouse bench --tokens 98304\n\n" CLI_EXIT_STATUS_HELP;

enum {
    JSON = 1000,
    SVG,
    PER_STAGE,
    THREADS,
    BATCH,
    PATIENCE,
    SKIP_DENSE
};

static const struct argp_option options[] = {
    {"dtype", 't', "TYPE", 0, "f32 (default), f64, bf16 or f16", 1},
    {"threads", THREADS, "N", 0, "threads of CPU backends and of the machine's own rates (as OpenMP decides)",
     1},
    {"tokens", 'n', "LIST", 0, "numbers of tokens, separated by commas (4096,8192,16384,32768)", 2},
    {"batch", BATCH, "B", 0, "batch (1)", 2},
    {"heads", 'H', "H", 0, "query heads (8)", 2},
    {"dim", 'd', "D", 0, "head dimension (64)", 2},
    {"seconds", 's', "S", 0, "repeat each pass for this long (0.5)", 3},
    {"patience", PATIENCE, "S", 0,
     "longest that one pass may be expected to take (10): dense attention is timed on one head where all would "
     "take longer, what takes longer still is skipped",
     3},
    {"no-dense", SKIP_DENSE, NULL, 0, "time Lighthouse attention only", 3},
    {"per-stage", PER_STAGE, NULL, 0,
     "list the time of each stage, with its share of the product or copy rate", 4},
    {"json", JSON, "FILE", 0, "write every figure to FILE", 4},
    {"svg", SVG, "FILE", 0, "draw time over tokens to FILE (needs gnuplot)", 4},
    {0},
};

enum {
    MOST_SIZES = 32,
    MOST_THREADS = 4096
};

struct bench {
    cli_where where;
    cli_wish wish;
    cli_ranks ranks;
    int64_t tokens[MOST_SIZES];
    int sizes;
    bench_request request; /* what all points share */
    bool per_stage, skip_dense;
    const char *json_path, *svg_path;
    bench_result result;
};

static double seconds(const struct argp_state *state, const char *name, const char *text)
{
    const double value = cli_number(state, name, text);
    if (value <= 0)
        argp_error(state, "%s is %s, wanted more than 0 seconds", name, text);
    return value;
}

static void parse_sizes(struct bench *bench, const struct argp_state *state, char *list)
{
    bench->sizes = 0;
    for (char *next = list; next;) {
        char *word = strsep(&next, ",");
        if (bench->sizes == MOST_SIZES)
            argp_error(state, "--tokens has more numbers than %d", MOST_SIZES);
        bench->tokens[bench->sizes++] = cli_positive(state, "--tokens", word);
    }
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct bench *bench = state->input;
    lh_config *config = &bench->request.config;
    int64_t threads;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &bench->where;
        state->child_inputs[1] = &bench->wish;
        state->child_inputs[2] = &bench->ranks;
        break;
    case 't':
        bench->request.dtype = cli_dtype(state, argument);
        break;
    case THREADS:
        threads = cli_positive(state, "--threads", argument);
        if (threads > MOST_THREADS)
            argp_error(state, "--threads is %s, wanted at most %d", argument, MOST_THREADS);
        bench->request.threads = (int)threads;
        break;
    case 'n':
        parse_sizes(bench, state, argument);
        break;
    case BATCH:
        config->batch = cli_positive(state, "--batch", argument);
        break;
    case 'H':
        config->heads = cli_positive(state, "--heads", argument);
        break;
    case 'd':
        config->dim = cli_positive(state, "--dim", argument);
        break;
    case 's':
        bench->request.seconds = seconds(state, "--seconds", argument);
        break;
    case PATIENCE:
        bench->request.patience = seconds(state, "--patience", argument);
        break;
    case SKIP_DENSE:
        bench->skip_dense = true;
        break;
    case PER_STAGE:
        bench->per_stage = true;
        break;
    case JSON:
        bench->json_path = argument;
        break;
    case SVG:
        bench->svg_path = argument;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "argument is '%s', wanted options only", argument);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* All with a device but ref; ref where it is the only one. */
static void default_backends(struct bench *bench)
{
    const char *name;
    int devices;
    for (int i = 1; (name = lh_backend_name(i)); i++) {
        if (lh_device_count(name, &devices, NULL) == LH_OK && bench->request.device < devices)
            bench->where.backend[bench->where.backends++] = name;
    }
    if (bench->where.backends == 0)
        bench->where.backend[bench->where.backends++] = lh_backend_name(0);
}

/* The configuration at one number of tokens. */
static lh_status configure(const struct bench *bench, int64_t tokens, bool dense, lh_config *config,
                           lh_error *error)
{
    *config = bench->request.config;
    config->tokens = tokens;
    if (dense)
        config->levels = 1;
    else if (config->topk == 0)
        return bench_choose_topk(config, config->tile_topk, error);
    return lh_config_check(config, NULL, error);
}

/* Operations per second of a backend: dense attention of growing size until it takes long enough to tell. */
static lh_status probe_rate(const struct bench *bench, bench_request *request, lh_error *error)
{
    const double enough = 0.02;
    const int64_t first = bench->tokens[0] < 512 ? bench->tokens[0] : 512;
    lh_status status = LH_OK;
    double took = 0;
    for (int64_t tokens = first; took < enough && tokens <= bench->tokens[0] && status == LH_OK;
         tokens *= 2) {
        bench_request probe = *request;
        bench_point point;
        probe.dense = true;
        probe.seconds = 1e-3;
        probe.rate = 0;
        status = configure(bench, tokens, true, &probe.config, error);
        if (status == LH_OK)
            status = bench_measure(&probe, &point, error);
        if (status == LH_OK) {
            took = point.pass[BENCH_BACKWARD].least;
            request->rate = bench_operations(&probe.config, &point.layout, BENCH_BACKWARD) / took;
        }
    }
    return status;
}

static lh_status time_size(struct bench *bench, bench_request *request, const bench_machine *machine,
                           int64_t tokens, lh_error *error)
{
    const bench_point *dense = NULL;
    for (int lighthouse = bench->skip_dense; lighthouse < 2; lighthouse++) {
        bench_point *point = &bench->result.points[bench->result.count];
        request->dense = !lighthouse;
        lh_status status = configure(bench, tokens, !lighthouse, &request->config, error);
        if (status == LH_OK)
            status = bench_measure(request, point, error);
        if (status != LH_OK)
            return status;
        bench->result.count++;
        bench_table_point(stdout, machine, point, dense);
        if (bench->per_stage)
            bench_table_stages(stdout, machine, point);
        if (!lighthouse && point->timed_heads > 0)
            request->rate = bench_operations(&request->config, &point->layout, BENCH_BACKWARD) /
                            point->pass[BENCH_BACKWARD].median;
        dense = point;
    }
    return LH_OK;
}

static lh_status time_all(struct bench *bench, lh_error *error)
{
    lh_status status = LH_OK;
    for (int b = 0; b < bench->where.backends && status == LH_OK; b++) {
        status = cli_backend_check(bench->where.backend[b], bench->request.device, error);
        for (int i = 0; i < bench->sizes && status == LH_OK; i++) /* before any work */
            status = configure(bench, bench->tokens[i], false, &(lh_config){0}, error);
    }
    if (status == LH_OK && bench->json_path)
        status = cli_check_output(bench->json_path, error);
    if (status == LH_OK && bench->svg_path)
        status = cli_check_output(bench->svg_path, error);
    if (status == LH_OK && bench->svg_path && !chart_can())
        status =
            lh_fail(error, LH_UNSUPPORTED, "gnuplot is absent, wanted it for --svg (Debian: gnuplot-nox)");
    if (status == LH_OK)
        status = lh_alloc((void **)&bench->result.points,
                          (size_t)(2 * bench->where.backends * bench->sizes) * sizeof(bench_point), "points",
                          error);
    if (status == LH_OK)
        status = bench_machine_measure(bench->request.threads, bench->request.seconds, &bench->result.machine,
                                       error);
    if (status == LH_OK)
        status = lh_alloc((void **)&bench->result.devices,
                          (size_t)bench->where.backends * sizeof(bench_machine), "ceilings", error);
    for (int b = 0; b < bench->where.backends && status == LH_OK; b++, bench->result.device_count++)
        status = bench_device_measure(bench->where.backend[b], bench->request.device, bench->request.dtype,
                                      bench->request.seconds, &bench->result.machine,
                                      &bench->result.devices[b], error);
    if (status != LH_OK)
        return status;
    for (int b = 0; b < bench->where.backends; b++)
        bench_table_device(stdout, &bench->result.devices[b]);
    bench_table_head(stdout, &bench->result.machine, &bench->request);
    for (int b = 0; b < bench->where.backends && status == LH_OK; b++) {
        bench_request request = bench->request;
        request.backend = bench->where.backend[b];
        request.host = bench->result.devices[b].backend ? NULL : &bench->result.machine;
        status = probe_rate(bench, &request, error);
        for (int i = 0; i < bench->sizes && status == LH_OK; i++)
            status = time_size(bench, &request, &bench->result.devices[b], bench->tokens[i], error);
    }
    if (status == LH_OK)
        status = bench_machine_measure(bench->request.threads, bench->request.seconds, &bench->result.after,
                                       error);
    if (status == LH_OK)
        bench_table_foot(stdout, &bench->result);
    if (status == LH_OK && bench->json_path)
        status = bench_write_json(bench->json_path, &bench->result, error);
    if (status == LH_OK && bench->svg_path)
        status = bench_write_svg(bench->svg_path, &bench->result, error);
    return status;
}

/* --ranks: lines of their own, no dense attention. */
static lh_status time_ranks(struct bench *bench, lh_error *error)
{
    const cli_ranks *ranks = &bench->ranks;
    bench_request request = bench->request;
    lh_status status = LH_OK;
    if (bench->json_path || bench->svg_path || bench->per_stage)
        status = lh_fail(error, LH_INVALID,
                         "%s is given with --ranks, wanted neither --json, --svg nor --per-stage",
                         bench->json_path  ? "--json"
                         : bench->svg_path ? "--svg"
                                           : "--per-stage");
    for (int b = 0; b < bench->where.backends && status == LH_OK; b++)
        status = cli_backend_check(bench->where.backend[b], bench->request.device, error);
    for (int i = 0; i < bench->sizes && status == LH_OK; i++) {
        lh_config part;
        status = configure(bench, bench->tokens[i], false, &request.config, error);
        if (status == LH_OK)
            status = lh_dist_part(&request.config, ranks->ranks, &part, error);
    }
    status = cli_ranks_agree(ranks, status, error);
    if (status == LH_OK)
        status = cli_bench_ranks_head(ranks, &request, error);
    for (int b = 0; b < bench->where.backends && status == LH_OK; b++) {
        request.backend = bench->where.backend[b];
        for (int i = 0; i < bench->sizes && status == LH_OK; i++) {
            status = configure(bench, bench->tokens[i], false, &request.config, error);
            if (status == LH_OK)
                status = cli_bench_ranks(ranks, &request, error);
        }
    }
    return status;
}

int cli_bench(int argc, char **argv)
{
    const struct argp_child children[] = {{&cli_where_many_argp, 0, NULL, 0},
                                          {&cli_shape_argp, 0, NULL, 0},
                                          {&cli_ranks_argp, 0, NULL, 0},
                                          {0}};
    const struct argp argp = {.options = options, .parser = parse_option, .doc = doc, .children = children};
    const char *command = argv[0];
    struct bench bench = {
        .tokens = {4096, 8192, 16384, 32768},
        .sizes = 4,
        .request = {.dtype = LH_F32,
                    .seconds = 0.5,
                    .patience = 10,
                    .config = {.batch = 1, .heads = 8, .dim = 64, .levels = 3, .pool = 4, .tile_topk = 128}}};
    lh_error error;
    cli_parse(&argp, argc, argv, &bench);
    cli_shape_apply(&bench.wish, &bench.request.config);
    bench.request.device = bench.where.device;
    bench.request.attention = bench.where.attention;
    if (bench.request.config.kv_heads == 0)
        bench.request.config.kv_heads = bench.request.config.heads;
    if (bench.where.backends == 0)
        default_backends(&bench);
    lh_status status = cli_ranks_start(&bench.ranks, &error);
    if (status != LH_OK || bench.ranks.ranks > 0) {
        if (bench.request.threads == 0)
            bench.request.threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
        if (status == LH_OK)
            status = time_ranks(&bench, &error);
        return cli_ranks_finish(&bench.ranks, command, status, &error);
    }
    mallopt(M_MMAP_THRESHOLD, 1 << 20); /* freed tensors leave the process, so each point's peak is its own */
    status = time_all(&bench, &error);
    lh_free(bench.result.points);
    lh_free(bench.result.devices);
    return status == LH_OK ? CLI_DONE : cli_fail(command, &error);
}
