/* run.c: stages and whole layers on the device: tensors there, kernels in order, tensors back. */
#include "cuda/plan.h"

/* One call: the plan, and for each tensor where it is on the device. */
struct job {
    lh_plan *plan;
    lh_cuda *state;
    const lh_tensor *trace;
    bool single; /* a stage alone */
    lh_tensor at[LH_TENSOR_COUNT];
    lh_error *error;
};

static lh_status check(const struct job *job, cudaError_t e, const char *what)
{
    return e == cudaSuccess ? LH_OK : lh_cuda_fail(e, what, job->error);
}

/* ---- profile ------------------------------------------------------------------------------ */

/* Books the time since the mark before under `stage`; -1 starts the clock. */
static lh_status mark(const struct job *job, int stage)
{
    lh_cuda *state = job->state;
    if (!job->plan->options.profile || state->marks == LH_CUDA_MARKS)
        return LH_OK;
    state->mark_stage[state->marks] = stage;
    return check(job, cudaEventRecord(state->mark[state->marks++], state->stream), "recording a CUDA event");
}

/* After the stream was waited for. */
static lh_status book_marks(const struct job *job)
{
    lh_cuda *state = job->state;
    lh_profile *profile = &job->plan->profile;
    for (int i = 1; i < state->marks; i++) {
        float milliseconds = 0;
        const cudaError_t e = cudaEventElapsedTime(&milliseconds, state->mark[i - 1], state->mark[i]);
        if (e != cudaSuccess)
            return check(job, e, "reading a CUDA event");
        if (state->mark_stage[i] == LH_CUDA_TRANSFER)
            profile->transfer += 1e-3 * milliseconds;
        else if (state->mark_stage[i] >= 0)
            profile->seconds[state->mark_stage[i]] += 1e-3 * milliseconds;
    }
    return LH_OK;
}

/* ---- tensors there and back --------------------------------------------------------------- */

/* Between a host tensor, perhaps strided, and its contiguous image. */
static lh_status copy(const struct job *job, const lh_tensor *host, void *device, enum cudaMemcpyKind kind)
{
    const bool up = kind == cudaMemcpyHostToDevice;
    const size_t element = lh_dtype_size(host->dtype);
    cudaStream_t stream = job->state->stream;
    cudaError_t e = cudaSuccess;
    if (lh_tensor_contiguous(host)) {
        const size_t bytes = (size_t)lh_tensor_elements(host) * element;
        e = cudaMemcpyAsync(up ? device : host->data, up ? host->data : device, bytes, kind, stream);
        return check(job, e, "copying a tensor");
    }
    /* One copy a head where its rows do not overlap, else one a row. */
    const size_t width = (size_t)host->shape[3] * element;
    const int64_t rows = host->stride[2] >= host->shape[3] ? host->shape[2] : 1;
    unsigned char *image = device;
    for (int64_t b = 0; b < host->shape[0]; b++) {
        for (int64_t h = 0; h < host->shape[1]; h++) {
            for (int64_t n = 0; n < host->shape[2] && e == cudaSuccess; n += rows) {
                unsigned char *at = (unsigned char *)host->data + (size_t)lh_offset(host, b, h, n) * element;
                const size_t pitch = rows == 1 ? width : (size_t)host->stride[2] * element;
                e = cudaMemcpy2DAsync(up ? image : at, up ? width : pitch, up ? at : image,
                                      up ? pitch : width, width, (size_t)rows, kind, stream);
                image += width * (size_t)rows;
            }
        }
    }
    return check(job, e, "copying a tensor");
}

/* The plan's own memory for a tensor. A stage alone leaves alone what a forward keeps for its backward. */
static void hold(struct job *job, lh_tensor_id id)
{
    const lh_plan *plan = job->plan;
    lh_cuda *state = job->state;
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, &job->at[id]);
    job->at[id].data = job->single && state->staged[id] ? state->staged[id] : state->own[id];
}

/* Finds every tensor of `ids` on the device; host tensors get the plan's images, and go up where `read`. */
static lh_status place(struct job *job, const lh_tensor_id *ids, bool read)
{
    lh_status status = LH_OK;
    for (; *ids != LH_TENSOR_COUNT && status == LH_OK; ids++) {
        const lh_tensor *given = &job->trace[*ids];
        if (job->plan->options.memory == LH_ON_DEVICE && given->data) {
            job->at[*ids] = *given;
            continue;
        }
        hold(job, *ids);
        if (*ids == LH_COVERAGE && !given->data)
            job->at[*ids].data = NULL;
        if (read && given->data)
            status = copy(job, given, job->at[*ids].data, cudaMemcpyHostToDevice);
    }
    return status;
}

