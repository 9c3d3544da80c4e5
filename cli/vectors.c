/* `lighthouse vectors`: conformance vectors, the standard set or any configuration. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "verify/verify.h"

static const char doc[] =
    "Write conformance vectors: q, k, v, dout and every tensor the reference makes of them.\v"
    "One configuration, drawn by counter from --seed, into OUT; or with --standard the standard set into FOLDER: one "
    "file a case, and manifest.json, which says of each case why it exists, which known bugs it exposes, and the SHA-256 "
    "of every tensor. The same seed gives the same bytes on every machine.\n\n"
    "Drawn unless said otherwise: levels 3, pool 2, topk 8, tile-topk 4, as many key/value heads as query heads.\n\n"
    "A vector is itself a dump that `lighthouse check` finds right, and an input of `lighthouse run`.\n\n"
    "Examples:\n\n"
    "  lighthouse vectors --standard vectors/\n"
    "  lighthouse vectors --tokens 324 --dim 7 --pool 3 --levels 4 --topk 12 --tile-topk 6 p3.safetensors\n"
    "  lighthouse vectors --pattern signs --seed 5 ties.safetensors\n\n" CLI_EXIT_STATUS_HELP;

enum {
    BATCH = 1000,
    HEADS,
    TOKENS,
    DIM,
    SEED,
    STANDARD
};

#define PATTERNS "gaussian, integers, signs, sharp, sharpest, flat, ramp, rising or offset"

static const struct argp_option options[] = {
    {"standard", STANDARD, "FOLDER", 0, "write the standard set there; the folder is made if need be", 1},
    {"batch", BATCH, "B", 0, "batch (1)", 2},
    {"heads", HEADS, "H", 0, "query heads (2)", 2},
    {"tokens", TOKENS, "N", 0, "tokens (48)", 2},
    {"dim", DIM, "d", 0, "head dimension (8)", 2},
    {"seed", SEED, "SEED", 0, "of the draw (1)", 4},
    {"pattern", 'P', "NAME", 0, PATTERNS " (gaussian)", 4},
    {"dtype", 't', "TYPE", 0, "f64 (default), f32, bf16 or f16: what tensors are stored in", 4},
    {0},
};

struct vectors {
    cli_wish wish;
    verify_case wanted;
    lh_dtype dtype;
    const char *folder, *path;
};

static verify_pattern find_pattern(const struct argp_state *state, const char *text)
{
    for (int i = 0; i < VERIFY_HAND; i++) {
        if (strcmp(verify_pattern_name((verify_pattern)i), text) == 0)
            return (verify_pattern)i;
    }
    argp_error(state, "--pattern is '%s', wanted " PATTERNS, text);
    return VERIFY_GAUSSIAN;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct vectors *v = state->input;
    lh_config *c = &v->wanted.config;
    switch (key) {
    case STANDARD:
        v->folder = argument;
        break;
    case BATCH:
        c->batch = cli_integer(state, "--batch", argument);
        break;
    case HEADS:
        c->heads = cli_integer(state, "--heads", argument);
        break;
    case TOKENS:
        c->tokens = cli_integer(state, "--tokens", argument);
        break;
    case DIM:
        c->dim = cli_integer(state, "--dim", argument);
        break;
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &v->wish;
        break;
    case SEED:
        v->wanted.seed = (uint64_t)cli_integer(state, "--seed", argument);
        break;
    case 'P':
        v->wanted.pattern = find_pattern(state, argument);
        break;
    case 't':
        v->dtype = cli_dtype(state, argument);
        break;
    case ARGP_KEY_ARG:
        if (v->path)
            argp_error(state, "second file is '%s', wanted one OUT.safetensors", argument);
        v->path = argument;
        break;
    case ARGP_KEY_END:
        if (!v->folder == !v->path)
            argp_error(state,
                       v->path ? "OUT is '%s', wanted either it or --standard"
                               : "OUT.safetensors is missing, wanted it or --standard FOLDER",
                       v->path);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static lh_status make_folder(const char *folder, lh_error *error)
{
    struct stat about;
    if (mkdir(folder, 0777) == 0 || (errno == EEXIST && stat(folder, &about) == 0 && S_ISDIR(about.st_mode)))
        return LH_OK;
    return lh_fail(error, LH_IO, "--standard is %.200s, wanted a folder: %s", folder, strerror(errno));
}

static lh_status path_in(char *path, size_t size, const char *folder, const char *name, const char *ending,
                         lh_error *error)
{
    if ((size_t)snprintf(path, size, "%s/%s%s", folder, name, ending) < size)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "--standard has %zu characters, wanted a shorter path", strlen(folder));
}

/* Vectors anybody can look through: larger cases and the original's files are for `lighthouse verify`. */
static bool is_standard(const verify_case *c)
{
    return c->pattern != VERIFY_FILE &&
           c->config.batch * c->config.heads * c->config.tokens * c->config.dim <= 4000;
}

static lh_status write_standard(const struct vectors *v, lh_error *error)
{
    const verify_case *c;
    char path[4096];
    int written = 0;
    lh_status status = make_folder(v->folder, error);
    for (int i = 0; (c = verify_case_at(i)) && status == LH_OK; i++) {
        if (!is_standard(c))
            continue;
        status = path_in(path, sizeof path, v->folder, c->id, ".safetensors", error);
        if (status == LH_OK)
            status = verify_write_vector(c, v->dtype, path, error);
        if (status == LH_OK)
            printf("%-20s exposes %-40s %s\n", c->id, c->exposes, c->why);
        written++;
    }
    if (status == LH_OK)
        status = path_in(path, sizeof path, v->folder, "manifest", ".json", error);
    if (status == LH_OK)
        status = verify_write_manifest(path, error);
    if (status == LH_OK)
        printf("%d cases in %s\n", written, v->folder);
    return status;
}

int cli_vectors(int argc, char **argv)
{
    const struct argp_child children[] = {{&cli_shape_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse_option, "OUT.safetensors\n--standard FOLDER", doc, children,
                              NULL,    NULL};
    struct vectors v = {.dtype = LH_F64,
                        .wanted = {.id = "drawn",
                                   .config = {1, 2, 0, 48, 8, 3, 2, 8, 4},
                                   .seed = 1,
                                   .exposes = "",
                                   .why = "drawn on request"}};
    lh_error error;
    cli_parse(&argp, argc, argv, &v);
    cli_shape_apply(&v.wish, &v.wanted.config);
    if (v.wanted.config.kv_heads == 0)
        v.wanted.config.kv_heads = v.wanted.config.heads;
    lh_status status = v.folder ? LH_OK : lh_config_check(&v.wanted.config, NULL, &error);
    if (status == LH_OK && !v.folder)
        status = cli_check_output(v.path, &error);
    if (status == LH_OK)
        status =
            v.folder ? write_standard(&v, &error) : verify_write_vector(&v.wanted, v.dtype, v.path, &error);
    return status == LH_OK ? CLI_DONE : cli_fail(argv[0], &error);
}
