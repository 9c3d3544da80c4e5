/* ranks.h: --ranks: threads of this process, or the processes that mpirun started. */
#ifndef LH_CLI_RANKS_H
#define LH_CLI_RANKS_H

#include "cli/cli.h"
#include "lighthouse_dist.h"

typedef struct cli_ranks {
    int ranks;            /* 0: none were asked for */
    bool apart;           /* processes; this one is exchange.rank of them */
    lh_exchange exchange; /* of processes */
    lh_dist_layout layout;
} cli_ranks;

/* --ranks W and --layout NAME, into a cli_ranks. */
extern const struct argp cli_ranks_argp;

/* Under mpirun starts MPI; ranks are then all its processes, whether or not --ranks names their number. */
lh_status cli_ranks_start(cli_ranks *ranks, lh_error *error);
/* Whether this process reads, prints and writes what is done once. */
bool cli_ranks_first(const cli_ranks *ranks);
/* The status that all processes go on with: that of the lowest rank that failed. Processes come here alike. */
lh_status cli_ranks_agree(const cli_ranks *ranks, lh_status status, lh_error *error);
/* `work` on every rank: on threads here, or on this process alone, which is one of them. */
lh_status cli_ranks_run(const cli_ranks *ranks, lh_rank_fn *work, void *context, lh_error *error);
/* Ends MPI. The exit status; the line of an error is printed by the first process alone. */
int cli_ranks_finish(const cli_ranks *ranks, const char *command, lh_status status, const lh_error *error);

/* One layer over ranks: whole tensors on every process, `trace` by id; results are whole on the first one. */
typedef struct cli_layer {
    lh_config config;
    lh_options options;
    lh_tensor trace[LH_TENSOR_COUNT];
    bool verbose; /* the first rank says on stderr what took how long, and what it sent */
} cli_layer;
lh_status cli_ranks_layer(const cli_ranks *ranks, cli_layer *layer, lh_error *error);

#endif
