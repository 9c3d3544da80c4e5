/* Execution: the checks that stand between a caller and a backend, and the thread's mode set aside meanwhile. */
#include <inttypes.h>
#include <string.h>

#include "core/backend.h"
#include "core/mode.h"
#include "core/overlap.h"

/* One tensor of a trace against the plan; `required` means its data may not be NULL. */
static lh_status check_tensor(const lh_plan *plan, lh_tensor_id id, const lh_tensor *t, bool required,
                              lh_error *error)
{
    const char *name = lh_tensor_name(id);
    lh_tensor want;
    char found_text[LH_SHAPE_TEXT], want_text[LH_SHAPE_TEXT];
    if (!t->data)
        return required ? lh_fail(error, LH_INVALID, "%s is NULL, wanted data", name) : LH_OK;
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, &want);
    if (t->dtype != want.dtype)
        return lh_fail(error, LH_INVALID, "%s is %s, wanted %s as the plan has it", name,
                       lh_dtype_name(t->dtype), lh_dtype_name(want.dtype));
    if (t->rank != want.rank)
        return lh_fail(error, LH_INVALID, "%s has rank %d, wanted %d as the plan has it", name, t->rank,
                       want.rank);
    if (memcmp(t->shape, want.shape, sizeof(int64_t) * (size_t)want.rank) != 0)
        return lh_fail(error, LH_INVALID, "%s has shape %s, wanted %s as the plan has it", name,
                       lh_shape_text(t, found_text), lh_shape_text(&want, want_text));
    if (lh_tensor_contiguous(t))
        return LH_OK;
    if (!lh_listed(lh_layer_strided, id))
        return lh_fail(error, LH_INVALID, "%s is strided, wanted a contiguous tensor", name);
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] > 1 && (t->stride[i] < 1 || (i == t->rank - 1 && t->stride[i] != 1)))
            return lh_fail(error, LH_INVALID, "%s has stride %" PRId64 " in dimension %d, wanted %s", name,
                           t->stride[i], i, i == t->rank - 1 ? "1" : "at least 1");
    }
    return LH_OK;
}

lh_status lh_trace_check(const lh_plan *plan, const struct lh_use *uses, int count, const lh_tensor *trace,
                         lh_error *error)
{
    if (!trace)
        return lh_fail(error, LH_INVALID, "trace is NULL, wanted an array of %d tensors", LH_TENSOR_COUNT);
    lh_status status = LH_OK;
    for (int i = 0; i < count && status == LH_OK; i++)
        status = check_tensor(plan, uses[i].id, &trace[uses[i].id], uses[i].required, error);
    if (status == LH_OK)
        status = lh_overlap_check(uses, count, trace, plan->options.memory == LH_HOST, error);
    return status;
}

static lh_status check_finite(const lh_plan *plan, const lh_tensor_id *ids, int count, const lh_tensor *trace,
                              lh_error *error)
{
    lh_status status = LH_OK;
    if (!plan->options.finite || plan->options.memory != LH_HOST)
        return LH_OK;
    for (int i = 0; i < count && status == LH_OK; i++)
        status = lh_tensor_finite(&trace[ids[i]], lh_tensor_name(ids[i]), error);
    return status;
}

static lh_status check_plan(const lh_plan *plan, lh_error *error)
{
    return plan ? LH_OK : lh_fail(error, LH_INVALID, "plan is NULL, wanted a plan");
}

/* A backend addresses memory with the index, and its order is the causal mask. */
static lh_status check_index(const lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    const lh_tensor *index = &trace[LH_INDEX];
    if (plan->options.memory != LH_HOST || !index->data)
        return LH_OK;
    return lh_index_check(&plan->config, &plan->layout, index, error);
}

