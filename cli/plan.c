/* `lighthouse plan`: FLOPs, memory and time of a training run before it is run, and advice. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/settings_flags.h"
#include "train/cost.h"

static const char doc[] =
    "Say what a training run will cost: a table over levels L, pooling factor p and budget k, and which to start "
    "with.\v"
    "Settings are those of `lighthouse train`, by --config and flags. Step times are predicted from three rates: of "
    "this machine, measured in a few seconds, and of --on DEVICE. A step includes everything: attention, the stages "
    "around it, the rest of the model.\n\n"
    "Devices: h200, zen4-2-cores, or ATTENTION,PRODUCTS,BYTES: FLOP/s of attention (forward and backward), FLOP/s of "
    "the rest, bytes/s around attention.\n\n"
    "Examples:\n\n"
    "  lighthouse plan --config paper-530m.ini --backend ref --on h200\n"
    "  lighthouse plan --context 16384 --backend openmp --memory 16 --hours 8\n"
    "  lighthouse train --auto --config laptop.ini --text /usr/include runs/headers\n\n" CLI_EXIT_STATUS_HELP;

enum {
    ON = 1000,
    MEMORY,
    HOURS,
    NO_MEASURE
};

static const struct argp_option options[] = {
    {"on", ON, "DEVICE", 0, "predict for this device too", 1},
    {"memory", MEMORY, "GIB", 0, "what must suffice (this machine's memory)", 1},
    {"hours", HOURS, "H", 0, "what the whole run may take (no limit)", 1},
    {"no-measure", NO_MEASURE, NULL, 0, "predict for --on alone, without measuring here", 1},
    {0},
};

struct request {
    settings_flags flags;
    device_rates on;
    double memory, hours;
    bool no_measure;
};

static void parse_device(struct request *r, const char *text, const struct argp_state *state)
{
    const device_rates *known;
    for (int i = 0; (known = device_known(i)); i++)
        if (strcmp(known->name, text) == 0) {
            r->on = *known;
            return;
        }
    char end;
    r->on = (device_rates){.name = "device", .source = "given"};
    if (sscanf(text, "%lf,%lf,%lf%c", &r->on.attention, &r->on.products, &r->on.bytes, &end) != 3 ||
        !(r->on.attention > 0 && r->on.products > 0 && r->on.bytes > 0))
        argp_error(state, "--on is '%s', wanted h200, zen4-2-cores or three rates above 0", text);
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct request *r = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &r->flags;
        break;
    case ON:
        parse_device(r, argument, state);
        break;
    case MEMORY:
        r->memory = cli_number(state, "--memory", argument) * (1 << 30);
        if (r->memory <= 0)
            argp_error(state, "--memory is %s, wanted more than 0 GiB", argument);
        break;
    case HOURS:
        r->hours = cli_number(state, "--hours", argument);
        if (r->hours <= 0)
            argp_error(state, "--hours is %s, wanted more than 0", argument);
        break;
    case NO_MEASURE:
        r->no_measure = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "argument is '%s', wanted none", argument);
        break;
    case ARGP_KEY_END:
        if (r->no_measure && !r->on.name)
            argp_error(state, "--no-measure wants --on DEVICE");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void print_rates(const device_rates *d)
{
    printf("%s: attention %.4g, rest %.4g GFLOP/s; around attention %.4g GB/s (%s)\n", d->name,
           d->attention / 1e9, d->products / 1e9, d->bytes / 1e9, d->source);
}

static void print_table(const settings *s, const cost_row *rows, int count,
                        const device_rates *const devices[2])
{
    char memory[32];
    printf("\n%2s %2s %6s %8s %6s %11s %10s", "L", "p", "k", "S", "S/N", "step FLOPs", "memory");
    for (int d = 0; d < 2; d++)
        if (devices[d])
            printf(" | %8.8s s/step %7s %9s", devices[d]->name, "dense/", "whole run");
    printf("\n");
    for (int i = 0; i < count; i++) {
        const cost_row *r = &rows[i];
        if (r->levels == 1)
            printf("%2d %2s %6s", 1, "-", "-");
        else
            printf("%2" PRId64 " %2" PRId64 " %6" PRId64, r->levels, r->pool, r->topk);
        printf(" %8" PRId64 " %6.3f %11.3g %10s", r->selected, (double)r->selected / (double)s->context,
               r->flops, cli_bytes(r->memory, memory));
        for (int d = 0; d < 2; d++)
            if (devices[d])
                printf(" | %15.3g %7.2f %7.1f h", cost_seconds(s, r, devices[d]),
                       cost_seconds(s, &rows[0], devices[d]) / cost_seconds(s, r, devices[d]),
                       cost_total_seconds(s, r, devices[d]) / 3600);
        printf("\n");
    }
}

static void print_batches(const settings *s, double memory)
{
    char text[32];
    printf("\nLargest micro-batch in %s, by context (the dense stage is what it must hold):\n",
           cli_bytes(memory, text));
    for (int64_t context = s->context / 4; context > 0 && context <= 4 * s->context; context *= 2)
        printf("%10" PRId64 ": %" PRId64 "\n", context, cost_largest_batch(s, context, memory));
}

static lh_status plan(const struct request *r, lh_error *error)
{
    settings s;
    cost_row rows[COST_ROWS];
    device_rates here;
    char advice[512];
    settings_default(&s);
    lh_status status = settings_flags_apply(&r->flags, &s, error);
    if (status == LH_OK && !r->no_measure)
        status = device_measure(&s, &here, error);
    if (status != LH_OK)
        return status;
    const device_rates *const devices[2] = {r->no_measure ? NULL : &here, r->on.name ? &r->on : NULL};
    const int count = cost_rows(&s, rows);
    for (int d = 0; d < 2; d++)
        if (devices[d])
            print_rates(devices[d]);
    print_table(&s, rows, count, devices);
    print_batches(&s, r->memory);
    for (int d = 0; d < 2; d++) {
        if (!devices[d])
            continue;
        cost_choose(&s, rows, count, devices[d], r->memory, r->hours * 3600, advice, sizeof advice);
        printf("\nFor %s: %s\n", devices[d]->name, advice);
    }
    return LH_OK;
}

int cli_plan(int argc, char **argv)
{
    static struct request r;
    const struct argp_child children[] = {{.argp = settings_flags_argp(2)}, {0}};
    const struct argp argp = {.options = options, .parser = parse_option, .doc = doc, .children = children};
    r.memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    cli_parse(&argp, argc, argv, &r);
    lh_error error = {LH_OK, ""};
    const lh_status status = plan(&r, &error);
    return status == LH_OK ? CLI_DONE : cli_fail(argv[0], &error);
}
