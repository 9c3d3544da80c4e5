/* arena.h: one piece of memory laid out for many, counted first and then handed out by the same code. */
#ifndef LH_ARENA_H
#define LH_ARENA_H

#include <stddef.h>
#include <stdint.h>

/* With base NULL nothing is handed out and `used` counts; it stays at SIZE_MAX once it overflowed. */
typedef struct lh_arena {
    char *base;
    size_t used;
} lh_arena;

/* `bytes`, a multiple of `alignment` (a power of two) from base. */
static inline void *lh_arena_take(lh_arena *arena, size_t bytes, size_t alignment)
{
    void *taken = arena->base ? arena->base + arena->used : NULL;
    if (arena->used > SIZE_MAX - bytes || arena->used + bytes > SIZE_MAX - alignment)
        arena->used = SIZE_MAX;
    else
        arena->used = (arena->used + bytes + alignment - 1) & ~(alignment - 1);
    return taken;
}

#endif