static lh_status check_lent(const lh_plan *plan, bool backward, lh_error *error)
{
    const size_t needed = lh_plan_needs(plan, backward);
    if (plan->lent_bytes >= needed)
        return LH_OK;
    return lh_fail(error, LH_INVALID,
                   "the plan was lent %zu bytes, wanted at least %zu for %s (lh_plan_lend)", plan->lent_bytes,
                   needed, backward ? "backward" : "forward");
}

static lh_status run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    lh_status status = check_plan(plan, error);
    if (status != LH_OK)
        return status;
    if ((unsigned)stage >= LH_STAGE_COUNT)
        return lh_fail(error, LH_INVALID, "stage is %d, wanted 0 to %d", (int)stage, LH_STAGE_COUNT - 1);
    if (!plan->options.stages)
        return lh_fail(error, LH_INVALID, "plan has options.stages false, wanted true to run %s alone",
                       lh_stage_name(stage));
    if (stage >= LH_SCATTER_BACKWARD && !plan->options.backward)
        return lh_fail(error, LH_INVALID, "plan has options.backward false, wanted true to run %s",
                       lh_stage_name(stage));
    struct lh_use uses[LH_TENSOR_COUNT] = {{LH_Q, false, false}};
    int count = 0;
    bool reads_index = false;
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT; id++) {
        uses[count++] = (struct lh_use){*id, true, false};
        reads_index = reads_index || *id == LH_INDEX;
    }
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
        uses[count++] = (struct lh_use){*id, *id != LH_COVERAGE, true};
    status = lh_trace_check(plan, uses, count, trace, error);
    if (status == LH_OK && reads_index)
        status = check_index(plan, trace, error);
    return status == LH_OK ? plan->backend->run_stage(plan, stage, trace, error) : status;
}

/* Appends tensors that a call cannot do without. */
static int use_all(struct lh_use *uses, int count, const lh_tensor_id *ids, bool written)
{
    for (; *ids != LH_TENSOR_COUNT; ids++)
        uses[count++] = (struct lh_use){*ids, true, written};
    return count;
}

static lh_status forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_status status = check_plan(plan, error);
    if (status != LH_OK)
        return status;
    const bool given = plan->options.index_given, scored = plan->options.scores_given;
    const bool lent = plan->options.workspace_given;
    struct lh_use uses[LH_TENSOR_COUNT] = {
        {LH_Q, true, false},        {LH_K, true, false},
        {LH_V, true, false},        {LH_OUT, true, true},
        {LH_O_SEL, lent, true},     {LH_LSE, lent, true},
        {LH_COVERAGE, false, true}, {LH_INDEX, given || lent, !given},
    };
    const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_SCORE_Q, LH_SCORE_K};
    int count = 8;
    if (scored)
        count = use_all(uses, count, lh_stage_writes(LH_SCORE), false);
    if (plan->options.rows_kept)
        count = use_all(uses, count, lh_stage_writes(LH_GATHER), true);
    status = lh_trace_check(plan, uses, count, trace, error);
    if (status == LH_OK && given)
        status = check_index(plan, trace, error);
    if (status == LH_OK)
        status = check_finite(plan, inputs, scored ? 5 : 3, trace, error);
    if (status == LH_OK)
        status = check_lent(plan, false, error);
    if (status != LH_OK)
        return status;
    plan->kept_index = plan->kept_o_sel = plan->kept_lse = false;
    status = plan->backend->forward(plan, trace, error);
    if (status == LH_OK) {
        plan->kept_index = !trace[LH_INDEX].data;
        plan->kept_o_sel = !trace[LH_O_SEL].data;
        plan->kept_lse = !trace[LH_LSE].data;
        plan->profile.calls++;
    }
    return status;
}

