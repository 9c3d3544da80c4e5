/* Options that several subcommands share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"

enum {
    BACKEND = 'b',
    LEVELS = 'L',
    POOL = 'p',
    TOPK = 'k',
    DEVICE = 2000,
    ATTENTION,
    TILE_TOPK,
    KV_HEADS
};

static error_t parse_place(int key, char *argument, struct argp_state *state)
{
    cli_where *where = state->input;
    if (key == DEVICE)
        where->device = cli_device(state, argument);
    else if (key == ATTENTION)
        where->attention = cli_attention(state, argument);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static error_t parse_backends(int key, char *argument, struct argp_state *state)
{
    cli_where *where = state->input;
    if (key == ARGP_KEY_INIT)
        state->child_inputs[0] = where;
    else if (key != BACKEND)
        return ARGP_ERR_UNKNOWN;
    else if (where->backends == CLI_MOST_BACKENDS)
        argp_error(state, "--backend is given %d times, wanted at most %d", where->backends + 1,
                   CLI_MOST_BACKENDS);
    else
        where->backend[where->backends++] = argument;
    return 0;
}

/* The last one named counts. */
static error_t parse_backend(int key, char *argument, struct argp_state *state)
{
    if (key == BACKEND)
        ((cli_where *)state->input)->backends = 0;
    return parse_backends(key, argument, state);
}

/* The names before the help of --backend come from the table; argp frees what it is handed. */
static char *name_backends(int key, const char *text, void *input)
{
    char names[256], help[512];
    (void)input;
    if (key != BACKEND || !text)
        return (char *)text;
    snprintf(help, sizeof help, "%s%s%s", cli_backend_names(names, sizeof names), text[0] == ';' ? "" : " ",
             text);
    return strdup(help);
}

static const struct argp_option one_options[] = {
    {"backend", BACKEND, "NAME", 0, "(ref unless said otherwise)", 1},
    {0},
};
static const struct argp_option many_options[] = {
    {"backend", BACKEND, "NAME", 0, "; may be repeated (every one with a device here)", 1},
    {0},
};
static const struct argp_option place_options[] = {
    {"device", DEVICE, "N", 0, "device of the backend, as `lighthouse devices` numbers them (0)", 1},
    {"attention", ATTENTION, "NAME", 0,
     "auto, own or cudnn: whose kernels attend, where a backend has a choice", 1},
    {0},
};
static const struct argp place_argp = {.options = place_options, .parser = parse_place};
static const struct argp_child place[] = {{&place_argp, 0, NULL, 0}, {0}};

const struct argp cli_where_one_argp = {
    .options = one_options, .parser = parse_backend, .children = place, .help_filter = name_backends};
const struct argp cli_where_many_argp = {
    .options = many_options, .parser = parse_backends, .children = place, .help_filter = name_backends};

static error_t parse_shape(int key, char *argument, struct argp_state *state)
{
    cli_wish *wish = state->input;
    switch (key) {
    case LEVELS:
        wish->levels = cli_positive(state, "--levels", argument);
        break;
    case POOL:
        wish->pool = cli_positive(state, "--pool", argument);
        break;
    case TOPK:
        wish->topk = cli_positive(state, "--topk", argument);
        break;
    case TILE_TOPK:
        wish->tile_topk = cli_positive(state, "--tile-topk", argument);
        break;
    case KV_HEADS:
        wish->kv_heads = cli_positive(state, "--kv-heads", argument);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option shape_options[] = {
    {"levels", LEVELS, "L", 0, "pyramid levels; 1 is dense attention", 2},
    {"pool", POOL, "P", 0, "pooling factor between levels", 2},
    {"topk", TOPK, "K", 0, "parents kept at each level of each head", 2},
    {"tile-topk", TILE_TOPK, "M", 0, "parents kept in each tile; K/M tiles", 2},
    {"kv-heads", KV_HEADS, "G", 0, "heads of k and v", 2},
    {0},
};

const struct argp cli_shape_argp = {.options = shape_options, .parser = parse_shape};

void cli_shape_apply(const cli_wish *wish, lh_config *config)
{
    const struct {
        int64_t wished, *value;
    } members[] = {{wish->levels, &config->levels},
                   {wish->pool, &config->pool},
                   {wish->topk, &config->topk},
                   {wish->tile_topk, &config->tile_topk},
                   {wish->kv_heads, &config->kv_heads}};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (members[i].wished > 0)
            *members[i].value = members[i].wished;
    }
}
