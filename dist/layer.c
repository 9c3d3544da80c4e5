/*
 * Layer: forward and backward of this rank's tokens, a piece of heads after the other. Where exchanges go on by
 * themselves, the next piece's rows are on their way while one is attended over.
 *
 *   forward    [score, select, gather -> rows go]  attend  [o_sel comes -> scatter, what crosses the edge]
 *   backward   [gather, scatter backward, what crossed the edge -> rows go]  attend backward  [-> unpool]
 *
 * Everything is computed in the plan's work dtype; tensors of the caller that have another are converted piece by
 * piece. o_sel is rounded to the caller's dtype before it is scattered, as a port that keeps it so does.
 */
#include <string.h>

#include "core/mode.h"
#include "core/overlap.h"
#include "dist/dist.h"

static lh_status gather(lh_dist_plan *plan, lh_tensor *stage, lh_error *error)
{
    static const lh_tensor_id pyramids[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    if (plan->local->backend->gather_tokens)
        return lh_gather_tokens(plan->local, stage, error);
    for (int i = 0; i < 3; i++)
        stage[pyramids[i]] = plan->pyramid[i];
    const lh_status status = lh_run_stage(plan->local, LH_POOL, stage, error);
    return status == LH_OK ? lh_run_stage(plan->local, LH_GATHER, stage, error) : status;
}

/* trace: the caller's -> q_sel k_sel v_sel of the piece, and its index unless that is given */
static lh_status gather_piece(lh_dist_plan *plan, const lh_tensor *trace, bool select, struct dist_set *set,
                              lh_error *error)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V};
    const lh_tensor index = dist_kept(plan, trace, 0);
    lh_tensor stage[LH_TENSOR_COUNT];
    lh_status status = LH_OK;
    memcpy(stage, set->here, sizeof stage);
    for (int i = 0; i < 3 && status == LH_OK; i++)
        status = dist_bring(plan, &trace[inputs[i]], inputs[i], set->piece, &plan->tokens[i],
                            &stage[inputs[i]], error);
    stage[LH_INDEX] = dist_view(plan, &index, LH_INDEX, set->piece);
    if (status == LH_OK && select)
        status = dist_select(plan, &stage[LH_Q], &stage[LH_K], &stage[LH_INDEX], error);
    return status == LH_OK ? gather(plan, stage, error) : status;
}

static lh_status begin_forward(lh_dist_plan *plan, const lh_tensor *trace, struct dist_set *set,
                               lh_error *error)
{
    const double since = lh_seconds();
    lh_status status = gather_piece(plan, trace, !plan->options.index_given, set, error);
    plan->profile.local += lh_seconds() - since;
    return status == LH_OK ? plan->attention->begin(plan, set, false, error) : status;
}

/* o_sel and lse of the piece -> what is kept of them, rounded on the way, and out */
static lh_status finish_forward(lh_dist_plan *plan, const lh_tensor *trace, const struct dist_set *set,
                                lh_error *error)
{
    const double since = lh_seconds(), travelled = plan->profile.exchange;
    lh_status status = LH_OK;
    for (int i = 1; i < 3 && status == LH_OK; i++) {
        const lh_tensor keeper = dist_kept(plan, trace, i);
        const lh_tensor keeps = dist_view(plan, &keeper, lh_layer_kept[i], set->piece);
        status = lh_tensor_convert(&keeps, &plan->out[i - 1], error);
        if (status == LH_OK && i == 1 && keeps.dtype != plan->work)
            status = lh_tensor_convert(&plan->out[0], &keeps, error);
    }
    if (status == LH_OK)
        status = dist_scatter(plan, trace, set->piece, &plan->out[0], error);
    plan->profile.local += lh_seconds() - since - (plan->profile.exchange - travelled);
    return status;
}

static lh_status begin_backward(lh_dist_plan *plan, const lh_tensor *trace, struct dist_set *set,
                                lh_error *error)
{
    const double since = lh_seconds(), travelled = plan->profile.exchange;
    const lh_tensor index = dist_kept(plan, trace, 0), o_sel = dist_kept(plan, trace, 1),
                    lse = dist_kept(plan, trace, 2);
    lh_tensor stage[LH_TENSOR_COUNT] = {[LH_DO_SEL] = set->here[LH_DO_SEL]};
    lh_status status = gather_piece(plan, trace, false, set, error);
    stage[LH_INDEX] = dist_view(plan, &index, LH_INDEX, set->piece);
    if (status == LH_OK)
        status =
            dist_bring(plan, &trace[LH_DOUT], LH_DOUT, set->piece, &plan->tokens[0], &stage[LH_DOUT], error);
    if (status == LH_OK)
        status = lh_run_stage(plan->local, LH_SCATTER_BACKWARD, stage, error);
    if (status == LH_OK)
        status = dist_halo_backward(plan, &stage[LH_DOUT], error);
    if (status == LH_OK)
        dist_halo_add(plan, &stage[LH_INDEX], &stage[LH_DO_SEL], 0);
    /* A set whose rows are converted keeps them itself: they are on their way when the next piece comes. */
    if (status == LH_OK)
        status =
            dist_bring(plan, &o_sel, LH_O_SEL, set->piece, &set->here[LH_O_SEL], &set->here[LH_O_SEL], error);
    if (status == LH_OK)
        status = dist_bring(plan, &lse, LH_LSE, set->piece, &set->here[LH_LSE], &set->here[LH_LSE], error);
    plan->profile.local += lh_seconds() - since - (plan->profile.exchange - travelled);
    return status == LH_OK ? plan->attention->begin(plan, set, true, error) : status;
}

