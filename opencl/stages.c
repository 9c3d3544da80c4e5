/* The stages around attention: which kernels, over how many work-items. */
#include "opencl/opencl.h"

#define MEM LH_CL_MEM_ARG
#define VIEW LH_CL_VIEW_ARG
#define INT LH_CL_INT_ARG
#define LONG LH_CL_LONG_ARG
#define INDEX LH_CL_INDEX_ARG
#define LOCAL LH_CL_LOCAL_ARG

/* Work-items for `rows` rows when `lanes` share one and each takes a run of them. */
static int64_t row_items(const struct lh_cl_state *state, int64_t rows, int lanes)
{
    return (rows + state->tuning.run - 1) / state->tuning.run * lanes;
}

lh_status lh_cl_pool(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K, LH_V}, to[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    const lh_config *c = &k->plan->config;
    const int64_t coarse = k->plan->layout.coarse;
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const bool kv = lh_cl_has_kv_heads(from[i]);
        const int64_t windows = coarse * (kv ? k->kv_heads : k->heads);
        const struct lh_cl_arg args[] = {
            VIEW(k->view[from[i]]),
            VIEW(k->view[to[i]]),
            LONG(kv ? k->first_kv : k->first),
            LONG(kv ? c->kv_heads : c->heads),
            LONG(windows),
            INDEX(c->tokens),
            INDEX(coarse),
            INDEX(c->pool),
            INT(c->dim),
        };
        status = LH_CL_LAUNCH(k, LH_POOL, LH_CL_POOL_WINDOWS, windows * k->state->lanes,
                              k->state->tuning.group, args, error);
    }
    return status;
}

static lh_status score_one(struct lh_cl_chunk *k, lh_tensor_id from, lh_tensor_id to, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const bool kv = lh_cl_has_kv_heads(from);
    const int64_t first = kv ? k->first_kv : k->first, heads = kv ? c->kv_heads : c->heads;
    const int64_t count = kv ? k->kv_heads : k->heads, rows = count * c->tokens;
    const struct lh_cl_arg args[] = {
        VIEW(k->view[from]), VIEW(k->view[to]),
        LONG(first),         LONG(heads),
        LONG(rows),          INDEX(c->tokens),
        INT(c->dim),         LOCAL(k->state->tuning.group * (int64_t)sizeof(cl_float)),
    };
    lh_status status =
        LH_CL_LAUNCH(k, LH_SCORE, LH_CL_SCORE_ROWS, row_items(k->state, rows, k->state->score_lanes),
                     k->state->tuning.group, args, error);
    for (int64_t l = 1; l < c->levels && status == LH_OK; l++) {
        const int64_t entries = count * layout->level_size[l];
        const struct lh_cl_arg level_args[] = {
            VIEW(k->view[to]),
            LONG(first),
            LONG(heads),
            LONG(entries),
            INDEX(layout->level_size[l]),
            INDEX(layout->level_offset[l - 1]),
            INDEX(layout->level_offset[l]),
            INDEX(c->pool),
        };
        status =
            LH_CL_LAUNCH(k, LH_SCORE, LH_CL_SCORE_LEVEL, entries, k->state->small_group, level_args, error);
    }
    return status;
}

lh_status lh_cl_score(struct lh_cl_chunk *k, lh_error *error)
{
    lh_status status = score_one(k, LH_Q, LH_SCORE_Q, error);
    return status == LH_OK ? score_one(k, LH_K, LH_SCORE_K, error) : status;
}

lh_status lh_cl_select(struct lh_cl_chunk *k, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    struct lh_cl_state *state = k->state;
    const int64_t entries = k->heads * layout->selected;
    if (c->levels == 1) {
        const struct lh_cl_arg args[] = {VIEW(k->view[LH_INDEX]), LONG(k->first), LONG(c->heads),
                                         LONG(entries), INDEX(c->tokens)};
        return LH_CL_LAUNCH(k, LH_SELECT, LH_CL_ORDER_TOKENS, entries, state->small_group, args, error);
    }
    const struct lh_cl_arg args[] = {
        VIEW(k->view[LH_SCORE_Q]),
        VIEW(k->view[LH_SCORE_K]),
        MEM(state->scratch[LH_CL_PARENTS]),
        LONG(k->first),
        LONG(c->heads),
        LONG(c->kv_heads),
        INDEX(c->tokens),
        INT(c->levels),
        INDEX(c->pool),
        INDEX(layout->tiles),
        INDEX(layout->tile_coarse),
        INDEX(c->tile_topk),
        LOCAL(256 * (int64_t)sizeof(cl_uint)),
        LOCAL(2 * (int64_t)sizeof(cl_long)),
        LOCAL(state->tuning.group * (int64_t)lh_dtype_size(layout->index_dtype)),
    };
    lh_status status =
        LH_CL_LAUNCH(k, LH_SELECT, LH_CL_SELECT_PARENTS, k->heads * layout->tiles * state->tuning.group,
                     state->tuning.group, args, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg order_args[] = {
        MEM(state->scratch[LH_CL_PARENTS]),
        VIEW(k->view[LH_INDEX]),
        LONG(k->first),
        LONG(c->heads),
        LONG(entries),
        INDEX(layout->selected),
        INDEX(c->tokens),
        INT(c->levels),
        INDEX(c->pool),
        INDEX(layout->tiles),
        INDEX(layout->tile_coarse),
        INDEX(c->tile_topk),
    };
    return LH_CL_LAUNCH(k, LH_SELECT, LH_CL_ORDER_ENTRIES, entries, state->small_group, order_args, error);
}

lh_status lh_cl_gather(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR}, to[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL};
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const int64_t rows = k->heads * layout->selected;
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const struct lh_cl_arg args[] = {
            VIEW(k->view[LH_INDEX]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[to[i]]),
            LONG(k->first),
            LONG(c->heads),
            LONG(i == 0 ? c->heads : c->kv_heads),
            LONG(rows),
            INDEX(layout->selected),
            INDEX(layout->entries),
            INT(c->dim),
        };
        status = LH_CL_LAUNCH(k, LH_GATHER, LH_CL_GATHER_ROWS, row_items(k->state, rows, k->state->lanes),
                              k->state->tuning.group, args, error);
    }
    return status;
}

