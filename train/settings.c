/* The table of settings, and reading and checking them. */
#include "train/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <ini.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/regular.h"
#include "train/kernels.h"

#define MOST 1e15
#define INTEGER(section, field, name, least, most, binding, usual, help)                                     \
    {                                                                                                        \
        section, name, SETTING_INTEGER, offsetof(settings, field), least, most, binding, usual, help         \
    }
#define NUMBER(section, field, name, least, most, binding, usual, help)                                      \
    {                                                                                                        \
        section, name, SETTING_NUMBER, offsetof(settings, field), least, most, binding, usual, help          \
    }
#define STRING(section, field, name, binding, usual, help)                                                   \
    {                                                                                                        \
        section, name, SETTING_STRING, offsetof(settings, field), 0, 0, binding, usual, help                 \
    }

/* clang-format off */
const setting setting_table[] = {
    INTEGER("model", width, "width", 2, 4096, FOR_THE_MODEL, "256", "width of the residual stream"),
    INTEGER("model", layers, "layers", 1, MAX_LAYERS, FOR_THE_MODEL, "6", "decoder layers"),
    INTEGER("model", heads, "heads", 1, 4096, FOR_THE_MODEL, "4", "query heads"),
    INTEGER("model", kv_heads, "kv-heads", 1, 4096, FOR_THE_MODEL, "2", "key/value heads; divides heads"),
    INTEGER("model", dim, "dim", 2, 4096, FOR_THE_MODEL, "64", "head dimension, even"),
    INTEGER("model", hidden, "hidden", 1, 1 << 20, FOR_THE_MODEL, "704", "width inside the SwiGLU"),
    {"model", "tied", SETTING_FLAG, offsetof(settings, tied), 0, 1, FOR_THE_MODEL, "no", "head shares the embedding's weights"},
    NUMBER("model", rotary_base, "rotary-base", 1, MOST, FOR_THE_RUN, "500000", "base of the rotary angles"),

    INTEGER("attention", levels, "levels", 1, LH_MAX_LEVELS, FOR_THE_RUN, "3", "pyramid levels L of the Lighthouse stage"),
    INTEGER("attention", pool, "pool", 2, 1 << 20, FOR_THE_RUN, "2", "pooling factor p"),
    INTEGER("attention", topk, "topk", 2, MOST, FOR_THE_RUN, "512", "parents k kept per level and head"),
    INTEGER("attention", tile_topk, "tile-topk", 2, MOST, FOR_THE_RUN, "128", "parents m kept per tile"),
    STRING("attention", dense_layers, "dense-layers", FOR_THE_RUN, "", "layers that always attend densely: 0,1,-2,-1"),
    STRING("attention", budget, "budget", FREE, "even", "budgets of heads: even, or entropy (more to spread scores)"),
    INTEGER("attention", budget_every, "budget-every", 1, MOST, FREE, "50", "steps between changes of entropy budgets"),
    STRING("attention", backend, "backend", FREE, "auto", "who computes attention; auto: the fastest that computes on this machine's processor"),
    INTEGER("attention", device, "device", 0, 1024, FREE, "0", "which of the backend's devices"),
    INTEGER("attention", threads, "threads", 0, 4096, FREE, "0", "threads that compute; 0: as OpenMP decides"),
    STRING("attention", dtype, "dtype", FREE, "f32", "f32, or bf16 weights and activations over float32 masters"),

    STRING("data", text, "text", FREE, "", "file or folder of text to learn from"),
    INTEGER("data", context, "context", 2, MOST, FOR_THE_RUN, "16384", "tokens N of a sequence"),
    INTEGER("data", batch, "batch", 1, 1 << 20, FOR_THE_RUN, "1", "sequences of a step"),
    INTEGER("data", micro_batch, "micro-batch", 1, 1 << 20, FREE, "1", "sequences at a time; divides batch"),
    INTEGER("data", shards, "shards", 0, 1024, FREE, "0", "runs of a sequence whose gradients are summed apart: so many ranks give the same bits"),
    NUMBER("data", held_out, "held-out", 0, 0.9, FOR_THE_RUN, "0.05", "share of the text kept for validation"),
    NUMBER("data", passkey, "passkey", 0, 1, FOR_THE_RUN, "0", "share of sequences that are generated passkey tasks"),
    INTEGER("data", seed, "seed", 0, MOST, FOR_THE_RUN, "1", "seed of weights and data"),

    INTEGER("recipe", lighthouse_steps, "lighthouse-steps", 0, MOST, FREE, "2700", "steps with Lighthouse on"),
    INTEGER("recipe", dense_steps, "dense-steps", 0, MOST, FREE, "1500", "dense steps after them"),
    NUMBER("recipe", rate, "rate", 0, 1, FREE, "0.002", "AdamW learning rate"),
    NUMBER("recipe", beta1, "beta1", 0, 0.9999999, FREE, "0.9", "AdamW first moment"),
    NUMBER("recipe", beta2, "beta2", 0, 0.9999999, FREE, "0.95", "AdamW second moment"),
    NUMBER("recipe", decay, "decay", 0, 1, FREE, "0.1", "AdamW weight decay"),
    NUMBER("recipe", clip, "clip", 0, MOST, FREE, "1", "largest gradient norm; 0: no clip"),
    INTEGER("recipe", warmup, "warmup", 0, MOST, FREE, "60", "steps over which the rate rises from 0"),
    INTEGER("recipe", rewarm, "rewarm", 0, MOST, FREE, "0", "steps over which the rate rises again after the switch to dense"),
    STRING("recipe", schedule, "schedule", FREE, "constant", "of the rate after its warm-up: constant, cosine, linear or wsd"),
    NUMBER("recipe", final_rate, "final-rate", 0, 1, FREE, "0.1", "what the schedule ends at, as a share of the rate"),
    NUMBER("recipe", cooldown, "cooldown", 0, 1, FREE, "0.2", "share of the steps over which wsd falls, the last ones"),
    {"recipe", "anew", SETTING_FLAG, offsetof(settings, anew), 0, 1, FREE, "no", "each stage has a schedule of its own, not one over both"},
    NUMBER("recipe", divergence, "divergence", 0.1, MOST, FREE, "2", "rise of the smoothed loss over its lowest that stops the run"),

    INTEGER("record", checkpoint_every, "checkpoint-every", 1, MOST, FREE, "100", "steps between checkpoints"),
    NUMBER("record", checkpoint_minutes, "checkpoint-minutes", 0, MOST, FREE, "10", "minutes after which a step's end is a checkpoint too; 0: none"),
    INTEGER("record", eval_every, "eval-every", 0, MOST, FREE, "0", "steps between held-out losses, dense; 0: none"),
    INTEGER("record", probes, "probes", 0, MOST, FREE, "8", "Lighthouse steps after which dense attention is timed too"),
    INTEGER("record", held_out_windows, "held-out-windows", 1, MOST, FREE, "16", "held-out sequences of an evaluation"),
    INTEGER("record", retrieval_trials, "retrieval-trials", 0, MOST, FREE, "10", "passkey trials by depth and length"),
};
/* clang-format on */
const int setting_count = sizeof setting_table / sizeof *setting_table;