static lh_status fetch(struct job *job, const lh_tensor_id *ids)
{
    lh_status status = LH_OK;
    if (job->plan->options.memory == LH_ON_DEVICE)
        return LH_OK;
    for (; *ids != LH_TENSOR_COUNT && status == LH_OK; ids++) {
        if (job->trace[*ids].data)
            status = copy(job, &job->trace[*ids], job->at[*ids].data, cudaMemcpyDeviceToHost);
    }
    return status;
}

static lh_rows rows(const struct job *job, lh_tensor_id id)
{
    const lh_tensor *t = &job->at[id];
    return (lh_rows){t->data, t->stride[0], t->stride[1], t->stride[2]};
}

/* ---- stages ------------------------------------------------------------------------------- */

static const lh_tensor_id inputs[3] = {LH_Q, LH_K, LH_V};

static int64_t heads_of(const struct job *job, int i)
{
    return i == 0 ? job->state->shape.heads : job->state->shape.kv_heads;
}

static cudaError_t pool(const struct job *job)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 3 && e == cudaSuccess; i++)
        e = lh_cuda_pool_score(&job->state->shape, heads_of(job, i), rows(job, inputs[i]),
                               job->at[LH_Q_PYR + i].data, 0, NULL, job->state->stream);
    return e;
}

static cudaError_t score(const struct job *job)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 2 && e == cudaSuccess; i++)
        e = lh_cuda_pool_score(&job->state->shape, heads_of(job, i), rows(job, inputs[i]), NULL, 0,
                               job->at[LH_SCORE_Q + i].data, job->state->stream);
    return e;
}

/* Both in one pass, without copying level 0. */
static cudaError_t pool_and_score(const struct job *job, bool scores)
{
    lh_cuda *state = job->state;
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 3 && e == cudaSuccess; i++) {
        float *into = scores && i < 2 ? state->own[LH_SCORE_Q + i] : NULL;
        e = lh_cuda_pool_score(&state->shape, heads_of(job, i), rows(job, inputs[i]), state->upper[i], 1,
                               into, state->stream);
    }
    return e;
}

static cudaError_t choose(const struct job *job)
{
    return lh_cuda_select(&job->state->shape, job->at[LH_SCORE_Q].data, job->at[LH_SCORE_K].data,
                          job->at[LH_INDEX].data, job->state->select_scratch, job->state->stream);
}

/* `whole`: level 0 from q k v, the rest from the plan's pyramids; else from the trace's pyramids. */
static cudaError_t gather(const struct job *job, bool whole)
{
    lh_cuda *state = job->state;
    lh_rows x[3] = {{0}};
    const void *upper[3];
    void *selected[3];
    for (int i = 0; i < 3; i++) {
        if (whole)
            x[i] = rows(job, inputs[i]);
        upper[i] = whole ? state->upper[i] : job->at[LH_Q_PYR + i].data;
        selected[i] = job->at[LH_Q_SEL + i].data;
    }
    return lh_cuda_gather(&state->shape, x, upper, whole ? 1 : 0, job->at[LH_INDEX].data, selected,
                          state->stream);
}

static lh_attend attend_of(const struct job *job)
{
    return (lh_attend){
        .q = job->at[LH_Q_SEL].data,
        .k = job->at[LH_K_SEL].data,
        .v = job->at[LH_V_SEL].data,
        .o = job->at[LH_O_SEL].data,
        .lse = job->at[LH_LSE].data,
        .d_o = job->at[LH_DO_SEL].data,
        .dq = job->at[LH_DQ_SEL].data,
        .dk = job->at[LH_DK_SEL].data,
        .dv = job->at[LH_DV_SEL].data,
        .delta = job->state->delta,
    };
}

