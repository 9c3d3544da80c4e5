/*
 * Backend "ref": the scalar reference in binary64, whatever the plan's dtype. Inputs convert exactly, outputs
 * are rounded once to the plan's dtype.
 */
#include <stdio.h>
#include <string.h>

#include "scalar/run.h"

struct state {
    void *workspace;
    lh_tensor
        kept[LH_LAYER_KEPT]; /* in the dtypes of the plan's trace; data NULL in a plan without backward */
};

static lh_status device_count(int *count, lh_error *error)
{
    (void)error;
    *count = 1;
    return LH_OK;
}

static lh_status device_query(int device, lh_device_info *info, lh_error *error)
{
    (void)device;
    (void)error;
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "scalar reference");
    snprintf(info->driver, sizeof info->driver, "ref %s", lh_version());
    snprintf(info->features, sizeof info->features, "binary64, one thread, same bits on every machine");
    info->compute_units = 1;
    return LH_OK;
}

static void destroy(lh_plan *plan)
{
    struct state *state = plan->state;
    for (int i = 0; i < LH_LAYER_KEPT; i++)
        lh_free(state->kept[i].data);
    lh_free(state->workspace);
    lh_free(state);
    plan->state = NULL;
}

static lh_status create_kept(lh_plan *plan, struct state *state, lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < LH_LAYER_KEPT && status == LH_OK; i++) {
        lh_tensor *kept = &state->kept[i];
        lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, lh_layer_kept[i], kept);
        const size_t bytes = (size_t)lh_tensor_elements(kept) * lh_dtype_size(kept->dtype);
        status = lh_alloc(&kept->data, bytes, lh_tensor_name(lh_layer_kept[i]), error);
        plan->workspace_bytes += bytes;
    }
    return status;
}

static lh_status create(lh_plan *plan, lh_error *error)
{
    struct state *state;
    lh_status status = lh_alloc((void **)&state, sizeof *state, "reference plan", error);
    if (status != LH_OK)
        return status;
    memset(state, 0, sizeof *state);
    plan->state = state;
    const bool backward = plan->options.backward;
    const size_t bytes = lh_ref64_bytes(&plan->config, backward ? LH_REF_ALL : LH_REF_FORWARD);
    status = lh_alloc(&state->workspace, bytes, "reference workspace", error);
    plan->workspace_bytes += sizeof *state + bytes;
    if (status == LH_OK && backward)
        status = create_kept(plan, state, error);
    if (status != LH_OK)
        destroy(plan);
    return status;
}

static lh_status run(lh_plan *plan, unsigned stages, const lh_tensor *trace, lh_error *error)
{
    const struct state *state = plan->state;
    const struct lh_ref_job job = {
        .config = &plan->config,
        .stages = stages,
        .trace = trace,
        .workspace = state->workspace,
        .profile = plan->options.profile ? &plan->profile : NULL,
    };
    return lh_ref64_job(&job, error);
}

/* The tensors a whole-layer call is to see, the plan's own where the caller has none. */
static void choose(const lh_plan *plan, const lh_tensor *trace, const lh_tensor_id *ids, lh_tensor *chosen)
{
    const struct state *state = plan->state;
    memset(chosen, 0, LH_TENSOR_COUNT * sizeof *chosen);
    for (; *ids != LH_TENSOR_COUNT; ids++)
        chosen[*ids] = trace[*ids];
    for (int i = 0; i < LH_LAYER_KEPT; i++) {
        if (!chosen[lh_layer_kept[i]].data)
            chosen[lh_layer_kept[i]] = state->kept[i];
    }
}

static lh_status forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q,   LH_K,   LH_V,        LH_INDEX,       LH_O_SEL,
                                       LH_LSE, LH_OUT, LH_COVERAGE, LH_TENSOR_COUNT};
    const lh_options *o = &plan->options;
    lh_tensor chosen[LH_TENSOR_COUNT];
    choose(plan, trace, ids, chosen);
    if (!o->scores_given)
        return run(plan, o->index_given ? LH_REF_FORWARD_GIVEN : LH_REF_FORWARD, chosen, error);
    chosen[LH_SCORE_Q] = trace[LH_SCORE_Q];
    chosen[LH_SCORE_K] = trace[LH_SCORE_K];
    return run(plan, LH_REF_FORWARD_SCORED, chosen, error);
}

static lh_status backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q,   LH_K,  LH_V,  LH_DOUT, LH_INDEX,       LH_O_SEL,
                                       LH_LSE, LH_DQ, LH_DK, LH_DV,   LH_TENSOR_COUNT};
    lh_tensor chosen[LH_TENSOR_COUNT];
    choose(plan, trace, ids, chosen);
    return run(plan, LH_REF_BACKWARD, chosen, error);
}

static lh_status run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    return run(plan, LH_REF_STAGE(stage), trace, error);
}

static lh_status gather_tokens(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    return run(plan, LH_REF_STAGE(LH_POOL) | LH_REF_STAGE(LH_GATHER), trace, error);
}

const lh_backend lh_backend_ref = {
    .name = "ref",
    .can =
        {
            .dtypes = 1u << LH_F64 | 1u << LH_F32 | 1u << LH_F16 | 1u << LH_BF16,
            .attentions = 1u << LH_ATTENTION_AUTO | 1u << LH_ATTENTION_OWN,
            .stages = true,
            .reference = true,
        },
    .device_count = device_count,
    .device_query = device_query,
    .create = create,
    .destroy = destroy,
    .run_stage = run_stage,
    .forward = forward,
    .backward = backward,
    .gather_tokens = gather_tokens,
};
