/* cudnn_graph.c: graphs of cuDNN's backend API: descriptors, operations, engine, plan. */
#include "cuda/cudnn_graph.h"

enum { /* descriptor types */
    POINTWISE = 0,
    ENGINECFG = 3,
    ENGINEHEUR = 4,
    EXECUTION_PLAN = 5,
    OPERATION_POINTWISE = 13,
    OPERATIONGRAPH = 15,
    VARIANT_PACK = 16,
    TENSOR = 17,
    MATMUL = 18,
    OPERATION_MATMUL = 19,
    REDUCTION = 21,
    OPERATION_REDUCTION = 22,
    OPERATION_RESHAPE = 31
};

enum { /* attribute types */
    TYPE_HANDLE = 0,
    TYPE_DATA_TYPE = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INT64 = 3,
    TYPE_VOID_PTR = 6,
    TYPE_HEUR_MODE = 8,
    TYPE_POINTWISE_MODE = 14,
    TYPE_DESCRIPTOR = 15,
    TYPE_REDUCTION_OPERATOR = 18
};

enum { /* attributes */
    POINTWISE_MODE = 0,
    POINTWISE_MATH_PREC = 1,
    POINTWISE_AXIS = 9,
    ENGINEHEUR_MODE = 200,
    ENGINEHEUR_OPERATION_GRAPH = 201,
    ENGINEHEUR_RESULTS = 202,
    EXECUTION_PLAN_HANDLE = 400,
    EXECUTION_PLAN_ENGINE_CONFIG = 401,
    EXECUTION_PLAN_WORKSPACE_SIZE = 402,
    OPERATION_POINTWISE_PW_DESCRIPTOR = 750,
    OPERATION_POINTWISE_XDESC = 751,
    OPERATION_POINTWISE_BDESC = 752,
    OPERATION_POINTWISE_YDESC = 753,
    OPERATION_POINTWISE_TDESC = 758,
    OPERATIONGRAPH_HANDLE = 800,
    OPERATIONGRAPH_OPS = 801,
    TENSOR_BYTE_ALIGNMENT = 900,
    TENSOR_DATA_TYPE = 901,
    TENSOR_DIMENSIONS = 902,
    TENSOR_STRIDES = 903,
    TENSOR_UNIQUE_ID = 906,
    TENSOR_IS_VIRTUAL = 907,
    TENSOR_IS_BY_VALUE = 908,
    VARIANT_PACK_UNIQUE_IDS = 1000,
    VARIANT_PACK_DATA_POINTERS = 1001,
    VARIANT_PACK_WORKSPACE = 1003,
    MATMUL_COMP_TYPE = 1500,
    OPERATION_MATMUL_ADESC = 1520,
    OPERATION_MATMUL_BDESC = 1521,
    OPERATION_MATMUL_CDESC = 1522,
    OPERATION_MATMUL_DESC = 1523,
    REDUCTION_OPERATOR = 1600,
    REDUCTION_COMP_TYPE = 1601,
    OPERATION_REDUCTION_XDESC = 1610,
    OPERATION_REDUCTION_YDESC = 1611,
    OPERATION_REDUCTION_DESC = 1612,
    OPERATION_RESHAPE_XDESC = 2200,
    OPERATION_RESHAPE_YDESC = 2201,
    HEUR_MODE_A = 3
};

static void note(lh_cudnn_graph *g, int status, const char *step)
{
    if (g->status == 0 && status != 0) {
        g->status = status;
        g->failed = step;
    }
}

static lh_cudnn_descriptor make(lh_cudnn_graph *g, int type)
{
    lh_cudnn_descriptor descriptor = NULL;
    if (g->status == 0)
        note(g,
             g->made_count < LH_CUDNN_DESCRIPTORS ? g->api->BackendCreateDescriptor(type, &descriptor) : -1,
             "making a descriptor");
    if (descriptor)
        g->made[g->made_count++] = descriptor;
    return descriptor;
}

static void set(lh_cudnn_graph *g, lh_cudnn_descriptor d, int name, int type, int64_t count,
                const void *values)
{
    if (g->status == 0)
        note(g, g->api->BackendSetAttribute(d, name, type, count, values), "setting an attribute");
}

static void set_descriptor(lh_cudnn_graph *g, lh_cudnn_descriptor d, int name, lh_cudnn_descriptor value)
{
    if (value)
        set(g, d, name, TYPE_DESCRIPTOR, 1, &value);
}

static void finish(lh_cudnn_graph *g, lh_cudnn_descriptor d, const char *step)
{
    if (g->status == 0)
        note(g, g->api->BackendFinalize(d), step);
}

static void add_operation(lh_cudnn_graph *g, lh_cudnn_descriptor d, const char *step)
{
    finish(g, d, step);
    if (g->status == 0)
        note(g, g->operations < LH_CUDNN_OPERATIONS ? 0 : -1, step);
    if (g->status == 0)
        g->operation[g->operations++] = d;
}

