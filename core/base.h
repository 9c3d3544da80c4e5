/*
 * base.h: what every file of the library may need: a failure in one line, memory, the clock.
 */
#ifndef LH_BASE_H
#define LH_BASE_H

#include "lighthouse.h"

/* Fills *error (may be NULL) and returns status: `return lh_fail(error, LH_INVALID, "pool is %d, ...", p)`.
 */
#if defined __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
lh_status
lh_fail(lh_error *error, lh_status status, const char *format, ...);

/* Names out of hostile files end up in lines: makes text, in place, UTF-8 that no terminal obeys, by a '?' for each
 * control character, turn of direction and byte that is no UTF-8. A character cut off at the end goes. Returns text. */
char *lh_clean(char *text);

/* All memory of core and of the backends on the host comes through these two, so that a test can
 * make the n-th allocation fail. 64-byte aligned; LH_NO_MEMORY names `what` and the bytes. */
lh_status lh_alloc(void **memory, size_t bytes, const char *what, lh_error *error);
void lh_free(void *memory);
/* For tests: the n-th lh_alloc from now on (1 is the next) fails; 0 switches off. Process-wide. Returns what was
 * left of the count set before: 0 when that failure has happened. */
int64_t lh_alloc_fail_at(int64_t n);
/* For tests and reports: allocations made and not freed, bytes held now and at most. */
int64_t lh_alloc_live(void);
size_t lh_alloc_bytes(void);
size_t lh_alloc_peak(void);

/* Seconds of a monotonic clock. */
double lh_seconds(void);

#endif
