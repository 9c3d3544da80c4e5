/* What a rank's part is, and plans for the two halves of a layer by heads: its own tokens, and attention over all S rows. */
#include <inttypes.h>

#include "dist/dist.h"

lh_status lh_dist_part(const lh_config *config, int ranks, lh_config *part, lh_error *error)
{
    lh_layout layout;
    lh_status status = lh_config_check(config, &layout, error);
    if (status != LH_OK)
        return status;
    const int64_t pieces = config->levels == 1 ? config->tokens : layout.tiles;
    if (ranks < 1 || pieces % ranks != 0)
        return lh_fail(error, LH_INVALID, "ranks is %d, wanted a divisor of the %" PRId64 " %s", ranks,
                       pieces, config->levels == 1 ? "tokens" : "tiles (topk/tile_topk)");
    *part = *config;
    part->tokens /= ranks;
    if (config->levels > 1)
        part->topk /= ranks;
    return LH_OK;
}

static lh_status create(const lh_config *config, const struct lh_part *part, const lh_options *options,
                        lh_plan **plan, lh_error *error)
{
    lh_options o = *options;
    o.stages = true;
    o.index_given = o.finite = false;
    o.part = part;
    return lh_plan_create(config, &o, plan, error);
}

lh_status dist_stages(lh_dist_plan *plan, const lh_config *config, const struct lh_part *part, lh_plan **made,
                      lh_error *error)
{
    lh_options options = plan->options;
    options.dtype = plan->work;
    const lh_status status = create(config, part, &options, made, error);
    if (status == LH_OK)
        plan->workspace += lh_plan_workspace(*made);
    return status;
}

int64_t dist_share(const lh_dist_plan *plan)
{
    return plan->piece.batch * plan->piece.heads / plan->exchange.ranks;
}

lh_config dist_attended(const lh_config *config, const lh_layout *layout, int64_t sequences)
{
    return (lh_config){.batch = 1,
                       .heads = sequences,
                       .kv_heads = sequences,
                       .tokens = layout->selected,
                       .dim = config->dim,
                       .levels = 1,
                       .pool = 2};
}

/* What both ask for; fills the whole layer's layout. */
static lh_status check(const lh_config *config, const lh_options *options, lh_plan **plan, lh_layout *layout,
                       lh_error *error)
{
    if (!plan)
        return lh_fail(error, LH_INVALID, "plan is NULL, wanted where to put the plan");
    *plan = NULL;
    if (!options)
        return lh_fail(error, LH_INVALID, "options is NULL, wanted plan options");
    return lh_config_check(config, layout, error);
}

lh_status lh_dist_local(const lh_config *config, const lh_options *options, int ranks, lh_plan **plan,
                        lh_error *error)
{
    lh_config mine;
    lh_layout layout;
    lh_status status = check(config, options, plan, &layout, error);
    if (status == LH_OK)
        status = lh_dist_part(config, ranks, &mine, error);
    if (status != LH_OK)
        return status;
    const struct lh_part part = {.layer = config, .layout = &layout, .stages = ~(unsigned)DIST_ATTENDS};
    return create(&mine, &part, options, plan, error);
}

lh_status lh_dist_attention(const lh_config *config, const lh_options *options, int64_t sequences,
                            lh_plan **plan, lh_error *error)
{
    lh_layout layout;
    const lh_status status = check(config, options, plan, &layout, error);
    if (status != LH_OK)
        return status;
    if (sequences < 1)
        return lh_fail(error, LH_INVALID, "sequences is %" PRId64 ", wanted at least 1", sequences);
    const struct lh_part part = {.layer = config, .layout = &layout, .stages = DIST_ATTENDS};
    const lh_config dense = dist_attended(config, &layout, sequences);
    return create(&dense, &part, options, plan, error);
}

lh_status lh_dist_select(lh_plan *local, const lh_tensor *trace, lh_error *error)
{
    return lh_select_rows(local, trace, error);
}
