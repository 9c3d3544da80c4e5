/*
 * Lighthouse attention with a tile budget for every group of query heads that share a key/value head.
 *
 * A group is a layer of its own (SPEC 3 looks at one key/value head at a time): H/G heads, one kv head, views
 * into the layer's q k v. Tiles are the same for all, so a group of tile budget m has k = T m parents a level.
 * What a layer keeps for its backward (index, o_sel, lse) lies group after group where even budgets would have
 * it head after head: S is linear in m, so the sum over the groups takes the same room.
 */
#include "train/groups.h"

#include <string.h>

#include "core/base.h"
#include "train/views.h"

static lh_config group_config(const pass *p, int64_t tile_topk)
{
    lh_config config = pass_config(p, LIGHTHOUSE);
    config.heads /= config.kv_heads;
    config.kv_heads = 1;
    config.topk = config.topk / config.tile_topk * tile_topk;
    config.tile_topk = tile_topk;
    return config;
}

static const int64_t *layer_budgets(const pass *p, int64_t layer)
{
    return p->options.group_tile_topk + layer * p->m->shape.kv_heads;
}

lh_status groups_create(pass *p, lh_error *error)
{
    const lh_config config = pass_config(p, LIGHTHOUSE);
    lh_layout layout;
    lh_status status = lh_config_check(&config, &layout, error);
    if (status != LH_OK)
        return status;
    const size_t bytes = (size_t)(layout.tile_coarse / 2 + 1) * sizeof(lh_plan *);
    status = lh_alloc((void **)&p->group_plan, bytes, "group plans", error);
    if (status != LH_OK)
        return status;
    memset(p->group_plan, 0, bytes);
    p->group_plans = layout.tile_coarse / 2 + 1;
    return pass_regroup(p, error);
}

void groups_destroy(pass *p)
{
    for (int64_t i = 0; i < p->group_plans; i++)
        lh_plan_destroy(p->group_plan[i]);
    lh_free(p->group_plan);
}

static bool wanted(const pass *p, int64_t tile_topk)
{
    for (int64_t l = 0; l < p->m->shape.layers; l++)
        for (int64_t g = 0; g < p->m->shape.kv_heads; g++) {
            if (p->kind[l] == LIGHTHOUSE && layer_budgets(p, l)[g] == tile_topk)
                return true;
        }
    return false;
}

lh_status pass_regroup(pass *p, lh_error *error)
{
    lh_options options = pass_plan_options(p);
    options.index_given = p->options.index_given;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < p->group_plans; i++) {
        if (p->group_plan[i] && !wanted(p, 2 * i)) {
            lh_plan_destroy(p->group_plan[i]);
            p->group_plan[i] = NULL;
        }
    }
    for (int64_t i = 0; i < p->group_plans && status == LH_OK; i++) {
        const lh_config config = group_config(p, 2 * i);
        if (!p->group_plan[i] && wanted(p, 2 * i))
            status = lh_plan_create(&config, &options, &p->group_plan[i], error);
    }
    return status;
}

/* The group's heads of a layer's q k v out or their gradients, which only a training pass has. */
static void narrow(lh_tensor *view, int64_t group, int64_t heads)
{
    if (!view->data)
        return;
    const int64_t skipped = group * heads * view->stride[1];
    view->data = (char *)view->data + skipped * (int64_t)lh_dtype_size(view->dtype);
    view->shape[1] = heads;
}

/* trace: the layer's on entry, the group's on return. before: rows of a head in the groups before it. */
static void narrow_trace(const pass *p, const lh_config *config, int64_t group, int64_t before,
                         lh_tensor trace[LH_TENSOR_COUNT])
{
    static const lh_tensor_id by_query[] = {LH_Q, LH_OUT, LH_DOUT, LH_DQ},
                              by_key[] = {LH_K, LH_V, LH_DK, LH_DV}, kept[] = {LH_INDEX, LH_O_SEL, LH_LSE};
    for (size_t i = 0; i < sizeof by_query / sizeof *by_query; i++) {
        narrow(&trace[by_query[i]], group, config->heads);
        narrow(&trace[by_key[i]], group, 1);
    }
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        lh_tensor *t = &trace[kept[i]];
        char *data = t->data;
        lh_tensor_describe(config, pass_dtype(p), kept[i], t, NULL);
        const int64_t row = kept[i] == LH_O_SEL ? config->dim : 1;
        const int64_t skipped = config->batch * config->heads * before * row;
        t->data = data ? data + skipped * (int64_t)lh_dtype_size(t->dtype) : NULL;
    }
}

lh_status groups_attend(const pass *p, int64_t layer, bool backward, lh_error *error)
{
    lh_tensor whole[LH_TENSOR_COUNT], trace[LH_TENSOR_COUNT];
    lh_status status = LH_OK;
    int64_t before = 0;
    pass_trace(p, layer, whole);
    for (int64_t g = 0; g < p->m->shape.kv_heads && status == LH_OK; g++) {
        lh_plan *plan = p->group_plan[layer_budgets(p, layer)[g] / 2];
        memcpy(trace, whole, sizeof trace);
        narrow_trace(p, lh_plan_config(plan), g, before, trace);
        status = backward ? lh_backward(plan, trace, error) : lh_forward(plan, trace, error);
        before += lh_plan_layout(plan)->selected;
    }
    return status;
}
