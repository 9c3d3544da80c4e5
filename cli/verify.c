/* `lighthouse verify`: every backend here against the reference, tensor by tensor. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "cli/ranks.h"
#include "cli/verify_large.h"
#include "verify/verify.h"

static const char doc[] =
    "Judge every backend here against the scalar reference, tensor by tensor, over a table of cases.\v"
    "For each case and dtype, every stage runs alone on the reference's own inputs to it, then the whole layer "
    "runs forward and backward. NaN, Inf, unwritten elements and writes outside a tensor fail first; then the "
    "worst element decides: it must lie within a small multiple of what plain float32 arithmetic gets on the "
    "same case. A second run must give the same bits. The reference itself is held to tensors of the original "
    "implementation, to values worked out by hand, to identities, and to its own source in 113 bits.\n\n"
    "A cell is 'ok' with the largest share of the allowance that any tensor used, and 'tie' where an index "
    "differs only among scores that rounding cannot tell apart; or the number of tensors that are WRONG, listed "
    "below with the worst element and the command that reruns that case alone.\n\n"
    "Examples:\n\n"
    "  lighthouse verify                                every backend, every case\n"
    "  lighthouse verify --backend openmp --dtype bf16  one backend in one dtype\n"
    "  lighthouse verify --case 'd*' --json report.json cases by pattern, and every figure as JSON\n"
    "  lighthouse verify --large --backend openmp       a layer of 98,304 tokens, by rows\n"
    "  lighthouse verify --list                         the cases, why they exist, what they expose\n"
    "  lighthouse verify --ranks 4                      a layer over four threads, against one machine\n"
    "  mpirun -n 4 lighthouse verify                    the same over four processes\n\n"
    "Without --backend every backend that is here is judged. --attention is own unless said otherwise; of own alone "
    "a second run's bits are compared; what cudnn does not take is skipped, with the reason.\n\n"
    "A backend without a device here is a SKIP line; one that was asked for by name makes the exit status "
    "77.\n\n" CLI_EXIT_STATUS_HELP;

enum {
    MANIFEST = 1000,
    LARGE,
    DEFAULT_LARGE = 98304
};

static const struct argp_option options[] = {
    {"case", 'c', "PATTERN", 0, "only cases whose id matches the shell pattern", 1},
    {"dtype", 't', "TYPE", 0, "f64, f32, bf16 or f16; may be repeated (default: all)", 1},
    {"json", 'j', "FILE", 0, "write the whole report to FILE, whole or not at all", 2},
    {"large", LARGE, "TOKENS", OPTION_ARG_OPTIONAL,
     "judge one layer of so many tokens (98304), 8 heads of 128, in bf16 unless said, by rows; not the case table",
     1},
    {"manifest", MANIFEST, "FILE", 0, "write the manifest of all cases (data/manifest.json) and leave", 2},
    {"list", 'l', NULL, 0, "list the cases and leave", 2},
    {0},
};

struct verify {
    cli_where where;
    cli_ranks ranks;
    verify_wish wish;
    bool asked;  /* backends were named */
    bool absent; /* one of them has no device */
    bool list;
    int64_t large; /* tokens of --large; 0: the case table */
    const char *json, *manifest;
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct verify *v = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &v->where;
        state->child_inputs[1] = &v->ranks;
        break;
    case 'c':
        v->wish.pattern = argument;
        break;
    case 't':
        v->wish.dtypes |= 1u << cli_dtype(state, argument);
        break;
    case 'j':
        v->json = argument;
        break;
    case MANIFEST:
        v->manifest = argument;
        break;
    case LARGE:
        v->large = argument ? cli_positive(state, "--large", argument) : DEFAULT_LARGE;
        break;
    case 'l':
        v->list = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "argument is '%s', wanted none (cases are chosen by --case)", argument);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static int list_cases(const char *pattern)
{
    const verify_case *c;
    for (int i = 0; (c = verify_case_at(i)); i++) {
        const lh_config *f = &c->config;
        if (!verify_case_matches(c, pattern))
            continue;
        printf("%-20s %s\n%20s B %lld H %lld G %lld N %lld d %lld L %lld p %lld k %lld m %lld, %s\n"
               "%20s exposes %s\n",
               c->id, c->why, "", (long long)f->batch, (long long)f->heads, (long long)f->kv_heads,
               (long long)f->tokens, (long long)f->dim, (long long)f->levels, (long long)f->pool,
               (long long)f->topk, (long long)f->tile_topk, verify_pattern_name(c->pattern), "", c->exposes);
    }
    return CLI_DONE;
}