const setting *setting_find(const char *name)
{
    for (int i = 0; i < setting_count; i++) {
        if (strcmp(setting_table[i].name, name) == 0)
            return &setting_table[i];
    }
    return NULL;
}

void settings_default(settings *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < setting_count; i++)
        setting_parse(s, &setting_table[i], setting_table[i].usual, NULL);
}

static lh_status parse_flag(bool *flag, const setting *what, const char *text, lh_error *error)
{
    static const char *const words[2][3] = {{"no", "false", "0"}, {"yes", "true", "1"}};
    for (int value = 0; value < 2; value++)
        for (int i = 0; i < 3; i++) {
            if (strcmp(text, words[value][i]) == 0) {
                *flag = value;
                return LH_OK;
            }
        }
    return lh_fail(error, LH_INVALID, "%s is %s, wanted yes or no", what->name, text);
}

lh_status setting_parse(settings *s, const setting *what, const char *text, lh_error *error)
{
    void *field = (char *)s + what->offset;
    if (what->type == SETTING_FLAG)
        return parse_flag(field, what, text, error);
    if (what->type == SETTING_STRING) {
        if (strlen(text) >= SETTING_TEXT)
            return lh_fail(error, LH_INVALID, "%s has %zu bytes, wanted at most %d", what->name, strlen(text),
                           SETTING_TEXT - 1);
        /* Checkpoints and logs keep it, which are JSON: said now, not after the training. */
        char clean[SETTING_TEXT];
        strcpy(clean, text);
        if (strcmp(lh_clean(clean), text) != 0)
            return lh_fail(error, LH_INVALID, "%s is %s, wanted UTF-8 without control characters", what->name,
                           clean);
        strcpy(field, text);
        return LH_OK;
    }
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end || errno || !isfinite(value) || value < what->least || value > what->most ||
        (what->type == SETTING_INTEGER && value != floor(value)))
        return lh_fail(error, LH_INVALID, "%s is %s, wanted %s from %.15g to %.15g", what->name, text,
                       what->type == SETTING_INTEGER ? "an integer" : "a number", what->least, what->most);
    if (what->type == SETTING_INTEGER)
        *(int64_t *)field = (int64_t)value;
    else
        *(double *)field = value;
    return LH_OK;
}

