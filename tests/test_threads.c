/*
 * 64 threads, each over plans of its own that it makes and destroys: the bits of one thread alone, nothing left. Argument 1
 * is the backend. THREADS_SECONDS sets how long (1).
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "tests/layer.h"
#include "tests/suite.h"

enum {
    THREADS = 64,
    SHAPES = 3,
    RESULTS = 5
};

static const lh_config shapes[SHAPES] = {
    {1, 2, 1, 48, 8, 3, 2, 8, 4},
    {2, 2, 2, 36, 3, 2, 3, 4, 2},
    {1, 1, 1, 40, 16, 1, 2, 0, 0},
};
static const lh_tensor_id results[RESULTS] = {LH_OUT, LH_LSE, LH_DQ, LH_DK, LH_DV};
static const char *backend;
static lh_dtype dtype;
static struct layer wanted[SHAPES];

static lh_status run(struct layer *layer, int threads, lh_error *error)
{
    const lh_options options = {.backend = backend, .dtype = dtype, .backward = true, .threads = threads};
    lh_plan *plan;
    lh_status status = lh_plan_create(&layer->config, &options, &plan, error);
    if (status == LH_OK)
        status = lh_forward(plan, layer->trace, error);
    if (status == LH_OK)
        status = lh_backward(plan, layer->trace, error);
    lh_plan_destroy(plan);
    return status;
}

struct worker {
    pthread_t thread;
    struct layer layer[SHAPES];
    int number, layers, differ;
    double until;
    lh_status status;
    lh_error error;
};

static void *work(void *argument)
{
    struct worker *w = argument;
    for (int i = w->number; w->status == LH_OK && (w->layers < 1 || lh_seconds() < w->until); i++) {
        struct layer *layer = &w->layer[i % SHAPES];
        for (int r = 0; r < RESULTS; r++)
            memset(layer->trace[results[r]].data, 0x5a, layer_bytes(&layer->trace[results[r]]));
        w->status = run(layer, 1 + w->number % 2, &w->error);
        for (int r = 0; r < RESULTS; r++)
            w->differ += memcmp(layer->trace[results[r]].data, wanted[i % SHAPES].trace[results[r]].data,
                                layer_bytes(&layer->trace[results[r]])) != 0;
        w->layers++;
    }
    return NULL;
}

START_TEST(plans_of_their_own)
{
    static struct worker workers[THREADS];
    const char *seconds = getenv("THREADS_SECONDS");
    const double until = lh_seconds() + (seconds ? atof(seconds) : 1);
    int layers = 0;
    lh_error error;
    for (int s = 0; s < SHAPES; s++) {
        layer_create(&wanted[s], &shapes[s], dtype, 1);
        expect_status(run(&wanted[s], 1, &error), LH_OK, &error, "");
    }
    const int64_t live = lh_alloc_live();
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.number = i, .until = until};
        for (int s = 0; s < SHAPES; s++)
            layer_create(&workers[i].layer[s], &shapes[s], dtype, 1);
    }
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_msg(workers[i].status == LH_OK, "thread %d: %s", i, workers[i].error.text);
        ck_assert_msg(workers[i].differ == 0, "thread %d: %d results differ", i, workers[i].differ);
        ck_assert_int_gt(workers[i].layers, 0);
        layers += workers[i].layers;
        for (int s = 0; s < SHAPES; s++)
            layer_free(&workers[i].layer[s]);
    }
    ck_assert_int_eq(lh_alloc_live(), live);
    printf("%s: %d layers by %d threads, the same bits\n", backend, layers, THREADS);
    for (int s = 0; s < SHAPES; s++)
        layer_free(&wanted[s]);
}
END_TEST

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    dtype = dtype_under_test(backend);
    snprintf(name, sizeof name, "threads %s", backend);
    Suite *suite = suite_create(name);
    tcase_add_test(suite_case(suite, "plans"), plans_of_their_own);
    return suite_run(suite);
}
