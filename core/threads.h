/* threads.h: whether threads can be had, asked before a runtime that would end the process asks for them. */
#ifndef LH_THREADS_H
#define LH_THREADS_H

#include <stdbool.h>
#include <stddef.h>

enum {
    LH_THREADS_MOST = 4096 /* more than any machine has cores */
};

/* How many threads, the calling one among them, can be there at once: `wanted`, or fewer where the system refuses
 * one. Found by making them, with stacks of `stack` bytes (0: the system's default); they have ended on return.
 * At least 1. */
int lh_threads_available(int wanted, size_t stack);

/* Whether this process is the child of a fork in which the parent had other threads: those are gone here, and a
 * runtime that counts on them waits for ever. */
bool lh_threads_lost(void);

#endif
