/* plan.c: what a CUDA plan holds on the device, taken when it is made and given back when it goes. */
#include <inttypes.h>
#include <math.h>

#include "cuda/plan.h"

static bool whole_layer_needs(const lh_options *o, lh_tensor_id id)
{
    switch (id) {
    case LH_SCORE_Q:
    case LH_SCORE_K:
    case LH_INDEX:
    case LH_Q_SEL:
    case LH_K_SEL:
    case LH_V_SEL:
    case LH_O_SEL:
    case LH_LSE:
        return true;
    case LH_DO_SEL:
    case LH_DQ_SEL:
    case LH_DK_SEL:
    case LH_DV_SEL:
        return o->backward;
    default:
        return false;
    }
}

/* Images of host tensors that no whole layer keeps for itself. */
static bool host_memory_needs(const lh_options *o, lh_tensor_id id)
{
    switch (id) {
    case LH_Q:
    case LH_K:
    case LH_V:
    case LH_OUT:
    case LH_COVERAGE:
        return true;
    case LH_DOUT:
    case LH_DQ:
    case LH_DK:
    case LH_DV:
        return o->backward;
    case LH_Q_PYR:
    case LH_K_PYR:
    case LH_V_PYR:
        return o->stages;
    default:
        return false;
    }
}

static lh_status take(lh_plan *plan, void **memory, size_t bytes, const char *name, lh_error *error)
{
    if (bytes == 0)
        return LH_OK;
    const cudaError_t e = cudaMalloc(memory, bytes);
    if (e == cudaSuccess) {
        plan->workspace_bytes += bytes;
        return LH_OK;
    }
    *memory = NULL;
    if (e != cudaErrorMemoryAllocation)
        return lh_cuda_fail(e, name, error);
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    return lh_fail(error, LH_NO_MEMORY, "%s: %zu bytes of device memory could not be had (%zu of %zu free)",
                   name, bytes, free_bytes, total);
}

static lh_status take_tensors(lh_plan *plan, lh_cuda *state, lh_error *error)
{
    const lh_options *o = &plan->options;
    lh_status status = LH_OK;
    for (int i = 0; i < LH_TENSOR_COUNT && status == LH_OK; i++) {
        const lh_tensor_id id = (lh_tensor_id)i;
        if (!whole_layer_needs(o, id) && !(o->memory == LH_HOST && host_memory_needs(o, id)))
            continue;
        lh_tensor t;
        lh_tensor_shape(&plan->config, &plan->layout, o->dtype, id, &t);
        const size_t bytes = (size_t)lh_tensor_elements(&t) * lh_dtype_size(t.dtype);
        const bool kept = id == LH_INDEX || id == LH_O_SEL || id == LH_LSE;
        status = take(plan, &state->own[i], bytes, lh_tensor_name(id), error);
        if (status == LH_OK && kept && o->stages && o->memory == LH_HOST)
            status = take(plan, &state->staged[i], bytes, lh_tensor_name(id), error);
    }
    return status;
}

static lh_status take_scratch(lh_plan *plan, lh_cuda *state, lh_error *error)
{
    const lh_config *c = &plan->config;
    const lh_layout *l = &plan->layout;
    const size_t element = lh_dtype_size(plan->options.dtype), lines = (size_t)(c->batch * c->heads);
    const size_t above =
        (size_t)(l->entries - l->level_size[0]) * (size_t)c->dim * element * (size_t)c->batch;
    static const char *const names[3] = {"q_pyr", "k_pyr", "v_pyr"};
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++)
        status =
            take(plan, &state->upper[i], above * (size_t)(i == 0 ? c->heads : c->kv_heads), names[i], error);
    if (status == LH_OK)
        status = take(plan, (void **)&state->slot, lines * (size_t)l->entries * sizeof *state->slot, "slots",
                      error);
    if (status == LH_OK)
        status = take(plan, &state->select_scratch, lh_cuda_select_scratch(&state->shape), "select", error);
    if (status == LH_OK && plan->options.backward)
        status = take(plan, (void **)&state->delta, lines * (size_t)l->selected * sizeof *state->delta,
                      "delta", error);
    return status;
}

