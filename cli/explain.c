/* `lighthouse explain`: the whole path of a small layer as text and as pictures. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/input.h"
#include "explain/explain.h"

static const char doc[] =
    "Show what the layer does to a small input, step by step, as text and as SVG.\v"
    "Without IN or --text the input is the 12-token example of docs/algorithm.md. With --text a byte is a token, its q, "
    "k, v drawn from its value. With IN it is one head of a layer of at most 256 tokens, as `lighthouse run` reads it. "
    "Every number is the reference's.\n\n"
    "The steps are pool, score, select, order, attend, scatter and backward.\n\n"
    "Examples:\n\n"
    "  lighthouse explain                            every step of the 12-token example\n"
    "  lighthouse explain --step                     one step at a time, Enter goes on\n"
    "  lighthouse explain --step=select              one of them alone\n"
    "  lighthouse explain --token 6                  whom token 6 hears from, and why\n"
    "  lighthouse explain --why 14                   why entry 14 was not opened\n"
    "  lighthouse explain --leak 7                   who moves when token 7 changes, one rule broken at a time\n"
    "  lighthouse explain --gradient 7 --step=backward --svg back.svg\n"
    "  lighthouse explain --text 'to be or not to be' --svg sentence.svg\n\n" CLI_EXIT_STATUS_HELP;

enum {
    TEXT = 1000,
    EXAMPLE,
    LEAK,
    STEP,
    TOKEN,
    WHY,
    GRADIENT,
    SVG,
    BATCH,
    HEAD,
    TILE_TOPK,
    DIM,
    SEED
};

static const struct argp_option options[] = {
    {"text", TEXT, "TEXT", 0, "explain a sentence: a byte is a token", 1},
    {"example", EXAMPLE, "NAME", 0, "twelve (default), six (tokens that look ahead) or six-grown", 1},
    {"head", HEAD, "H", 0, "head of IN (0)", 1},
    {"batch", BATCH, "B", 0, "batch of IN (0)", 1},
    {"levels", 'L', "L", 0, "pyramid levels (3 with --text, else IN's own)", 2},
    {"pool", 'p', "P", 0, "pooling factor (2, else IN's own)", 2},
    {"topk", 'k', "K", 0, "parents kept at each level (4, else IN's own)", 2},
    {"tile-topk", TILE_TOPK, "M", 0, "parents kept in each tile (all of K, else IN's own)", 2},
    {"dim", DIM, "d", 0, "head dimension with --text (4)", 2},
    {"seed", SEED, "SEED", 0, "of the draw with --text (1)", 2},
    {"step", STEP, "STEP", OPTION_ARG_OPTIONAL,
     "stop after each step until Enter is pressed, or show STEP alone", 3},
    {"token", TOKEN, "J", 0, "the story of token J: whom it hears from, and why", 3},
    {"why", WHY, "ENTRY", 0, "why pyramid entry ENTRY was selected or not", 3},
    {"gradient", GRADIENT, "J", 0, "follow the output of token J back to q, k and v", 3},
    {"leak", LEAK, "J", 0, "change token J and show whose output moves, one rule broken at a time", 3},
    {"svg", SVG, "FILE", 0, "draw the steps into FILE instead of printing them", 3},
    {0},
};

struct request {
    cli_wish wish;
    const char *text, *example, *path, *svg;
    int64_t batch, head, dim, seed;
    int64_t token, why, gradient, leak; /* -1 where not asked for */
    bool pause, sized;                  /* sized: an option that needs IN or --text was given */
    unsigned steps;
};

static void choose_step(const struct argp_state *state, struct request *r, const char *name)
{
    if (!name) {
        r->pause = true;
        return;
    }
    for (int step = 0; step < EXPLAIN_STEPS; step++) {
        if (strcmp(name, explain_step_name((explain_step)step)) == 0) {
            r->steps |= 1u << step;
            return;
        }
    }
    argp_error(state, "--step is '%s', wanted pool, score, select, order, attend, scatter or backward", name);
}

