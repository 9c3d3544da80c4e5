/* bench_ranks.h: `lighthouse bench --ranks`. */
#ifndef LH_CLI_BENCH_RANKS_H
#define LH_CLI_BENCH_RANKS_H

#include "bench/bench.h"
#include "cli/ranks.h"

/* Measures the exchange and prints what stands above the lines. */
lh_status cli_bench_ranks_head(const cli_ranks *ranks, const bench_request *request, lh_error *error);
/* Times one layer over ranks and prints its line; request->threads are one machine's, more than 0. */
lh_status cli_bench_ranks(const cli_ranks *ranks, const bench_request *request, lh_error *error);

#endif
