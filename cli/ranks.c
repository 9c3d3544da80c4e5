/* --ranks: who the ranks are, and what is said once for all of them. */
#include <stdlib.h>
#include <string.h>

#include "cli/ranks.h"
#include "dist/dist.h"
#ifdef LH_WITH_MPI
#include "dist/ranks_mpi.h"
#endif

enum {
    RANKS = 3000,
    LAYOUT
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    cli_ranks *ranks = state->input;
    if (key == RANKS) {
        const int64_t wanted = cli_positive(state, "--ranks", argument);
        if (wanted > 1024)
            argp_error(state, "--ranks is %s, wanted at most 1024", argument);
        ranks->ranks = (int)wanted;
    } else if (key == LAYOUT) {
        int layout = LH_DIST_AUTO;
        while (layout <= LH_DIST_BY_ROWS &&
               strcmp(argument, lh_dist_layout_name((lh_dist_layout)layout)) != 0)
            layout++;
        if (layout > LH_DIST_BY_ROWS)
            argp_error(state, "--layout is '%s', wanted auto, heads or rows", argument);
        ranks->layout = (lh_dist_layout)layout;
    } else {
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option options[] = {
    {"ranks", RANKS, "W", 0, "the layer's tokens over W ranks: threads here, or the processes of mpirun -n W",
     4},
    {"layout", LAYOUT, "NAME", 0, "heads, rows or auto: how ranks share attention out (docs/distributed.md)",
     4},
    {0},
};
const struct argp cli_ranks_argp = {.options = options, .parser = parse_option};

/* Processes that mpirun started this one among; 0 when it did not. */
static int launched(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *text = getenv(variables[i]);
        if (text && atoi(text) > 0)
            return atoi(text);
    }
    return 0;
}

lh_status cli_ranks_start(cli_ranks *ranks, lh_error *error)
{
    const int world = launched();
    if (world == 0 || (world == 1 && ranks->ranks == 0))
        return LH_OK;
#ifdef LH_WITH_MPI
    lh_status status = lh_mpi_start(&ranks->exchange, error);
    if (status != LH_OK)
        return status;
    ranks->apart = true;
    if (ranks->ranks != 0 && ranks->ranks != ranks->exchange.ranks)
        return lh_fail(error, LH_INVALID, "--ranks is %d, wanted %d, the processes that mpirun started",
                       ranks->ranks, ranks->exchange.ranks);
    ranks->ranks = ranks->exchange.ranks;
    return LH_OK;
#else
    return lh_fail(
        error, LH_UNSUPPORTED,
        "mpirun started %d processes, but this program was built without MPI (Debian: libopenmpi-dev)",
        world);
#endif
}

bool cli_ranks_first(const cli_ranks *ranks)
{
    return !ranks->apart || ranks->exchange.rank == 0;
}

lh_status cli_ranks_agree(const cli_ranks *ranks, lh_status status, lh_error *error)
{
    if (!ranks->apart)
        return status;
    char *cards = malloc((size_t)ranks->ranks * DIST_CARD);
    if (!cards)
        return lh_fail(error, LH_NO_MEMORY, "what ranks tell each other could not be kept");
    status = dist_agree(&ranks->exchange, status, cards, error);
    free(cards);
    return status;
}

lh_status cli_ranks_run(const cli_ranks *ranks, lh_rank_fn *work, void *context, lh_error *error)
{
    return ranks->apart ? work(&ranks->exchange, context, error)
                        : lh_dist_threads(ranks->ranks, work, context, error);
}

int cli_ranks_finish(const cli_ranks *ranks, const char *command, lh_status status, const lh_error *error)
{
    int left = CLI_DONE;
    /* What the others cannot have been told. */
    const bool alone = ranks->apart && (status == LH_DEVICE || status == LH_NO_MEMORY);
    if (status != LH_OK && (alone || cli_ranks_first(ranks)))
        left = cli_fail(command, error);
    else if (status != LH_OK)
        left = status == LH_NO_DEVICE ? CLI_NO_DEVICE : status == LH_MISMATCH ? CLI_MISMATCH : CLI_REFUSED;
#ifdef LH_WITH_MPI
    if (alone)
        lh_mpi_abort(left); /* others may wait for this one: there is no finishing together */
    if (ranks->apart)
        lh_mpi_stop();
#endif
    return left;
}
