/* Row-wise operations of the decoder: see kernels.h for shapes and equations. */
#include "train/kernels.h"

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include <string.h>

enum {
    SLAB = 128,            /* rows or columns of a product that one thread owns */
    LITTLE = 1 << 15,      /* elements that are not worth waking threads for */
    LITTLE_WORK = 1 << 20, /* likewise, multiplications */
};

/* Loops over exponential: vector code for floats; there is none for the double of libm. */
#ifdef TRAIN_DOUBLE
#define VECTORS
#else
#define VECTORS _Pragma("omp simd")
#endif

/* A row's worth of arithmetic, compiled for wider vectors too. The choice is made while the program is loaded, before
 * the thread sanitizer can run: not under that. */
#if defined __SANITIZE_THREAD__
#define BY_CPU 0
#elif defined __has_feature
#define BY_CPU !__has_feature(thread_sanitizer)
#else
#define BY_CPU 1
#endif
#if BY_CPU && defined __x86_64__ && defined __GLIBC__
#define WIDEST __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define WIDEST
#endif

/* exp for every finite x: a float polynomial that compilers turn into vector code, within 2 ulp. */
static inline real exponential(real x)
{
#ifdef TRAIN_DOUBLE
    return exp(x);
#else
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float rounded = x * 1.44269504f + shift;
    const float n = rounded - shift;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float sum = 1.98412698e-4f;
    sum = sum * r + 1.38888889e-3f;
    sum = sum * r + 8.33333333e-3f;
    sum = sum * r + 4.16666667e-2f;
    sum = sum * r + 1.66666667e-1f;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    const union {
        uint32_t bits;
        float power;
    } two = {.bits = (uint32_t)((int32_t)n + 127) << 23};
    return sum * two.power;
#endif
}

lh_status product_prepare(lh_error *error)
{
#ifdef _OPENMP
    /* OpenBLAS built on OpenMP sets OpenMP's own number of threads along with its own, when it is loaded too. */
    const int threads = omp_get_max_threads();
#endif
    const lh_status status = blas_load(error);
    if (status == LH_OK)
        blas.set_threads(1);
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
    return status;
}

/* Within a parallel region, one that `if` has made serial too: OpenBLAS built on OpenMP takes omp_get_max_threads()
 * threads for a product wherever no more than one thread is at work, and the bits would depend on their number. The
 * setting is this region's alone. */
static void product_alone(void)
{
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
}

void product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const real *a, int64_t lda,
             const real *b, int64_t ldb, real beta, real *c, int64_t ldc)
{
    const enum CBLAS_TRANSPOSE ta = transpose_a ? CblasTrans : CblasNoTrans;
    const enum CBLAS_TRANSPOSE tb = transpose_b ? CblasTrans : CblasNoTrans;
    const bool by_rows = m >= n;
    const int64_t slabs = ((by_rows ? m : n) + SLAB - 1) / SLAB;
#pragma omp parallel for schedule(dynamic) if (m * n * k > LITTLE_WORK)
    for (int64_t s = 0; s < slabs; s++) {
        const int64_t first = s * SLAB;
        const int64_t length = (by_rows ? m : n) - first < SLAB ? (by_rows ? m : n) - first : SLAB;
        product_alone();
        if (by_rows)
            REAL_GEMM(CblasRowMajor, ta, tb, (int)length, (int)n, (int)k, 1,
                      a + first * (transpose_a ? 1 : lda), (int)lda, b, (int)ldb, beta, c + first * ldc,
                      (int)ldc);
        else
            REAL_GEMM(CblasRowMajor, ta, tb, (int)m, (int)length, (int)k, 1, a, (int)lda,
                      b + first * (transpose_b ? ldb : 1), (int)ldb, beta, c + first, (int)ldc);
    }
}

WIDEST static real inverse_rms(int64_t width, const real *x)
{
    real squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++)
        squares += x[i] * x[i];
    return (real)(1 / sqrt((double)squares / (double)width + 1e-5));
}

void norm_forward(int64_t rows, int64_t width, const real *x, const real *w, real *y)
{
#pragma omp parallel for if (rows * width > LITTLE)
    for (int64_t r = 0; r < rows; r++) {
        const real scale = inverse_rms(width, x + r * width);
        for (int64_t i = 0; i < width; i++)
            y[r * width + i] = w[i] * x[r * width + i] * scale;
    }
}

/* With s = 1/rms: dx = s (w dy - x s^2 mean(w dy x)), dw = sum over rows of dy x s. */
WIDEST static void norm_backward_row(int64_t width, const real *dy, const real *x, const real *w,
                                     real *restrict dx, real *restrict dw)
{
    const real scale = inverse_rms(width, x);
    real along = 0;
#pragma omp simd reduction(+ : along)
    for (int64_t i = 0; i < width; i++)
        along += w[i] * dy[i] * x[i];
    const real back = along * scale * scale / (real)width;
    for (int64_t i = 0; i < width; i++) {
        dx[i] += scale * (w[i] * dy[i] - x[i] * back);
        dw[i] += dy[i] * x[i] * scale;
    }
}

