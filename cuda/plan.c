/* plan.c: what a CUDA plan holds on the device, taken when it is made and given back when it goes. */
#include <inttypes.h>
#include <math.h>

#include "core/arena.h"
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

enum {
    ATTENDS = 1u << LH_ATTEND | 1u << LH_ATTEND_BACKWARD
};

static void take_tensor(const lh_plan *plan, lh_tensor_id id, void **memory, lh_arena *arena)
{
    lh_tensor t;
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, &t);
    *memory = lh_cuda_take(arena, (size_t)lh_tensor_elements(&t) * lh_dtype_size(t.dtype));
}

static void take_pyramids(const lh_plan *plan, lh_cuda *state, lh_arena *arena)
{
    const lh_config *c = &plan->config;
    const lh_layout *l = &plan->layout;
    const size_t above = (size_t)(l->entries - l->level_size[0]) * (size_t)c->dim *
                         lh_dtype_size(plan->options.dtype) * (size_t)c->batch;
    for (int i = 0; i < 3; i++)
        state->upper[i] = lh_cuda_take(arena, above * (size_t)(i == 0 ? c->heads : c->kv_heads));
}

/* Any of `stages`, bits 1 << lh_stage, while the plan is made. */
static bool runs(const lh_plan *plan, unsigned stages)
{
    return !plan->options.part || (plan->options.part->stages & stages) != 0;
}

static void take_scratch(const lh_plan *plan, lh_cuda *state, bool forward, bool backward, lh_arena *arena)
{
    const size_t lines = (size_t)(plan->config.batch * plan->config.heads);
    const bool local = runs(plan, ~ATTENDS);
    backward = backward && runs(plan, 1u << LH_ATTEND_BACKWARD);
    if (local)
        state->slot = lh_cuda_take(arena, lines * (size_t)plan->layout.entries * sizeof *state->slot);
    if (forward && local)
        state->select_scratch = lh_cuda_take(arena, lh_cuda_select_scratch(&state->shape));
    if (backward)
        state->delta = lh_cuda_take(arena, lines * (size_t)plan->layout.selected * sizeof *state->delta);
    if (backward && lh_cuda_has_sm90(&state->shape) && !state->cudnn)
        state->sums = lh_cuda_take(arena, lh_cuda_attend_sm90_scratch(&state->shape));
    lh_cudnn_take(state->cudnn, forward, backward, arena);
}

/* All that the plan keeps between its calls. */
static void arrange_own(const lh_plan *plan, lh_cuda *state, lh_arena *arena)
{
    const lh_options *o = &plan->options;
    for (int i = 0; i < LH_TENSOR_COUNT; i++) {
        const lh_tensor_id id = (lh_tensor_id)i;
        if (o->memory == LH_ON_DEVICE && o->part) /* stages alone, on tensors that the caller has */
            break;
        if (!whole_layer_needs(o, id) && !(o->memory == LH_HOST && host_memory_needs(o, id)))
            continue;
        take_tensor(plan, id, &state->own[i], arena);
        if (lh_listed(lh_layer_kept, id) && o->stages && o->memory == LH_HOST)
            take_tensor(plan, id, &state->staged[i], arena);
    }
    if (runs(plan, ~ATTENDS))
        take_pyramids(plan, state, arena);
    take_scratch(plan, state, true, o->backward, arena);
}

