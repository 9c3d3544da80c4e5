/* From a pyramid entry to its place in the sub-sequence. */
#include "opencl/launch.h"

/* Fills scratch LH_CL_SLOT from the index. */
lh_status lh_cl_find_slots(struct lh_cl_chunk *k, lh_stage stage, lh_error *error)
{
    const lh_layout *layout = &k->plan->layout;
    struct lh_cl_state *state = k->state;
    const int64_t places = k->heads * layout->entries;
    const struct lh_cl_arg clear_args[] = {MEM(state->scratch[LH_CL_SLOT])};
    lh_status status =
        LH_CL_LAUNCH(k, stage, LH_CL_CLEAR_SLOTS, (places + 7) / 8, state->small_group, clear_args, error);
    if (status != LH_OK)
        return status;
    const int64_t blocks = lh_cl_blocks(state, layout->selected, 1, state->tuning.run);
    const struct lh_cl_arg args[] = {VIEW(k->view[LH_INDEX]), MEM(state->scratch[LH_CL_SLOT]), INT(blocks)};
    return LH_CL_LAUNCH(k, stage, LH_CL_FIND_SLOTS, lh_cl_block_items(state, k->heads, blocks),
                        state->tuning.group, args, error);
}
