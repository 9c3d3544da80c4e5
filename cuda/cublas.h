/* cublas.h: matrix products by cuBLAS, looked for when they are first wanted, never needed to build or load. */
#ifndef LH_CUDA_CUBLAS_H
#define LH_CUDA_CUBLAS_H

#include <cuda_runtime_api.h>
#include <library_types.h>
#include <stdbool.h>

enum { /* cuBLAS's own numbers */
    CUBLAS_OP_N = 0,
    CUBLAS_OP_T = 1,
    CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_FAST_16BF = 75, /* operands rounded to bfloat16, summed in float32 */
    CUBLAS_GEMM_DEFAULT = -1
};

typedef struct lh_cublas {
    void *library, *handle;
    int major, minor, patch;
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cudaStream_t stream);
    int (*set_workspace)(void *handle, void *workspace, size_t bytes);
    int (*property)(int which, int *value);
    int (*gemm)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                cudaDataType type_a, int lda, const void *b, cudaDataType type_b, int ldb, const void *beta,
                void *c, cudaDataType type_c, int ldc, int compute, int algorithm);
} lh_cublas;

/* On the current device. False where there is no cuBLAS, or none that works; nothing is to be closed then. */
bool lh_cublas_open(lh_cublas *c);
void lh_cublas_close(lh_cublas *c);

#endif