lh_cudnn_tensor lh_cudnn_tensor_of(lh_cudnn_graph *g, lh_cudnn_kind kind, int type, const int64_t shape[4],
                                   const int64_t stride[4])
{
    static const int64_t alignment = 16;
    const lh_cudnn_tensor t = {make(g, TENSOR), ++g->uids};
    const bool is_virtual = kind == LH_CUDNN_VIRTUAL, by_value = kind == LH_CUDNN_VALUE;
    set(g, t.descriptor, TENSOR_DATA_TYPE, TYPE_DATA_TYPE, 1, &type);
    set(g, t.descriptor, TENSOR_DIMENSIONS, TYPE_INT64, 4, shape);
    set(g, t.descriptor, TENSOR_STRIDES, TYPE_INT64, 4, stride);
    set(g, t.descriptor, TENSOR_UNIQUE_ID, TYPE_INT64, 1, &t.uid);
    set(g, t.descriptor, TENSOR_BYTE_ALIGNMENT, TYPE_INT64, 1, &alignment);
    set(g, t.descriptor, TENSOR_IS_VIRTUAL, TYPE_BOOLEAN, 1, &is_virtual);
    if (by_value)
        set(g, t.descriptor, TENSOR_IS_BY_VALUE, TYPE_BOOLEAN, 1, &by_value);
    finish(g, t.descriptor, "a tensor");
    return t;
}