void norm_backward(int64_t rows, int64_t width, const real *dy, const real *x, const real *w, real *dx,
                   real *dw, real *partial)
{
#pragma omp parallel for if (rows * width > LITTLE)
    for (int64_t g = 0; g < NORM_GROUPS; g++) {
        real *sum = partial + g * width;
        memset(sum, 0, (size_t)width * sizeof(real));
        for (int64_t r = rows * g / NORM_GROUPS; r < rows * (g + 1) / NORM_GROUPS; r++)
            norm_backward_row(width, dy + r * width, x + r * width, w, dx + r * width, sum);
    }
    for (int64_t g = 0; g < NORM_GROUPS; g++)
        for (int64_t i = 0; i < width; i++)
            dw[i] += partial[g * width + i];
}

void rotary_table(int64_t tokens, int64_t dim, double base, real *cosines, real *sines)
{
    const int64_t half = dim / 2;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < half; i++) {
            const double angle = (double)t * pow(base, -2.0 * (double)i / (double)dim);
            cosines[t * half + i] = (real)cos(angle);
            sines[t * half + i] = (real)sin(angle);
        }
}

void rotary(int64_t rows, int64_t stride, int64_t heads, int64_t dim, int64_t first, int64_t tokens,
            const real *cosines, const real *sines, bool backward, real *x)
{
    const int64_t half = dim / 2;
    const real sign = backward ? -1 : 1;
#pragma omp parallel for if (rows * heads * dim > LITTLE)
    for (int64_t r = 0; r < rows; r++) {
        const real *c = cosines + (first + r) % tokens * half;
        const real *s = sines + (first + r) % tokens * half;
        for (int64_t h = 0; h < heads; h++) {
            real *low = x + r * stride + h * dim;
            real *high = low + half;
            for (int64_t i = 0; i < half; i++) {
                const real a = low[i], b = high[i];
                low[i] = a * c[i] - sign * b * s[i];
                high[i] = b * c[i] + sign * a * s[i];
            }
        }
    }
}

WIDEST static void swiglu_row(int64_t hidden, const real *restrict gate, const real *restrict up,
                              real *restrict y)
{
    VECTORS
    for (int64_t i = 0; i < hidden; i++)
        y[i] = gate[i] / (1 + exponential(-gate[i])) * up[i];
}

void swiglu_forward(int64_t rows, int64_t hidden, const real *gate_up, real *y)
{
#pragma omp parallel for if (rows * hidden > LITTLE)
    for (int64_t r = 0; r < rows; r++) {
        const real *gate = gate_up + r * 2 * hidden;
        swiglu_row(hidden, gate, gate + hidden, y + r * hidden);
    }
}

/* With g = sigmoid(gate): d_up = dy gate g, d_gate = dy up g (1 + gate (1 - g)). */
WIDEST static void swiglu_backward_row(int64_t hidden, const real *restrict dy, const real *restrict gate,
                                       const real *restrict up, real *restrict d_gate, real *restrict d_up)
{
    VECTORS
    for (int64_t i = 0; i < hidden; i++) {
        const real sigmoid = 1 / (1 + exponential(-gate[i]));
        d_up[i] = dy[i] * gate[i] * sigmoid;
        d_gate[i] = dy[i] * up[i] * sigmoid * (1 + gate[i] * (1 - sigmoid));
    }
}

void swiglu_backward(int64_t rows, int64_t hidden, const real *dy, const real *gate_up, real *d_gate_up)
{
#pragma omp parallel for if (rows * hidden > LITTLE)
    for (int64_t r = 0; r < rows; r++) {
        const real *gate = gate_up + r * 2 * hidden;
        real *d_gate = d_gate_up + r * 2 * hidden;
        swiglu_backward_row(hidden, dy + r * hidden, gate, gate + hidden, d_gate, d_gate + hidden);
    }
}

WIDEST static double cross_entropy_row(int64_t width, uint8_t target, real scale, real *row)
{
    const double wanted = row[target];
    real highest = row[0];
    for (int64_t i = 1; i < width; i++)
        highest = row[i] > highest ? row[i] : highest;
    VECTORS
    for (int64_t i = 0; i < width; i++)
        row[i] = exponential(row[i] - highest);
    real sum = 0;
    for (int64_t i = 0; i < width; i++)
        sum += row[i];
    const real factor = scale / sum;
    for (int64_t i = 0; i < width; i++)
        row[i] *= factor;
    row[target] -= scale;
    return log((double)sum) + (double)highest - wanted;
}

void cross_entropy(int64_t rows, int64_t width, const uint8_t *targets, real scale, real *logits,
                   double *losses)
{
#pragma omp parallel for if (rows * width > LITTLE)
    for (int64_t r = 0; r < rows; r++)
        losses[r] = cross_entropy_row(width, targets[r], scale, logits + r * width);
}

static inline uint16_t bf16_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline float bf16_value(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void to_bf16(int64_t n, const real *from, uint16_t *to)
{
#pragma omp parallel for simd if (n > LITTLE)
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_bits((float)from[i]);
}

void from_bf16(int64_t n, const uint16_t *from, real *to)
{
#pragma omp parallel for simd if (n > LITTLE)
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_value(from[i]);
}

void round_bf16(int64_t n, const real *from, real *to)
{
#pragma omp parallel for simd if (n > LITTLE)
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_value(bf16_bits((float)from[i]));
}
