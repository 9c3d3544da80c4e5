/* Faults of un-pooling, the last stage of the backward: SPEC 4. */
#include <string.h>

#include "core/backend.h"
#include "check/faults.h"

enum unpool_fault {
    NO_DIVISION,
    DIVIDE_BY_P,
    DIVIDE_TOKENS_TOO,
    FIRST_TOKEN,
    SHIFTED,
    LEAVES_ONLY,
    OVERWRITE,
    SKIP_MIDDLE,
    HEAD_MODULO,
    LAST_HEAD,
    FIRST_HEAD,
    GROUP_MEAN,
};

static double weight_of(const lh_config *config, struct lh_span span, enum unpool_fault how)
{
    if (how == NO_DIVISION || how == FIRST_TOKEN)
        return 1.0;
    if (how == DIVIDE_BY_P)
        return span.level == 0 ? 1.0 : 1.0 / (double)config->pool;
    if (how == DIVIDE_TOKENS_TOO)
        return 1.0 / (double)config->pool;
    return 1.0 / (double)span.window;
}

/* Whether row i of the sub-sequence is a parent: its children are selected too. */
static bool is_parent(const lh_config *config, const lh_layout *layout, const lh_tensor *index, int64_t i)
{
    if (i % layout->selected == 0)
        return false;
    /* Post-order: a parent directly follows its last child, which ends where it ends. */
    const struct lh_span here = lh_span_of(config, layout, lh_index_at(index, i));
    const struct lh_span before = lh_span_of(config, layout, lh_index_at(index, i - 1));
    return before.level < here.level && before.first + before.window == here.first + here.window;
}

static int64_t target_head(const lh_config *config, int64_t bh, bool query, enum unpool_fault how)
{
    const int64_t b = bh / config->heads, h = bh % config->heads, group = config->heads / config->kv_heads;
    if (query)
        return bh;
    return b * config->kv_heads + (how == HEAD_MODULO ? h % config->kv_heads : h / group);
}

static void unpool_head(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                        const lh_tensor *index, int64_t bh, const double *selected, double *dx)
{
    const enum unpool_fault how = (enum unpool_fault)fault->variant;
    const int64_t d = config->dim;
    for (int64_t i = bh * layout->selected; i < (bh + 1) * layout->selected; i++) {
        const struct lh_span span = lh_span_of(config, layout, lh_index_at(index, i));
        if ((how == LEAVES_ONLY && is_parent(config, layout, index, i)) ||
            (how == SKIP_MIDDLE && span.level == 1))
            continue;
        const double weight = weight_of(config, span, how);
        const int64_t first = span.first + (how == SHIFTED ? span.window - 1 : 0),
                      end = first + (how == FIRST_TOKEN ? 1 : span.window);
        for (int64_t j = first; j < end && j < config->tokens; j++) {
            for (int64_t c = 0; c < d; c++) {
                const double value = weight * selected[i * d + c];
                dx[j * d + c] = how == OVERWRITE ? value : dx[j * d + c] + value;
            }
        }
    }
}

static lh_status unpool_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                                const lh_tensor *trace, lh_error *error)
{
    const enum unpool_fault how = (enum unpool_fault)fault->variant;
    const int64_t group = config->heads / config->kv_heads;
    const lh_tensor_id from[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL}, to[] = {LH_DQ, LH_DK, LH_DV};
    if (how == SKIP_MIDDLE && config->levels < 3)
        return lh_fail(error, LH_UNSUPPORTED, "no middle level");
    if ((how == HEAD_MODULO && config->kv_heads == 1) ||
        (how >= HEAD_MODULO && config->heads == config->kv_heads))
        return lh_fail(error, LH_UNSUPPORTED, "no groups of query heads to mix up");
    for (int x = 0; x < 3; x++) {
        double *dx = (double *)trace[to[x]].data;
        const int64_t head = config->tokens * config->dim;
        memset(dx, 0, sizeof(double) * (size_t)(config->batch * trace[to[x]].shape[1] * head));
        for (int64_t bh = 0; bh < config->batch * config->heads; bh++) {
            double *target = dx + target_head(config, bh, x == 0, how) * head;
            if (how == LAST_HEAD && x > 0)
                memset(target, 0, sizeof(double) * (size_t)head);
            if (how == FIRST_HEAD && x > 0 && bh % group != 0)
                continue;
            unpool_head(fault, config, layout, &trace[LH_INDEX], bh, (const double *)trace[from[x]].data,
                        target);
        }
        for (int64_t i = 0; i < lh_tensor_elements(&trace[to[x]]) && how == GROUP_MEAN && x > 0; i++)
            dx[i] /= (double)group;
    }
    return LH_OK;
}

const lh_fault lh_faults_unpool[] = {
    {24, LH_UNPOOL, "unpool-undivided", "SPEC 4", "Divide by p^l: the forward took a mean over p^l tokens.",
     NO_DIVISION, unpool_wrongly},
    {24, LH_UNPOOL, "unpool-divides-by-p", "SPEC 4", "Divide by p^l, the window's size, not by p.",
     DIVIDE_BY_P, unpool_wrongly},
    {24, LH_UNPOOL, "unpool-divides-tokens-too", "SPEC 4",
     "Divide by p^l: not by p at every level, and not at all at level 0.", DIVIDE_TOKENS_TOO, unpool_wrongly},
    {24, LH_UNPOOL, "unpool-first-token", "SPEC 4", "All p^l tokens of the window receive their share.",
     FIRST_TOKEN, unpool_wrongly},
    {24, LH_UNPOOL, "unpool-shifted", "SPEC 4",
     "The gradient goes to the tokens that were pooled, from i*p^l on, not to the positions that the scatter wrote.",
     SHIFTED, unpool_wrongly},
    {24, LH_UNPOOL, "unpool-leaves-only", "SPEC 4",
     "Parents were gathered too: their gradient also flows back.", LEAVES_ONLY, unpool_wrongly},
    {24, LH_UNPOOL, "unpool-overwrites", "SPEC 4", "Add the levels' contributions to a token.", OVERWRITE,
     unpool_wrongly},
    {19, LH_UNPOOL, "unpool-skips-level-1", "SPEC 4", "Every level's entries flow back, level 1 too.",
     SKIP_MIDDLE, unpool_wrongly},
    {26, LH_UNPOOL, "unpool-head-modulo", "SPEC 4",
     "dk and dv of kv head g sum over query heads g*(H/G) ... , not those with h % G = g.", HEAD_MODULO,
     unpool_wrongly},
    {26, LH_UNPOOL, "unpool-last-head", "SPEC 4", "dk and dv add up over all query heads of the group.",
     LAST_HEAD, unpool_wrongly},
    {26, LH_UNPOOL, "unpool-first-head", "SPEC 4",
     "dk and dv add up over all query heads of the group, not the first alone.", FIRST_HEAD, unpool_wrongly},
    {26, LH_UNPOOL, "unpool-group-mean", "SPEC 4",
     "dk and dv are the sum over the heads of the group, not the mean.", GROUP_MEAN, unpool_wrongly},
    {0, LH_STAGE_COUNT, NULL, NULL, NULL, 0, NULL},
};
