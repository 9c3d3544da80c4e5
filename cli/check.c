/* `lighthouse check`: somebody else's tensors against the reference, and why they are wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "core/replace.h"
#include "check/sample.h"

static const char doc[] =
    "Judge another implementation's tensors, stage by stage, and name the bug.\v"
    "DUMP is a safetensors file with q, k, v (dout for gradients; no v where scores or lse alone are judged) and any of the tensors in between: q_pyr k_pyr v_pyr "
    "score_q score_k index q_sel k_sel v_sel o_sel lse out coverage do_sel dq_sel dk_sel dv_sel dq dk dv. "
    "levels, pool, topk and tile_topk (128 unless said) come from its __metadata__ as strings; flags override them.\n\n"
    "Every tensor is judged on the dump's own tensors before it, as far as they are there, so that one early fault does "
    "not drown the rest; then end to end ('layer'). A line says exact, within (and how much of the allowance of honest "
    "rounding was used), excused (an index that differs only among scores that tie), or what is wrong, at which element. "
    "'>>' marks the first wrong stage. The known bugs that give just these numbers are listed with the rule they break. "
    "The last lines name what was judged and what was not; a dump fails where not all of it could be judged, or with --require not all of those.\n\n"
    "Example:\n\n"
    "  lighthouse run --trace in.safetensors trace.safetensors     the reference's own tensors\n"
    "  lighthouse check trace.safetensors                          all right\n"
    "  lighthouse check --json report.json my_port.safetensors     yours\n\n" CLI_EXIT_STATUS_HELP;

enum {
    HABIT = 1000,
    SEED,
    JUNIT,
    SARIF,
    HEADS,
    LAYOUT,
    DEFAULT_ROWS = 256
};

static const struct argp_option options[] = {
    {"json", 'j', "FILE", 0, "write the report to FILE as JSON, whole or not at all", 1},
    {"junit", JUNIT, "FILE", 0, "the same as JUnit XML", 1},
    {"sarif", SARIF, "FILE", 0, "the same as SARIF 2.1.0", 1},
    {"require", 'r', "NAMES", 0, "the tensors that must be judged: out,dq,... (all that the dump has)", 1},
    {"habit", HABIT, "NAMES", 0,
     "what the port does besides rounding to its types: tf32, rounded-logits, half-sums, naive-softmax; allowances "
     "behind attention widen for it, and the report says so (__metadata__ habits does the same)",
     1},
    {"layout", LAYOUT, "NAME", 0,
     "bhnd, or bnhd where tokens come before heads (bhnd; __metadata__ layout does the same); bnhd,lse=bhnd,... says "
     "it of tensors whose shape reads either way",
     1},
    {"sample", 's', "ROWS", 0,
     "judge so many drawn rows of every tensor and head, and the last 64, instead of everything (256 where everything "
     "would take minutes; 0: everything)",
     1},
    {"seed", SEED, "N", 0, "of the draw (1)", 1},
    {"heads", HEADS, "N", 0,
     "with --sample: judge rows of at most so many heads, first and last among them (all)", 1},
    {0},
};

struct check {
    cli_wish wish;
    check_wish judge;
    check_sample sample;
    check_layout layout;
    bool sample_given, layout_given;
    const char *path, *json, *junit, *sarif;
};

/* LH_INVALID says what was found; `where` names it. */
static lh_status parse_layout(struct check *check, const char *where, const char *text, lh_error *error)
{
    lh_error why;
    if (check_parse_layout(text, &check->layout, &why) != LH_OK)
        return lh_fail(error, LH_INVALID, "%s is %s", where, why.text);
    check->wish.token_major = check->layout.token_major;
    return LH_OK;
}

/* Names of an option's argument, or bad usage. */
static void parse_names(const struct argp_state *state, const char *option, const char *argument,
                        lh_status (*parse)(const char *, unsigned *, lh_error *), unsigned *bits)
{
    lh_error error;
    if (parse(argument, bits, &error) != LH_OK)
        argp_error(state, "%s: %s", option, error.text);
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct check *check = state->input;
    lh_error error;
    switch (key) {
    case 'j':
        check->json = argument;
        break;
    case JUNIT:
        check->junit = argument;
        break;
    case SARIF:
        check->sarif = argument;
        break;
    case 'r':
        parse_names(state, "--require", argument, check_parse_tensors, &check->judge.required);
        break;
    case HABIT:
        parse_names(state, "--habit", argument, check_parse_habits, &check->judge.habits);
        break;
    case LAYOUT:
        if (parse_layout(check, "--layout", argument, &error) != LH_OK)
            argp_error(state, "%s", error.text);
        check->layout_given = true;
        break;
    case 's':
        check->sample.rows = cli_integer(state, "--sample", argument);
        check->sample_given = true;
        if (check->sample.rows < 0 || check->sample.rows > 1 << 20)
            argp_error(state, "--sample is %s, wanted 0 to %d", argument, 1 << 20);
        break;
    case SEED:
        check->sample.seed = (uint64_t)cli_positive(state, "--seed", argument);
        break;
    case HEADS:
        check->sample.heads = (int)cli_positive(state, "--heads", argument);
        break;
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &check->wish;
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "second file is '%s', wanted one DUMP.safetensors", argument);
        check->path = argument;
        break;
    case ARGP_KEY_END:
        if (!check->path)
            argp_error(state, "DUMP.safetensors is missing");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Reports that can be written, or none. */
static lh_status try_outputs(const struct check *check, lh_error *error)
{
    const char *const paths[] = {check->json, check->junit, check->sarif};
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        if (paths[i])
            status = cli_check_output(paths[i], error);
    }
    return status;
}

