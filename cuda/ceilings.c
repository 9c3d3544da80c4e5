/*
 * ceilings.c: what a CUDA device does at its best, which `lighthouse bench` compares with: a copy on the device, and a matrix
 * product in the dtype by cuBLAS, which is loaded where it is installed.
 */
#include <stdio.h>

#include "core/convert.h"
#include "core/random.h"
#include "cuda/cublas.h"
#include "cuda/plan.h"

enum {
    COPY_BYTES = 1 << 29,
    RUNS = 64,        /* of each, at most */
    PATTERN = 1 << 20 /* random elements, repeated: of zeros a product takes less power, and so less time */
};

/* What is timed: one run, on the default stream. */
typedef struct work {
    lh_cublas *cublas; /* NULL: the copy */
    cudaDataType type;
    int side;
    size_t bytes; /* of each matrix, or block */
    char *memory; /* three of them */
} work;

static cudaError_t start(const work *w)
{
    const float one = 1, zero = 0;
    if (!w->cublas)
        return cudaMemcpyAsync(w->memory + w->bytes, w->memory, w->bytes, cudaMemcpyDeviceToDevice, NULL);
    return w->cublas->gemm(w->cublas->handle, CUBLAS_OP_T, CUBLAS_OP_N, w->side, w->side, w->side, &one,
                           w->memory, w->type, w->side, w->memory + w->bytes, w->type, w->side, &zero,
                           w->memory + 2 * w->bytes, w->type, w->side, CUBLAS_COMPUTE_32F,
                           CUBLAS_GEMM_DEFAULT) == 0
               ? cudaSuccess
               : cudaErrorNotSupported;
}

/* The fastest of what `seconds` hold, two runs at least, after one that only warms up. */
static cudaError_t fastest(const work *w, double seconds, double *least)
{
    cudaEvent_t from = NULL, to = NULL;
    double spent = 0;
    *least = 0;
    cudaError_t e = cudaEventCreate(&from);
    if (e == cudaSuccess)
        e = cudaEventCreate(&to);
    for (int run = 0; e == cudaSuccess && run < RUNS && (run < 3 || spent < seconds); run++) {
        float milliseconds = 0;
        e = cudaEventRecord(from, NULL);
        if (e == cudaSuccess)
            e = start(w);
        if (e == cudaSuccess)
            e = cudaEventRecord(to, NULL);
        if (e == cudaSuccess)
            e = cudaEventSynchronize(to);
        if (e == cudaSuccess)
            e = cudaEventElapsedTime(&milliseconds, from, to);
        const double took = 1e-3 * milliseconds;
        spent += took;
        if (run == 1 || (run > 1 && took < *least))
            *least = took;
    }
    if (from)
        cudaEventDestroy(from);
    if (to)
        cudaEventDestroy(to);
    return e;
}

static lh_status fill(const work *w, lh_dtype dtype, lh_error *error)
{
    const size_t element = lh_dtype_size(dtype), piece = PATTERN * element;
    char *pattern;
    const lh_status status = lh_alloc((void **)&pattern, piece, "elements of the product rate", error);
    if (status != LH_OK)
        return status;
    for (int i = 0; i < PATTERN; i++)
        lh_store(pattern, dtype, i, lh_random_gaussian(1, 0, (uint64_t)i));
    cudaError_t e = cudaSuccess;
    for (size_t done = 0; done < 2 * w->bytes && e == cudaSuccess; done += piece)
        e = cudaMemcpy(w->memory + done, pattern, piece, cudaMemcpyHostToDevice);
    lh_free(pattern);
    return e == cudaSuccess ? LH_OK : lh_cuda_fail(e, "filling the matrices of the product rate", error);
}

static lh_status measure_copy(double seconds, lh_ceilings *ceilings, lh_error *error)
{
    work w = {.bytes = COPY_BYTES};
    double least = 0;
    cudaError_t e = cudaMalloc((void **)&w.memory, 2 * w.bytes);
    if (e == cudaSuccess)
        e = fastest(&w, seconds, &least);
    cudaFree(w.memory);
    if (e != cudaSuccess)
        return lh_cuda_fail(e, "measuring the copy rate", error);
    ceilings->copy_bytes = 2.0 * (double)w.bytes / least;
    return LH_OK;
}

/* Without cuBLAS there is no rate, which is no error. */
static lh_status measure_product(lh_dtype dtype, double seconds, lh_ceilings *ceilings, lh_error *error)
{
    lh_cublas found;
    const int side =
        dtype == LH_F32 ? 4096 : 8192; /* tenths of a second at most on what float32 is slow on */
    work w = {
        .cublas = &found,
        .type = dtype == LH_F16    ? CUDA_R_16F
                : dtype == LH_BF16 ? CUDA_R_16BF
                                   : CUDA_R_32F,
        .side = side,
        .bytes = (size_t)side * (size_t)side * lh_dtype_size(dtype),
    };
    if (!lh_cublas_open(&found))
        return LH_OK;
    double least = 0;
    lh_status status = LH_OK;
    cudaError_t e = cudaMalloc((void **)&w.memory, 3 * w.bytes);
    if (e == cudaSuccess)
        status = fill(&w, dtype, error);
    if (e == cudaSuccess && status == LH_OK)
        e = fastest(&w, seconds, &least);
    cudaFree(w.memory);
    lh_cublas_close(&found);
    if (e != cudaSuccess)
        return lh_cuda_fail(e, "measuring the product rate", error);
    if (status == LH_OK) {
        ceilings->product_flops = 2.0 * side * side * side / least;
        snprintf(ceilings->product, sizeof ceilings->product, "%s product of %d^3 by cuBLAS",
                 lh_dtype_name(dtype), side);
    }
    return status;
}

lh_status lh_cuda_ceilings(int device, lh_dtype dtype, double seconds, lh_ceilings *ceilings, lh_error *error)
{
    int before;
    *ceilings = (lh_ceilings){0};
    lh_status status = lh_cuda_enter(device, &before, error);
    if (status != LH_OK)
        return status;
    status = measure_copy(seconds, ceilings, error);
    if (status == LH_OK)
        status = measure_product(dtype, seconds, ceilings, error);
    lh_cuda_leave(before);
    return status;
}