static lh_status backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_status status = check_plan(plan, error);
    if (status != LH_OK)
        return status;
    if (!plan->options.backward)
        return lh_fail(error, LH_INVALID, "plan has options.backward false, wanted true to run backward");
    const bool rows = plan->options.rows_kept;
    struct lh_use uses[LH_TENSOR_COUNT];
    int count = use_all(uses, 0, rows ? lh_stage_writes(LH_GATHER) : lh_stage_reads(LH_POOL), false);
    uses[count++] = (struct lh_use){LH_DOUT, true, false};
    uses[count++] = (struct lh_use){LH_INDEX, !plan->kept_index, false};
    uses[count++] = (struct lh_use){LH_O_SEL, !plan->kept_o_sel, false};
    uses[count++] = (struct lh_use){LH_LSE, !plan->kept_lse, false};
    count = use_all(uses, count, lh_layer_gradients, true);
    const lh_tensor_id inputs[] = {LH_DOUT};
    status = lh_trace_check(plan, uses, count, trace, error);
    if (status == LH_OK)
        status = check_index(plan, trace, error);
    if (status == LH_OK)
        status = check_finite(plan, inputs, 1, trace, error);
    if (status == LH_OK)
        status = check_lent(plan, true, error);
    if (status == LH_OK)
        status = plan->backend->backward(plan, trace, error);
    if (status == LH_OK)
        plan->profile.calls++;
    return status;
}

lh_status lh_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    lh_mode mode;
    lh_mode_begin(&mode);
    const lh_status status = run_stage(plan, stage, trace, error);
    lh_mode_end(&mode);
    return status;
}

static lh_status gather_tokens(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const struct lh_use uses[] = {
        {LH_Q, true, false},    {LH_K, true, false},    {LH_V, true, false},   {LH_INDEX, true, false},
        {LH_Q_SEL, true, true}, {LH_K_SEL, true, true}, {LH_V_SEL, true, true}};
    lh_status status = lh_trace_check(plan, uses, sizeof uses / sizeof *uses, trace, error);
    if (status == LH_OK)
        status = check_index(plan, trace, error);
    return status == LH_OK ? plan->backend->gather_tokens(plan, trace, error) : status;
}

lh_status lh_gather_tokens(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_mode mode;
    lh_mode_begin(&mode);
    const lh_status status = gather_tokens(plan, trace, error);
    lh_mode_end(&mode);
    return status;
}

static lh_status select_rows(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    static const struct lh_use uses[] = {
        {LH_Q, true, false},      {LH_K, true, false},      {LH_V, true, false},
        {LH_SCORE_Q, true, true}, {LH_SCORE_K, true, true}, {LH_INDEX, true, true},
        {LH_Q_SEL, true, true},   {LH_K_SEL, true, true},   {LH_V_SEL, true, true}};
    lh_status status = check_plan(plan, error);
    if (status != LH_OK)
        return status;
    const lh_backend *backend = plan->backend;
    if (!plan->options.stages)
        return lh_fail(error, LH_INVALID, "plan has options.stages false, wanted true to select rows alone");
    if (!backend->select_rows && !backend->gather_tokens)
        return lh_fail(error, LH_UNSUPPORTED, "backend %s does not select rows alone, wanted single stages",
                       backend->name);
    status = lh_trace_check(plan, uses, sizeof uses / sizeof *uses, trace, error);
    if (status == LH_OK && backend->select_rows)
        return backend->select_rows(plan, trace, error);
    if (status == LH_OK)
        status = backend->run_stage(plan, LH_SCORE, trace, error);
    if (status == LH_OK)
        status = backend->run_stage(plan, LH_SELECT, trace, error);
    return status == LH_OK ? backend->gather_tokens(plan, trace, error) : status;
}

lh_status lh_select_rows(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_mode mode;
    lh_mode_begin(&mode);
    const lh_status status = select_rows(plan, trace, error);
    lh_mode_end(&mode);
    return status;
}

lh_status lh_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_mode mode;
    lh_mode_begin(&mode);
    const lh_status status = forward(plan, trace, error);
    lh_mode_end(&mode);
    return status;
}

lh_status lh_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_mode mode;
    lh_mode_begin(&mode);
    const lh_status status = backward(plan, trace, error);
    lh_mode_end(&mode);
    return status;
}
