/*
 * real.h: the one element type of the model's arithmetic.
 *
 * float in the program; double where the gradient test compiles the same sources once more, so that
 * central differences say something about the mathematics and not about rounding.
 */
#ifndef TRAIN_REAL_H
#define TRAIN_REAL_H

#include "bench/blas.h"
#include "core/arithmetic.h"

typedef lh_real real;

#ifdef LH_DOUBLE
#define REAL_DTYPE LH_F64
#define REAL_GEMM blas.dgemm
#else
#define REAL_DTYPE LH_F32
#define REAL_GEMM blas.sgemm
#endif

enum {
    BYTES = 256
};

#endif
