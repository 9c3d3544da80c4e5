/* Plans: made of what a configuration and options say, once both are checked. */
#include <string.h>

#include "core/backend.h"
#include "core/mode.h"
#include "core/threads.h"

/* What no backend takes. */
static lh_status check_options(const lh_options *o, int64_t levels, lh_error *error)
{
    if ((unsigned)o->dtype > LH_BF16)
        return lh_fail(error, LH_INVALID, "dtype is %s, wanted F64, F32, F16 or BF16",
                       lh_dtype_name(o->dtype));
    if (o->threads < 0 || o->threads > LH_THREADS_MOST)
        return lh_fail(error, LH_INVALID, "threads is %d, wanted at least 0 and at most %d", o->threads,
                       LH_THREADS_MOST);
    if (o->memory != LH_HOST && o->memory != LH_ON_DEVICE)
        return lh_fail(error, LH_INVALID, "memory is %d, wanted LH_HOST (%d) or LH_ON_DEVICE (%d)",
                       (int)o->memory, LH_HOST, LH_ON_DEVICE);
    if ((unsigned)o->attention > LH_ATTENTION_CUDNN)
        return lh_fail(error, LH_INVALID, "attention is %d, wanted %d to %d", (int)o->attention,
                       LH_ATTENTION_AUTO, LH_ATTENTION_CUDNN);
    if (o->index_given && o->scores_given)
        return lh_fail(error, LH_INVALID, "index_given and scores_given are both true, wanted one of them");
    if (o->workspace_given && o->stages)
        return lh_fail(error, LH_INVALID, "stages and workspace_given are both true, wanted one of them");
    if (o->rows_kept && !o->workspace_given)
        return lh_fail(error, LH_INVALID, "rows_kept is true and workspace_given false, wanted both");
    if (o->rows_kept && levels == 1)
        return lh_fail(error, LH_INVALID,
                       "rows_kept is true with levels 1, wanted false: every row is a token");
    return LH_OK;
}

/* What this one does not. */
static lh_status check_offered(const lh_options *o, const lh_backend *backend, lh_error *error)
{
    static const char *const attentions[] = {"auto", "own", "cudnn"};
    if ((backend->can.dtypes & 1u << o->dtype) == 0)
        return lh_fail(error, LH_UNSUPPORTED, "dtype is %s, which backend %s does not compute in",
                       lh_dtype_name(o->dtype), backend->name);
    if ((backend->can.attentions & 1u << o->attention) == 0)
        return lh_fail(error, LH_UNSUPPORTED, "attention is %s, which backend %s does not offer",
                       attentions[o->attention], backend->name);
    if (o->memory == LH_ON_DEVICE && !backend->can.device_memory)
        return lh_fail(error, LH_UNSUPPORTED, "memory is on device, wanted host memory for backend %s",
                       backend->name);
    if (o->memory == LH_ON_DEVICE && !o->stream && !o->stream_given)
        return lh_fail(
            error, LH_INVALID,
            "stream is NULL with memory on device, wanted the stream in which the tensors are made "
            "(stream_given where that is CUDA's default, NULL)");
    if (o->tiles && !backend->tuner)
        return lh_fail(error, LH_INVALID, "tiles are given, wanted none: backend %s has nothing to tune",
                       backend->name);
    if (o->workspace_given && !backend->needs)
        return lh_fail(error, LH_UNSUPPORTED,
                       "workspace_given is true, which backend %s does not offer: wanted false",
                       backend->name);
    return LH_OK;
}

lh_status lh_plan_create(const lh_config *config, const lh_options *options, lh_plan **out, lh_error *error)
{
    if (!out)
        return lh_fail(error, LH_INVALID, "plan is NULL, wanted where to put the plan");
    *out = NULL;
    if (!options)
        return lh_fail(error, LH_INVALID, "options is NULL, wanted plan options");
    lh_layout layout;
    const lh_backend *backend;
    lh_plan *plan;
    lh_status status = lh_config_check(config, &layout, error);
    if (status == LH_OK)
        status = check_options(options, config->levels, error);
    if (status == LH_OK)
        status = lh_backend_find(options->backend, options->device, &backend, error);
    if (status == LH_OK)
        status = check_offered(options, backend, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&plan, sizeof *plan, "plan", error);
    if (status != LH_OK)
        return status;
    *plan = (lh_plan){.config = *config, .layout = layout, .options = *options, .backend = backend};
    plan->options.backend = backend->name;
    plan->workspace_bytes = sizeof *plan;
    lh_mode mode;
    lh_mode_begin(&mode);
    status = backend->create(plan, error);
    lh_mode_end(&mode);
    plan->options.part = NULL;
    if (status == LH_OK)
        *out = plan;
    else
        lh_free(plan);
    return status;
}

void lh_plan_destroy(lh_plan *plan)
{
    if (!plan)
        return;
    plan->backend->destroy(plan);
    lh_free(plan);
}

const lh_config *lh_plan_config(const lh_plan *plan)
{
    return plan ? &plan->config : NULL;
}

const lh_layout *lh_plan_layout(const lh_plan *plan)
{
    return plan ? &plan->layout : NULL;
}

size_t lh_plan_workspace(const lh_plan *plan)
{
    return plan ? plan->workspace_bytes : 0;
}

void lh_plan_profile(const lh_plan *plan, lh_profile *profile)
{
    if (profile)
        *profile = plan ? plan->profile : (lh_profile){0};
}

void lh_profile_reset(lh_plan *plan)
{
    if (plan)
        memset(&plan->profile, 0, sizeof plan->profile);
}

size_t lh_plan_needs(const lh_plan *plan, bool backward)
{
    return plan && plan->options.workspace_given ? plan->backend->needs(plan, backward) : 0;
}

lh_status lh_plan_lend(lh_plan *plan, void *memory, size_t bytes, void *stream, lh_error *error)
{
    if (!plan)
        return lh_fail(error, LH_INVALID, "plan is NULL, wanted a plan");
    if (!plan->options.workspace_given)
        return lh_fail(error, LH_INVALID,
                       "plan has options.workspace_given false, wanted true to be lent memory");
    if (!memory || (uintptr_t)memory % LH_WORKSPACE_ALIGNMENT != 0)
        return lh_fail(error, LH_INVALID, "memory is %p, wanted an address divisible by %d", memory,
                       LH_WORKSPACE_ALIGNMENT);
    plan->lent = memory;
    plan->lent_bytes = bytes;
    plan->options.stream = stream;
    return LH_OK;
}
