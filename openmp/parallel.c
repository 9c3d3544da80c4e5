/*
 * Parallel: the one place where threads are used. A loop runs on the plan's threads, each in the floating-point mode
 * that the bits are defined in, or on the calling thread alone where others cannot be had.
 */
#include <ctype.h>
#include <stdlib.h>

#include "core/mode.h"
#include "core/threads.h"
#include "openmp/openmp.h"

/* Bytes of OMP_STACKSIZE, 0 where it says nothing: "size[B|K|M|G]", kilobytes without a letter. */
static size_t stack_bytes(void)
{
    const char *text = getenv("OMP_STACKSIZE");
    char *end;
    if (!text || !*text)
        return 0;
    const unsigned long long size = strtoull(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    static const struct {
        char letter;
        int shift;
    } units[] = {{'B', 0}, {'K', 10}, {'\0', 10}, {'M', 20}, {'G', 30}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (toupper((unsigned char)*end) == units[i].letter)
            return size < SIZE_MAX >> units[i].shift ? (size_t)size << units[i].shift : 0;
    }
    return 0;
}

/*
 * An OpenMP runtime ends the process when it cannot make a thread, so a trial comes first. It keeps the threads of a
 * calling thread for that thread's next region: as many as it had last need no trial.
 */
int lh_omp_threads(int wanted)
{
    static _Thread_local int had;
    if (lh_threads_lost() || wanted <= 1)
        return 1;
    if (wanted <= had && !omp_in_parallel())
        return wanted;
    had = lh_threads_available(wanted, stack_bytes());
    return had;
}

struct loop {
    const lh_plan *plan;
    int64_t count;
    int chunk;
    lh_omp_body *body;
    const void *job;
};

static void *scratch_of(const struct lh_omp_state *state, int thread)
{
    return state->scratch + (size_t)thread * state->scratch_bytes;
}

static void run_alone(const struct loop *loop)
{
    void *scratch = scratch_of(loop->plan->state, 0);
    lh_mode mode;
    lh_mode_begin(&mode);
    for (int64_t i = 0; i < loop->count; i++)
        loop->body(loop->plan, loop->job, i, scratch);
    lh_mode_end(&mode);
}

static void run_shared(const struct loop *loop, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        void *scratch = scratch_of(loop->plan->state, omp_get_thread_num());
        lh_mode mode;
        lh_mode_begin(&mode);
        if (loop->chunk > 0) {
#pragma omp for schedule(dynamic, loop->chunk) nowait
            for (int64_t i = 0; i < loop->count; i++)
                loop->body(loop->plan, loop->job, i, scratch);
        } else {
#pragma omp for schedule(static) nowait
            for (int64_t i = 0; i < loop->count; i++)
                loop->body(loop->plan, loop->job, i, scratch);
        }
        lh_mode_end(&mode);
    }
}

void lh_omp_for(const lh_plan *plan, int64_t count, int chunk, lh_omp_body *body, const void *job)
{
    const struct lh_omp_state *state = plan->state;
    const struct loop loop = {plan, count, chunk, body, job};
    const int threads = count > 1 ? lh_omp_threads(state->threads) : 1;
    if (threads == 1)
        run_alone(&loop);
    else
        run_shared(&loop, threads);
}
