/* Norms of the tokens and their maxima, level by level (SPEC 3.2). */
#include "opencl/launch.h"

static lh_status score_one(struct lh_cl_chunk *k, lh_tensor_id from, lh_tensor_id to, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const bool kv = lh_has_kv_heads(from);
    const int64_t first = kv ? k->first_kv : k->first, heads = kv ? c->kv_heads : c->heads;
    const int64_t count = kv ? k->kv_heads : k->heads;
    const int64_t blocks =
        lh_cl_blocks(k->state, k->end - k->begin, k->state->score_lanes, k->state->tuning.run);
    const struct lh_cl_arg args[] = {
        VIEW(k->view[from]), VIEW(k->view[to]), INT(first),
        INT(heads),          INT(blocks),       LOCAL(k->state->tuning.group * (int64_t)sizeof(cl_float)),
    };
    lh_status status = LH_CL_LAUNCH(k, LH_SCORE, LH_CL_SCORE_ROWS, lh_cl_block_items(k->state, count, blocks),
                                    k->state->tuning.group, args, error);
    const int64_t levels = k->end < c->tokens ? 1 : c->levels; /* once all tokens have theirs */
    for (int64_t l = 1; l < levels && status == LH_OK; l++) {
        const int64_t entries = count * layout->level_size[l];
        const struct lh_cl_arg level_args[] = {
            VIEW(k->view[to]),
            INT(first),
            INT(heads),
            LONG(entries),
            LONG(layout->level_size[l]),
            LONG(layout->level_offset[l - 1]),
            LONG(layout->level_offset[l]),
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