void setting_print(const settings *s, const setting *what, char text[SETTING_TEXT])
{
    const void *field = (const char *)s + what->offset;
    switch (what->type) {
    case SETTING_INTEGER:
        snprintf(text, SETTING_TEXT, "%" PRId64, *(const int64_t *)field);
        break;
    case SETTING_NUMBER:
        snprintf(text, SETTING_TEXT, "%.17g", *(const double *)field);
        break;
    case SETTING_FLAG:
        snprintf(text, SETTING_TEXT, "%s", *(const bool *)field ? "yes" : "no");
        break;
    case SETTING_STRING:
        snprintf(text, SETTING_TEXT, "%s", (const char *)field);
        break;
    }
}

struct reading {
    settings *s;
    lh_error error;
};

static int read_one(void *user, const char *section, const char *name, const char *value)
{
    struct reading *r = user;
    const setting *what = setting_find(name);
    if (!what)
        lh_fail(&r->error, LH_INVALID, "[%s] %s is no setting", section, name);
    else if (strcmp(what->section, section) != 0)
        lh_fail(&r->error, LH_INVALID, "[%s] %s is no setting, wanted it in [%s]", section, name,
                what->section);
    else if (setting_parse(r->s, what, value, &r->error) == LH_OK)
        return 1;
    return 0;
}

lh_status settings_read(settings *s, const char *path, lh_error *error)
{
    struct reading r = {.s = s};
    FILE *file;
    const lh_status status = lh_stream_regular(path, "settings", LH_MOST_SETTINGS, &file, error);
    if (status != LH_OK)
        return status;
    const int line = ini_parse_file(file, read_one, &r);
    const bool broken = ferror(file) != 0;
    const int reason = errno;
    fclose(file);
    if (broken)
        return lh_fail(error, LH_IO, "%.300s cannot be read: %s", path, strerror(reason));
    if (line == 0)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "%.200s:%d: %.300s", path, line,
                   r.error.status != LH_OK ? r.error.text : "wanted [section] or name = value");
}

lh_status settings_dense_layers(const settings *s, bool dense[MAX_LAYERS], lh_error *error)
{
    memset(dense, 0, MAX_LAYERS * sizeof *dense);
    const char *at = s->dense_layers;
    while (*at) {
        char *end;
        const long long layer = strtoll(at, &end, 10);
        const long long from_start = layer < 0 ? layer + s->layers : layer;
        if (end == at || (*end && *end != ',') || from_start < 0 || from_start >= s->layers)
            return lh_fail(error, LH_INVALID,
                           "dense-layers is %s, wanted numbers from %" PRId64 " to %" PRId64
                           " with commas between",
                           s->dense_layers, -s->layers, s->layers - 1);
        dense[from_start] = true;
        at = *end ? end + 1 : end;
    }
    return LH_OK;
}

