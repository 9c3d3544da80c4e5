/* train_use.h: evaluation, generation and export of the weights of a run. */
#ifndef LH_CLI_TRAIN_USE_H
#define LH_CLI_TRAIN_USE_H

#include "cli/settings_flags.h"

typedef struct model_use {
    const char *folder, *to, *prompt; /* `to` given: export there; prompt NULL: evaluate, else generate */
    int64_t generated;                /* bytes */
    double temperature;
    const settings_flags *flags;
} model_use;

enum {
    MAX_TEXT = 65536 /* bytes of a prompt and of what is generated */
};

/* Prints what comes of it; LH_INVALID where the stage of the run's checkpoint does not allow it. */
lh_status use_model(const model_use *use, lh_error *error);

#endif
