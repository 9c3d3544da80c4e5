/* The decoder's arithmetic on the processor: see core/arithmetic.h for shapes and equations. */
#include "train/kernels.h"

#include <math.h>
#include <string.h>

#include "core/base.h"
#include "train/seconds.h"

enum {
    NORM_GROUPS = 8,  /* of a block of rows: a fixed number, whatever the threads */
    COPY = 1 << 18,   /* bytes that one thread copies */
    COLUMNS = 64,     /* of the embedding, that one thread adds up */
    LITTLE = 1 << 15, /* elements that are not worth waking threads for */
};

/* Loops over exponential: vector code for floats; there is none for the double of libm. */
#ifdef LH_DOUBLE
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
#ifdef LH_DOUBLE
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

WIDEST static real inverse_rms(int64_t width, const real *x)
{
    real squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++)
        squares += x[i] * x[i];
    return (real)(1 / sqrt((double)squares / (double)width + 1e-5));
}

static void norm_forward(const lh_arithmetic *on, int64_t rows, int64_t width, const real *x, const real *w,
                         real *y)
{
    (void)on;
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

static void norm_backward(const lh_arithmetic *on, int64_t rows, int64_t width, const real *dy, const real *x,
                          const real *w, real *dx, real *dw, real *partial)
{
    (void)on;
    const int64_t groups = (rows + HOST_BLOCK - 1) / HOST_BLOCK * NORM_GROUPS;
#pragma omp parallel for if (rows * width > LITTLE)
    for (int64_t g = 0; g < groups; g++) {
        const int64_t first = g / NORM_GROUPS * HOST_BLOCK, part = g % NORM_GROUPS;
        const int64_t here = rows - first < HOST_BLOCK ? rows - first : HOST_BLOCK;
        real *sum = partial + g * width;
        memset(sum, 0, (size_t)width * sizeof(real));
        for (int64_t r = first + here * part / NORM_GROUPS; r < first + here * (part + 1) / NORM_GROUPS; r++)
            norm_backward_row(width, dy + r * width, x + r * width, w, dx + r * width, sum);
    }
    for (int64_t g = 0; g < groups; g++)
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

static void rotary(const lh_arithmetic *on, int64_t rows, int64_t stride, int64_t heads, int64_t dim,
                   int64_t first, int64_t tokens, const real *cosines, const real *sines, bool backward,
                   real *x)
{
    (void)on;
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

static void swiglu_forward(const lh_arithmetic *on, int64_t rows, int64_t hidden, const real *gate_up,
                           real *y)
{
    (void)on;
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

static void swiglu_backward(const lh_arithmetic *on, int64_t rows, int64_t hidden, const real *dy,
                            const real *gate_up, real *d_gate_up)
{
    (void)on;
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

static void cross_entropy(const lh_arithmetic *on, int64_t rows, const uint8_t *targets, real scale,
                          real *logits, double *losses)
{
    (void)on;
#pragma omp parallel for if (rows * BYTES > LITTLE)
    for (int64_t r = 0; r < rows; r++)
        losses[r] = cross_entropy_row(BYTES, targets[r], scale, logits + r * BYTES);
}

static void embed(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                  const real *table, real *x)
{
    (void)on;
#pragma omp parallel for if (rows * width > LITTLE)
    for (int64_t r = 0; r < rows; r++)
        memcpy(x + r * width, table + bytes[r] * width, (size_t)width * sizeof(real));
}

static void embed_backward(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                           const real *dx, real *table)
{
    (void)on;
#pragma omp parallel for if (rows * width > LITTLE)
    for (int64_t first = 0; first < width; first += COLUMNS) {
        const int64_t last = first + COLUMNS < width ? first + COLUMNS : width;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = first; i < last; i++)
                table[bytes[r] * width + i] += dx[r * width + i];
    }
}

static lh_status take(const lh_arithmetic *on, size_t bytes, const char *what, void **memory, lh_error *error)
{
    (void)on;
    return lh_alloc(memory, bytes, what, error);
}

static void give(const lh_arithmetic *on, void *memory)
{
    (void)on;
    lh_free(memory);
}

static void copy(const lh_arithmetic *on, void *to, const void *from, size_t bytes)
{
    const int64_t pieces = (int64_t)((bytes + COPY - 1) / COPY);
    (void)on;
#pragma omp parallel for if (pieces > 1)
    for (int64_t i = 0; i < pieces; i++) {
        const size_t at = (size_t)i * COPY;
        memcpy((char *)to + at, (const char *)from + at, bytes - at < COPY ? bytes - at : COPY);
    }
}

static lh_status get(const lh_arithmetic *on, void *host, const void *from, size_t bytes, lh_error *error)
{
    (void)error;
    copy(on, host, from, bytes);
    return LH_OK;
}

static void zero(const lh_arithmetic *on, void *to, size_t bytes)
{
    (void)on;
    memset(to, 0, bytes);
}

static lh_status wait(const lh_arithmetic *on, lh_error *error)
{
    (void)on, (void)error;
    return LH_OK;
}

static void mark(const lh_arithmetic *on, lh_mark *at)
{
    (void)on;
    at->seconds = lh_seconds();
}

static double between(const lh_arithmetic *on, const lh_mark *from, const lh_mark *to)
{
    (void)on;
    return seconds_between(from->seconds, to->seconds);
}

static void unmark(const lh_arithmetic *on, lh_mark *at)
{
    (void)on, (void)at;
}

static void close_nothing(const lh_arithmetic *on)
{
    (void)on;
}

const lh_arithmetic host_arithmetic = {
    .host = true,
    .block = HOST_BLOCK,
    .norm_groups = NORM_GROUPS,
    .close = close_nothing,
    .take = take,
    .give = give,
    .put = copy,
    .get = get,
    .copy = copy,
    .zero = zero,
    .wait = wait,
    .mark = mark,
    .between = between,
    .unmark = unmark,
    .product = host_product,
    .norm_forward = norm_forward,
    .norm_backward = norm_backward,
    .rotary = rotary,
    .swiglu_forward = swiglu_forward,
    .swiglu_backward = swiglu_backward,
    .cross_entropy = cross_entropy,
    .embed = embed,
    .embed_backward = embed_backward,
    .to_bf16 = host_to_bf16,
    .from_bf16 = host_from_bf16,
    .round_bf16 = host_round_bf16,
    .length = host_length,
    .adam = host_adam,
};