static lh_status attend(const struct job *job, bool backward)
{
    const lh_cuda *state = job->state;
    const lh_attend a = attend_of(job);
    /* Hopper's own forward is faster than cuDNN's where it exists; backward is not. */
    const bool prefer_own =
        job->plan->options.attention == LH_ATTENTION_AUTO && !backward && lh_cuda_has_sm90(&state->shape);
    if (state->cudnn && !prefer_own && lh_cuda_attend_aligned(&a))
        return backward ? lh_cudnn_attend_backward(state->cudnn, &a, state->stream, job->error)
                        : lh_cudnn_attend(state->cudnn, &a, state->stream, job->error);
    return check(job,
                 backward ? lh_cuda_attend_backward(&state->shape, &a, state->stream)
                          : lh_cuda_attend(&state->shape, &a, state->stream),
                 lh_stage_name(backward ? LH_ATTEND_BACKWARD : LH_ATTEND));
}

static cudaError_t make_slots(const struct job *job)
{
    return lh_cuda_slots(&job->state->shape, job->at[LH_INDEX].data, job->state->slot, job->state->stream);
}

static cudaError_t scatter(const struct job *job)
{
    return lh_cuda_scatter(&job->state->shape, job->at[LH_O_SEL].data, job->state->slot, rows(job, LH_OUT),
                           job->at[LH_COVERAGE].data, job->state->stream);
}

static cudaError_t scatter_backward(const struct job *job)
{
    return lh_cuda_scatter_backward(&job->state->shape, rows(job, LH_DOUT), job->at[LH_INDEX].data,
                                    job->at[LH_DO_SEL].data, job->state->stream);
}

static cudaError_t unpool(const struct job *job)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < 3 && e == cudaSuccess; i++)
        e = lh_cuda_unpool(&job->state->shape, heads_of(job, i), job->at[LH_DQ_SEL + i].data,
                           job->state->slot, rows(job, (lh_tensor_id)(LH_DQ + i)), job->state->stream);
    return e;
}

static lh_status compute(const struct job *job, lh_stage stage)
{
    cudaError_t e = cudaSuccess;
    switch (stage) {
    case LH_POOL:
        e = pool(job);
        break;
    case LH_SCORE:
        e = score(job);
        break;
    case LH_SELECT:
        e = choose(job);
        break;
    case LH_GATHER:
        e = gather(job, false);
        break;
    case LH_ATTEND:
        return attend(job, false);
    case LH_SCATTER:
        e = make_slots(job);
        if (e == cudaSuccess)
            e = scatter(job);
        break;
    case LH_SCATTER_BACKWARD:
        e = scatter_backward(job);
        break;
    case LH_ATTEND_BACKWARD:
        return attend(job, true);
    case LH_UNPOOL:
        e = make_slots(job);
        if (e == cudaSuccess)
            e = unpool(job);
        break;
    case LH_STAGE_COUNT:
        break;
    }
    return check(job, e, lh_stage_name(stage));
}

/* ---- calls -------------------------------------------------------------------------------- */

typedef lh_status body_fn(struct job *job, lh_stage stage);

static lh_status one_stage(struct job *job, lh_stage stage)
{
    const lh_status status = compute(job, stage);
    return status == LH_OK ? mark(job, stage) : status;
}

static lh_status whole_forward(struct job *job, lh_stage unused)
{
    (void)unused;
    lh_status status = check(job, pool_and_score(job, !job->plan->options.index_given), "pool and score");
    if (status == LH_OK)
        status = mark(job, LH_POOL);
    if (status == LH_OK && !job->plan->options.index_given)
        status = check(job, choose(job), "select");
    if (status == LH_OK)
        status = check(job, make_slots(job), "select");
    if (status == LH_OK)
        status = mark(job, LH_SELECT);
    if (status == LH_OK)
        status = check(job, gather(job, true), "gather");
    if (status == LH_OK)
        status = mark(job, LH_GATHER);
    if (status == LH_OK)
        status = one_stage(job, LH_ATTEND);
    if (status == LH_OK)
        status = check(job, scatter(job), "scatter");
    return status == LH_OK ? mark(job, LH_SCATTER) : status;
}

/* The sub-sequence again from q k v, unless the plan still holds that of its last forward. */
static lh_status regather(struct job *job)
{
    const lh_tensor *t = job->trace;
    if (job->state->held && !t[LH_INDEX].data && !t[LH_O_SEL].data && !t[LH_LSE].data)
        return LH_OK;
    job->state->held = false;
    lh_status status = check(job, pool_and_score(job, false), "pool");
    if (status == LH_OK)
        status = mark(job, LH_POOL);
    if (status == LH_OK)
        status = check(job, make_slots(job), "select");
    if (status == LH_OK)
        status = mark(job, LH_SELECT);
    if (status == LH_OK)
        status = check(job, gather(job, true), "gather");
    return status == LH_OK ? mark(job, LH_GATHER) : status;
}

