/*
 * Over ranks and on one machine in turns, so that a machine that is not steady is so for both. While the first rank times
 * one machine, the others sleep.
 */
#include "bench/ranks.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/convert.h"
#include "core/random.h"
#include "dist/dist.h"

enum {
    FEWEST_RUNS = 2,
    MOST_RUNS = 100
};

/* One layer's tensors, of the caller. */
struct tensors {
    lh_tensor trace[LH_TENSOR_COUNT];
    size_t bytes;
};

struct timing {
    const bench_request *request;
    const lh_exchange *exchange;
    lh_dist_plan *plan;
    lh_plan *one; /* the first rank's */
    struct tensors part, whole;
};

static lh_status take(const lh_config *config, lh_dtype dtype, struct tensors *t, lh_error *error)
{
    for (int i = 0; i < LH_LAYER_STRIDED; i++) {
        const lh_tensor_id id = lh_layer_strided[i];
        lh_tensor *one = &t->trace[id];
        lh_status status = lh_tensor_describe(config, dtype, id, one, error);
        if (status != LH_OK)
            return status;
        const int64_t elements = lh_tensor_elements(one);
        const size_t bytes = (size_t)elements * lh_dtype_size(dtype);
        status = lh_alloc(&one->data, bytes, lh_tensor_name(id), error);
        if (status != LH_OK)
            return status;
        t->bytes += bytes;
        memset(one->data, 0, bytes);
        if (!lh_listed(lh_layer_inputs, id))
            continue;
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
        for (int64_t e = 0; e < elements; e++)
            lh_store(one->data, dtype, e, 2.0 * lh_random_uniform(1, (uint64_t)id, (uint64_t)e) - 1.0);
    }
    return LH_OK;
}

static void release(struct tensors *t)
{
    for (int i = 0; i < LH_LAYER_STRIDED; i++)
        lh_free(t->trace[lh_layer_strided[i]].data);
}

/* All ranks have come here; those that wait sleep. */
static lh_status meet(const struct timing *t, lh_status status, lh_error *error)
{
    return dist_agree(t->exchange, status, t->plan->cards, error);
}

static void least(double *kept, double seconds)
{
    if (*kept == 0 || seconds < *kept)
        *kept = seconds;
}

static double core_seconds(void)
{
    struct timespec now;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0
               ? (double)now.tv_sec + 1e-9 * (double)now.tv_nsec
               : 0;
}

/* Core seconds of all ranks: of every process that is one. */
static lh_status sum_cores(const struct timing *t, double mine, double *sum, lh_error *error)
{
    struct spent {
        int64_t process;
        double seconds;
    } * all, me = {getpid(), mine};
    lh_status status =
        lh_alloc((void **)&all, (size_t)t->exchange->ranks * sizeof *all, "seconds of all ranks", error);
    if (status != LH_OK)
        return status;
    status = dist_gather_all(t->exchange, &me, sizeof me, all, error);
    *sum = 0;
    for (int r = 0; r < t->exchange->ranks && status == LH_OK; r++)
        *sum += r == 0 || all[r].process != all[0].process ? all[r].seconds : 0;
    lh_free(all);
    return status;
}

/* One run of both. */
static lh_status run(struct timing *t, bench_pass pass, bench_ranks_point *point, lh_error *error)
{
    lh_status status = LH_OK;
    double since = lh_seconds(), cores = core_seconds(), sum;
    if (t->one)
        status = (pass == BENCH_FORWARD ? lh_forward : lh_backward)(t->one, t->whole.trace, error);
    least(&point->one[pass], lh_seconds() - since);
    point->one_cores += core_seconds() - cores;
    status = meet(t, status, error);
    since = lh_seconds();
    cores = core_seconds();
    if (status == LH_OK)
        status = (pass == BENCH_FORWARD ? lh_dist_forward : lh_dist_backward)(t->plan, t->part.trace, error);
    status = meet(t, status, error);
    least(&point->over[pass], lh_seconds() - since);
    if (status == LH_OK)
        status = sum_cores(t, core_seconds() - cores, &sum, error);
    if (status == LH_OK)
        point->over_cores += sum;
    return status;
}

