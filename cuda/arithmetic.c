/* arithmetic.c: a decoder's arithmetic in a device's memory, by own kernels and cuBLAS's products, in one stream. */
#include "core/arithmetic.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

#include "cuda/cublas.h"
#include "cuda/decoder.h"
#include "cuda/plan.h"

enum {
    WORKSPACE =
        32 << 20 /* cuBLAS's, as it wants on Hopper; one of its own is what makes its sums the same twice */
};

typedef struct machine {
    lh_arithmetic table;
    int device;
    cudaStream_t stream;
    lh_cublas cublas;
    int compute;        /* cuBLAS's name for what products compute in */
    void *scratch;      /* what follows, and cuBLAS's workspace */
    float *scales;      /* [LH_CUDA_BLOCK] */
    double *sums;       /* [LH_CUDA_LENGTH_PARTS + 1] */
    cudaError_t failed; /* the first failure that nobody was told yet */
    const char *what;   /* was done when that happened */
} machine;

/* False where something has failed already. */
static bool begin(const lh_arithmetic *on, machine **m, int *before)
{
    *m = on->state;
    if ((*m)->failed != cudaSuccess)
        return false;
    cudaError_t e = cudaGetDevice(before);
    if (e == cudaSuccess && *before != (*m)->device)
        e = cudaSetDevice((*m)->device);
    (*m)->failed = e;
    (*m)->what = "choosing a CUDA device";
    return e == cudaSuccess;
}

static void end(machine *m, int before, cudaError_t e, const char *what)
{
    if (e != cudaSuccess) {
        m->failed = e;
        m->what = what;
    }
    if (before != m->device)
        cudaSetDevice(before);
}

/* Enqueues LAUNCH, which names the machine m. */
#define ENQUEUE(what, launch)                                                                                \
    do {                                                                                                     \
        machine *m;                                                                                          \
        int before;                                                                                          \
        if (begin(on, &m, &before))                                                                          \
            end(m, before, launch, what);                                                                    \
    } while (0)

static lh_status tell(machine *m, lh_error *error)
{
    const cudaError_t e = m->failed;
    m->failed = cudaSuccess;
    return e == cudaSuccess ? LH_OK : lh_cuda_fail(e, m->what, error);
}

static lh_status take(const lh_arithmetic *on, size_t bytes, const char *what, void **memory, lh_error *error)
{
    machine *m;
    int before;
    *memory = NULL;
    if (!begin(on, &m, &before))
        return tell(on->state, error);
    const cudaError_t e = cudaMalloc(memory, bytes > 0 ? bytes : 1);
    end(m, before, cudaSuccess, what);
    if (e != cudaErrorMemoryAllocation)
        return e == cudaSuccess ? LH_OK : lh_cuda_fail(e, what, error);
    cudaGetLastError();
    return lh_fail(error, LH_NO_MEMORY, "%s: %zu bytes of device memory could not be had", what, bytes);
}

static void give(const lh_arithmetic *on, void *memory)
{
    machine *m = on->state;
    int before;
    if (lh_cuda_enter(m->device, &before, NULL) != LH_OK)
        return; /* a lost context has freed it */
    cudaFree(memory);
    cudaGetLastError();
    lh_cuda_leave(before);
}

static void put(const lh_arithmetic *on, void *to, const void *host, size_t bytes)
{
    /* From pageable memory, which all of train/'s is, CUDA has taken the bytes when this returns. */
    ENQUEUE("copying to the device", cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, m->stream));
}

static lh_status wait(const lh_arithmetic *on, lh_error *error)
{
    ENQUEUE("computing on the device", cudaStreamSynchronize(m->stream));
    return tell(on->state, error);
}

static lh_status get(const lh_arithmetic *on, void *host, const void *from, size_t bytes, lh_error *error)
{
    ENQUEUE("copying from the device", cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, m->stream));
    return wait(on, error);
}

static void copy(const lh_arithmetic *on, void *to, const void *from, size_t bytes)
{
    ENQUEUE("copying", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, m->stream));
}

static void zero(const lh_arithmetic *on, void *to, size_t bytes)
{
    ENQUEUE("setting to zero", cudaMemsetAsync(to, 0, bytes, m->stream));
}

static cudaError_t record(const machine *m, lh_mark *at)
{
    cudaEvent_t event = at->event;
    cudaError_t e = event ? cudaSuccess : cudaEventCreate(&event);
    at->event = event;
    return e == cudaSuccess ? cudaEventRecord(event, m->stream) : e;
}

