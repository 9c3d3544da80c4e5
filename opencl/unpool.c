/* Pool and gather backward in one (SPEC 4). */
#include "opencl/launch.h"

lh_status lh_cl_unpool(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL}, to[] = {LH_DQ, LH_DK, LH_DV};
    const lh_config *c = &k->plan->config;
    const int64_t blocks = lh_cl_blocks(k->state, k->end - k->begin, k->state->lanes, k->state->pulled);
    lh_status status = k->begin == 0 ? lh_cl_find_slots(k, LH_UNPOOL, error) : LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const bool kv = lh_has_kv_heads(to[i]);
        const struct lh_cl_arg args[] = {
            MEM(k->state->scratch[LH_CL_SLOT]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[to[i]]),
            INT(kv ? c->kv_heads : c->heads),
            INT(blocks),
        };
        status = LH_CL_LAUNCH(k, LH_UNPOOL, LH_CL_UNPOOL_PULL,
                              lh_cl_block_items(k->state, kv ? k->kv_heads : k->heads, blocks),
                              k->state->tuning.group, args, error);
    }
    return status;
}