/* Whether to go on, which the first rank decides for all. */
static lh_status goes_on(const struct timing *t, bool wish, bool *go, lh_error *error)
{
    char all[1024], mine = wish;
    const lh_status status = dist_gather_all(t->exchange, &mine, 1, all, error);
    *go = status == LH_OK && all[0];
    return status;
}

static lh_status repeat(struct timing *t, bench_ranks_point *point, lh_error *error)
{
    const double until = lh_seconds() + t->request->seconds;
    lh_dist_profile before;
    lh_status status = LH_OK;
    for (bool go = true; go && status == LH_OK;) {
        if (point->runs == 0)
            lh_dist_get_profile(t->plan, &before);
        for (int pass = 0; pass < BENCH_PASSES && status == LH_OK; pass++)
            status = run(t, (bench_pass)pass, point, error);
        point->runs++;
        if (status == LH_OK)
            status =
                goes_on(t, point->runs < FEWEST_RUNS || (lh_seconds() < until && point->runs < MOST_RUNS),
                        &go, error);
    }
    if (status != LH_OK)
        return status;
    point->one_cores /= point->runs;
    point->over_cores /= point->runs;
    lh_dist_get_profile(t->plan, &point->rank);
    point->rank.local = (point->rank.local - before.local) / point->runs;
    point->rank.attend = (point->rank.attend - before.attend) / point->runs;
    point->rank.exchange = (point->rank.exchange - before.exchange) / point->runs;
    point->rank.bytes = (point->rank.bytes - before.bytes) / (uint64_t)point->runs;
    point->rank.messages = (point->rank.messages - before.messages) / point->runs;
    return LH_OK;
}

lh_status bench_ranks_measure(const bench_request *request, lh_dist_layout layout,
                              const lh_exchange *exchange, bench_ranks_point *point, lh_error *error)
{
    struct timing t = {.request = request, .exchange = exchange};
    const int share = request->threads / exchange->ranks;
    lh_options options = {.backend = request->backend,
                          .device = request->device,
                          .dtype = request->dtype,
                          .attention = request->attention,
                          .backward = true,
                          .threads = share > 0 ? share : 1};
    memset(point, 0, sizeof *point);
    lh_status status = lh_dist_create(&request->config, &options, layout, exchange, &t.plan, error);
    if (status != LH_OK)
        return status;
    status = take(lh_dist_config(t.plan), request->dtype, &t.part, error);
    options.threads = request->threads;
    if (status == LH_OK && exchange->rank == 0)
        status = take(&request->config, request->dtype, &t.whole, error);
    if (status == LH_OK && exchange->rank == 0)
        status = lh_plan_create(&request->config, &options, &t.one, error);
    status = meet(&t, status, error);
    if (status == LH_OK)
        status = repeat(&t, point, error);
    if (status == LH_OK) {
        point->layout = lh_dist_layout_of(t.plan);
        point->ranks = exchange->ranks;
        point->threads = request->threads;
        point->tensors = t.whole.bytes;
        point->plan = t.one ? lh_plan_workspace(t.one) : 0;
        point->rank_tensors = t.part.bytes;
        point->rank_plan = lh_dist_workspace(t.plan);
    }
    lh_plan_destroy(t.one);
    lh_dist_destroy(t.plan);
    release(&t.part);
    release(&t.whole);
    return status;
}

/* Every rank sends `bytes` to the next one and receives as many, `times` in a row, and that `again` and again: seconds of
 * one exchange, the least of those means. */
