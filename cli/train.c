/* `lighthouse train`: a two-stage pre-training run, its evaluation, generation, fine-tuning and comparison. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/settings_flags.h"
#include "cli/train_report.h"
#include "train/cost.h"
#include "train/compare.h"

static const char doc[] =
    "Pre-train a byte-level decoder in two stages: most steps with Lighthouse Attention, the last ones with "
    "ordinary dense attention, ending with an ordinary dense model.\v"
    "FOLDER gets checkpoint.safetensors, log.jsonl, audit.json and curves.svg. A run that was stopped, by "
    "whatever, goes on with --resume as if it had not been.\n\n"
    "Settings come from --config FILE, and flags override them; with --resume, from the checkpoint. The flags "
    "below that are not in the first group are settings, one for each line of the file.\n\n"
    "Examples:\n\n"
    "  lighthouse train --config laptop.ini --text /usr/include runs/headers\n"
    "  lighthouse train --resume runs/headers\n"
    "  lighthouse train --generate --prompt '#include' runs/headers\n"
    "  lighthouse train --compare --config laptop.ini --text /usr/include runs/compared\n\n"
    "Exit status: 0 done; 1 the loss diverged, and the last good checkpoint is kept; 2 bad usage or bad input; "
    "77 the backend has no device here.";

enum {
    RESUME = 1000,
    COMPARE,
    EVALUATE,
    GENERATE,
    PROMPT,
    TEMPERATURE,
    FINETUNE,
    AUTO,
    QUIET,
    MAX_TEXT = 65536
};

static const struct argp_option own_options[] = {
    {"resume", RESUME, NULL, 0, "go on from FOLDER's checkpoint", 1},
    {"compare", COMPARE, NULL, 0, "train in two stages and densely from scratch, and compare them", 1},
    {"evaluate", EVALUATE, NULL, 0, "measure FOLDER's checkpoint under dense attention", 1},
    {"generate", GENERATE, "BYTES", OPTION_ARG_OPTIONAL, "write as many bytes (200) with FOLDER's checkpoint",
     1},
    {"prompt", PROMPT, "TEXT", 0, "what --generate goes on from", 1},
    {"temperature", TEMPERATURE, "T", 0, "of --generate; 0 takes the likeliest byte (0.8)", 1},
    {"finetune", FINETUNE, "CHECKPOINT", 0, "start from the weights of a finished run, densely", 1},
    {"auto", AUTO, NULL, 0, "take the (L, p, k) that `lighthouse plan` advises", 1},
    {"quiet", QUIET, NULL, 0, "no progress line", 1},
    {0},
};

struct request {
    const char *command, *folder, *prompt, *finetune;
    bool resume, compare, evaluate, generate, automatic, quiet;
    int64_t generated;
    double temperature;
    settings_flags flags;
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct request *r = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &r->flags;
        break;
    case RESUME:
        r->resume = true;
        break;
    case COMPARE:
        r->compare = true;
        break;
    case EVALUATE:
        r->evaluate = true;
        break;
    case GENERATE:
        r->generate = true;
        if (argument)
            r->generated = cli_integer(state, "--generate", argument);
        if (r->generated < 1 || r->generated > MAX_TEXT)
            argp_error(state, "--generate is %s, wanted 1 to %d bytes", argument, MAX_TEXT);
        break;
    case PROMPT:
        r->prompt = argument;
        break;
    case TEMPERATURE:
        r->temperature = cli_number(state, "--temperature", argument);
        break;
    case FINETUNE:
        r->finetune = argument;
        break;
    case AUTO:
        r->automatic = true;
        break;
    case QUIET:
        r->quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (r->folder)
            argp_error(state, "argument is '%s', wanted one FOLDER", argument);
        r->folder = argument;
        break;
    case ARGP_KEY_END:
        if (!r->folder)
            argp_error(state, "FOLDER is missing, wanted where the run lives");
        if (r->compare + r->evaluate + r->generate + (r->finetune != NULL) > 1)
            argp_error(state, "--compare, --evaluate, --generate, --finetune: wanted one of them at most");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* What a new run, or one that goes on, or a fine-tuning starts from before the flags. */
static lh_status base_settings(const struct request *r, settings *s, lh_error *error)
{
    char path[PATH_SIZE];
    settings_default(s);
    snprintf(path, sizeof path, "%.4000s/%scheckpoint.safetensors", r->folder,
             r->compare ? "two-stage/" : "");
    FILE *there = r->resume ? fopen(path, "rb") : NULL;
    if (there)
        fclose(there);
    const char *from = r->finetune ? r->finetune : there ? path : NULL;
    if (!from)
        return LH_OK;
    checkpoint c;
    const lh_status status = checkpoint_open(from, &c, error);
    if (status == LH_OK) {
        *s = c.settings;
        checkpoint_close(&c);
    }
    if (r->finetune)
        s->lighthouse_steps = 0;
    return status;
}

