/* ranks.h: a layer over ranks beside the same layer on one machine's threads, in turns. */
#ifndef LH_BENCH_RANKS_H
#define LH_BENCH_RANKS_H

#include "bench/bench.h"
#include "lighthouse_dist.h"

typedef struct bench_ranks_point {
    lh_dist_layout layout; /* that was taken */
    int ranks, threads;    /* threads of one machine; a rank has its share of them, at least one */
    int runs;
    double one[BENCH_PASSES],
        over[BENCH_PASSES];         /* seconds of one run, the least; of ranks: until the last is done */
    double one_cores, over_cores;   /* seconds of all cores, of a forward and a backward, mean of the runs */
    lh_dist_profile rank;           /* of the first rank, a forward and a backward: mean of the runs */
    size_t tensors, plan;           /* bytes on one machine */
    size_t rank_tensors, rank_plan; /* of the first rank */
} bench_ranks_point;

/* On every rank of the exchange alike; `point` is the first rank's. request->threads is one machine's. */
lh_status bench_ranks_measure(const bench_request *request, lh_dist_layout layout,
                              const lh_exchange *exchange, bench_ranks_point *point, lh_error *error);

/* What an exchange with a neighbour costs: seconds of a message, and of a byte in large ones; 0 for one rank. */
typedef struct bench_link {
    double alpha, beta;
} bench_link;
lh_status bench_ranks_link(const lh_exchange *exchange, bench_link *link, lh_error *error);
void bench_ranks_link_line(FILE *file, const bench_link *link);

void bench_ranks_head(FILE *file, const bench_request *request);
void bench_ranks_line(FILE *file, const bench_request *request, const bench_ranks_point *point);

#endif
