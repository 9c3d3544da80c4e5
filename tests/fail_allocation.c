/*
 * Loaded before a program (LD_PRELOAD), makes one allocation of it fail: the FAIL_ALLOCATION-th after main has begun, of
 * whatever thread and library; with FAIL_ALLOCATION_OWN set, only what the program itself and jansson for it ask for counts: a
 * driver or another runtime that is refused ends the process, as its authors will. A byte on descriptor FAIL_ALLOCATION_TOLD says that it was reached.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
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

/* Where the code of the program and of jansson lies; none: everyone's allocations count. */
enum {
    OBJECTS = 2
};
static struct range {
    uintptr_t begin, end;
} own[OBJECTS];
static int owns;

static int add_object(struct dl_phdr_info *object, size_t size, void *seen)
{
    int *number = seen;
    const bool program_itself = (*number)++ == 0; /* the first by the order of dl_iterate_phdr */
    (void)size;
    if (!program_itself && !strstr(object->dlpi_name, "jansson"))
        return 0;
    for (int i = 0; i < object->dlpi_phnum && owns < OBJECTS; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        const uintptr_t begin = (uintptr_t)(object->dlpi_addr + part->p_vaddr);
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X))
            own[owns++] = (struct range){begin, begin + part->p_memsz};
    }
    return 0;
}

static bool counts(const void *caller)
{
    for (int i = 0; i < owns; i++) {
        if ((uintptr_t)caller >= own[i].begin && (uintptr_t)caller < own[i].end)
            return true;
    }
    return owns == 0;
}

static int counted(int argc, char **argv, char **environment)
{
    const char *number = getenv("FAIL_ALLOCATION"), *descriptor = getenv("FAIL_ALLOCATION_TOLD");
    int seen = 0;
    if (getenv("FAIL_ALLOCATION_OWN"))
        dl_iterate_phdr(add_object, &seen);
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

static bool refused(const void *caller)
{
    if (atomic_load(&left) <= 0 || !counts(caller) || atomic_fetch_sub(&left, 1) != 1)
        return false;
    if (told < 0 || write(told, "!", 1) != 1)
        told = -1;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0)
        return EINVAL;
    void *got = refused(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
    if (!got)
        return ENOMEM;
    *memory = got;
    return 0;
}