/* What one call needs while it runs. Pyramids are read by the gather alone, before the first gradient is written. */
static void arrange_lent(const lh_plan *plan, lh_cuda *state, bool backward, lh_arena *arena)
{
    static const lh_tensor_id selected[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL};
    static const lh_tensor_id scores[] = {LH_SCORE_Q, LH_SCORE_K};
    static const lh_tensor_id gradients[] = {LH_DO_SEL, LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    const bool kept = plan->options.rows_kept;
    for (int i = 0; i < 3 && !kept; i++)
        take_tensor(plan, selected[i], &state->own[selected[i]], arena);
    take_scratch(plan, state, !backward, backward, arena);
    for (int i = 0; i < 2 && !backward && !plan->options.index_given && !plan->options.scores_given; i++)
        take_tensor(plan, scores[i], &state->own[scores[i]], arena);
    lh_arena early = *arena;
    if (!backward || !kept)
        take_pyramids(plan, state, &early);
    for (int i = 0; i < 4 && backward; i++)
        take_tensor(plan, gradients[i], &state->own[gradients[i]], arena);
    if (early.used > arena->used)
        arena->used = early.used;
}

size_t lh_cuda_needs(const lh_plan *plan, bool backward)
{
    const lh_cuda *state = plan->state;
    return backward ? state->lent_backward : state->lent_forward;
}

void lh_cuda_settle(const lh_plan *plan, bool backward)
{
    lh_cuda *state = plan->state;
    lh_arena arena = {plan->lent, 0};
    if (!plan->options.workspace_given)
        return;
    arrange_lent(plan, state, backward, &arena);
    state->stream = (cudaStream_t)plan->options.stream;
}

static lh_status take_workspace(lh_plan *plan, lh_cuda *state, lh_error *error)
{
    lh_arena arena = {NULL, 0}, forward = {NULL, 0}, backward = {NULL, 0};
    if (plan->options.workspace_given) {
        arrange_lent(plan, state, false, &forward);
        arrange_lent(plan, state, true, &backward);
        state->lent_forward = forward.used;
        state->lent_backward = plan->options.backward ? backward.used : 0;
        return LH_OK;
    }
    arrange_own(plan, state, &arena);
    const size_t bytes = arena.used;
    const cudaError_t e = cudaMalloc(&state->memory, bytes);
    if (e == cudaSuccess) {
        plan->workspace_bytes += bytes;
        arena = (lh_arena){state->memory, 0};
        arrange_own(plan, state, &arena);
        return LH_OK;
    }
    state->memory = NULL;
    if (e != cudaErrorMemoryAllocation)
        return lh_cuda_fail(e, "workspace", error);
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    return lh_fail(error, LH_NO_MEMORY,
                   "workspace: %zu bytes of device memory could not be had (%zu of %zu free)", bytes,
                   free_bytes, total);
}

static lh_status describe(const lh_plan *plan, lh_shape *shape, lh_error *error)
{
    const struct lh_part *part = plan->options.part;
    const lh_config *c = &plan->config, *ordered = part ? part->layer : c;
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
        .ordered = ordered->batch * ordered->heads,
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
    if (!runs(plan, ATTENDS) || o->attention == LH_ATTENTION_OWN ||
        (o->attention == LH_ATTENTION_AUTO && o->dtype == LH_F32))
        return LH_OK;
    /* Faster than cuDNN, but for forward alone at d 64. */
    if (o->attention == LH_ATTENTION_AUTO && lh_cuda_has_sm90(&state->shape) &&
        (o->backward || state->shape.dim == 128))
        return LH_OK;
    if (o->dtype == LH_F32)
        return lh_fail(error, LH_UNSUPPORTED, "attention is cudnn with dtype F32, wanted dtype F16 or BF16");
    const lh_status status = lh_cudnn_create(&state->shape, o->backward, &state->cudnn, error);
    return status == LH_UNSUPPORTED && o->attention == LH_ATTENTION_AUTO ? LH_OK : status;
}

static lh_status prepare(lh_plan *plan, lh_cuda *state, lh_error *error)
{
    lh_status status = describe(plan, &state->shape, error);
    if (status == LH_OK && plan->options.workspace_given && plan->options.memory == LH_HOST)
        status =
            lh_fail(error, LH_UNSUPPORTED,
                    "workspace_given is true with host memory, wanted memory on device for backend cuda");
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
    status = choose_attention(plan, state, error);
    return status == LH_OK ? take_workspace(plan, state, error) : status;
}

/* The current device is the plan's. */
static void release(lh_cuda *state)
{
    lh_cudnn_destroy(state->cudnn);
    cudaFree(state->memory);
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
    if (!plan->options.workspace_given) /* else nothing of the plan's own is in use by the device */
        cudaStreamSynchronize(state->stream);
    release(state);
    lh_cuda_leave(before);
}
