/* The stages around attention: which kernels, over how many work-items. */
#include "opencl/opencl.h"

#define MEM LH_CL_MEM_ARG
#define VIEW LH_CL_VIEW_ARG
#define INT LH_CL_INT_ARG
#define LONG LH_CL_LONG_ARG
#define INDEX LH_CL_INDEX_ARG
#define LOCAL LH_CL_LOCAL_ARG

/* Work-groups that share the `rows` rows of a head, `lanes` work-items a row: row_of of common.cl. */
static int64_t blocks_of(const struct lh_cl_state *state, int64_t rows, int lanes)
{
    const int64_t each = (int64_t)(state->tuning.group / lanes) * state->tuning.run;
    return (rows + each - 1) / each;
}

static int64_t block_items(const struct lh_cl_state *state, int64_t heads, int64_t blocks)
{
    return heads * blocks * state->tuning.group;
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
            INT(kv ? k->first_kv : k->first),
            INT(kv ? c->kv_heads : c->heads),
            LONG(windows),
            INDEX(c->tokens),
            INDEX(coarse),
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
    const int64_t count = kv ? k->kv_heads : k->heads;
    const int64_t blocks = blocks_of(k->state, c->tokens, k->state->score_lanes);
    const struct lh_cl_arg args[] = {
        VIEW(k->view[from]), VIEW(k->view[to]),
        INT(first),          INT(heads),
        INT(blocks),         INDEX(c->tokens),
        INT(c->dim),         LOCAL(k->state->tuning.group * (int64_t)sizeof(cl_float)),
    };
    lh_status status = LH_CL_LAUNCH(k, LH_SCORE, LH_CL_SCORE_ROWS, block_items(k->state, count, blocks),
                                    k->state->tuning.group, args, error);
    for (int64_t l = 1; l < c->levels && status == LH_OK; l++) {
        const int64_t entries = count * layout->level_size[l];
        const struct lh_cl_arg level_args[] = {
            VIEW(k->view[to]),
            INT(first),
            INT(heads),
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
        const struct lh_cl_arg args[] = {VIEW(k->view[LH_INDEX]), INT(k->first), INT(c->heads), LONG(entries),
                                         INDEX(c->tokens)};
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
        INT(k->first),
        INT(c->heads),
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

static const lh_tensor_id selected_ids[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL};

lh_status lh_cl_gather(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const int64_t blocks = blocks_of(k->state, layout->selected, k->state->lanes);
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const struct lh_cl_arg args[] = {
            VIEW(k->view[LH_INDEX]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[selected_ids[i]]),
            INT(k->first),
            INT(c->heads),
            INT(i == 0 ? c->heads : c->kv_heads),
            INT(blocks),
            INDEX(layout->selected),
            INDEX(layout->entries),
            INT(c->dim),
        };
        status = LH_CL_LAUNCH(k, LH_GATHER, LH_CL_GATHER_ROWS, block_items(k->state, k->heads, blocks),
                              k->state->tuning.group, args, error);
    }
    return status;
}

lh_status lh_cl_gather_windows(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K, LH_V};
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const int64_t blocks = blocks_of(k->state, layout->selected, k->state->lanes);
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const struct lh_cl_arg args[] = {
            VIEW(k->view[LH_INDEX]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[selected_ids[i]]),
            INT(k->first),
            INT(c->heads),
            INT(i == 0 ? c->heads : c->kv_heads),
            INT(blocks),
            INDEX(layout->selected),
            INDEX(layout->entries),
            INDEX(c->tokens),
            INT(c->dim),
        };
        status = LH_CL_LAUNCH(k, LH_GATHER, LH_CL_GATHER_WINDOWS, block_items(k->state, k->heads, blocks),
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
        INT(k->first),           INT(k->plan->config.heads),
        LONG(entries),           INDEX(layout->selected),
        INDEX(layout->entries),
    };
    return LH_CL_LAUNCH(k, stage, LH_CL_FIND_SLOTS, entries, state->small_group, args, error);
}

lh_status lh_cl_scatter(struct lh_cl_chunk *k, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const int64_t blocks = blocks_of(k->state, c->tokens, k->state->lanes);
    lh_status status = find_slots(k, LH_SCATTER, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg args[] = {
        MEM(k->state->scratch[LH_CL_SLOT]),
        VIEW(k->view[LH_O_SEL]),
        VIEW(k->view[LH_OUT]),
        VIEW(k->view[LH_COVERAGE]),
        INT(k->first),
        INT(c->heads),
        INT(blocks),
        INDEX(c->tokens),
        INDEX(k->plan->layout.entries),
        INT(c->dim),
    };
    return LH_CL_LAUNCH(k, LH_SCATTER, LH_CL_SCATTER_PULL, block_items(k->state, k->heads, blocks),
                        k->state->tuning.group, args, error);
}

lh_status lh_cl_scatter_backward(struct lh_cl_chunk *k, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const int64_t blocks = blocks_of(k->state, layout->selected, k->state->lanes);
    const struct lh_cl_arg args[] = {
        VIEW(k->view[LH_INDEX]),
        VIEW(k->view[LH_DOUT]),
        VIEW(k->view[LH_DO_SEL]),
        INT(k->first),
        INT(c->heads),
        INT(blocks),
        INDEX(layout->selected),
        INDEX(layout->entries),
        INDEX(c->tokens),
        INT(c->dim),
    };
    return LH_CL_LAUNCH(k, LH_SCATTER_BACKWARD, LH_CL_SCATTER_BACKWARD,
                        block_items(k->state, k->heads, blocks), k->state->tuning.group, args, error);
}

lh_status lh_cl_unpool(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL}, to[] = {LH_DQ, LH_DK, LH_DV};
    const lh_config *c = &k->plan->config;
    const int64_t blocks = blocks_of(k->state, c->tokens, k->state->lanes);
    lh_status status = find_slots(k, LH_UNPOOL, error);
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const bool kv = lh_cl_has_kv_heads(to[i]);
        const struct lh_cl_arg args[] = {
            MEM(k->state->scratch[LH_CL_SLOT]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[to[i]]),
            INT(k->first),
            INT(c->heads),
            INT(kv ? c->kv_heads : c->heads),
            INT(blocks),
            INDEX(c->tokens),
            INDEX(k->plan->layout.entries),
            INT(c->dim),
        };
        status = LH_CL_LAUNCH(k, LH_UNPOOL, LH_CL_UNPOOL_PULL,
                              block_items(k->state, kv ? k->kv_heads : k->heads, blocks),
                              k->state->tuning.group, args, error);
    }
    return status;
}
