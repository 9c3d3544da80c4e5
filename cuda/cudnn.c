/*
 * cudnn.c: the sub-sequence's attention, forward and backward, as cuDNN graphs.
 *
 * The graphs are those cuDNN's attention engines recognise (SPEC 3.6 and 4, spelled out in its operations). All
 * tensors are packed [B,H,S,d]; lse is cuDNN's "stats", packed [B,H,S,1] in F32. cuDNN adds dq up with atomics:
 * its last bits may differ between two runs, unlike those of the own kernels.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cudnn_graph.h"
#include "cuda/plan.h"

/* The tensors of a graph that are bound to memory, and the place of each in the lists given to cuDNN. */
enum binding {
    Q,
    K,
    V,
    O,
    STATS,
    SCALE,
    MASKED,
    D_O,
    DQ,
    DK,
    DV,
    DQ_SUM,
    DELTA,
    ONE,
    BINDINGS
};

struct attention {
    lh_cudnn_graph graph;
    int64_t uid[BINDINGS]; /* 0: not in this graph */
};

struct lh_cudnn {
    lh_cudnn_api api;
    struct attention forward, backward;
    size_t rows, dim;
    void *workspace, *dq_sum, *delta; /* device memory, as lh_cudnn_take laid it out */
    float scale, masked, one;
};

/* Shapes and strides of a graph's tensors. */
struct shapes {
    int64_t rows[4], rows_stride[4];       /* [B,H,S,d] */
    int64_t columns[4], columns_stride[4]; /* the same memory as [B,H,d,S] */
    int64_t square[4], square_stride[4];   /* [B,H,S,S] */
    int64_t turned_stride[4];              /* its transpose */
    int64_t line[4], line_stride[4];       /* [B,H,S,1] */
    int64_t one[4];
    int type;
};

static struct shapes shapes_of(const lh_shape *s)
{
    const int64_t b = s->batch, h = s->heads, n = s->layout.selected, d = s->dim;
    return (struct shapes){
        .rows = {b, h, n, d},
        .rows_stride = {h * n * d, n * d, d, 1},
        .columns = {b, h, d, n},
        .columns_stride = {h * n * d, n * d, 1, d},
        .square = {b, h, n, n},
        .square_stride = {h * n * n, n * n, n, 1},
        .turned_stride = {h * n * n, n * n, 1, n},
        .line = {b, h, n, 1},
        .line_stride = {h * n, n, 1, 1},
        .one = {1, 1, 1, 1},
        .type = s->dtype == LH_F16 ? CUDNN_HALF : CUDNN_BFLOAT16,
    };
}

static const lh_cudnn_tensor nothing;

static lh_cudnn_tensor bound(struct attention *a, enum binding b, lh_cudnn_kind kind, int type,
                             const int64_t shape[4], const int64_t stride[4])
{
    const lh_cudnn_tensor t = lh_cudnn_tensor_of(&a->graph, kind, type, shape, stride);
    a->uid[b] = t.uid;
    return t;
}

/* y of the given shape = mode(x, b), in float. */
static lh_cudnn_tensor apply(struct attention *a, int mode, lh_cudnn_tensor x, lh_cudnn_tensor b,
                             const int64_t shape[4], const int64_t stride[4])
{
    const lh_cudnn_tensor y = lh_cudnn_tensor_of(&a->graph, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, shape, stride);
    lh_cudnn_pointwise(&a->graph, mode, CUDNN_FLOAT, -1, x, b, nothing, y);
    return y;
}

static lh_cudnn_tensor apply_square(struct attention *a, const struct shapes *s, int mode, lh_cudnn_tensor x,
                                    lh_cudnn_tensor b)
{
    return apply(a, mode, x, b, s->square, s->square_stride);
}

/* x where the key is not after the query, minus infinity elsewhere. */
static lh_cudnn_tensor mask(struct attention *a, const struct shapes *s, lh_cudnn_tensor x)
{
    lh_cudnn_graph *g = &a->graph;
    const lh_cudnn_tensor below = bound(a, MASKED, LH_CUDNN_VALUE, CUDNN_FLOAT, s->one, s->one);
    const lh_cudnn_tensor row =
        lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_INT32, s->square, s->square_stride);
    const lh_cudnn_tensor column =
        lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_INT32, s->square, s->square_stride);
    const lh_cudnn_tensor seen =
        lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_BOOLEAN, s->square, s->square_stride);
    const lh_cudnn_tensor y =
        lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, s->square, s->square_stride);
    lh_cudnn_pointwise(g, CUDNN_GEN_INDEX, CUDNN_FLOAT, 2, x, nothing, nothing, row);
    lh_cudnn_pointwise(g, CUDNN_GEN_INDEX, CUDNN_FLOAT, 3, x, nothing, nothing, column);
    lh_cudnn_pointwise(g, CUDNN_CMP_GE, CUDNN_BOOLEAN, -1, row, column, nothing, seen);
    lh_cudnn_pointwise(g, CUDNN_BINARY_SELECT, CUDNN_FLOAT, -1, x, below, seen, y);
    return y;
}

