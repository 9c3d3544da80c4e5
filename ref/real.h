/*
 * real.h: the one arithmetic type of the reference, and the refusal of builds that would change its bits.
 *
 * REF_BITS chooses `real`: 64 (binary64, the reference itself; the default), 32 (binary32, the twin) or
 * 113 (binary128, to measure the other two). What is relied on is IEEE 754 round to nearest for + - * /
 * and sqrt, each operation rounded once to `real`: then the bits of every result follow from the source
 * alone (SPEC 6). This takes
 *  - no fast-math: refused where a macro tells, switched off by the pragmas below where none does;
 *  - no contraction of a*b+c into one rounding: switched off by the pragmas;
 *  - what no source can undo: -ffp-contract=fast and -freciprocal-math given to clang by name, and a program
 *    linked with -ffast-math, which may flush subnormals to zero from its start;
 *  - no excess precision: FLT_EVAL_METHOD 0. Two more do no harm: 16 says that even 16-bit floats are not
 *    widened (gcc -mavx512fp16); 1 computes float in double (gcc -std=c11 on s390x) but leaves binary64 and
 *    wider alone, so it is refused for the twin only. What remains is x87: use -msse2 -mfpmath=sse.
 */
#ifndef REF_REAL_H
#define REF_REAL_H

#include <float.h>
#include <math.h>
#include <stdint.h>

#ifndef REF_BITS
#define REF_BITS 64
#endif

#if defined __FAST_MATH__ || defined __ASSOCIATIVE_MATH__ || defined __RECIPROCAL_MATH__
#error "ref/ must be built without -ffast-math: sums may not be reassociated"
#endif
#if defined __FINITE_MATH_ONLY__ && __FINITE_MATH_ONLY__
#error "ref/ must be built without -ffinite-math-only: infinities and NaN are compared"
#endif
#if FLT_RADIX != 2
#error "ref/ needs binary floating point: FLT_RADIX is not 2"
#endif
#if !(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16 || (FLT_EVAL_METHOD == 1 && REF_BITS != 32))
#error "ref/ needs operations rounded to their own type: FLT_EVAL_METHOD is not 0"
#endif

#if defined __clang__
#pragma clang fp contract(off) reassociate(off)
#elif defined __GNUC__
#pragma GCC optimize("fp-contract=off", "no-unsafe-math-optimizations")
#else
#pragma STDC FP_CONTRACT OFF
#endif

#if REF_BITS == 64
typedef double real;
#define REAL_DIGITS DBL_MANT_DIG
#define REAL_MAX_EXP DBL_MAX_EXP
#define REAL_MIN_EXP DBL_MIN_EXP
#define real_sqrt sqrt
#elif REF_BITS == 32
typedef float real;
#define REAL_DIGITS FLT_MANT_DIG
#define REAL_MAX_EXP FLT_MAX_EXP
#define REAL_MIN_EXP FLT_MIN_EXP
#define real_sqrt sqrtf
#elif REF_BITS == 113 && LDBL_MANT_DIG == 113
typedef long double real;
#define REAL_DIGITS LDBL_MANT_DIG
#define REAL_MAX_EXP LDBL_MAX_EXP
#define REAL_MIN_EXP LDBL_MIN_EXP
#define real_sqrt sqrtl
#elif REF_BITS == 113 && defined __SIZEOF_FLOAT128__
__extension__ typedef __float128 real;
#define REAL_DIGITS 113
#define REAL_MAX_EXP 16384
#define REAL_MIN_EXP (-16381)
real sqrtf128(real); /* glibc's; <math.h> shows it only to those who ask for TS 18661-3 */
#define real_sqrt sqrtf128
#else
#error "REF_BITS must be 32, 64, or 113 where the compiler has a 113-bit type"
#endif

#if REAL_DIGITS != (REF_BITS == 64 ? 53 : REF_BITS == 32 ? 24 : 113)
#error "the type chosen by REF_BITS is not the IEEE 754 binary format of that width"
#endif

#endif
