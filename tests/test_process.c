/* The process around the library: forks after use, threads that cannot be made. Argument 1 is the backend. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/threads.h"
#include "tests/layer.h"
#include "tests/suite.h"

static lh_config config = {1, 2, 1, 3072, 8, 3, 2, 256, 64}; /* enough for threads to share */
static const char *backend;
static lh_dtype dtype;
static bool works_on_device;

static lh_status run_layer(struct layer *layer, int threads)
{
    const lh_options options = {.backend = backend, .dtype = dtype, .backward = true, .threads = threads};
    lh_plan *plan;
    lh_error error;
    lh_status status = lh_plan_create(&config, &options, &plan, &error);
    if (status == LH_OK)
        status = lh_forward(plan, layer->trace, &error);
    if (status == LH_OK)
        status = lh_backward(plan, layer->trace, &error);
    lh_plan_destroy(plan);
    return status;
}

/* 0 where a new layer in this process has the bits of `wanted`, 1 where not, 2 where it failed. */
static int same_bits(const struct layer *wanted, int threads)
{
    static const lh_tensor_id ids[] = {LH_INDEX, LH_OUT, LH_DQ, LH_DK, LH_DV};
    struct layer layer;
    layer_create(&layer, &config, dtype, 3);
    if (run_layer(&layer, threads) != LH_OK)
        return 2;
    int differs = 0;
    for (int i = 0; i < 5; i++)
        differs |= memcmp(layer.trace[ids[i]].data, wanted->trace[ids[i]].data,
                          layer_bytes(&layer.trace[ids[i]])) != 0;
    layer_free(&layer);
    return differs;
}

/* The child's exit status; 1000 and more where a signal ended it. One that hangs is ended by SIGALRM. */
static int wait_for(pid_t child)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

START_TEST(fork_after_use)
{
    struct layer layer;
    layer_create(&layer, &config, dtype, 3);
    ck_assert_int_eq(run_layer(&layer, 3), LH_OK);
    for (int i = 0; i < 3; i++) {
        const pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            alarm(60);
            _exit(same_bits(&layer, 3));
        }
        ck_assert_int_eq(wait_for(child),
                         works_on_device ? 2 : 0); /* a driver's threads are gone: a status */
    }
    ck_assert_int_eq(same_bits(&layer, 3), 0); /* here as before */
    layer_free(&layer);
}
END_TEST

/* Addresses for a few threads' stacks and not for 200: fewer threads, the same bits, no end of the process. */
START_TEST(too_many_threads)
{
    struct layer layer;
    layer_create(&layer, &config, dtype, 3);
    ck_assert_int_eq(run_layer(&layer, 1), LH_OK);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        const rlim_t most = (rlim_t)400 << 20;
        alarm(60);
        if (setrlimit(RLIMIT_AS, &(struct rlimit){most, most}) != 0)
            _exit(99);
        _exit(same_bits(&layer, 200));
    }
    ck_assert_int_eq(wait_for(child), 0);
    layer_free(&layer);
}
END_TEST

/* More than any machine has: refused before anything of it is taken. */
START_TEST(too_large)
{
    const lh_config large = {4096, 4096, 4096, 4096, _i == 0 ? 4096 : 64, _i == 2 ? 1 : 3, 2, 512, 128};
    const lh_options options = {.backend = backend, .dtype = dtype, .backward = true, .stages = _i == 1};
    struct rusage before, after;
    lh_plan *plan;
    lh_error error;
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &before), 0);
    const lh_status status = lh_plan_create(&large, &options, &plan, &error);
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &after), 0);
    if (_i == 0 || status != LH_OK) /* terabytes are addresses that some systems hand out */
        expect_status(status, LH_NO_MEMORY, &error, "bytes");
    else
        lh_plan_destroy(plan);
    ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 500000);
}
END_TEST

START_TEST(threads_are_counted)
{
    ck_assert_int_eq(lh_threads_available(0, 0), 1);
    ck_assert_int_eq(lh_threads_available(1, 0), 1);
    ck_assert_int_eq(lh_threads_available(5, 0), 5);
    ck_assert_int_eq(lh_threads_available(5, 1), 5); /* a size that is none */
    ck_assert(!lh_threads_lost());
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        const rlim_t most = (rlim_t)300 << 20;
        if (setrlimit(RLIMIT_AS, &(struct rlimit){most, most}) != 0)
            _exit(99);
        const int had = lh_threads_available(1000, (size_t)16 << 20);
        _exit(had >= 1 && had < 20 ? 0 : 1);
    }
    ck_assert_int_eq(wait_for(child), 0);
}
END_TEST

#ifdef LITTLE_MEMORY
/* All of it in a thread of 64 KiB, as some languages and C libraries make them: a layer, and its check. */
static void *run_and_check(void *context)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_INDEX, LH_OUT, LH_DQ, LH_DK, LH_DV};
    struct layer *layer = context;
    lh_tensor present[LH_TENSOR_COUNT] = {0};
    lh_error error;
    char *report = NULL;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        present[ids[i]] = layer->trace[ids[i]];
    const bool right =
        run_layer(layer, 3) == LH_OK && lh_check(&config, present, &report, &error) == LH_OK && report;
    lh_text_free(report);
    return right ? layer : NULL;
}

START_TEST(a_thread_of_little_stack)
{
    struct layer layer;
    pthread_attr_t attributes;
    pthread_t thread;
    void *right;
    config = (lh_config){1, 2, 1, 384, 8, 3, 2, 32, 8};
    layer_create(&layer, &config, dtype, 3);
    ck_assert_int_eq(pthread_attr_init(&attributes), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attributes, 64 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attributes, run_and_check, &layer), 0);
    ck_assert_int_eq(pthread_join(thread, &right), 0);
    ck_assert_ptr_eq(right, &layer);
    pthread_attr_destroy(&attributes);
    layer_free(&layer);
}
END_TEST
#endif

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    dtype = dtype_under_test(backend);
    lh_capabilities can;
    const bool known = lh_backend_query(backend, &can, NULL) == LH_OK;
    works_on_device = known && can.device_memory;
    if (known && can.reference) /* one thread, and slow */
        config = (lh_config){1, 2, 1, 384, 8, 3, 2, 32, 8};
    snprintf(name, sizeof name, "process %s", backend);
    Suite *suite = suite_create(name);
    TCase *process = suite_case(suite, "process");
    tcase_add_test(process, fork_after_use);
    if (!works_on_device) /* the port's own threads */
        tcase_add_test(process, too_many_threads);
    tcase_add_loop_test(process, too_large, 0, 3);
    tcase_add_test(process, threads_are_counted);
#ifdef LITTLE_MEMORY
    if (!works_on_device) /* a driver takes what it likes */
        tcase_add_test(process, a_thread_of_little_stack);
#endif
    return suite_run(suite);
}
