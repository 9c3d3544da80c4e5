/* The pyramid, in one pass over the tokens (SPEC 3.1). */
#include "opencl/launch.h"

lh_status lh_cl_pool(struct lh_cl_chunk *k, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K, LH_V}, to[] = {LH_Q_PYR, LH_K_PYR, LH_V_PYR};
    const lh_config *c = &k->plan->config;
    const int64_t coarse = k->plan->layout.coarse;
    lh_status status = LH_OK;
    for (int i = 0; i < 3 && status == LH_OK; i++) {
        const bool kv = lh_has_kv_heads(from[i]);
        const int64_t windows = coarse * (kv ? k->kv_heads : k->heads);
        const struct lh_cl_arg args[] = {
            VIEW(k->view[from[i]]),           VIEW(k->view[to[i]]),
            INT(kv ? k->first_kv : k->first), INT(kv ? c->kv_heads : c->heads),
            INT(kv ? k->kv_heads : k->heads),
        };
        status = LH_CL_LAUNCH(k, LH_POOL, LH_CL_POOL_WINDOWS, windows * k->state->lanes,
                              k->state->tuning.group, args, error);
    }
    return status;
}
