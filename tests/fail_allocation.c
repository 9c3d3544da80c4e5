/*
 * Loaded before a program (LD_PRELOAD), makes one allocation of it fail: the FAIL_ALLOCATION-th after main has begun, of
 * whatever thread and library. A byte on descriptor FAIL_ALLOCATION_TOLD says that it was reached.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* glibc's own, by the names that it keeps for those who stand in front; valgrind replaces them like malloc itself. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *memalign(size_t alignment, size_t size);

static _Atomic long left; /* 0: none fails */
static int told = -1;
static int (*program)(int, char **, char **);

static int counted(int argc, char **argv, char **environment)
{
    const char *number = getenv("FAIL_ALLOCATION"), *descriptor = getenv("FAIL_ALLOCATION_TOLD");
    told = descriptor ? atoi(descriptor) : -1;
    atomic_store(&left, number ? atol(number) : 0);
    return program(argc, argv, environment);
}

/* Stands before glibc's, to count from main on: what libraries do before it is theirs, and CUDA's runtime dies there. */
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*at_end)(void), void *stack_end);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*at_end)(void), void *stack_end)
{
    __typeof__(__libc_start_main) *start;
    *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
    program = main;
    return start(counted, argc, argv, init, fini, at_end, stack_end);
}

static bool refused(void)
{
    if (atomic_load(&left) <= 0 || atomic_fetch_sub(&left, 1) != 1)
        return false;
    if (told < 0 || write(told, "!", 1) != 1)
        told = -1;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return refused() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return refused() ? NULL : __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size)
{
    return refused() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0)
        return EINVAL;
    void *got = memalign(alignment, size);
    if (!got)
        return ENOMEM;
    *memory = got;
    return 0;
}
