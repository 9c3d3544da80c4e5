/* The way back to the tokens and its backward (SPEC 3.7, 4). */
#include "opencl/launch.h"

lh_status lh_cl_scatter(struct lh_cl_chunk *k, lh_error *error)
{
    const int64_t blocks = lh_cl_blocks(k->state, k->end - k->begin, k->state->lanes, k->state->pulled);
    lh_status status = k->begin == 0 ? lh_cl_find_slots(k, LH_SCATTER, error) : LH_OK;
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg args[] = {
        MEM(k->state->scratch[LH_CL_SLOT]),
        VIEW(k->view[LH_O_SEL]),
        VIEW(k->view[LH_OUT]),
        VIEW(k->view[LH_COVERAGE]),
        INT(blocks),
    };
    return LH_CL_LAUNCH(k, LH_SCATTER, LH_CL_SCATTER_PULL, lh_cl_block_items(k->state, k->heads, blocks),
                        k->state->tuning.group, args, error);
}

lh_status lh_cl_scatter_backward(struct lh_cl_chunk *k, lh_error *error)
{
    const lh_layout *layout = &k->plan->layout;
    const int64_t blocks = lh_cl_blocks(k->state, layout->selected, k->state->lanes, k->state->tuning.run);
    const struct lh_cl_arg args[] = {
        VIEW(k->view[LH_INDEX]),
        VIEW(k->view[LH_DOUT]),
        VIEW(k->view[LH_DO_SEL]),
        INT(blocks),
    };
    return LH_CL_LAUNCH(k, LH_SCATTER_BACKWARD, LH_CL_SCATTER_BACKWARD,
                        lh_cl_block_items(k->state, k->heads, blocks), k->state->tuning.group, args, error);
}
