/* `lighthouse train`: a two-stage pre-training run, its evaluation, generation, fine-tuning and comparison. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/openmp_environment.h"
#include "cli/ranks.h"
#include "cli/settings_flags.h"
#include "cli/train_compare.h"
#include "cli/train_progress.h"
#include "cli/train_report.h"
#include "cli/train_stop.h"
#include "cli/train_use.h"
#include "train/cost.h"

static const char doc[] =
    "Pre-train a byte-level decoder in two stages: most steps with Lighthouse Attention, the last ones with "
    "ordinary dense attention, ending with an ordinary dense model.\v"
    "FOLDER gets checkpoint.safetensors, log.jsonl, audit.json and curves.svg. A run that was stopped, by "
    "whatever, goes on with --resume as if it had not been. SIGINT and SIGTERM stop it after the step it is in, with a "
    "checkpoint; a second one stops at once.\n\n"
    "Settings come from --config FILE, and flags override them; with --resume, from the checkpoint. The flags "
    "below that are not in the first group are settings, one for each line of the file.\n\n"
    "Examples:\n\n"
    "  lighthouse train --config laptop.ini --text /usr/include runs/headers\n"
    "  lighthouse train --resume runs/headers\n"
    "  lighthouse train --generate --prompt '#include' runs/headers\n"
    "  lighthouse train --export headers-llama runs/headers\n"
    "  lighthouse train --compare --seeds 3 --config laptop.ini --text /usr/include runs/compared\n"
    "  mpirun -n 2 lighthouse train --over tokens --config laptop.ini --text /usr/include runs/ranks\n\n"
    "Exit status: 0 done; 1 the loss diverged, and the last good checkpoint is kept; 2 bad usage or bad input; "
    "77 the backend has no device here; 130 or 143 stopped by SIGINT or SIGTERM.";

enum {
    RESUME = 1000,
    COMPARE,
    EVALUATE,
    GENERATE,
    PROMPT,
    TEMPERATURE,
    FINETUNE,
    EXPORT,
    AUTO,
    BEFORE,
    SEEDS,
    OVER,
    WATCH,
    QUIET
};

static const struct argp_option own_options[] = {
    {"resume", RESUME, NULL, 0, "go on from FOLDER's checkpoint, or begin where it has none yet", 1},
    {"before", BEFORE, NULL, 0, "go on from the checkpoint before the last one", 1},
    {"compare", COMPARE, NULL, 0, "train in two stages and densely from scratch, and compare them", 1},
    {"seeds", SEEDS, "N", 0, "of --compare: so many seeds from --seed on, with mean and spread (1)", 1},
    {"evaluate", EVALUATE, NULL, 0, "measure FOLDER's checkpoint under dense attention", 1},
    {"generate", GENERATE, "BYTES", OPTION_ARG_OPTIONAL, "write as many bytes (200) with FOLDER's checkpoint",
     1},
    {"prompt", PROMPT, "TEXT", 0, "what --generate goes on from", 1},
    {"temperature", TEMPERATURE, "T", 0, "of --generate; 0 takes the likeliest byte (0.8)", 1},
    {"finetune", FINETUNE, "CHECKPOINT", 0,
     "start from the weights of a finished run, densely: its folder, or the file", 1},
    {"export", EXPORT, "OUT", 0,
     "write FOLDER's finished model as a Llama of Hugging Face's transformers into the new folder OUT", 1},
    {"auto", AUTO, NULL, 0, "take the (L, p, k) that `lighthouse plan` advises", 1},
    {"over", OVER, "NAME", 0,
     "under mpirun: what ranks share out, the sequences of a step or the tokens of each (sequences where that fits)",
     1},
    {"watch", WATCH, NULL, 0, "draw curves.svg again and again, shown by curves.html", 1},
    {"quiet", QUIET, NULL, 0, "no progress line", 1},
    {0},
};

struct request {
    const char *command, *folder, *prompt, *finetune, *to;
    bool resume, before, compare, evaluate, generate, automatic, watch, quiet;
    bool temperature_given;
    enum ranks_over over;
    cli_ranks ranks;
    int64_t generated, seeds;
    double temperature;
    settings_flags flags;
};

/* Options that would be ignored beside others. */
static void check_together(const struct request *r, const struct argp_state *state)
{
    if ((r->prompt || r->temperature_given) && !r->generate)
        argp_error(state, "--prompt and --temperature want --generate");
    if (r->seeds > 1 && !r->compare)
        argp_error(state, "--seeds wants --compare");
    if (r->resume && (r->finetune || r->evaluate || r->generate || r->to || r->automatic))
        argp_error(
            state,
            "--resume and --before want neither --finetune, --evaluate, --generate, --export nor --auto");
    if (r->before && r->compare)
        argp_error(state, "--before wants the folder of one run, not --compare");
    for (int i = 0; r->finetune && i < r->flags.count; i++) {
        if (strcmp(r->flags.flag[i].what->name, "lighthouse-steps") == 0 &&
            strcmp(r->flags.flag[i].text, "0") != 0)
            argp_error(state, "--lighthouse-steps is %s, wanted 0 with --finetune, which is dense",
                       r->flags.flag[i].text);
    }
}

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
    case BEFORE:
        r->resume = r->before = true;
        break;
    case SEEDS:
        r->seeds = cli_positive(state, "--seeds", argument);
        if (r->seeds > MAX_SEEDS)
            argp_error(state, "--seeds is %s, wanted 1 to %d", argument, MAX_SEEDS);
        break;
    case OVER:
        r->over = strcmp(argument, "sequences") == 0 ? OVER_SEQUENCES : OVER_TOKENS;
        if (r->over == OVER_TOKENS && strcmp(argument, "tokens") != 0)
            argp_error(state, "--over is '%s', wanted sequences or tokens", argument);
        break;
    case WATCH:
        r->watch = true;
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
        r->temperature_given = true;
        if (r->temperature < 0)
            argp_error(state, "--temperature is %s, wanted 0 or more", argument);
        break;
    case FINETUNE:
        r->finetune = argument;
        break;
    case EXPORT:
        r->to = argument;
        break;
    case AUTO:
        r->automatic = true;
        break;
    case QUIET:
        r->quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (r->folder && r->generate && strspn(r->folder, "0123456789") == strlen(r->folder))
            argp_error(state,
                       "arguments are '%s' and '%s', wanted one FOLDER: --generate=%s takes a number so",
                       r->folder, argument, r->folder);
        if (r->folder)
            argp_error(state, "arguments are '%s' and '%s', wanted one FOLDER", r->folder, argument);
        r->folder = argument;
        break;
    case ARGP_KEY_END:
        if (!r->folder)
            argp_error(state, "FOLDER is missing, wanted where the run lives");
        if (r->compare + r->evaluate + r->generate + (r->finetune != NULL) + (r->to != NULL) > 1)
            argp_error(state,
                       "--compare, --evaluate, --generate, --finetune, --export: wanted one of them at most");
        check_together(r, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* What a new run, or one that goes on, or a fine-tuning starts from before the flags. */
static lh_status base_settings(const struct request *r, const compare_place *place, settings *s, bool *begun,
                               lh_error *error)
{
    char folder[PATH_SIZE], path[PATH_SIZE];
    checkpoint c;
    settings_default(s);
    lh_status status = r->compare ? compare_first_run(place, r->folder, folder, error)
                                  : folder_path(r->folder, ".", folder, error);
    if (status == LH_OK)
        status = folder_path(folder, CHECKPOINT_NAME, path, error);
    if (status != LH_OK)
        return status;
    if (r->finetune)
        status = checkpoint_open(r->finetune, &c, error);
    else if (r->before || (r->resume && access(path, F_OK) == 0))
        status = checkpoint_open_last(r->compare ? folder : r->folder, r->before, &c, error);
    else
        return LH_OK;
    if (status != LH_OK)
        return status;
    *s = c.settings;
    *begun = true;
    if (r->finetune)
        s->lighthouse_steps = 0;
    checkpoint_close(&c);
    return LH_OK;
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

/* Nothing that a run in `folder` writes is a file that is read. */
static lh_status check_run(const char *folder, const char *inside, lh_error *error)
{
    static const char *const names[] = {CHECKPOINT_NAME, BEFORE_NAME,    JOURNAL_NAME,
                                        "audit.json",    "curves.svg",   "curves.html",
                                        "compare.svg",   "compare.json", EQUAL_TIME_NAME};
    char run[PATH_SIZE], path[PATH_SIZE];
    lh_status status = folder_path(folder, inside, run, error);
    for (size_t i = 0; i < sizeof names / sizeof *names && status == LH_OK; i++) {
        status = folder_path(run, names[i], path, error);
        if (status == LH_OK)
            status = cli_check_read(path, error);
    }
    return status;
}

static lh_status check_files(const struct request *r, const settings *s, lh_error *error)
{
    static const char *const runs[] = {".", TWO_STAGE_FOLDER, DENSE_FOLDER, TIME_FOLDER};
    lh_status status = LH_OK;
    cli_input(s->text);
    if (r->finetune)
        cli_input(r->finetune);
    for (int64_t seed = 0; seed < r->seeds && status == LH_OK; seed++) {
        for (int i = 0; i < (r->compare ? 4 : 1) && status == LH_OK; i++) {
            char inside[64];
            snprintf(inside, sizeof inside, "seed-%" PRId64 "/%s", s->seed + seed, runs[i]);
            status = check_run(r->folder, runs[i], error);
            if (status == LH_OK && r->seeds > 1)
                status = check_run(r->folder, inside, error);
        }
    }
    return status;
}

static lh_status train(const struct request *r, const settings *s, bool *stopped, lh_error *error)
{
    trainer *t;
    const bool first = cli_ranks_first(&r->ranks);
    progress shown = {.quiet = r->quiet, .watch = r->watch};
    const run_options o = {
        .start = r->before     ? START_BEFORE
                 : r->resume   ? START_RESUME
                 : r->finetune ? START_FINETUNE
                               : START_NEW,
        .from = r->finetune,
        .stop = stop_on_signals(first),
        .exchange = r->ranks.apart ? &r->ranks.exchange : NULL,
        .over = r->over,
    };
    lh_status status = lh_alloc((void **)&t, sizeof *t, "trainer", error);
    if (status != LH_OK)
        return status;
    status = trainer_open(s, r->folder, &o, t, error);
    if (status == LH_OK) {
        if (first)
            progress_start(&shown, t);
        status = trainer_run(t, progress_show, &shown, error);
        progress_end(&shown);
        stop_no_more();
        *stopped = t->stopped;
        if (status == LH_OK && first)
            status = report_run(r->folder, t, error);
    }
    trainer_close(t);
    lh_free(t);
    return status;
}

/* A run's folder stands for its checkpoint. */
static bool checkpoint_of(const char *folder, char path[PATH_SIZE])
{
    struct stat about;
    return stat(folder, &about) == 0 && S_ISDIR(about.st_mode) &&
           folder_path(folder, CHECKPOINT_NAME, path, NULL) == LH_OK;
}

/* What is for one process alone. */
static lh_status check_ranks(const struct request *r, lh_error *error)
{
    const char *alone = r->compare     ? "--compare"
                        : r->evaluate  ? "--evaluate"
                        : r->generate  ? "--generate"
                        : r->to        ? "--export"
                        : r->automatic ? "--auto"
                                       : NULL;
    if (r->ranks.apart && alone)
        return lh_fail(error, LH_INVALID, "%s is given under mpirun, wanted one process", alone);
    if (!r->ranks.apart && r->over != OVER_AUTO)
        return lh_fail(error, LH_INVALID, "--over is given for one process, wanted mpirun -n 2 or more");
    return LH_OK;
}

int cli_train(int argc, char **argv)
{
    static struct request r = {.seeds = 1, .generated = 200, .temperature = 0.8};
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
    bool stopped = false;
    static compare_place place;
    status = cli_ranks_start(&r.ranks, &error);
    compare_find(r.folder, &place);
    if (status == LH_OK)
        status = check_ranks(&r, &error);
    if (status == LH_OK)
        status = compare_place_check(&place, r.folder, r.compare ? r.seeds : 0, r.resume, &error);
    static char from[PATH_SIZE];
    if (status == LH_OK && r.finetune && checkpoint_of(r.finetune, from))
        r.finetune = from;
    status = cli_ranks_agree(&r.ranks, status, &error);
    if (status == LH_OK && (r.evaluate || r.generate || r.to)) {
        const model_use use = {r.folder,    r.to,          !r.generate ? NULL : r.prompt ? r.prompt : "\n",
                               r.generated, r.temperature, &r.flags};
        status = use_model(&use, &error);
    } else if (status == LH_OK) {
        settings s;
        bool begun = false;
        status = base_settings(&r, &place, &s, &begun, &error);
        if (status == LH_OK)
            status = settings_flags_apply(&r.flags, &s, &error);
        if (status == LH_OK && r.resume && !begun && !*s.text)
            status = lh_fail(&error, LH_INVALID,
                             "%.300s has no checkpoint, wanted a run to go on with, or --text to begin one",
                             r.folder);
        if (status == LH_OK)
            status = check_files(&r, &s, &error);
        if (cli_ranks_first(&r.ranks))
            openmp_warn(r.command);
        if (status == LH_OK && r.automatic)
            status = choose(&s, &error);
        status = cli_ranks_agree(&r.ranks, status, &error);
        if (status == LH_OK)
            status = r.compare
                         ? compare_seeds(&(compare_request){r.folder, r.seeds, r.resume, r.quiet, r.watch},
                                         &s, &stopped, &error)
                         : train(&r, &s, &stopped, &error);
    }
    if (r.ranks.apart || status != LH_OK) {
        const int left = cli_ranks_finish(&r.ranks, r.command, status, &error);
        if (status != LH_OK)
            return left;
    }
    return stopped ? stop_status() : CLI_DONE;
}