lh_status lh_cl_gather_windows(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K, LH_V}, to[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL};
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const int64_t rows = k->heads * layout->selected;
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const struct lh_cl_arg args[] = {
            VIEW(k->view[LH_INDEX]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[to[i]]),
            LONG(k->first),
            LONG(c->heads),
            LONG(i == 0 ? c->heads : c->kv_heads),
            LONG(rows),
            INDEX(layout->selected),
            INDEX(layout->entries),
            INDEX(c->tokens),
            INDEX(c->pool),
            INT(c->dim),
        };
        status = LH_CL_LAUNCH(k, LH_GATHER, LH_CL_GATHER_WINDOWS, row_items(k->state, rows, k->state->lanes),
                              k->state->tuning.group, args, error);
    }
    return status;
}

/* Fills scratch LH_CL_SLOT from the index. */
static lh_status find_slots(struct lh_cl_chunk *k, lh_stage stage, lh_error *error)
{
    const lh_layout *layout = &k->plan->layout;
    struct lh_cl_state *state = k->state;
    const int64_t places = k->heads * layout->entries;
    const struct lh_cl_arg clear_args[] = {MEM(state->scratch[LH_CL_SLOT]), LONG(places)};
    lh_status status =
        LH_CL_LAUNCH(k, stage, LH_CL_CLEAR_SLOTS, places, state->small_group, clear_args, error);
    if (status != LH_OK)
        return status;
    const int64_t entries = k->heads * layout->selected;
    const struct lh_cl_arg args[] = {
        VIEW(k->view[LH_INDEX]), MEM(state->scratch[LH_CL_SLOT]),
        LONG(k->first),          LONG(k->plan->config.heads),
        LONG(entries),           INDEX(layout->selected),
        INDEX(layout->entries),
    };
    return LH_CL_LAUNCH(k, stage, LH_CL_FIND_SLOTS, entries, state->small_group, args, error);
}

lh_status lh_cl_scatter(struct lh_cl_chunk *k, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const int64_t rows = k->heads * c->tokens;
    lh_status status = find_slots(k, LH_SCATTER, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg args[] = {
        MEM(k->state->scratch[LH_CL_SLOT]),
        VIEW(k->view[LH_O_SEL]),
        VIEW(k->view[LH_OUT]),
        VIEW(k->view[LH_COVERAGE]),
        LONG(k->first),
        LONG(c->heads),
        LONG(rows),
        INDEX(c->tokens),
        INDEX(k->plan->layout.entries),
        INT(c->levels),
        INDEX(c->pool),
        INT(c->dim),
    };
    return LH_CL_LAUNCH(k, LH_SCATTER, LH_CL_SCATTER_PULL, row_items(k->state, rows, k->state->lanes),
                        k->state->tuning.group, args, error);
}

lh_status lh_cl_scatter_backward(struct lh_cl_chunk *k, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const int64_t rows = k->heads * layout->selected;
    const struct lh_cl_arg args[] = {
        VIEW(k->view[LH_INDEX]),
        VIEW(k->view[LH_DOUT]),
        VIEW(k->view[LH_DO_SEL]),
        LONG(k->first),
        LONG(c->heads),
        LONG(rows),
        INDEX(layout->selected),
        INDEX(layout->entries),
        INDEX(c->tokens),
        INDEX(c->pool),
        INT(c->dim),
    };
    return LH_CL_LAUNCH(k, LH_SCATTER_BACKWARD, LH_CL_SCATTER_BACKWARD,
                        row_items(k->state, rows, k->state->lanes), k->state->tuning.group, args, error);
}

lh_status lh_cl_unpool(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL}, to[] = {LH_DQ, LH_DK, LH_DV};
    const lh_config *c = &k->plan->config;
    lh_status status = find_slots(k, LH_UNPOOL, error);
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const bool kv = lh_cl_has_kv_heads(to[i]);
        const int64_t rows = (kv ? k->kv_heads : k->heads) * c->tokens;
        const struct lh_cl_arg args[] = {
            MEM(k->state->scratch[LH_CL_SLOT]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[to[i]]),
            LONG(k->first),
            LONG(c->heads),
            LONG(kv ? c->kv_heads : c->heads),
            LONG(rows),
            INDEX(c->tokens),
            INDEX(k->plan->layout.entries),
            INT(c->levels),
            INDEX(c->pool),
            INT(c->dim),
        };
        status = LH_CL_LAUNCH(k, LH_UNPOOL, LH_CL_UNPOOL_PULL, row_items(k->state, rows, k->state->lanes),
                              k->state->tuning.group, args, error);
    }
    return status;
}
