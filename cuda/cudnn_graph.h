/*
 * cudnn_graph.h: the part of cuDNN 9's graph API that attention needs, and graphs built with it.
 *
 * The numbers are those of cuDNN's public header, which is thus not needed to build; cuDNN keeps them through
 * its major version, which the library's name libcudnn.so.9 holds it to.
 */
#ifndef LH_CUDA_CUDNN_GRAPH_H
#define LH_CUDA_CUDNN_GRAPH_H

#include "core/backend.h"
#include "cuda/cudnn.h"

enum { /* element types */
    CUDNN_FLOAT = 0,
    CUDNN_HALF = 2,
    CUDNN_INT32 = 4,
    CUDNN_BFLOAT16 = 9,
    CUDNN_BOOLEAN = 11
};

enum { /* pointwise modes */
    CUDNN_ADD = 0,
    CUDNN_MUL = 1,
    CUDNN_DIV = 6,
    CUDNN_SUB = 9,
    CUDNN_EXP = 13,
    CUDNN_LOG = 15,
    CUDNN_IDENTITY = 21,
    CUDNN_CMP_GE = 303,
    CUDNN_GEN_INDEX = 501,
    CUDNN_BINARY_SELECT = 601
};

enum { /* reductions */
    CUDNN_REDUCE_ADD = 0,
    CUDNN_REDUCE_MAX = 3
};

typedef void *lh_cudnn_descriptor;

/* The library, opened once per plan; function names as cuDNN has them, without their prefix. */
typedef struct lh_cudnn_api {
    void *library;
    void *handle;
    size_t version; /* 90500: 9.5.0 */
    int (*Create)(void **handle);
    int (*Destroy)(void *handle);
    int (*SetStream)(void *handle, cudaStream_t stream);
    size_t (*GetVersion)(void);
    const char *(*GetErrorString)(int status);
    int (*BackendCreateDescriptor)(int type, lh_cudnn_descriptor *descriptor);
    int (*BackendDestroyDescriptor)(lh_cudnn_descriptor descriptor);
    int (*BackendFinalize)(lh_cudnn_descriptor descriptor);
    int (*BackendSetAttribute)(lh_cudnn_descriptor descriptor, int name, int type, int64_t count,
                               const void *values);
    int (*BackendGetAttribute)(lh_cudnn_descriptor descriptor, int name, int type, int64_t requested,
                               int64_t *count, void *values);
    int (*BackendExecute)(void *handle, lh_cudnn_descriptor plan, lh_cudnn_descriptor pack);
} lh_cudnn_api;

enum {
    LH_CUDNN_DESCRIPTORS = 128,
    LH_CUDNN_OPERATIONS = 32
};

/* A graph under construction, then its plan. The first failure sticks in `status` and stops all later calls. */
typedef struct lh_cudnn_graph {
    const lh_cudnn_api *api;
    int status;
    const char *failed; /* the step that set status */
    lh_cudnn_descriptor made[LH_CUDNN_DESCRIPTORS], operation[LH_CUDNN_OPERATIONS];
    int made_count, operations;
    int64_t uids; /* unique ids given out */
    lh_cudnn_descriptor plan;
    int64_t workspace;      /* bytes the plan needs */
    int64_t workspace_most; /* an engine that needs more is not attention without squares of S x S */
} lh_cudnn_graph;

/* A tensor of a graph: [b,h,rows,columns] with its element type and id. */
typedef struct lh_cudnn_tensor {
    lh_cudnn_descriptor descriptor;
    int64_t uid;
} lh_cudnn_tensor;

typedef enum lh_cudnn_kind {
    LH_CUDNN_MEMORY,  /* bound to device memory when the plan runs */
    LH_CUDNN_VIRTUAL, /* never in memory */
    LH_CUDNN_VALUE,   /* one value, bound to host memory */
} lh_cudnn_kind;

lh_cudnn_tensor lh_cudnn_tensor_of(lh_cudnn_graph *graph, lh_cudnn_kind kind, int type,
                                   const int64_t shape[4], const int64_t stride[4]);
/* y = mode(x, b) of `precision`; b, t: descriptor NULL where the mode has none; axis: of GEN_INDEX, else -1. */
void lh_cudnn_pointwise(lh_cudnn_graph *graph, int mode, int precision, int64_t axis, lh_cudnn_tensor x,
                        lh_cudnn_tensor b, lh_cudnn_tensor t, lh_cudnn_tensor y);
void lh_cudnn_matmul(lh_cudnn_graph *graph, lh_cudnn_tensor a, lh_cudnn_tensor b, lh_cudnn_tensor c);
void lh_cudnn_reduce(lh_cudnn_graph *graph, int mode, lh_cudnn_tensor x, lh_cudnn_tensor y);
void lh_cudnn_reshape(lh_cudnn_graph *graph, lh_cudnn_tensor x, lh_cudnn_tensor y);

/* Asks cuDNN's heuristics for engines and plans with the first that takes the graph. */
lh_status lh_cudnn_plan(lh_cudnn_graph *graph, const char *what, lh_error *error);
/* Runs the plan over memory bound by unique id. */
lh_status lh_cudnn_run(lh_cudnn_graph *graph, int count, const int64_t *uids, void *const *pointers,
                       void *workspace, cudaStream_t stream, const char *what, lh_error *error);
void lh_cudnn_graph_free(lh_cudnn_graph *graph);

#endif
