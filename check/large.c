/* A backend at the size that people train with: one layer, forward and backward, judged by rows (sample.h). */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "check/sample.h"
#include "core/convert.h"
#include "core/random.h"
#include "core/threads.h"

enum {
    THREADS = 16 /* that draw, at most */
};

static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_TENSOR_COUNT};
static const lh_tensor_id results[] = {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT,         LH_COVERAGE,
                                       LH_DQ,    LH_DK,    LH_DV,  LH_TENSOR_COUNT};

lh_config check_large_config(int64_t tokens)
{
    enum {
        TILE = 128
    };
    const int64_t tiles = tokens / 64 / TILE;
    return (lh_config){.batch = 1,
                       .heads = 8,
                       .kv_heads = 8,
                       .tokens = tokens,
                       .dim = 128,
                       .levels = 3,
                       .pool = 4,
                       .topk = tiles > 1 ? tiles * TILE : TILE,
                       .tile_topk = TILE};
}

static lh_status make(const lh_config *config, lh_dtype dtype, const lh_tensor_id *ids, lh_tensor *trace,
                      lh_error *error)
{
    lh_status status = LH_OK;
    for (; *ids != LH_TENSOR_COUNT && status == LH_OK; ids++) {
        lh_tensor *t = &trace[*ids];
        status = lh_tensor_describe(config, dtype, *ids, t, error);
        const size_t bytes = status == LH_OK ? (size_t)lh_tensor_elements(t) * lh_dtype_size(t->dtype) : 0;
        if (status == LH_OK)
            status = lh_alloc(&t->data, bytes, lh_tensor_name(*ids), error);
        if (status == LH_OK)
            memset(t->data, 0xff, bytes); /* NaN and -1: what is left of it was never written */
    }
    return status;
}

/* Elements of one tensor; each follows from its place alone, whoever draws it. */
struct share {
    lh_tensor *t;
    lh_tensor_id id;
    uint64_t seed;
    int64_t from, to;
    pthread_t thread;
    bool started;
};

static void *draw_share(void *context)
{
    const struct share *s = context;
    for (int64_t i = s->from; i < s->to; i++)
        lh_store(s->t->data, s->t->dtype, i, lh_random_gaussian(s->seed, s->id, (uint64_t)i));
    return NULL;
}

static void draw(lh_tensor *t, lh_tensor_id id, uint64_t seed)
{
    struct share share[THREADS];
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    const int threads = lh_threads_available(processors < THREADS ? (int)processors : THREADS, 0);
    const int64_t elements = lh_tensor_elements(t), each = (elements + threads - 1) / threads;
    for (int i = 0; i < threads; i++) {
        share[i] = (struct share){.t = t,
                                  .id = id,
                                  .seed = seed,
                                  .from = i * each < elements ? i * each : elements,
                                  .to = (i + 1) * each < elements ? (i + 1) * each : elements};
        share[i].started = i > 0 && pthread_create(&share[i].thread, NULL, draw_share, &share[i]) == 0;
    }
    for (int i = 0; i < threads; i++) {
        if (share[i].started)
            pthread_join(share[i].thread, NULL);
        else
            draw_share(&share[i]);
    }
}

static lh_status run(const lh_config *config, const lh_options *options, const lh_tensor *trace,
                     lh_error *error)
{
    lh_plan *plan = NULL;
    lh_status status = lh_plan_create(config, options, &plan, error);
    if (status == LH_OK)
        status = lh_forward(plan, trace, error);
    if (status == LH_OK)
        status = lh_backward(plan, trace, error);
    lh_plan_destroy(plan);
    return status;
}

lh_status check_large(const lh_config *config, const lh_options *options, const check_sample *sample,
                      check_report *report, lh_error *error)
{
    lh_tensor trace[LH_TENSOR_COUNT] = {0};
    check_source source;
    memset(report, 0, sizeof *report);
    lh_status status = make(config, options->dtype, inputs, trace, error);
    if (status == LH_OK)
        status = make(config, options->dtype, results, trace, error);
    for (const lh_tensor_id *id = inputs; *id != LH_TENSOR_COUNT && status == LH_OK; id++)
        draw(&trace[*id], *id, sample->seed);
    if (sample->progress)
        fprintf(sample->progress, "\rinputs drawn, running");
    if (status == LH_OK)
        status = run(config, options, trace, error);
    if (status == LH_OK) {
        check_source_memory(trace, &source);
        for (int id = 0; id < LH_TENSOR_COUNT; id++)
            report->present |= trace[id].data ? 1u << id : 0;
        status = check_sampled(config, &source, sample, NULL, report, error);
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        lh_free(trace[id].data);
    return status;
}
