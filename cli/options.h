/*
 * options.h: options that several subcommands share, as argp children. A subcommand lists them in its argp's children and
 * hands each its own struct at ARGP_KEY_INIT: `state->child_inputs[0] = &mine->where`.
 */
#ifndef LH_CLI_OPTIONS_H
#define LH_CLI_OPTIONS_H

#include <argp.h>

#include "cli/input.h"

enum {
    CLI_MOST_BACKENDS = 8
};

/* --backend --device --attention. Zeroed: none was named, device 0, LH_ATTENTION_AUTO. */
typedef struct cli_where {
    const char *backend[CLI_MOST_BACKENDS];
    int backends;
    int device;
    lh_attention attention;
} cli_where;

/* Of "one" the last --backend counts. */
extern const struct argp cli_where_one_argp, cli_where_many_argp;

/* --levels --pool --topk --tile-topk --kv-heads, into a cli_wish: 0 where a flag was not given. */
extern const struct argp cli_shape_argp;
/* Puts what was wished for over a configuration that holds defaults. */
void cli_shape_apply(const cli_wish *wish, lh_config *config);

#endif
