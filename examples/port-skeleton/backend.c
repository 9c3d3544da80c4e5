/* A port to start from: every stage is the scalar code in binary32, behind the table of backends.
 *
 * Copy this folder, put your name for SKELETON, add a line to core/backends.def and an option to meson_options.txt
 * (docs/developing.md). It then passes `lighthouse verify`. Replace one stage after another by your own: verify judges
 * each alone, on the reference's inputs to it, and names the one that is wrong. When all are yours, fuse what your
 * hardware wants fused in `forward` and `backward`; the single stages stay for the verifier.
 *
 * core/plan.c has checked every argument before it calls: shapes, dtypes, strides, NULL, the index. A port never prints
 * and never aborts; executing allocates nothing.
 */
#include <string.h>

#include "core/backend.h"
#include "scalar/run.h"

/* What a plan owns: a tensor for all that the caller does not give, and scratch. */
struct state {
    lh_tensor own[LH_TENSOR_COUNT]; /* contiguous, in the plan's dtype */
    void *workspace;
};

/* All nine stages are this until they are yours. A stage reads lh_stage_reads and writes lh_stage_writes of `trace`. q k v
 * out dout dq dk dv may be strided, the others are contiguous; coverage may have data NULL. */
static lh_status scalar(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    const struct state *state = plan->state;
    const struct lh_ref_job job = {.config = &plan->config,
                                   .stages = LH_REF_STAGE(stage),
                                   .trace = trace,
                                   .workspace = state->workspace,
                                   .profile = plan->options.profile ? &plan->profile : NULL};
    return lh_ref32_job(&job, error);
}

static lh_status run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    switch (stage) {
    case LH_POOL:             /* SPEC 3.1 */
    case LH_SCORE:            /* SPEC 3.2 */
    case LH_SELECT:           /* SPEC 3.3, 3.4: given equal scores, the same index to the last entry */
    case LH_GATHER:           /* SPEC 3.5 */
    case LH_ATTEND:           /* SPEC 3.6: the maximum comes off before exp */
    case LH_SCATTER:          /* SPEC 3.7: as a pull, so that its sums have one order */
    case LH_SCATTER_BACKWARD: /* SPEC 4 */
    case LH_ATTEND_BACKWARD:
    case LH_UNPOOL: /* dk and dv add up over a group's query heads, in head order */
    default:
        return scalar(plan, stage, trace, error);
    }
}

/* Stages first ... last on the caller's tensors, and on the plan's where the caller has none. */
static lh_status run_stages(lh_plan *plan, lh_stage first, lh_stage last, const lh_tensor *callers,
                            lh_error *error)
{
    const struct state *state = plan->state;
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_status status = LH_OK;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        const bool score = plan->options.scores_given && (id == LH_SCORE_Q || id == LH_SCORE_K);
        const bool given = score || lh_listed(lh_layer_strided, (lh_tensor_id)id) ||
                           lh_listed(lh_layer_kept, (lh_tensor_id)id) || id == LH_COVERAGE;
        trace[id] = given && callers[id].data ? callers[id] : state->own[id];
    }
    for (int stage = first; stage <= (int)last && status == LH_OK; stage++) {
        const bool chosen = (stage == LH_SELECT && plan->options.index_given) ||
                            (stage == LH_SCORE && plan->options.scores_given);
        if (!chosen)
            status = run_stage(plan, (lh_stage)stage, trace, error);
    }
    return status;
}

static lh_status forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return run_stages(plan, LH_POOL, LH_SCATTER, trace, error);
}

/* The caller may bring index, o_sel and lse of another forward, so the selected rows are gathered again. */
static lh_status backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_status status = run_stages(plan, LH_POOL, LH_POOL, trace, error);
    if (status == LH_OK)
        status = run_stages(plan, LH_GATHER, LH_GATHER, trace, error);
    return status == LH_OK ? run_stages(plan, LH_SCATTER_BACKWARD, LH_UNPOOL, trace, error) : status;
}

static void destroy(lh_plan *plan)
{
    struct state *state = plan->state;
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        lh_free(state->own[id].data);
    lh_free(state->workspace);
    lh_free(state);
    plan->state = NULL;
}

static lh_status create(lh_plan *plan, lh_error *error)
{
    const size_t scratch = lh_ref32_bytes(&plan->config, LH_REF_ALL);
    struct state *state;
    lh_status status = lh_alloc((void **)&state, sizeof *state, "skeleton plan", error);
    if (status != LH_OK)
        return status;
    memset(state, 0, sizeof *state);
    plan->state = state;
    plan->workspace_bytes += sizeof *state + scratch;
    status = lh_alloc(&state->workspace, scratch, "skeleton workspace", error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor *own = &state->own[id];
        lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, (lh_tensor_id)id, own);
        if (lh_listed(lh_layer_strided, (lh_tensor_id)id) || id == LH_COVERAGE)
            continue;
        const size_t bytes = (size_t)lh_tensor_elements(own) * lh_dtype_size(own->dtype);
        plan->workspace_bytes += bytes;
        status = lh_alloc(&own->data, bytes, lh_tensor_name((lh_tensor_id)id), error);
    }
    if (status != LH_OK)
        destroy(plan);
    return status;
}

static lh_status device_count(int *count, lh_error *error)
{
    *count = 1; /* a port without a device here returns LH_NO_DEVICE and says what to install */
    (void)error;
    return LH_OK;
}

static lh_status device_query(int device, lh_device_info *info, lh_error *error)
{
    (void)device;
    (void)error;
    *info = (lh_device_info){.name = "skeleton", .compute_units = 1};
    return LH_OK;
}

const lh_backend lh_backend_SKELETON = {
    .name = "SKELETON",
    .can = {.dtypes = 1u << LH_F32,
            .attentions = 1u << LH_ATTENTION_AUTO | 1u << LH_ATTENTION_OWN,
            .stages = true},
    .device_count = device_count,
    .device_query = device_query,
    .create = create,
    .destroy = destroy,
    .run_stage = run_stage,
    .forward = forward,
    .backward = backward,
};