static int64_t at_least_0(const struct argp_state *state, const char *name, const char *text)
{
    const int64_t value = cli_integer(state, name, text);
    if (value < 0)
        argp_error(state, "%s is %s, wanted at least 0", name, text);
    return value;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct request *r = state->input;
    switch (key) {
    case TEXT:
        r->text = argument;
        break;
    case EXAMPLE:
        r->example = argument;
        break;
    case LEAK:
        r->leak = at_least_0(state, "--leak", argument);
        break;
    case HEAD:
        r->head = at_least_0(state, "--head", argument);
        break;
    case BATCH:
        r->batch = at_least_0(state, "--batch", argument);
        break;
    case 'L':
        r->wish.levels = cli_positive(state, "--levels", argument);
        r->sized = true;
        break;
    case 'p':
        r->wish.pool = cli_positive(state, "--pool", argument);
        r->sized = true;
        break;
    case 'k':
        r->wish.topk = cli_positive(state, "--topk", argument);
        r->sized = true;
        break;
    case TILE_TOPK:
        r->wish.tile_topk = cli_positive(state, "--tile-topk", argument);
        r->sized = true;
        break;
    case DIM:
        r->dim = cli_positive(state, "--dim", argument);
        break;
    case SEED:
        r->seed = at_least_0(state, "--seed", argument);
        break;
    case STEP:
        choose_step(state, r, argument);
        break;
    case TOKEN:
        r->token = at_least_0(state, "--token", argument);
        break;
    case WHY:
        r->why = at_least_0(state, "--why", argument);
        break;
    case GRADIENT:
        r->gradient = at_least_0(state, "--gradient", argument);
        break;
    case SVG:
        r->svg = argument;
        break;
    case ARGP_KEY_ARG:
        if (r->path)
            argp_error(state, "second file is '%s', wanted one IN.safetensors", argument);
        r->path = argument;
        break;
    case ARGP_KEY_END:
        if (r->path && r->text)
            argp_error(state, "IN is '%s', wanted either it or --text", r->path);
        if (r->example && (r->path || r->text))
            argp_error(state, "--example is '%s', wanted it without IN and --text", r->example);
        if (!r->path && !r->text && r->sized)
            argp_error(state,
                       "--levels, --pool, --topk or --tile-topk is given, wanted IN or --text with it");
        if (!r->path && (r->head > 0 || r->batch > 0))
            argp_error(state, "--head or --batch is given, wanted IN with it");
        if (!r->text && (r->dim > 0 || r->seed >= 0))
            argp_error(state, "--dim or --seed is given, wanted --text with it");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static lh_status from_text(explain *e, const struct request *r, lh_error *error)
{
    lh_config c = {1, 1, 1, 0, r->dim ? r->dim : 4, 3, 2, 4, 0};
    const int64_t wishes[] = {r->wish.levels, r->wish.pool, r->wish.topk, r->wish.tile_topk};
    int64_t *const members[] = {&c.levels, &c.pool, &c.topk, &c.tile_topk};
    for (int i = 0; i < 4; i++)
        *members[i] = wishes[i] ? wishes[i] : *members[i];
    if (c.tile_topk == 0)
        c.tile_topk = c.topk;
    return explain_sentence(e, r->text, &c, r->seed >= 0 ? (uint64_t)r->seed : 1, error);
}

static lh_status from_file(explain *e, const struct request *r, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    lh_file *file;
    lh_config config;
    lh_tensor tensors[4] = {{0}};
    void *copies[4] = {0};
    lh_status status = lh_file_read(r->path, &file, error);
    if (status == LH_OK)
        status = cli_input_config(file, &r->wish, &config, error);
    for (int i = 0; i < 4 && status == LH_OK; i++)
        if (i < 3 || lh_file_find(file, "dout"))
            status = cli_input_tensor(file, ids[i], LH_F64, &tensors[i], &copies[i], error);
    if (status == LH_OK)
        status = explain_head(e, &config, &tensors[0], &tensors[1], &tensors[2], &tensors[3], r->batch,
                              r->head, error);
    snprintf(e->source, sizeof e->source, "%.100s, batch %" PRId64 ", head %" PRId64, r->path, r->batch,
             r->head);
    for (int i = 0; i < 4; i++)
        lh_free(copies[i]);
    lh_file_free(file);
    return status;
}

static lh_status check_request(const explain *e, const struct request *r, lh_error *error)
{
    if (r->token >= e->config.tokens)
        return lh_fail(error, LH_INVALID, "--token is %" PRId64 ", wanted 0 to %" PRId64, r->token,
                       e->config.tokens - 1);
    if (r->leak >= e->config.tokens)
        return lh_fail(error, LH_INVALID, "--leak is %" PRId64 ", wanted 0 to %" PRId64, r->leak,
                       e->config.tokens - 1);
    if (r->why >= e->layout.entries)
        return lh_fail(error, LH_INVALID, "--why is %" PRId64 ", wanted a pyramid entry, 0 to %" PRId64,
                       r->why, e->layout.entries - 1);
    return LH_OK;
}

/* Waits for Enter; false at the end of input. */
static bool go_on(void)
{
    int c;
    fprintf(stderr, "-- Enter for the next step --");
    while ((c = getchar()) != '\n')
        if (c == EOF)
            return false;
    return true;
}

static void print_steps(const explain *e, const struct request *r)
{
    explain_print_configuration(e, stdout);
    for (int step = 0; step < EXPLAIN_STEPS; step++) {
        if (r->steps && !(r->steps >> step & 1))
            continue;
        explain_print(e, (explain_step)step, stdout);
        fflush(stdout);
        if (r->pause && isatty(STDIN_FILENO) && step + 1 < EXPLAIN_STEPS && !go_on())
            break;
    }
}

static unsigned pictures(const explain *e, const struct request *r)
{
    const unsigned leak = r->leak >= 0 ? 1u << EXPLAIN_STEPS : 0, backward = 1u << EXPLAIN_BACKWARD;
    const unsigned all = ((1u << EXPLAIN_STEPS) - 1) & ~(e->backward ? 0 : backward);
    return r->steps | leak ? r->steps | leak : all;
}

static void print_answers(const explain *e, const struct request *r)
{
    if (r->token >= 0)
        explain_token(e, r->token, stdout);
    if (r->token >= 0 && r->why >= 0)
        printf("\n");
    if (r->why >= 0)
        explain_why(e, r->why, stdout);
    if (r->leak >= 0 && !r->svg)
        explain_print_leak(e, stdout);
    if (r->token < 0 && r->why < 0 && r->leak < 0 && !r->svg)
        print_steps(e, r);
}

int cli_explain(int argc, char **argv)
{
    const struct argp argp = {options, parse_option, "[IN.safetensors]", doc, NULL, NULL, NULL};
    struct request r = {.token = -1, .why = -1, .gradient = -1, .leak = -1, .seed = -1};
    explain e = {0};
    lh_error error;
    cli_parse(&argp, argc, argv, &r);
    if (r.path)
        cli_input(r.path);
    lh_status status = r.svg ? cli_check_output(r.svg, &error) : LH_OK;
    if (status == LH_OK)
        status = r.path   ? from_file(&e, &r, &error)
                 : r.text ? from_text(&e, &r, &error)
                          : explain_example(&e, r.example ? r.example : "twelve", &error);
    if (status == LH_OK)
        status = check_request(&e, &r, &error);
    if (status == LH_OK)
        status = explain_run(&e, r.gradient, &error);
    if (status == LH_OK && r.leak >= 0)
        status = explain_leak(&e, r.leak, &error);
    if (status == LH_OK && r.svg)
        status = explain_write_svg(&e, pictures(&e, &r), r.svg, &error);
    if (status == LH_OK)
        print_answers(&e, &r);
    explain_free(&e);
    return status == LH_OK ? CLI_DONE : cli_fail(argv[0], &error);
}