static void mark(const lh_arithmetic *on, lh_mark *at)
{
    ENQUEUE("marking a moment", record(m, at));
}

static double between(const lh_arithmetic *on, const lh_mark *from, const lh_mark *to)
{
    float milliseconds = 0;
    ENQUEUE("measuring time", cudaEventElapsedTime(&milliseconds, from->event, to->event));
    return 1e-3 * (double)milliseconds;
}

static void unmark(const lh_arithmetic *on, lh_mark *at)
{
    (void)on;
    if (at->event)
        cudaEventDestroy(at->event);
    at->event = NULL;
}

/* Row-major C = A B is column-major C^T = B^T A^T. */
static cudaError_t gemm(const machine *c, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                        const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *to,
                        int64_t ldc)
{
    const float one = 1;
    return c->cublas.gemm(c->cublas.handle, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                          transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, (int)n, (int)m, (int)k, &one, b,
                          CUDA_R_32F, (int)ldb, a, CUDA_R_32F, (int)lda, &beta, to, CUDA_R_32F, (int)ldc,
                          c->compute, CUBLAS_GEMM_DEFAULT) == 0
               ? cudaSuccess
               : cudaErrorUnknown;
}

static void product(const lh_arithmetic *on, bool transpose_a, bool transpose_b, int64_t rows,
                    int64_t columns, int64_t inner, const float *a, int64_t lda, const float *b, int64_t ldb,
                    float beta, float *c, int64_t ldc)
{
    ENQUEUE("a product by cuBLAS",
            gemm(m, transpose_a, transpose_b, rows, columns, inner, a, lda, b, ldb, beta, c, ldc));
}

static void norm_forward(const lh_arithmetic *on, int64_t rows, int64_t width, const float *x, const float *w,
                         float *y)
{
    ENQUEUE("norm", lh_cuda_norm_forward(rows, width, x, w, y, m->stream));
}

static void norm_backward(const lh_arithmetic *on, int64_t rows, int64_t width, const float *dy,
                          const float *x, const float *w, float *dx, float *dw, float *partial)
{
    ENQUEUE("norm backward",
            lh_cuda_norm_backward(rows, width, dy, x, w, dx, dw, partial, m->scales, m->stream));
}

static void rotary(const lh_arithmetic *on, int64_t rows, int64_t stride, int64_t heads, int64_t dim,
                   int64_t first, int64_t tokens, const float *cosines, const float *sines, bool backward,
                   float *x)
{
    ENQUEUE("rotary",
            lh_cuda_rotary(rows, stride, heads, dim, first, tokens, cosines, sines, backward, x, m->stream));
}

static void swiglu_forward(const lh_arithmetic *on, int64_t rows, int64_t hidden, const float *gate_up,
                           float *y)
{
    ENQUEUE("swiglu", lh_cuda_swiglu(rows, hidden, gate_up, y, m->stream));
}

static void swiglu_backward(const lh_arithmetic *on, int64_t rows, int64_t hidden, const float *dy,
                            const float *gate_up, float *d_gate_up)
{
    ENQUEUE("swiglu backward", lh_cuda_swiglu_backward(rows, hidden, dy, gate_up, d_gate_up, m->stream));
}

static void cross_entropy(const lh_arithmetic *on, int64_t rows, const uint8_t *targets, float scale,
                          float *logits, double *losses)
{
    ENQUEUE("cross entropy", lh_cuda_cross_entropy(rows, targets, scale, logits, losses, m->stream));
}

static void embed(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                  const float *table, float *x)
{
    ENQUEUE("embedding", lh_cuda_embed(rows, width, bytes, table, x, m->stream));
}

static void embed_backward(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                           const float *dx, float *table)
{
    ENQUEUE("embedding backward", lh_cuda_embed_backward(rows, width, bytes, dx, table, m->stream));
}

static void to_bf16(const lh_arithmetic *on, int64_t n, const float *from, uint16_t *to)
{
    ENQUEUE("rounding", lh_cuda_to_bf16(n, from, to, m->stream));
}

static void from_bf16(const lh_arithmetic *on, int64_t n, const uint16_t *from, float *to)
{
    ENQUEUE("widening", lh_cuda_from_bf16(n, from, to, m->stream));
}

static void round_bf16(const lh_arithmetic *on, int64_t n, const float *from, float *to)
{
    ENQUEUE("rounding", lh_cuda_round_bf16(n, from, to, m->stream));
}