static lh_status describe(const lh_plan *plan, lh_shape *shape, lh_error *error)
{
    const lh_config *c = &plan->config;
    struct cudaDeviceProp found;
    const cudaError_t e = cudaGetDeviceProperties(&found, plan->options.device);
    if (e != cudaSuccess)
        return lh_cuda_fail(e, "asking for a CUDA device's properties", error);
    *shape = (lh_shape){
        .batch = c->batch,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .tokens = c->tokens,
        .dim = c->dim,
        .levels = c->levels,
        .pool = c->pool,
        .topk = c->topk,
        .tile_topk = c->tile_topk,
        .layout = plan->layout,
        .dtype = plan->options.dtype,
        .scale = (float)(1 / sqrt((double)c->dim)),
        .multiprocessors = found.multiProcessorCount,
        .shared_bytes = (int)found.sharedMemPerBlockOptin,
        .capability = found.major * 10 + found.minor,
    };
    if (shape->capability < 80)
        return lh_fail(error, LH_UNSUPPORTED,
                       "device is %d: %.100s of compute capability %d.%d, wanted 8.0 or newer",
                       plan->options.device, found.name, found.major, found.minor);
    /* Kernels count tokens of a tile, selected rows and columns in 32 bits; all else in 64. */
    const struct {
        const char *name;
        int64_t value;
    } narrow[] = {{"tokens of a tile", c->tokens / plan->layout.tiles},
                  {"selected", plan->layout.selected},
                  {"dim", c->dim},
                  {"batch * heads * tiles", c->batch * c->heads * plan->layout.tiles}};
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        if (narrow[i].value > INT32_MAX / 4)
            return lh_fail(error, LH_UNSUPPORTED, "%s is %" PRId64 ", wanted at most %d for backend cuda",
                           narrow[i].name, narrow[i].value, INT32_MAX / 4);
    }
    return LH_OK;
}

static lh_status choose_attention(lh_plan *plan, lh_cuda *state, lh_error *error)
{
    const lh_options *o = &plan->options;
    if (o->attention == LH_ATTENTION_OWN || (o->attention == LH_ATTENTION_AUTO && o->dtype == LH_F32))
        return LH_OK;
    if (o->attention == LH_ATTENTION_AUTO && !o->backward && lh_cuda_has_sm90(&state->shape))
        return LH_OK; /* its forward is the own one */
    if (o->dtype == LH_F32)
        return lh_fail(error, LH_UNSUPPORTED, "attention is cudnn with dtype F32, wanted dtype F16 or BF16");
    const lh_status status =
        lh_cudnn_create(&state->shape, o->backward, &state->cudnn, &plan->workspace_bytes, error);
    return status == LH_UNSUPPORTED && o->attention == LH_ATTENTION_AUTO ? LH_OK : status;
}

static lh_status prepare(lh_plan *plan, lh_cuda *state, lh_error *error)
{
    lh_status status = describe(plan, &state->shape, error);
    if (status != LH_OK)
        return status;
    cudaError_t e = cudaSuccess;
    state->stream = (cudaStream_t)plan->options.stream;
    state->own_stream = !plan->options.stream && !plan->options.stream_given;
    if (state->own_stream)
        e = cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking);
    if (e != cudaSuccess) {
        state->own_stream = false;
        return lh_cuda_fail(e, "making a CUDA stream", error);
    }
    for (int i = 0; i < LH_CUDA_MARKS && plan->options.profile && e == cudaSuccess; i++)
        e = cudaEventCreate(&state->mark[i]);
    if (e != cudaSuccess)
        return lh_cuda_fail(e, "making a CUDA event", error);
    status = take_tensors(plan, state, error);
    if (status == LH_OK)
        status = take_scratch(plan, state, error);
    if (status == LH_OK)
        status = choose_attention(plan, state, error);
    return status;
}

/* The current device is the plan's. */
static void release(lh_cuda *state)
{
    lh_cudnn_destroy(state->cudnn);
    for (int i = 0; i < LH_TENSOR_COUNT; i++) {
        cudaFree(state->own[i]);
        cudaFree(state->staged[i]);
    }
    for (int i = 0; i < 3; i++)
        cudaFree(state->upper[i]);
    cudaFree(state->slot);
    cudaFree(state->delta);
    cudaFree(state->select_scratch);
    for (int i = 0; i < LH_CUDA_MARKS; i++) {
        if (state->mark[i])
            cudaEventDestroy(state->mark[i]);
    }
    if (state->own_stream)
        cudaStreamDestroy(state->stream);
    cudaGetLastError();
    lh_free(state);
}

lh_status lh_cuda_create(lh_plan *plan, lh_error *error)
{
    int before;
    lh_status status = lh_cuda_enter(plan->options.device, &before, error);
    if (status != LH_OK)
        return status;
    lh_cuda *state;
    status = lh_alloc((void **)&state, sizeof *state, "cuda plan", error);
    if (status == LH_OK) {
        *state = (lh_cuda){0};
        plan->state = state;
        plan->workspace_bytes += sizeof *state;
        status = prepare(plan, state, error);
        if (status != LH_OK)
            release(state);
    }
    lh_cuda_leave(before);
    return status;
}

void lh_cuda_destroy(lh_plan *plan)
{
    lh_cuda *state = plan->state;
    int before;
    if (lh_cuda_enter(plan->options.device, &before, NULL) != LH_OK)
        before =
            plan->options.device; /* a lost context: CUDA frees nothing more, the host's memory goes back */
    cudaStreamSynchronize(state->stream);
    release(state);
    lh_cuda_leave(before);
}
