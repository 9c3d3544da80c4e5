/*
 * real.h: the one element type of the model's arithmetic.
 *
 * float in the program; double where the gradient test compiles the same sources once more, so that
 * central differences say something about the mathematics and not about rounding.
 */
#ifndef TRAIN_REAL_H
#define TRAIN_REAL_H

#include "bench/blas.h"

#ifdef TRAIN_DOUBLE
typedef double real;
#define REAL_DTYPE LH_F64
#define REAL_GEMM blas.dgemm
#else
typedef float real;
#define REAL_DTYPE LH_F32
#define REAL_GEMM blas.sgemm
#endif

#endif
