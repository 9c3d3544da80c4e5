/* Attention of a pass's layers: plans, running them, and what dense attention would have cost. */
#include "train/attention.h"

#include "core/base.h"
#include "train/groups.h"
#include "train/seconds.h"
#include "train/views.h"

static lh_status make_plan(const pass *p, enum attention_kind kind, lh_plan **plan, lh_error *error)
{
    const lh_config config = pass_config(p, kind);
    lh_options options = pass_plan_options(p);
    options.index_given = p->options.index_given && kind == LIGHTHOUSE;
    return lh_plan_create(&config, &options, plan, error);
}

/* The same over ranks: of whole sequences, of which the pass has a part. */
static lh_status make_over(const pass *p, enum attention_kind kind, lh_dist_plan **plan, lh_error *error)
{
    const lh_exchange *exchange = p->options.exchange;
    const lh_options options = pass_plan_options(p);
    lh_config whole = pass_config(p, kind);
    whole.tokens *= exchange->ranks;
    whole.topk *= exchange->ranks;
    return lh_dist_create(&whole, &options, LH_DIST_AUTO, exchange, plan, error);
}

lh_status attention_create(pass *p, lh_error *error)
{
    lh_status status = LH_OK;
    bool grouped = false;
    for (int64_t l = 0; l < p->m->shape.layers && status == LH_OK; l++) {
        p->kind[l] = pass_kind(&p->options, l);
        lh_plan **plan = &p->plan[p->kind[l]];
        if (p->kind[l] == LIGHTHOUSE && p->options.group_tile_topk)
            grouped = true;
        else if (p->options.exchange)
            status = p->over[p->kind[l]] ? LH_OK : make_over(p, p->kind[l], &p->over[p->kind[l]], error);
        else if (!*plan)
            status = make_plan(p, p->kind[l], plan, error);
    }
    return status == LH_OK && grouped ? groups_create(p, error) : status;
}

void attention_destroy(pass *p)
{
    for (int i = 0; i < ATTENTION_KINDS; i++)
        lh_plan_destroy(p->plan[i]);
    for (int i = 0; i < ATTENTION_KINDS; i++)
        lh_dist_destroy(p->over[i]);
    groups_destroy(p);
}

lh_status pass_attend(const pass *p, int64_t layer, bool backward, lh_error *error)
{
    if (p->kind[layer] == LIGHTHOUSE && p->options.group_tile_topk)
        return groups_attend(p, layer, backward, error);
    lh_tensor trace[LH_TENSOR_COUNT];
    pass_trace(p, layer, trace);
    lh_plan *plan = p->plan[p->kind[layer]];
    lh_dist_plan *over = p->over[p->kind[layer]];
    if (over)
        return backward ? lh_dist_backward(over, trace, error) : lh_dist_forward(over, trace, error);
    return backward ? lh_backward(plan, trace, error) : lh_forward(plan, trace, error);
}

lh_status pass_probe_dense(pass *p, int64_t layer, double *seconds, lh_error *error)
{
    lh_plan *plan;
    lh_status status = make_plan(p, DENSE, &plan, error);
    if (status != LH_OK)
        return status;
    lh_tensor trace[LH_TENSOR_COUNT];
    pass_trace(p, layer, trace);
    trace[LH_INDEX].data = trace[LH_O_SEL].data = trace[LH_LSE].data = NULL;
    trace[LH_OUT] = trace[LH_DOUT];
    status = p->m->on->wait(p->m->on, error);
    const double start = lh_seconds();
    if (status == LH_OK)
        status = lh_forward(plan, trace, error);
    if (status == LH_OK)
        status = lh_backward(plan, trace, error);
    if (status == LH_OK)
        status = p->m->on->wait(p->m->on, error);
    *seconds = seconds_since(start);
    lh_plan_destroy(plan);
    return status;
}

size_t pass_plan_bytes(const pass *p)
{
    size_t bytes = 0;
    for (int i = 0; i < ATTENTION_KINDS; i++)
        bytes += p->plan[i] ? lh_plan_workspace(p->plan[i]) : p->over[i] ? lh_dist_workspace(p->over[i]) : 0;
    for (int64_t i = 0; i < p->group_plans; i++)
        bytes += p->group_plan[i] ? lh_plan_workspace(p->group_plan[i]) : 0;
    return bytes;
}