/* scale * q k^T */
static lh_cudnn_tensor scores(struct attention *a, const struct shapes *s, lh_cudnn_tensor q,
                              lh_cudnn_tensor k, lh_cudnn_tensor scale)
{
    const lh_cudnn_tensor product =
        lh_cudnn_tensor_of(&a->graph, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, s->square, s->square_stride);
    lh_cudnn_matmul(&a->graph, q, k, product);
    return apply_square(a, s, CUDNN_MUL, product, scale);
}

static void build_forward(struct attention *a, const struct shapes *s)
{
    lh_cudnn_graph *g = &a->graph;
    const lh_cudnn_tensor q = bound(a, Q, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor k = bound(a, K, LH_CUDNN_MEMORY, s->type, s->columns, s->columns_stride);
    const lh_cudnn_tensor v = bound(a, V, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor o = bound(a, O, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor stats = bound(a, STATS, LH_CUDNN_MEMORY, CUDNN_FLOAT, s->line, s->line_stride);
    const lh_cudnn_tensor scale = bound(a, SCALE, LH_CUDNN_VALUE, CUDNN_FLOAT, s->one, s->one);
    const lh_cudnn_tensor most =
        lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, s->line, s->line_stride);
    const lh_cudnn_tensor sum = lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, s->line, s->line_stride);
    const lh_cudnn_tensor p = lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, s->type, s->square, s->square_stride);

    const lh_cudnn_tensor masked = mask(a, s, scores(a, s, q, k, scale));
    lh_cudnn_reduce(g, CUDNN_REDUCE_MAX, masked, most);
    const lh_cudnn_tensor less = apply_square(a, s, CUDNN_SUB, masked, most);
    const lh_cudnn_tensor weight = apply_square(a, s, CUDNN_EXP, less, nothing);
    lh_cudnn_reduce(g, CUDNN_REDUCE_ADD, weight, sum);
    const lh_cudnn_tensor log_sum = apply(a, CUDNN_LOG, sum, nothing, s->line, s->line_stride);
    lh_cudnn_pointwise(g, CUDNN_ADD, CUDNN_FLOAT, -1, most, log_sum, nothing, stats);
    lh_cudnn_pointwise(g, CUDNN_DIV, CUDNN_FLOAT, -1, weight, sum, nothing, p);
    lh_cudnn_matmul(g, p, v, o);
}

/* A square of weights, turned and in the tensors' type, for a product over the queries. */
static lh_cudnn_tensor turned(struct attention *a, const struct shapes *s, lh_cudnn_tensor x)
{
    const lh_cudnn_tensor y =
        lh_cudnn_tensor_of(&a->graph, LH_CUDNN_VIRTUAL, s->type, s->square, s->turned_stride);
    lh_cudnn_reshape(&a->graph, x, y);
    return y;
}