void lh_cudnn_pointwise(lh_cudnn_graph *g, int mode, int precision, int64_t axis, lh_cudnn_tensor x,
                        lh_cudnn_tensor b, lh_cudnn_tensor t, lh_cudnn_tensor y)
{
    lh_cudnn_descriptor how = make(g, POINTWISE);
    set(g, how, POINTWISE_MODE, TYPE_POINTWISE_MODE, 1, &mode);
    set(g, how, POINTWISE_MATH_PREC, TYPE_DATA_TYPE, 1, &precision);
    if (axis >= 0)
        set(g, how, POINTWISE_AXIS, TYPE_INT64, 1, &axis);
    finish(g, how, "an elementwise function");
    lh_cudnn_descriptor d = make(g, OPERATION_POINTWISE);
    set_descriptor(g, d, OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(g, d, OPERATION_POINTWISE_XDESC, x.descriptor);
    set_descriptor(g, d, OPERATION_POINTWISE_BDESC, b.descriptor);
    set_descriptor(g, d, OPERATION_POINTWISE_TDESC, t.descriptor);
    set_descriptor(g, d, OPERATION_POINTWISE_YDESC, y.descriptor);
    add_operation(g, d, "an elementwise operation");
}

void lh_cudnn_matmul(lh_cudnn_graph *g, lh_cudnn_tensor a, lh_cudnn_tensor b, lh_cudnn_tensor c)
{
    static const int precision = CUDNN_FLOAT;
    lh_cudnn_descriptor how = make(g, MATMUL);
    set(g, how, MATMUL_COMP_TYPE, TYPE_DATA_TYPE, 1, &precision);
    finish(g, how, "a matrix product");
    lh_cudnn_descriptor d = make(g, OPERATION_MATMUL);
    set_descriptor(g, d, OPERATION_MATMUL_ADESC, a.descriptor);
    set_descriptor(g, d, OPERATION_MATMUL_BDESC, b.descriptor);
    set_descriptor(g, d, OPERATION_MATMUL_CDESC, c.descriptor);
    set_descriptor(g, d, OPERATION_MATMUL_DESC, how);
    add_operation(g, d, "a matrix product");
}

void lh_cudnn_reduce(lh_cudnn_graph *g, int mode, lh_cudnn_tensor x, lh_cudnn_tensor y)
{
    static const int precision = CUDNN_FLOAT;
    lh_cudnn_descriptor how = make(g, REDUCTION);
    set(g, how, REDUCTION_OPERATOR, TYPE_REDUCTION_OPERATOR, 1, &mode);
    set(g, how, REDUCTION_COMP_TYPE, TYPE_DATA_TYPE, 1, &precision);
    finish(g, how, "a reduction");
    lh_cudnn_descriptor d = make(g, OPERATION_REDUCTION);
    set_descriptor(g, d, OPERATION_REDUCTION_XDESC, x.descriptor);
    set_descriptor(g, d, OPERATION_REDUCTION_YDESC, y.descriptor);
    set_descriptor(g, d, OPERATION_REDUCTION_DESC, how);
    add_operation(g, d, "a reduction");
}

void lh_cudnn_reshape(lh_cudnn_graph *g, lh_cudnn_tensor x, lh_cudnn_tensor y)
{
    lh_cudnn_descriptor d = make(g, OPERATION_RESHAPE);
    set_descriptor(g, d, OPERATION_RESHAPE_XDESC, x.descriptor);
    set_descriptor(g, d, OPERATION_RESHAPE_YDESC, y.descriptor);
    add_operation(g, d, "a reshape");
}

/* A plan from an engine configuration, or NULL where that engine declines or wants too much memory. */
static lh_cudnn_descriptor try_engine(lh_cudnn_graph *g, lh_cudnn_descriptor configuration)
{
    const lh_cudnn_api *api = g->api;
    lh_cudnn_descriptor plan = NULL;
    if (api->BackendCreateDescriptor(EXECUTION_PLAN, &plan) != 0)
        return NULL;
    int64_t count;
    if (api->BackendSetAttribute(plan, EXECUTION_PLAN_HANDLE, TYPE_HANDLE, 1, &api->handle) == 0 &&
        api->BackendSetAttribute(plan, EXECUTION_PLAN_ENGINE_CONFIG, TYPE_DESCRIPTOR, 1, &configuration) ==
            0 &&
        api->BackendFinalize(plan) == 0 &&
        api->BackendGetAttribute(plan, EXECUTION_PLAN_WORKSPACE_SIZE, TYPE_INT64, 1, &count, &g->workspace) ==
            0 &&
        g->workspace <= g->workspace_most)
        return plan;
    api->BackendDestroyDescriptor(plan);
    return NULL;
}

static void choose_engine(lh_cudnn_graph *g, lh_cudnn_descriptor heuristics)
{
    enum {
        MOST = 16
    };
    lh_cudnn_descriptor found[MOST];
    int64_t count = 0;
    for (int i = 0; i < MOST; i++)
        found[i] = make(g, ENGINECFG);
    if (g->status == 0)
        note(
            g,
            g->api->BackendGetAttribute(heuristics, ENGINEHEUR_RESULTS, TYPE_DESCRIPTOR, MOST, &count, found),
            "asking for engines");
    for (int64_t i = 0; i < count && i < MOST && g->status == 0 && !g->plan; i++)
        g->plan = try_engine(g, found[i]);
    if (!g->plan)
        note(g, -1, "finding an engine");
}

lh_status lh_cudnn_plan(lh_cudnn_graph *g, const char *what, lh_error *error)
{
    static const int mode = HEUR_MODE_A;
    lh_cudnn_descriptor operations = make(g, OPERATIONGRAPH);
    set(g, operations, OPERATIONGRAPH_OPS, TYPE_DESCRIPTOR, g->operations, g->operation);
    set(g, operations, OPERATIONGRAPH_HANDLE, TYPE_HANDLE, 1, &g->api->handle);
    finish(g, operations, "the operation graph");
    lh_cudnn_descriptor heuristics = make(g, ENGINEHEUR);
    set_descriptor(g, heuristics, ENGINEHEUR_OPERATION_GRAPH, operations);
    set(g, heuristics, ENGINEHEUR_MODE, TYPE_HEUR_MODE, 1, &mode);
    finish(g, heuristics, "the heuristics");
    if (g->status == 0)
        choose_engine(g, heuristics);
    if (g->status == 0)
        return LH_OK;
    return lh_fail(error, LH_UNSUPPORTED, "attention is cudnn, but cuDNN %zu.%zu.%zu declines %s at %s (%s)",
                   g->api->version / 10000, g->api->version / 100 % 100, g->api->version % 100, what,
                   g->failed, g->status > 0 ? g->api->GetErrorString(g->status) : "none was found");
}

lh_status lh_cudnn_run(lh_cudnn_graph *g, int count, const int64_t *uids, void *const *pointers,
                       void *workspace, cudaStream_t stream, const char *what, lh_error *error)
{
    const lh_cudnn_api *api = g->api;
    lh_cudnn_descriptor pack = NULL;
    int status = api->SetStream(api->handle, stream);
    if (status == 0)
        status = api->BackendCreateDescriptor(VARIANT_PACK, &pack);
    if (status == 0)
        status = api->BackendSetAttribute(pack, VARIANT_PACK_DATA_POINTERS, TYPE_VOID_PTR, count, pointers);
    if (status == 0)
        status = api->BackendSetAttribute(pack, VARIANT_PACK_UNIQUE_IDS, TYPE_INT64, count, uids);
    if (status == 0)
        status = api->BackendSetAttribute(pack, VARIANT_PACK_WORKSPACE, TYPE_VOID_PTR, 1, &workspace);
    if (status == 0)
        status = api->BackendFinalize(pack);
    if (status == 0)
        status = api->BackendExecute(api->handle, g->plan, pack);
    if (pack)
        api->BackendDestroyDescriptor(pack);
    if (status == 0)
        return LH_OK;
    return lh_fail(error, LH_DEVICE, "%s: cuDNN says %s", what, api->GetErrorString(status));
}

void lh_cudnn_graph_free(lh_cudnn_graph *g)
{
    if (g->plan)
        g->api->BackendDestroyDescriptor(g->plan);
    for (int i = g->made_count - 1; i >= 0; i--)
        g->api->BackendDestroyDescriptor(g->made[i]);
}
