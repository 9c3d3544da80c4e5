/* Threads asked for before a runtime needs them, and those that a fork left behind. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "core/threads.h"

/* Threads of this process; 0 where the system does not say. */
static int threads_now(void)
{
    struct stat tasks;
    return stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink > 2 ? (int)tasks.st_nlink - 2 : 0;
}

/* ---- fork --------------------------------------------------------------------------------------- */

static bool others_at_fork, lost;

static void before_fork(void)
{
    others_at_fork = threads_now() != 1;
}

static void in_child(void)
{
    lost = lost || others_at_fork;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, NULL, in_child);
}

bool lh_threads_lost(void)
{
    return lost;
}

/* ---- a trial ------------------------------------------------------------------------------------ */

struct trial {
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool done;
};

static void *wait_for_end(void *argument)
{
    struct trial *trial = argument;
    pthread_mutex_lock(&trial->lock);
    while (!trial->done)
        pthread_cond_wait(&trial->over, &trial->lock);
    pthread_mutex_unlock(&trial->lock);
    return NULL;
}

/* A joined thread still counts against the process limit for a moment. */
static void settle(int before)
{
    for (int i = 0; i < 200 && before > 0 && threads_now() > before; i++)
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
}

static int make_threads(int wanted, const pthread_attr_t *attributes)
{
    struct trial trial = {.lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER};
    pthread_t *made = malloc((size_t)wanted * sizeof *made);
    int count = 0;
    const int before = threads_now();
    while (made && count < wanted && pthread_create(&made[count], attributes, wait_for_end, &trial) == 0)
        count++;
    pthread_mutex_lock(&trial.lock);
    trial.done = true;
    pthread_cond_broadcast(&trial.over);
    pthread_mutex_unlock(&trial.lock);
    for (int i = 0; i < count; i++)
        pthread_join(made[i], NULL);
    free(made);
    settle(before);
    return count;
}

/* Where addresses are few, a thread needs room for its malloc's arena too, which comes when it runs: another's stack would
 * not be had then, whoever asks for it. */
static void add_arena(pthread_attr_t *attributes)
{
    enum {
        ARENA = 64 << 20 /* glibc's, on 64 bits */
    };
    struct rlimit addresses;
    size_t stack;
    if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur != RLIM_INFINITY &&
        pthread_attr_getstacksize(attributes, &stack) == 0)
        (void)pthread_attr_setstacksize(attributes, stack + ARENA);
}

int lh_threads_available(int wanted, size_t stack)
{
    pthread_attr_t attributes;
    if (wanted <= 1 || lh_threads_lost() || pthread_attr_init(&attributes) != 0)
        return 1;
    /* A size that the system does not take is not used by runtimes either. */
    if (stack > 0)
        (void)pthread_attr_setstacksize(&attributes, stack);
    add_arena(&attributes);
    const int most = (wanted < LH_THREADS_MOST ? wanted : LH_THREADS_MOST) - 1;
    const int made = make_threads(most, &attributes);
    pthread_attr_destroy(&attributes);
    /* Where not all could be made, room is short: the rest of it is left to what comes between this trial and their use. */
    return (made < most ? made / 2 : made) + 1;
}