/* Drops from the wish what has no device here, with a line for each; an unknown name is an error. */
static lh_status find_backends(struct verify *v, lh_error *error)
{
    verify_wish found = v->wish;
    found.backends = 0;
    const char *name;
    for (int i = 0; !v->asked && (name = lh_backend_name(i)) && i < VERIFY_MAX_BACKENDS; i++)
        v->wish.backend[v->wish.backends++] = name;
    for (int i = 0; i < v->wish.backends; i++) {
        lh_capabilities can;
        lh_status status =
            cli_backend_check(v->wish.backend[i], verify_device(&v->wish, v->wish.backend[i]), error);
        if (status == LH_OK && !v->asked && v->ranks.ranks > 0 && !v->ranks.apart &&
            lh_backend_query(v->wish.backend[i], &can, NULL) == LH_OK && can.device_memory)
            status = lh_fail(error, LH_NO_DEVICE,
                             "works on a device, which is not offered over ranks that are threads");
        if (status == LH_OK) {
            found.backend[found.backends++] = v->wish.backend[i];
        } else if (status == LH_NO_DEVICE) {
            if (cli_ranks_first(&v->ranks))
                printf("SKIP %s: %s\n", v->wish.backend[i], error->text);
            v->absent = v->asked;
        } else {
            return status;
        }
    }
    v->wish = found;
    return LH_OK;
}

struct ranked {
    const struct verify *verify;
    verify_report *report;
};

static lh_status judge_rank(const lh_exchange *exchange, void *context, lh_error *error)
{
    const struct ranked *r = context;
    return verify_run_ranks(&r->verify->wish, exchange, exchange->rank == 0 ? r->report : NULL, error);
}

static lh_status judge(const struct verify *v, bool *failed, lh_error *error)
{
    verify_report *report = NULL;
    const bool first = cli_ranks_first(&v->ranks);
    lh_status status = verify_report_create(&v->wish, first ? stdout : NULL, v->json != NULL, &report, error);
    struct ranked ranked = {v, report};
    status = cli_ranks_agree(&v->ranks, status, error);
    if (status == LH_OK && v->ranks.ranks > 0)
        status = cli_ranks_run(&v->ranks, judge_rank, &ranked, error);
    else if (status == LH_OK)
        status = verify_run(&v->wish, report, error);
    if (status == LH_OK)
        status = verify_report_summary(report, error);
    if (status == LH_OK && first && verify_report_tensors(report) == 0)
        status = lh_fail(error, LH_INVALID,
                         "nothing was compared, wanted a backend that computes a case in a dtype asked for");
    if (status == LH_OK && v->json && first)
        status = verify_report_write(report, v->json, error);
    *failed = status == LH_OK && first && verify_report_failures(report) > 0;
    verify_report_destroy(report);
    return status;
}

/* The original implementation's tensors are read. */
static void note_inputs(void)
{
    const verify_case *c;
    const char *folder = verify_data_folder();
    char path[4096];
    for (int i = 0; folder && (c = verify_case_at(i)); i++) {
        snprintf(path, sizeof path, "%.3000s/upstream/%.200s.safetensors", folder, c->id);
        if (c->pattern == VERIFY_FILE)
            cli_input(path);
    }
}

int cli_verify(int argc, char **argv)
{
    const struct argp_child children[] = {
        {&cli_where_many_argp, 0, NULL, 0}, {&cli_ranks_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {.options = options, .parser = parse_option, .doc = doc, .children = children};
    struct verify v = {.where = {.attention = LH_ATTENTION_OWN}};
    bool failed = false;
    lh_error error;
    cli_parse(&argp, argc, argv, &v);
    memcpy(v.wish.backend, v.where.backend, sizeof v.where.backend);
    v.wish.backends = v.where.backends;
    v.wish.device = v.where.device;
    v.wish.attention = v.where.attention;
    v.asked = v.where.backends > 0;
    if (verify_check_pattern(v.wish.pattern, &error) != LH_OK)
        return cli_fail(argv[0], &error);
    if (v.list)
        return list_cases(v.wish.pattern);
    note_inputs();
    const char *output = v.manifest ? v.manifest : v.json;
    lh_status status = output ? cli_check_output(output, &error) : LH_OK;
    if (status == LH_OK && v.manifest) {
        status = verify_write_manifest(v.manifest, &error);
        return status == LH_OK ? CLI_DONE : cli_fail(argv[0], &error);
    }
    if (status != LH_OK)
        return cli_fail(argv[0], &error);
    status = cli_ranks_start(&v.ranks, &error);
    if (status == LH_OK)
        status = find_backends(&v, &error);
    status = cli_ranks_agree(&v.ranks, status, &error);
    if (status == LH_OK && v.wish.backends > 0)
        status = v.large ? cli_verify_large(&v.wish, v.large, &failed, &error) : judge(&v, &failed, &error);
    const int left = cli_ranks_finish(&v.ranks, argv[0], status, &error);
    if (status != LH_OK)
        return left;
    if (failed)
        return CLI_MISMATCH;
    return v.absent || v.wish.backends == 0 ? CLI_NO_DEVICE : CLI_DONE;
}
