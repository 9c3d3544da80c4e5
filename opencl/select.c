/* Parents of each tile and the order of what they select (SPEC 3.3, 3.4). */
#include "opencl/launch.h"

lh_status lh_cl_select(struct lh_cl_chunk *k, lh_error *error)
{
    const lh_config *c = &k->plan->config;
    const lh_layout *layout = &k->plan->layout;
    struct lh_cl_state *state = k->state;
    const int64_t entries = k->heads * layout->selected;
    if (c->levels == 1) {
        const struct lh_cl_arg args[] = {VIEW(k->view[LH_INDEX])};
        return LH_CL_LAUNCH(k, LH_SELECT, LH_CL_ORDER_TOKENS, entries, state->small_group, args, error);
    }
    const struct lh_cl_arg args[] = {
        VIEW(k->view[LH_SCORE_Q]),
        VIEW(k->view[LH_SCORE_K]),
        MEM(state->scratch[LH_CL_PARENTS]),
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
    };
    return LH_CL_LAUNCH(k, LH_SELECT, LH_CL_ORDER_ENTRIES, entries, state->small_group, order_args, error);
}