/* Puts the planner's choice into the settings. */
static lh_status choose(settings *s, lh_error *error)
{
    cost_row rows[COST_ROWS];
    device_rates here;
    char advice[512];
    const lh_status status = device_measure(s, &here, error);
    if (status != LH_OK)
        return status;
    const int row = cost_choose(s, rows, cost_rows(s, rows), &here, 0, 0, advice, sizeof advice);
    printf("%s\n", advice);
    s->levels = rows[row].levels;
    s->pool = rows[row].pool;
    s->topk = rows[row].topk;
    return settings_check(s, error);
}

static lh_status train(const struct request *r, const settings *s, lh_error *error)
{
    trainer *t;
    progress shown = {.quiet = r->quiet};
    lh_status status = lh_alloc((void **)&t, sizeof *t, "trainer", error);
    if (status != LH_OK)
        return status;
    const enum trainer_start start = r->resume ? START_RESUME : r->finetune ? START_FINETUNE : START_NEW;
    status = trainer_open(s, r->folder, start, r->finetune, t, error);
    if (status == LH_OK) {
        status = trainer_run(t, progress_show, &shown, error);
        progress_end(&shown);
        if (status == LH_OK)
            status = report_run(r->folder, t, error);
        trainer_close(t);
    }
    lh_free(t);
    return status;
}

static lh_status compare(const struct request *r, const settings *s, lh_error *error)
{
    comparison *c;
    progress shown = {.quiet = r->quiet};
    lh_status status = lh_alloc((void **)&c, sizeof *c, "comparison", error);
    if (status != LH_OK)
        return status;
    status = compare_runs(s, r->folder, r->resume, progress_show, &shown, c, error);
    progress_end(&shown);
    if (status == LH_OK)
        status = report_comparison(r->folder, c, error);
    lh_free(c);
    return status;
}

static lh_status evaluate(const struct request *r, const checkpoint *c, const model *m, lh_error *error)
{
    settings s = c->settings;
    corpus t;
    evaluation e;
    lh_status status = settings_flags_apply(&r->flags, &s, error);
    if (status == LH_OK)
        status = checkpoint_fits(c, &s, error);
    if (status == LH_OK)
        status = text_read(s.text, s.held_out, (uint64_t)s.seed, s.context + 1, &t, error);
    if (status != LH_OK)
        return status;
    status = evaluate_model(&s, m, &t, &e, error);
    if (status == LH_OK)
        report_evaluation(&e, stdout);
    text_free(&t);
    return status;
}

static lh_status write_text(const struct request *r, const checkpoint *c, const model *m, lh_error *error)
{
    settings s = c->settings;
    const size_t length = strlen(r->prompt), count = (size_t)r->generated;
    uint8_t *bytes;
    lh_status status = settings_flags_apply(&r->flags, &s, error);
    if (status == LH_OK)
        status = checkpoint_fits(c, &s, error);
    if (status == LH_OK && (length < 1 || length > MAX_TEXT))
        status = lh_fail(error, LH_INVALID, "prompt has %zu bytes, wanted 1 to %d", length, MAX_TEXT);
    if (status == LH_OK)
        status = lh_alloc((void **)&bytes, length + count, "generated text", error);
    if (status != LH_OK)
        return status;
    memcpy(bytes, r->prompt, length);
    status = generate(&s, m, r->temperature, (int64_t)length, (int64_t)count, bytes, error);
    if (status == LH_OK) {
        fwrite(bytes, 1, length + count, stdout);
        putchar('\n');
    }
    lh_free(bytes);
    return status;
}

/* Evaluation and generation: with the weights of FOLDER's checkpoint, if its stage allows it. */
static lh_status use_checkpoint(const struct request *r, lh_error *error)
{
    char path[PATH_SIZE];
    checkpoint c;
    model m;
    snprintf(path, sizeof path, "%.4000s/checkpoint.safetensors", r->folder);
    lh_status status = evaluate_checkpoint(path, r->evaluate ? "evaluation" : "generation", &c, &m, error);
    if (status != LH_OK)
        return status;
    status = r->evaluate ? evaluate(r, &c, &m, error) : write_text(r, &c, &m, error);
    model_destroy(&m);
    checkpoint_close(&c);
    return status;
}

int cli_train(int argc, char **argv)
{
    static struct request r = {.prompt = "\n", .generated = 200, .temperature = 0.8};
    const struct argp_child children[] = {{.argp = settings_flags_argp(2)}, {0}};
    const struct argp argp = {.options = own_options,
                              .parser = parse_option,
                              .args_doc = "FOLDER",
                              .doc = doc,
                              .children = children};
    r.command = argv[0];
    cli_parse(&argp, argc, argv, &r);
    lh_error error = {LH_OK, ""};
    lh_status status;
    if (r.evaluate || r.generate) {
        status = use_checkpoint(&r, &error);
    } else {
        settings s;
        status = base_settings(&r, &s, &error);
        if (status == LH_OK)
            status = settings_flags_apply(&r.flags, &s, &error);
        if (status == LH_OK && r.automatic)
            status = choose(&s, &error);
        if (status == LH_OK)
            status = r.compare ? compare(&r, &s, &error) : train(&r, &s, &error);
    }
    return status == LH_OK ? CLI_DONE : cli_fail(r.command, &error);
}
