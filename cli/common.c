/* What the subcommands share: arguments, errors, the list of backends. */
#define _GNU_SOURCE /* fopencookie */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum {
    COMPLAINT = 1 << 14 /* bytes */
};

const char *argp_program_version = "lighthouse " LH_VERSION;

struct parse {
    struct argp_child child[2];
    void *input;
    FILE *complaints, *standard_error;
};

/* A complaint, which quotes arguments, as one line of characters: without the "Try `... --help' or ..." that argp puts
 * behind. */
static ssize_t write_complaint(void *cookie, const char *text, size_t size)
{
    static const char advice[] = "\nTry `";
    const struct parse *parse = cookie;
    static char line[COMPLAINT + 1];
    const char *end = memmem(text, size, advice, sizeof advice - 1);
    size_t length = end ? (size_t)(end - text) : size;
    length = length < COMPLAINT ? length : COMPLAINT;
    memcpy(line, text, length);
    const bool last = end || (length > 0 && line[length - 1] == '\n');
    line[length - (last && !end)] = '\0';
    fprintf(parse->standard_error, "%s%s", lh_clean(line), last ? "\n" : "");
    return (ssize_t)size;
}

static error_t parse_wrapper(int key, char *argument, struct argp_state *state)
{
    (void)argument;
    struct parse *parse = state->input;
    if (key != ARGP_KEY_INIT)
        return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = parse->input;
    state->err_stream = parse->complaints;
    return 0;
}

void cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    const cookie_io_functions_t functions = {.write = write_complaint};
    struct parse parse = {.child = {{.argp = argp}}, .input = input, .standard_error = stderr};
    parse.complaints = fopencookie(&parse, "w", functions);
    const struct argp wrapper = {
        .parser = parse_wrapper, .args_doc = argp->args_doc, .doc = argp->doc, .children = parse.child};
    argp_err_exit_status = CLI_REFUSED;
    setenv("ARGP_HELP_FMT", "rmargin=110", 0); /* examples stay on one line */
    /* The child's texts are the wrapper's now: once is enough in --help. */
    struct argp bare = *argp;
    bare.args_doc = NULL;
    bare.doc = NULL;
    parse.child[0].argp = &bare;
    if (parse.complaints) {
        setvbuf(parse.complaints, NULL, _IOFBF, COMPLAINT); /* whole, when the program ends */
        stderr = parse.complaints;                          /* getopt's too */
    }
    /* argp refuses arguments by itself, and returns when memory cannot be had. */
    const bool parsed = parse.complaints && argp_parse(&wrapper, argc, argv, 0, NULL, &parse) == 0;
    stderr = parse.standard_error;
    if (!parsed) {
        fprintf(stderr, "%s: memory for reading the arguments could not be had\n", argv[0]);
        exit(CLI_REFUSED);
    }
    fclose(parse.complaints);
}

int64_t cli_integer(const struct argp_state *state, const char *name, const char *text)
{
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        argp_error(state, "%s is '%s', wanted an integer", name, text);
    return value;
}

int64_t cli_positive(const struct argp_state *state, const char *name, const char *text)
{
    const int64_t value = cli_integer(state, name, text);
    if (value < 1)
        argp_error(state, "%s is %s, wanted at least 1", name, text);
    return value;
}

int cli_device(const struct argp_state *state, const char *text)
{
    const int64_t device = cli_integer(state, "--device", text);
    if (device < 0 || device > INT32_MAX)
        argp_error(state, "--device is %s, wanted a number that 'lighthouse devices' lists", text);
    return (int)device;
}

double cli_number(const struct argp_state *state, const char *name, const char *text)
{
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !isfinite(value))
        argp_error(state, "%s is '%s', wanted a number", name, text);
    return value;
}

lh_dtype cli_dtype(const struct argp_state *state, const char *text)
{
    lh_dtype dtype = LH_F64;
    if (lh_dtype_parse(text, &dtype, NULL) != LH_OK || dtype == LH_I32 || dtype == LH_I64)
        argp_error(state, "--dtype is '%s', wanted f32, f64, bf16 or f16", text);
    return dtype;
}

lh_attention cli_attention(const struct argp_state *state, const char *text)
{
    static const char *const names[] = {"auto", "own", "cudnn"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0)
            return (lh_attention)i;
    }
    argp_error(state, "--attention is '%s', wanted own, cudnn or auto", text);
    return LH_ATTENTION_AUTO;
}

int cli_fail(const char *command, const lh_error *error)
{
    lh_error line = *error;
    fprintf(stderr, "%s: %s\n", command, lh_clean(line.text));
    switch (error->status) {
    case LH_OK:
        return CLI_DONE;
    case LH_MISMATCH:
        return CLI_MISMATCH;
    case LH_NO_DEVICE:
        return CLI_NO_DEVICE;
    default:
        return CLI_REFUSED;
    }
}

const char *cli_backend_names(char *text, size_t size)
{
    lh_known_backend known, after;
    text[0] = '\0';
    for (int i = 0; lh_backend_known(i, &known); i++) {
        const size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s",
                 i == 0                            ? ""
                 : lh_backend_known(i + 1, &after) ? ", "
                                                   : " or ",
                 known.name);
    }
    return text;
}

lh_status cli_backend_check(const char *name, int device, lh_error *error)
{
    lh_known_backend known;
    const lh_backend *found;
    char names[256];
    int i = 0;
    while (lh_backend_known(i, &known) && strcmp(known.name, name) != 0)
        i++;
    if (!lh_backend_known(i, &known))
        return lh_fail(error, LH_INVALID, "backend is '%.100s', wanted %s", name,
                       cli_backend_names(names, sizeof names));
    if (!known.row)
        return lh_fail(error, LH_NO_DEVICE, "backend %s is not built here: it needs %s", name, known.needs);
    const lh_status status = cli_probe(known.row, device, error);
    return status == LH_OK ? lh_backend_find(name, device, &found, error) : status;
}

char *cli_bytes(double bytes, char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    while (bytes >= 1024 && unit + 1 < (int)(sizeof units / sizeof *units)) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, 32, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return text;
}
