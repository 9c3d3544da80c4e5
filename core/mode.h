/*
 * mode.h: the thread's floating-point mode, set aside while the library computes (SPEC 6).
 *
 * What a caller or a library that it loaded has set (rounding direction, flush-to-zero, denormals-are-zero, traps)
 * would change the bits. Each public call that computes, and each worker of a port, is wrapped in
 *
 *     lh_mode mode;
 *     lh_mode_begin(&mode);
 *     ...
 *     lh_mode_end(&mode);
 *
 * after which the thread has its mode and its exception flags again. What lies between is called through a pointer or
 * in another file, so that no compiler moves arithmetic across.
 */
#ifndef LH_MODE_H
#define LH_MODE_H

#include <fenv.h>
#include <stdint.h>

#if defined __SSE__
#include <xmmintrin.h>
#endif

typedef struct lh_mode {
    fenv_t callers;
} lh_mode;

static inline void lh_mode_begin(lh_mode *mode)
{
    fegetenv(&mode->callers);
    fesetenv(FE_DFL_ENV);
    /* C knows nothing of flushing to zero, so neither need FE_DFL_ENV. */
#if defined __SSE__
    _mm_setcsr(0x1f80); /* every trap masked, to nearest, no FTZ, no DAZ */
#elif defined __aarch64__
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
#endif
}

static inline void lh_mode_end(const lh_mode *mode)
{
    fesetenv(&mode->callers);
}

#endif