static lh_status length(const lh_arithmetic *on, int64_t n, const float *x, double *root, lh_error *error)
{
    double squares = 0;
    double *sums = ((machine *)on->state)->sums;
    ENQUEUE("adding up squares", lh_cuda_squares(n, x, sums, m->stream));
    const lh_status status = get(on, &squares, sums + LH_CUDA_LENGTH_PARTS, sizeof squares, error);
    *root = sqrt(squares);
    return status;
}

static void adam(const lh_arithmetic *on, int64_t n, const lh_adam_step *step, float *gradient, float *first,
                 float *second, float *w)
{
    ENQUEUE("adam", lh_cuda_adam(n, step, gradient, first, second, w, m->stream));
}

/* The current device is the machine's. */
static void release(machine *m)
{
    if (m->stream)
        cudaStreamSynchronize(m->stream);
    lh_cublas_close(&m->cublas);
    cudaFree(m->scratch);
    if (m->stream)
        cudaStreamDestroy(m->stream);
    cudaGetLastError();
    lh_free(m);
}

static void close_machine(const lh_arithmetic *on)
{
    machine *m = on->state;
    int before;
    if (lh_cuda_enter(m->device, &before, NULL) != LH_OK)
        before = m->device; /* a lost context: the host's memory goes back */
    release(m);
    lh_cuda_leave(before);
}

static const lh_arithmetic calls = {
    .block = LH_CUDA_BLOCK,
    .norm_groups = LH_CUDA_NORM_GROUPS,
    .close = close_machine,
    .take = take,
    .give = give,
    .put = put,
    .get = get,
    .copy = copy,
    .zero = zero,
    .wait = wait,
    .mark = mark,
    .between = between,
    .unmark = unmark,
    .product = product,
    .norm_forward = norm_forward,
    .norm_backward = norm_backward,
    .rotary = rotary,
    .swiglu_forward = swiglu_forward,
    .swiglu_backward = swiglu_backward,
    .cross_entropy = cross_entropy,
    .embed = embed,
    .embed_backward = embed_backward,
    .to_bf16 = to_bf16,
    .from_bf16 = from_bf16,
    .round_bf16 = round_bf16,
    .length = length,
    .adam = adam,
};

static lh_status prepare(machine *m, bool bf16, lh_error *error)
{
    const size_t scales = LH_CUDA_BLOCK * sizeof *m->scales;
    const size_t sums = (LH_CUDA_LENGTH_PARTS + 1) * sizeof *m->sums;
    if (!lh_cublas_open(&m->cublas))
        return lh_fail(error, LH_UNSUPPORTED,
                       "cuBLAS is not found (libcublas.so.13 or .12), wanted for products on the device");
    snprintf(m->table.products, sizeof m->table.products, "cuBLAS %d.%d.%d%s", m->cublas.major,
             m->cublas.minor, m->cublas.patch, bf16 ? ", bfloat16" : "");
    m->compute = bf16 ? CUBLAS_COMPUTE_32F_FAST_16BF : CUBLAS_COMPUTE_32F;
    cudaError_t e = cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaMalloc(&m->scratch, WORKSPACE + scales + sums);
    if (e != cudaSuccess)
        return lh_cuda_fail(e, "preparing a decoder's arithmetic", error);
    m->scales = (float *)((char *)m->scratch + WORKSPACE);
    m->sums = (double *)((char *)m->scales + scales);
    if (m->cublas.set_stream(m->cublas.handle, m->stream) != 0 ||
        m->cublas.set_workspace(m->cublas.handle, m->scratch, WORKSPACE) != 0)
        return lh_fail(error, LH_DEVICE, "cuBLAS %d.%d.%d took no stream or workspace", m->cublas.major,
                       m->cublas.minor, m->cublas.patch);
    m->table.stream = m->stream;
    return LH_OK;
}

lh_status lh_cuda_arithmetic(int device, bool bf16, const lh_arithmetic **on, lh_error *error)
{
    machine *m;
    int before;
    lh_status status = lh_alloc((void **)&m, sizeof *m, "a decoder's arithmetic", error);
    if (status != LH_OK)
        return status;
    *m = (machine){.table = calls, .device = device};
    m->table.state = m;
    status = lh_cuda_enter(device, &before, error);
    if (status != LH_OK) {
        lh_free(m);
        return status;
    }
    status = prepare(m, bf16, error);
    if (status == LH_OK)
        *on = &m->table;
    else
        release(m);
    lh_cuda_leave(before);
    return status;
}