static void build_backward(struct attention *a, const struct shapes *s)
{
    lh_cudnn_graph *g = &a->graph;
    const lh_cudnn_tensor q = bound(a, Q, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor k = bound(a, K, LH_CUDNN_MEMORY, s->type, s->columns, s->columns_stride);
    const lh_cudnn_tensor v = bound(a, V, LH_CUDNN_MEMORY, s->type, s->columns, s->columns_stride);
    const lh_cudnn_tensor o = bound(a, O, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor d_o = bound(a, D_O, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor stats = bound(a, STATS, LH_CUDNN_MEMORY, CUDNN_FLOAT, s->line, s->line_stride);
    const lh_cudnn_tensor scale = bound(a, SCALE, LH_CUDNN_VALUE, CUDNN_FLOAT, s->one, s->one);
    const lh_cudnn_tensor one = bound(a, ONE, LH_CUDNN_VALUE, CUDNN_FLOAT, s->one, s->one);
    const lh_cudnn_tensor dq = bound(a, DQ, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor dk = bound(a, DK, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor dv = bound(a, DV, LH_CUDNN_MEMORY, s->type, s->rows, s->rows_stride);
    const lh_cudnn_tensor dq_sum = bound(a, DQ_SUM, LH_CUDNN_MEMORY, CUDNN_FLOAT, s->rows, s->rows_stride);
    const lh_cudnn_tensor delta = bound(a, DELTA, LH_CUDNN_MEMORY, CUDNN_FLOAT, s->line, s->line_stride);
    const lh_cudnn_tensor sum = lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, s->line, s->line_stride);
    const lh_cudnn_tensor dp =
        lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, s->square, s->square_stride);
    const lh_cudnn_tensor k_rows =
        lh_cudnn_tensor_of(g, LH_CUDNN_VIRTUAL, CUDNN_FLOAT, s->rows, s->rows_stride);

    /* delta: D of SPEC 4 */
    lh_cudnn_reduce(g, CUDNN_REDUCE_ADD, apply(a, CUDNN_MUL, d_o, o, s->rows, s->rows_stride), sum);
    lh_cudnn_pointwise(g, CUDNN_MUL, CUDNN_FLOAT, -1, sum, one, nothing, delta);
    /* P, and dv = P^T do */
    const lh_cudnn_tensor less = apply_square(a, s, CUDNN_SUB, scores(a, s, q, k, scale), stats);
    const lh_cudnn_tensor p = apply_square(a, s, CUDNN_EXP, mask(a, s, less), nothing);
    lh_cudnn_matmul(g, turned(a, s, p), d_o, dv);
    /* dS = P * (do v^T - D) * scale, dk = dS^T q, dq = dS k */
    lh_cudnn_matmul(g, d_o, v, dp);
    const lh_cudnn_tensor centred = apply_square(a, s, CUDNN_SUB, dp, delta);
    const lh_cudnn_tensor ds =
        apply_square(a, s, CUDNN_MUL, apply_square(a, s, CUDNN_MUL, centred, p), scale);
    lh_cudnn_matmul(g, turned(a, s, ds), q, dk);
    lh_cudnn_reshape(g, k, k_rows);
    lh_cudnn_matmul(g, ds, k_rows, dq_sum);
    lh_cudnn_pointwise(g, CUDNN_IDENTITY, CUDNN_FLOAT, -1, dq_sum, nothing, nothing, dq);
}

/* ---- the library -------------------------------------------------------------------------- */

static lh_status find_functions(lh_cudnn_api *api, lh_error *error)
{
    const struct {
        const char *name;
        void *slot; /* of a function pointer */
    } wanted[] = {
        {"cudnnCreate", &api->Create},
        {"cudnnDestroy", &api->Destroy},
        {"cudnnSetStream", &api->SetStream},
        {"cudnnGetVersion", &api->GetVersion},
        {"cudnnGetErrorString", &api->GetErrorString},
        {"cudnnBackendCreateDescriptor", &api->BackendCreateDescriptor},
        {"cudnnBackendDestroyDescriptor", &api->BackendDestroyDescriptor},
        {"cudnnBackendFinalize", &api->BackendFinalize},
        {"cudnnBackendSetAttribute", &api->BackendSetAttribute},
        {"cudnnBackendGetAttribute", &api->BackendGetAttribute},
        {"cudnnBackendExecute", &api->BackendExecute},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(api->library, wanted[i].name);
        if (!found)
            return lh_fail(error, LH_UNSUPPORTED, "attention is cudnn, but its library has no %s",
                           wanted[i].name);
        memcpy(wanted[i].slot, &found, sizeof found); /* POSIX: a function's address fits a void * */
    }
    return LH_OK;
}

static lh_status open_library(lh_cudnn_api *api, lh_error *error)
{
    const char *folder = getenv("LIGHTHOUSE_CUDNN_PATH");
    char path[4096];
    snprintf(path, sizeof path, "%.4000s%slibcudnn.so.9", folder ? folder : "", folder && *folder ? "/" : "");
    api->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!api->library)
        return lh_fail(error, LH_UNSUPPORTED,
                       "attention is cudnn, but %.200s was not found, wanted it on the library path or in "
                       "LIGHTHOUSE_CUDNN_PATH",
                       path);
    const lh_status status = find_functions(api, error);
    if (status != LH_OK)
        return status;
    api->version = api->GetVersion();
    const int failed = api->Create(&api->handle);
    if (failed)
        return lh_fail(error, LH_UNSUPPORTED, "attention is cudnn, but cuDNN does not start (%s)",
                       api->GetErrorString(failed));
    return LH_OK;
}

static lh_status make_plans(lh_cudnn *c, const lh_shape *shape, bool backward, lh_error *error)
{
    enum {
        PADDING_TRAP = 91500, /* up to this version backward reads past rows that do not fill a tile of 128 */
        INFINITE_FROM = 91000 /* before this version masked scores must be finite */
    };
    if (backward && shape->layout.selected % 128 != 0 && c->api.version <= PADDING_TRAP)
        return lh_fail(error, LH_UNSUPPORTED,
                       "attention is cudnn with %" PRId64
                       " selected rows, wanted a multiple of 128 for cuDNN %zu",
                       shape->layout.selected, c->api.version);
    const struct shapes shapes = shapes_of(shape);
    c->scale = shape->scale;
    c->masked = c->api.version < INFINITE_FROM ? -3.402823466e38f : -INFINITY;
    c->one = 1;
    c->forward.graph.api = c->backward.graph.api = &c->api;
    c->rows = (size_t)(shape->batch * shape->heads * shape->layout.selected);
    c->dim = (size_t)shape->dim;
    c->forward.graph.workspace_most = c->backward.graph.workspace_most =
        (int64_t)(c->rows * c->dim * 16) + ((int64_t)64 << 20);
    build_forward(&c->forward, &shapes);
    lh_status status = lh_cudnn_plan(&c->forward.graph, "attention", error);
    if (status == LH_OK && backward) {
        build_backward(&c->backward, &shapes);
        status = lh_cudnn_plan(&c->backward.graph, "attention's backward", error);
    }
    return status;
}

void lh_cudnn_take(lh_cudnn *c, bool forward, bool backward, lh_arena *arena)
{
    if (!c)
        return;
    const int64_t ahead = forward ? c->forward.graph.workspace : 0;
    const int64_t behind = backward ? c->backward.graph.workspace : 0;
    c->workspace = lh_cuda_take(arena, (size_t)(ahead > behind ? ahead : behind));
    if (!backward)
        return;
    c->dq_sum = lh_cuda_take(arena, c->rows * c->dim * sizeof(float));
    c->delta = lh_cuda_take(arena, c->rows * sizeof(float));
}

lh_status lh_cudnn_create(const lh_shape *shape, bool backward, lh_cudnn **cudnn, lh_error *error)
{
    lh_cudnn *c;
    *cudnn = NULL;
    lh_status status = lh_alloc((void **)&c, sizeof *c, "cuDNN plan", error);
    if (status != LH_OK)
        return status;
    memset(c, 0, sizeof *c);
    status = open_library(&c->api, error);
    if (status == LH_OK)
        status = make_plans(c, shape, backward, error);
    if (status != LH_OK) {
        lh_cudnn_destroy(c);
        return status;
    }
    *cudnn = c;
    return LH_OK;
}

void lh_cudnn_destroy(lh_cudnn *c)
{
    if (!c)
        return;
    lh_cudnn_graph_free(&c->forward.graph);
    lh_cudnn_graph_free(&c->backward.graph);
    if (c->api.handle)
        c->api.Destroy(c->api.handle);
    if (c->api.library)
        dlclose(c->api.library);
    lh_free(c);
}

static lh_status run(lh_cudnn *c, struct attention *a, const lh_attend *t, cudaStream_t stream,
                     const char *what, lh_error *error)
{
    const void *const memory[BINDINGS] = {
        [Q] = t->q,
        [K] = t->k,
        [V] = t->v,
        [O] = t->o,
        [STATS] = t->lse,
        [SCALE] = &c->scale,
        [MASKED] = &c->masked,
        [D_O] = t->d_o,
        [DQ] = t->dq,
        [DK] = t->dk,
        [DV] = t->dv,
        [DQ_SUM] = c->dq_sum,
        [DELTA] = c->delta,
        [ONE] = &c->one,
    };
    int64_t uids[BINDINGS];
    void *pointers[BINDINGS];
    int count = 0;
    for (int b = 0; b < BINDINGS; b++) {
        if (a->uid[b]) {
            uids[count] = a->uid[b];
            pointers[count++] = (void *)memory[b];
        }
    }
    return lh_cudnn_run(&a->graph, count, uids, pointers, c->workspace, stream, what, error);
}

lh_status lh_cudnn_attend(lh_cudnn *c, const lh_attend *t, cudaStream_t stream, lh_error *error)
{
    return run(c, &c->forward, t, stream, "attend", error);
}

lh_status lh_cudnn_attend_backward(lh_cudnn *c, const lh_attend *t, cudaStream_t stream, lh_error *error)
{
    return run(c, &c->backward, t, stream, "attend_backward", error);
}
