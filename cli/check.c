/* `lighthouse check`: somebody else's tensors against the reference, and why they are wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "core/replace.h"
#include "check/check.h"

static const char doc[] =
    "Judge another implementation's tensors, stage by stage, and name the bug.\v"
    "DUMP is a safetensors file with q, k, v (dout for gradients) and any of the tensors in between: q_pyr k_pyr v_pyr "
    "score_q score_k index q_sel k_sel v_sel o_sel lse out coverage do_sel dq_sel dk_sel dv_sel dq dk dv. "
    "levels, pool, topk and tile_topk (128 unless said) come from its __metadata__ as strings; flags override them.\n\n"
    "Every tensor is judged on the dump's own tensors before it, as far as they are there, so that one early fault does "
    "not drown the rest; then end to end ('layer'). A line says exact, within (and how much of the allowance of honest "
    "rounding was used), excused (an index that differs only among scores that tie), or what is wrong, at which element. "
    "'>>' marks the first wrong stage. The known bugs that give just these numbers are listed with the rule they break.\n\n"
    "Example:\n\n"
    "  lighthouse run --trace in.safetensors trace.safetensors     the reference's own tensors\n"
    "  lighthouse check trace.safetensors                          all right\n"
    "  lighthouse check --json report.json my_port.safetensors     yours\n\n" CLI_EXIT_STATUS_HELP;

static const struct argp_option options[] = {
    {"json", 'j', "FILE", 0, "write the report to FILE as JSON, whole or not at all", 1},
    {0},
};

struct check {
    cli_wish wish;
    const char *path, *json;
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct check *check = state->input;
    switch (key) {
    case 'j':
        check->json = argument;
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

/* The dump's tensors by id; names that are none of the trace's are said and passed over. */
static void collect(const lh_file *file, lh_tensor *present)
{
    memset(present, 0, sizeof *present * LH_TENSOR_COUNT);
    for (int i = 0; i < lh_file_count(file); i++) {
        const lh_tensor_id id = lh_tensor_by_name(lh_file_name(file, i));
        char name[104];
        snprintf(name, sizeof name, "%s", lh_file_name(file, i));
        if (id == LH_TENSOR_COUNT)
            printf("tensor '%s' is none of the trace's names: not judged\n", lh_clean(name));
        else
            present[id] = *lh_file_tensor(file, i);
    }
}

static lh_status write_json(const check_report *report, const char *path, lh_error *error)
{
    char *text;
    lh_status status = check_json(report, &text, error);
    if (status == LH_OK)
        status = lh_replace_text(path, text, strlen(text), error);
    free(text);
    return status;
}

static lh_status judge(const struct check *check, check_report *report, lh_error *error)
{
    lh_file *file = NULL;
    lh_config config;
    lh_tensor present[LH_TENSOR_COUNT];
    char *text = NULL;
    cli_input(check->path);
    lh_status status = check->json ? cli_check_output(check->json, error) : LH_OK;
    if (status == LH_OK)
        status = lh_file_read(check->path, &file, error);
    if (status == LH_OK)
        status = cli_input_config(file, &check->wish, &config, error);
    if (status == LH_OK) {
        collect(file, present);
        status = check_dump(&config, present, report, error);
    }
    if (status == LH_OK)
        status = check_text(report, &text, error);
    if (status == LH_OK)
        fputs(text, stdout);
    if (status == LH_OK && check->json)
        status = write_json(report, check->json, error);
    free(text);
    lh_file_free(file);
    return status;
}

int cli_check(int argc, char **argv)
{
    const struct argp_child children[] = {{&cli_shape_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse_option, "DUMP.safetensors", doc, children, NULL, NULL};
    struct check check = {.path = NULL};
    check_report report;
    lh_error error;
    cli_parse(&argp, argc, argv, &check);
    if (judge(&check, &report, &error) != LH_OK)
        return cli_fail(argv[0], &error);
    return report.first_wrong < 0 ? CLI_DONE : CLI_MISMATCH;
}