/* Heads that share keys and values share a budget, so one kv head leaves nothing to share out. */
static lh_status check_budget(const settings *s, lh_error *error)
{
    if (strcmp(s->budget, "even") == 0)
        return LH_OK;
    if (strcmp(s->budget, "entropy") != 0)
        return lh_fail(error, LH_INVALID, "budget is %s, wanted even or entropy", s->budget);
    if (s->kv_heads < 2)
        return lh_fail(error, LH_INVALID, "kv-heads is %" PRId64 ", wanted at least 2 with budget entropy",
                       s->kv_heads);
    return LH_OK;
}

static lh_status check_schedule(const settings *s, lh_error *error)
{
    static const char *const known[] = {"constant", "cosine", "linear", "wsd"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(s->schedule, known[i]) == 0)
            return LH_OK;
    }
    return lh_fail(error, LH_INVALID, "schedule is %.40s, wanted constant, cosine, linear or wsd",
                   s->schedule);
}

lh_status settings_check(const settings *s, lh_error *error)
{
    bool dense[MAX_LAYERS];
    lh_config attention = settings_attention(s);
    if (s->lighthouse_steps == 0)
        attention.levels = 1;
    lh_status status = lh_config_check(&attention, NULL, error);
    if (status == LH_OK)
        status = settings_dense_layers(s, dense, error);
    if (status == LH_OK)
        status = check_budget(s, error);
    if (status == LH_OK)
        status = check_schedule(s, error);
    if (status != LH_OK)
        return status;
    if (s->dim % 2 != 0)
        return lh_fail(error, LH_INVALID, "dim is %" PRId64 ", wanted an even number (rotary pairs)", s->dim);
    if (s->shards > 1 && (s->context % s->shards != 0 || s->context / s->shards % host_arithmetic.block != 0))
        return lh_fail(error, LH_INVALID,
                       "shards is %" PRId64 ", wanted runs of a multiple of %" PRId64 " of the %" PRId64
                       " tokens of context",
                       s->shards, host_arithmetic.block, s->context);
    if (s->batch % s->micro_batch != 0)
        return lh_fail(error, LH_INVALID, "micro-batch is %" PRId64 ", wanted a divisor of batch %" PRId64,
                       s->micro_batch, s->batch);
    if (strcmp(s->dtype, "f32") != 0 && strcmp(s->dtype, "bf16") != 0)
        return lh_fail(error, LH_INVALID, "dtype is %s, wanted f32 or bf16", s->dtype);
    if (s->lighthouse_steps + s->dense_steps < 1)
        return lh_fail(error, LH_INVALID, "lighthouse-steps and dense-steps are 0, wanted a step at least");
    return LH_OK;
}

const char *settings_backend(const settings *s)
{
    const char *name;
    if (strcmp(s->backend, "auto") != 0)
        return s->backend;
    for (int i = 0; (name = lh_backend_name(i)); i++) {
        lh_capabilities can;
        int devices;
        if (lh_backend_query(name, &can, NULL) == LH_OK && !can.reference && !can.device_memory &&
            lh_device_count(name, &devices, NULL) == LH_OK)
            return name;
    }
    return lh_backend_name(0);
}

void settings_choose_backend(settings *s)
{
    const char *name = settings_backend(s);
    if (name != s->backend)
        snprintf(s->backend, SETTING_TEXT, "%s", name);
}

model_shape settings_shape(const settings *s)
{
    return (model_shape){s->width, s->layers, s->heads, s->kv_heads,
                         s->dim,   s->hidden, s->tied,  s->rotary_base};
}

lh_config settings_attention(const settings *s)
{
    return (lh_config){
        .batch = s->micro_batch,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .tokens = s->context,
        .dim = s->dim,
        .levels = s->levels,
        .pool = s->pool,
        .topk = s->topk,
        .tile_topk = s->tile_topk,
    };
}

pass_options settings_pass(const settings *s, bool lighthouse, const bool *dense)
{
    return (pass_options){
        .batch = s->micro_batch,
        .tokens = s->context,
        .bf16 = strcmp(s->dtype, "bf16") == 0,
        .training = true,
        .backend = settings_backend(s),
        .device = (int)s->device,
        .threads = (int)s->threads,
        .levels = s->levels,
        .pool = s->pool,
        .topk = s->topk,
        .tile_topk = s->tile_topk,
        .dense = lighthouse ? dense : NULL,
    };
}
