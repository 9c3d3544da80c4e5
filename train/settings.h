/*
 * settings.h: everything that defines a training run.
 *
 * One table names each setting once: the configuration file (INI, read by inih), the flags of
 * `lighthouse train`, and the checkpoint's metadata are all made from it.
 */
#ifndef TRAIN_SETTINGS_H
#define TRAIN_SETTINGS_H

#include "train/pass.h"

enum {
    SETTING_TEXT = 256,
    MAX_LAYERS = 512
};

typedef struct settings {
    /* model */
    int64_t width, layers, heads, kv_heads, dim, hidden;
    bool tied;
    double rotary_base;
    /* attention */
    int64_t levels, pool, topk, tile_topk;
    char dense_layers[SETTING_TEXT]; /* "0,1,-2,-1"; negative counts from the end */
    char budget[SETTING_TEXT];       /* even, or entropy: train/budget.h */
    int64_t budget_every;
    char backend[SETTING_TEXT];
    int64_t device, threads;
    char dtype[SETTING_TEXT];
    /* data */
    char text[SETTING_TEXT]; /* file or folder */
    int64_t context, batch, micro_batch, shards;
    double held_out, passkey;
    int64_t seed;
    /* recipe */
    int64_t lighthouse_steps, dense_steps;
    double rate, beta1, beta2, decay, clip;
    int64_t warmup, rewarm;
    char schedule[SETTING_TEXT]; /* recipe.h */
    double final_rate, cooldown;
    bool anew;
    double divergence;
    /* record */
    int64_t checkpoint_every;
    double checkpoint_minutes;
    int64_t eval_every, probes, held_out_windows, retrieval_trials;
} settings;

enum setting_type {
    SETTING_INTEGER,
    SETTING_NUMBER,
    SETTING_FLAG,
    SETTING_STRING
};

typedef struct setting {
    const char *section, *name; /* the flag is --name */
    enum setting_type type;
    size_t offset; /* in settings */
    double least, most;
    enum binding {
        FREE,         /* may change when a run goes on, and is journalled then */
        FOR_THE_RUN,  /* a run goes on with it as it began */
        FOR_THE_MODEL /* so does whoever uses its weights */
    } binding;
    const char *usual; /* default, as text */
    const char *help;
} setting;

extern const setting setting_table[];
extern const int setting_count;

void settings_default(settings *s);
/* NULL when there is none. */
const setting *setting_find(const char *name);
lh_status setting_parse(settings *s, const setting *what, const char *text, lh_error *error);
void setting_print(const settings *s, const setting *what, char text[SETTING_TEXT]);
/* Reads an INI file over what `s` holds. A bad line is named by file and number. */
lh_status settings_read(settings *s, const char *path, lh_error *error);
/* Every rule that a single setting's bounds do not say: shapes, Lighthouse's own, dense_layers. */
lh_status settings_check(const settings *s, lh_error *error);

model_shape settings_shape(const settings *s);
/* The backend's name; auto: of the ports that compute in the processor's own memory, which need no copies, the first; the
 * reference where there is none. */
const char *settings_backend(const settings *s);
/* Puts it in the place of auto. */
void settings_choose_backend(settings *s);
/* Lighthouse over all heads of a micro-batch, every head with the budget topk. */
lh_config settings_attention(const settings *s);
/* dense[layers]: the layers that always attend densely. */
lh_status settings_dense_layers(const settings *s, bool dense[MAX_LAYERS], lh_error *error);
/* A training pass of one micro-batch; lighthouse: with Lighthouse on in the layers that `dense` leaves. */
pass_options settings_pass(const settings *s, bool lighthouse, const bool *dense);

#endif