static lh_status whole_backward(struct job *job, lh_stage unused)
{
    (void)unused;
    lh_status status = regather(job);
    if (status == LH_OK)
        status = one_stage(job, LH_SCATTER_BACKWARD);
    if (status == LH_OK)
        status = one_stage(job, LH_ATTEND_BACKWARD);
    if (status == LH_OK)
        status = check(job, unpool(job), "unpool");
    return status == LH_OK ? mark(job, LH_UNPOOL) : status;
}

/* What a call reads, writes and holds in between; lists end at LH_TENSOR_COUNT. */
struct call {
    lh_tensor_id reads[8], writes[8], holds[12];
    body_fn *body;
};

/* Everything around a body: device, tensors up, tensors down, waiting, profile. */
static lh_status execute(struct job *job, const lh_tensor_id *reads, const lh_tensor_id *writes,
                         body_fn *body, lh_stage stage)
{
    const lh_options *o = &job->plan->options;
    job->state->marks = 0;
    lh_status status = mark(job, -1);
    if (status == LH_OK)
        status = place(job, writes, false);
    if (status == LH_OK)
        status = place(job, reads, true);
    if (status == LH_OK)
        status = mark(job, LH_CUDA_TRANSFER);
    if (status == LH_OK)
        status = body(job, stage);
    if (status == LH_OK)
        status = fetch(job, writes);
    if (status == LH_OK)
        status = mark(job, LH_CUDA_TRANSFER);
    /* A caller's stream is left running; after a failure nothing of this call may still run. */
    if (o->memory == LH_HOST || job->state->own_stream || o->profile || status != LH_OK) {
        const cudaError_t e = cudaStreamSynchronize(job->state->stream);
        if (status == LH_OK)
            status = check(job, e, "running on the device");
    }
    return status == LH_OK ? book_marks(job) : status;
}

lh_status lh_cuda_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    struct job job = {.plan = plan, .state = plan->state, .trace = trace, .single = true, .error = error};
    int before;
    lh_status status = lh_cuda_enter(plan->options.device, &before, error);
    if (status != LH_OK)
        return status;
    job.state->held = false; /* slots and selected rows are about to be another's */
    status = execute(&job, lh_stage_reads(stage), lh_stage_writes(stage), one_stage, stage);
    lh_cuda_leave(before);
    return status;
}

static lh_status run_whole(lh_plan *plan, const lh_tensor *trace, const struct call *call, lh_error *error)
{
    struct job job = {.plan = plan, .state = plan->state, .trace = trace, .error = error};
    int before;
    lh_status status = lh_cuda_enter(plan->options.device, &before, error);
    if (status != LH_OK)
        return status;
    for (const lh_tensor_id *id = call->holds; *id != LH_TENSOR_COUNT; id++)
        hold(&job, *id);
    status = execute(&job, call->reads, call->writes, call->body, LH_STAGE_COUNT);
    lh_cuda_leave(before);
    return status;
}

lh_status lh_cuda_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const struct call selecting = {
        {LH_Q, LH_K, LH_V, LH_TENSOR_COUNT},
        {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT, LH_COVERAGE, LH_TENSOR_COUNT},
        {LH_SCORE_Q, LH_SCORE_K, LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_TENSOR_COUNT},
        whole_forward,
    };
    static const struct call given = {
        {LH_Q, LH_K, LH_V, LH_INDEX, LH_TENSOR_COUNT},
        {LH_O_SEL, LH_LSE, LH_OUT, LH_COVERAGE, LH_TENSOR_COUNT},
        {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_TENSOR_COUNT},
        whole_forward,
    };
    lh_cuda *state = plan->state;
    state->held = false;
    const lh_status status = run_whole(plan, trace, plan->options.index_given ? &given : &selecting, error);
    state->held = status == LH_OK;
    return status;
}

lh_status lh_cuda_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const struct call call = {
        {LH_Q, LH_K, LH_V, LH_DOUT, LH_INDEX, LH_O_SEL, LH_LSE, LH_TENSOR_COUNT},
        {LH_DQ, LH_DK, LH_DV, LH_TENSOR_COUNT},
        {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_DO_SEL, LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL, LH_TENSOR_COUNT},
        whole_backward,
    };
    return run_whole(plan, trace, &call, error);
}
