/* The selected rows, out of a pyramid or pooled on the way (SPEC 3.5). */
#include "opencl/launch.h"

static const lh_tensor_id selected_ids[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL};

/* With `tokens` entries in its finest level, `from` is a pyramid when that is all of P. */
static lh_status gather(struct lh_cl_chunk *k, const lh_tensor_id from[3], int64_t tokens, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    const int64_t blocks = lh_cl_blocks(k->state, layout->selected, k->state->lanes, k->state->tuning.run);
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const struct lh_cl_arg args[] = {
            VIEW(k->view[LH_INDEX]),
            VIEW(k->view[from[i]]),
            VIEW(k->view[selected_ids[i]]),
            INT(i == 0 ? c->heads : c->kv_heads),
            INT(blocks),
            LONG(tokens),
        };
        status = LH_CL_LAUNCH(k, LH_GATHER, LH_CL_GATHER_ROWS, lh_cl_block_items(k->state, k->heads, blocks),
                              k->state->tuning.group, args, error);
    }
    return status;
}

lh_status lh_cl_gather(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    return gather(k, from, k->plan->layout.entries, error);
}

lh_status lh_cl_gather_windows(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K, LH_V};
    return gather(k, from, k->plan->config.tokens, error);
}
