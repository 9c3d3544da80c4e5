/* settings_flags.h: --config FILE and a flag for every setting, an argp child of `train` and `plan`. */
#ifndef LH_CLI_SETTINGS_FLAGS_H
#define LH_CLI_SETTINGS_FLAGS_H

#include <argp.h>

#include "train/settings.h"

enum {
    MAX_FLAGS = 128
};

/* What the command line said; the child's input. */
typedef struct settings_flags {
    const char *config;
    int count;
    struct {
        const setting *what;
        const char *text;
    } flag[MAX_FLAGS]; /* in their order */
} settings_flags;

/* Option groups from `group` on. */
const struct argp *settings_flags_argp(int group);
/* The file's settings and then the flags over what `s` holds, and checks them and the backend. Setting `threads` holds for the
 * whole process from then on. */
lh_status settings_flags_apply(const settings_flags *flags, settings *s, lh_error *error);

#endif