static lh_status finish_backward(lh_dist_plan *plan, const lh_tensor *trace, const struct dist_set *set,
                                 lh_error *error)
{
    static const lh_tensor_id results[] = {LH_DQ, LH_DK, LH_DV};
    const double since = lh_seconds();
    const lh_tensor index = dist_kept(plan, trace, 0);
    lh_tensor stage[LH_TENSOR_COUNT] = {
        [LH_DQ_SEL] = plan->out[2], [LH_DK_SEL] = plan->out[3], [LH_DV_SEL] = plan->out[4]};
    stage[LH_INDEX] = dist_view(plan, &index, LH_INDEX, set->piece);
    for (int i = 0; i < 3; i++)
        stage[results[i]] = dist_place(plan, &trace[results[i]], results[i], set->piece, &plan->tokens[i]);
    lh_status status = lh_run_stage(plan->local, LH_UNPOOL, stage, error);
    for (int i = 0; i < 3 && status == LH_OK; i++)
        status = dist_deliver(plan, &trace[results[i]], results[i], set->piece, &stage[results[i]], error);
    plan->profile.local += lh_seconds() - since;
    return status;
}

static lh_status run_pieces(lh_dist_plan *plan, const lh_tensor *trace, bool backward, lh_error *error)
{
    lh_status status = LH_OK;
    lh_mode mode;
    lh_mode_begin(&mode);
    const int64_t ahead = plan->sets - 1; /* pieces begun before one is attended over */
    for (int64_t i = 0; i < plan->pieces && status == LH_OK && plan->window; i++)
        status = backward ? dist_window_backward(plan, trace, i, error)
                          : dist_window_forward(plan, trace, i, error);
    for (int64_t i = 0; i < plan->pieces + ahead && status == LH_OK && !plan->window; i++) {
        if (i < plan->pieces) {
            struct dist_set *next = &plan->set[i % plan->sets];
            next->piece = i;
            status =
                backward ? begin_backward(plan, trace, next, error) : begin_forward(plan, trace, next, error);
        }
        if (i < ahead || status != LH_OK)
            continue;
        struct dist_set *set = &plan->set[(i - ahead) % plan->sets];
        status = plan->attention->attend(plan, set, backward, error);
        if (status == LH_OK)
            status =
                backward ? finish_backward(plan, trace, set, error) : finish_forward(plan, trace, set, error);
    }
    if (status != LH_OK)
        dist_drain(plan);
    lh_mode_end(&mode);
    return status;
}

/* ---- what callers hand in ---------------------------------------------------------------------- */

static lh_status check(const lh_dist_plan *plan, const lh_tensor *trace, const struct lh_use *uses, int count,
                       lh_error *error)
{
    const lh_plan like = {.config = plan->part, .layout = plan->part_layout, .options = plan->options};
    lh_status status = lh_trace_check(&like, uses, count, trace, error);
    for (int i = 0; i < count && status == LH_OK && plan->options.finite; i++) {
        if (lh_listed(lh_layer_inputs, uses[i].id))
            status = lh_tensor_finite(&trace[uses[i].id], lh_tensor_name(uses[i].id), error);
    }
    return status;
}

static lh_status check_plan(const lh_dist_plan *plan, lh_error *error)
{
    return plan ? LH_OK : lh_fail(error, LH_INVALID, "plan is NULL, wanted a plan over ranks");
}

lh_status lh_dist_forward(lh_dist_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_status status = check_plan(plan, error);
    if (status != LH_OK)
        return status;
    const bool given = plan->options.index_given;
    const struct lh_use uses[] = {{LH_Q, true, false},       {LH_K, true, false},       {LH_V, true, false},
                                  {LH_INDEX, given, !given}, {LH_O_SEL, false, true},   {LH_LSE, false, true},
                                  {LH_OUT, true, true},      {LH_COVERAGE, false, true}};
    status = check(plan, trace, uses, sizeof uses / sizeof *uses, error);
    if (status == LH_OK && given)
        status = lh_index_check(&plan->part, &plan->part_layout, &trace[LH_INDEX], error);
    status = dist_agree(&plan->exchange, status, plan->cards, error);
    for (int i = 0; i < 3 && status == LH_OK; i++)
        plan->keeps[i] = !trace[lh_layer_kept[i]].data;
    return status == LH_OK ? run_pieces(plan, trace, false, error) : status;
}

lh_status lh_dist_backward(lh_dist_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_status status = check_plan(plan, error);
    if (status != LH_OK)
        return status;
    const struct lh_use uses[] = {{LH_Q, true, false},
                                  {LH_K, true, false},
                                  {LH_V, true, false},
                                  {LH_DOUT, true, false},
                                  {LH_INDEX, !plan->keeps[0], false},
                                  {LH_O_SEL, !plan->keeps[1], false},
                                  {LH_LSE, !plan->keeps[2], false},
                                  {LH_DQ, true, true},
                                  {LH_DK, true, true},
                                  {LH_DV, true, true}};
    if (!plan->options.backward)
        status = lh_fail(error, LH_INVALID, "plan has options.backward false, wanted true to run backward");
    if (status == LH_OK)
        status = check(plan, trace, uses, sizeof uses / sizeof *uses, error);
    if (status == LH_OK && trace[LH_INDEX].data)
        status = lh_index_check(&plan->part, &plan->part_layout, &trace[LH_INDEX], error);
    status = dist_agree(&plan->exchange, status, plan->cards, error);
    return status == LH_OK ? run_pieces(plan, trace, true, error) : status;
}