static lh_status pass_round(const lh_exchange *exchange, char *memory, size_t bytes, int times, int again,
                            double *seconds, lh_error *error)
{
    const int next = (exchange->rank + 1) % exchange->ranks,
              last = (exchange->rank + exchange->ranks - 1) % exchange->ranks;
    const lh_block send = {next, memory, bytes, bytes, 1}, receive = {last, memory + bytes, bytes, bytes, 1};
    lh_status status = LH_OK;
    *seconds = 0;
    for (int i = 0; i < again && status == LH_OK; i++) {
        const double since = lh_seconds();
        for (int n = 0; n < times && status == LH_OK; n++) {
            int request;
            status = exchange->begin(exchange->context, &send, 1, &receive, 1, &request, error);
            if (status == LH_OK)
                status = exchange->finish(exchange->context, request, error);
        }
        least(seconds, (lh_seconds() - since) / times);
    }
    return status;
}

lh_status bench_ranks_link(const lh_exchange *exchange, bench_link *link, lh_error *error)
{
    const size_t large = 16 << 20;
    char *memory = NULL;
    double small_one, large_one;
    *link = (bench_link){0, 0};
    if (exchange->ranks == 1)
        return LH_OK;
    lh_status status = lh_alloc((void **)&memory, 2 * large, "what travels", error);
    if (status != LH_OK)
        return status;
    memset(memory, 0, 2 * large);
    status = pass_round(exchange, memory, 8, 50, 20, &small_one, error);
    if (status == LH_OK)
        status = pass_round(exchange, memory, large, 1, 5, &large_one, error);
    if (status == LH_OK)
        *link = (bench_link){small_one, (large_one - small_one) / (double)large};
    lh_free(memory);
    return status;
}

void bench_ranks_link_line(FILE *file, const bench_link *link)
{
    if (link->beta > 0)
        fprintf(file, "an exchange with a neighbour: alpha %.1f us, 1/beta %.2f GB/s (all ranks at once)\n",
                1e6 * link->alpha, 1e-9 / link->beta);
}

void bench_ranks_head(FILE *file, const bench_request *request)
{
    const lh_config *c = &request->config;
    fprintf(file,
            "B %" PRId64 ", H %" PRId64 ", G %" PRId64 ", d %" PRId64 ", %s; L %" PRId64 ", p %" PRId64
            "; %d threads in all\n",
            c->batch, c->heads, c->kv_heads, c->dim, lh_dtype_name(request->dtype), c->levels, c->pool,
            request->threads);
    fputs(
        "ms: forward and backward, the least of the runs, on one machine and over ranks until the last is done, in "
        "turns. cores: core\nseconds over core seconds, means, which a busy machine leaves as they are. Of the first rank, "
        "both passes, means: attention,\nwaiting for and copying what travels, the rest, what it sent. share: its plan "
        "times the ranks over one machine's.\n\n",
        file);
    fprintf(file, "%-7s %8s %5s %-6s %9s %9s %6s %6s %9s %9s %9s %9s %8s %4s\n", "backend", "tokens", "ranks",
            "layout", "one ms", "ranks ms", "ratio", "cores", "attend", "exchange", "rest", "sent MiB",
            "messages", "runs");
}

static double mib(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

void bench_ranks_line(FILE *file, const bench_request *request, const bench_ranks_point *p)
{
    const double one = p->one[BENCH_FORWARD] + p->one[BENCH_BACKWARD],
                 over = p->over[BENCH_FORWARD] + p->over[BENCH_BACKWARD];
    fprintf(
        file, "%-7s %8" PRId64 " %5d %-6s %9.1f %9.1f %6.3f %6.3f %9.1f %9.1f %9.1f %9.1f %8" PRId64 " %4d\n",
        request->backend, request->config.tokens, p->ranks, lh_dist_layout_name(p->layout), 1e3 * one,
        1e3 * over, over / one, p->over_cores / p->one_cores, 1e3 * p->rank.attend, 1e3 * p->rank.exchange,
        1e3 * p->rank.local, mib((size_t)p->rank.bytes), p->rank.messages, p->runs);
    fprintf(file,
            "%24s MiB: one machine, caller %.1f, plan %.1f; first rank, caller %.1f, plan %.1f, share %.2f\n",
            "", mib(p->tensors), mib(p->plan), mib(p->rank_tensors), mib(p->rank_plan),
            (double)p->rank_plan * p->ranks / (double)p->plan);
    fflush(file);
}
