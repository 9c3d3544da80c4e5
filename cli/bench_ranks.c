/* `lighthouse bench --ranks`: every number of tokens over ranks, beside one machine. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "cli/bench_ranks.h"

#include <sched.h>

#include "bench/ranks.h"

struct job {
    const bench_request *request;
    const cli_ranks *ranks;
    bench_ranks_point *point;
};

static lh_status measure(const lh_exchange *exchange, void *context, lh_error *error)
{
    const struct job *job = context;
    bench_ranks_point unread;
    return bench_ranks_measure(job->request, job->ranks->layout, exchange,
                               exchange->rank == 0 ? job->point : &unread, error);
}

/* One machine's threads want cores of their own, or ranks are compared with half a machine. */
static lh_status check_cores(int threads, lh_error *error)
{
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) < threads)
        return lh_fail(
            error, LH_INVALID,
            "this process may run on %d cores, wanted %d as --threads says (mpirun --bind-to none)",
            CPU_COUNT(&cores), threads);
    return LH_OK;
}

static lh_status measure_link(const lh_exchange *exchange, void *context, lh_error *error)
{
    bench_link link;
    const lh_status status = bench_ranks_link(exchange, &link, error);
    if (status == LH_OK && exchange->rank == 0)
        *(bench_link *)context = link;
    return status;
}

lh_status cli_bench_ranks_head(const cli_ranks *ranks, const bench_request *request, lh_error *error)
{
    bench_link link;
    lh_status status = cli_ranks_agree(ranks, check_cores(request->threads, error), error);
    if (status == LH_OK)
        status = cli_ranks_run(ranks, measure_link, &link, error);
    if (status != LH_OK || !cli_ranks_first(ranks))
        return status;
    bench_ranks_link_line(stdout, &link);
    bench_ranks_head(stdout, request);
    return LH_OK;
}

lh_status cli_bench_ranks(const cli_ranks *ranks, const bench_request *request, lh_error *error)
{
    bench_ranks_point point;
    struct job job = {request, ranks, &point};
    const lh_status status = cli_ranks_run(ranks, measure, &job, error);
    if (status == LH_OK && cli_ranks_first(ranks))
        bench_ranks_line(stdout, request, &point);
    return status;
}
