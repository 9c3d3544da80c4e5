/* Host memory of core and backends: counted, aligned, and able to fail on request. */
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base.h"

enum {
    ALIGNMENT = 64
};

/* Sits one alignment unit before the memory handed out. */
struct header {
    size_t bytes;
};

static _Atomic int64_t fail_at;
static _Atomic int64_t live;
static _Atomic size_t held;
static _Atomic size_t peak;

lh_status lh_alloc(void **memory, size_t bytes, const char *what, lh_error *error)
{
    *memory = NULL;
    const bool refuse = atomic_load(&fail_at) > 0 && atomic_fetch_sub(&fail_at, 1) == 1;
    void *block = NULL;
    /* No object passes PTRDIFF_MAX. Not a byte more than asked for, so that sanitizers and valgrind see the
     * first one past the end. */
    if (!refuse && bytes <= PTRDIFF_MAX - ALIGNMENT &&
        posix_memalign(&block, ALIGNMENT, ALIGNMENT + bytes) != 0)
        block = NULL;
    if (!block)
        return lh_fail(error, LH_NO_MEMORY, "%s: %zu bytes could not be had", what, bytes);
    ((struct header *)block)->bytes = bytes;
    atomic_fetch_add(&live, 1);
    size_t now = atomic_fetch_add(&held, bytes) + bytes;
    size_t before = atomic_load(&peak);
    while (before < now && !atomic_compare_exchange_weak(&peak, &before, now)) {
    }
    *memory = (unsigned char *)block + ALIGNMENT;
    return LH_OK;
}

void lh_free(void *memory)
{
    if (!memory)
        return;
    unsigned char *block = (unsigned char *)memory - ALIGNMENT;
    atomic_fetch_sub(&held, ((struct header *)block)->bytes);
    atomic_fetch_sub(&live, 1);
    free(block);
}

int64_t lh_alloc_fail_at(int64_t n)
{
    return atomic_exchange(&fail_at, n);
}

int64_t lh_alloc_live(void)
{
    return atomic_load(&live);
}

size_t lh_alloc_bytes(void)
{
    return atomic_load(&held);
}

size_t lh_alloc_peak(void)
{
    return atomic_load(&peak);
}
