/* The pyramid, in one pass over the tokens (SPEC 3.1). */
#include "opencl/launch.h"

lh_status lh_cl_pool(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K, LH_V}, to[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    const lh_config *c = &k->plan->config;
    const int64_t coarse = (k->end - k->begin) / lh_cl_window(k->plan);
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const bool kv = lh_has_kv_heads(from[i]);
        const int64_t windows = coarse * (kv ? k->kv_heads : k->heads);
        struct lh_cl_view pyramid = k->view[to[i]];
        pyramid.at.s[0] += k->begin * pyramid.at.s[3]; /* of a segment: from its own first row on */
        const struct lh_cl_arg args[] = {
            VIEW(k->view[from[i]]),           VIEW(pyramid),
            INT(kv ? k->first_kv : k->first), INT(kv ? c->kv_heads : c->heads),
            INT(kv ? k->kv_heads : k->heads), LONG(coarse),
        };
        status = LH_CL_LAUNCH(k, LH_POOL, LH_CL_POOL_WINDOWS, windows * k->state->lanes,
                              k->state->tuning.group, args, error);
    }
    return status;
}