/* Writes text, which came with `status`, and frees it. */
static lh_status write_text(lh_status status, char *text, const char *path, lh_error *error)
{
    if (status == LH_OK)
        status = lh_replace_text(path, text, strlen(text), error);
    free(text);
    return status;
}

static lh_status write_reports(const struct check *check, const check_report *report, lh_error *error)
{
    char *text = NULL;
    lh_status status = LH_OK;
    if (check->json) {
        status = check_json(report, &text, error);
        status = write_text(status, text, check->json, error);
    }
    if (status == LH_OK && check->junit) {
        status = check_junit(report, &text, error);
        status = write_text(status, text, check->junit, error);
    }
    if (status == LH_OK && check->sarif) {
        status = check_sarif(report, check->path, &text, error);
        status = write_text(status, text, check->sarif, error);
    }
    return status;
}

static lh_status judge_file(const struct check *check, const lh_file *file, const lh_config *config,
                            const check_wish *wish, check_report *report, lh_error *error)
{
    lh_tensor present[LH_TENSOR_COUNT];
    void *copies[LH_TENSOR_COUNT] = {NULL};
    check_source source;
    lh_status status = LH_OK;
    check_collect(file, present, report);
    if (check->sample.rows > 0) {
        status = check_source_file(file, config, &check->layout, &source, report, error);
        return status == LH_OK ? check_sampled(config, &source, &check->sample, wish, report, error) : status;
    }
    if (check->layout.token_major)
        status = check_turn(config, &check->layout, present, copies, error);
    if (status == LH_OK)
        status = check_dump(config, present, wish, report, error);
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        lh_free(copies[id]);
    return status;
}

/* Whether everything is judged or rows of it follows from the shapes, which the header tells. */
static lh_status open_dump(struct check *check, lh_file **file, lh_config *config, lh_error *error)
{
    lh_status status = lh_file_open(check->path, file, error);
    const char *layout = status == LH_OK ? lh_file_metadata(*file, "layout") : NULL;
    if (layout && !check->layout_given)
        status = parse_layout(check, "__metadata__ layout", layout, error);
    if (status == LH_OK)
        status = cli_input_config(*file, &check->wish, config, error);
    if (status == LH_OK && !check->sample_given && check_work(config) > CHECK_LARGE)
        check->sample.rows = DEFAULT_ROWS;
    if (status != LH_OK || check->sample.rows > 0)
        return status;
    lh_file_free(*file);
    return lh_file_read(check->path, file, error);
}

static lh_status judge(struct check *check, check_report *report, lh_error *error)
{
    lh_file *file = NULL;
    lh_config config;
    check_wish wish = check->judge;
    char *text = NULL;
    cli_input(check->path);
    lh_status status = try_outputs(check, error);
    memset(report, 0, sizeof *report);
    if (status == LH_OK)
        status = open_dump(check, &file, &config, error);
    const char *habits = status == LH_OK ? lh_file_metadata(file, "habits") : NULL;
    if (habits && check_parse_habits(habits, &wish.habits, error) != LH_OK)
        status = lh_fail(error, LH_INVALID, "__metadata__ habits: %.300s", error->text);
    if (status == LH_OK)
        status = judge_file(check, file, &config, &wish, report, error);
    if (status == LH_OK)
        status = check_text(report, &text, error);
    if (status == LH_OK)
        fputs(text, stdout);
    if (status == LH_OK)
        status = write_reports(check, report, error);
    free(text);
    lh_file_free(file);
    return status;
}

int cli_check(int argc, char **argv)
{
    const struct argp_child children[] = {{&cli_shape_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse_option, "DUMP.safetensors", doc, children, NULL, NULL};
    struct check check = {.wish = {.without_v = true, .may_turn = true},
                          .sample = {.seed = 1, .progress = isatty(2) ? stderr : NULL}};
    static check_report report;
    lh_error error;
    cli_parse(&argp, argc, argv, &check);
    if (judge(&check, &report, &error) != LH_OK)
        return cli_fail(argv[0], &error);
    return report.verdict == CHECK_RIGHT ? CLI_DONE : CLI_MISMATCH;
}
