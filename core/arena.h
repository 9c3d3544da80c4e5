/* arena.h: one block of memory, handed out in pieces. */
#ifndef LH_ARENA_H
#define LH_ARENA_H

#include <stddef.h>
#include <stdint.h>

/* Without a base pieces are only counted: lay out once to learn `used`, take that much, lay out again. */
typedef struct lh_arena {
    char *base;
    size_t
        used; /* bytes; stays above SIZE_MAX - 128 once they overflow, so that nobody can allocate as much */
} lh_arena;

/* The next piece, on 64 bytes; NULL while only counting. */
static inline void *lh_arena_take(lh_arena *arena, size_t elements, size_t size)
{
    const size_t full = SIZE_MAX - 127, at = arena->used;
    void *piece = arena->base ? arena->base + at : NULL;
    if (at >= full || (size > 0 && elements > (full - at) / size))
        arena->used = full;
    else
        arena->used = (at + elements * size + 63) / 64 * 64;
    return piece;
}

#endif
