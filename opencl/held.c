/* Which tensors are long, and how many rows of one a segment of tokens holds. */
#include "opencl/opencl.h"

static bool is_pyramid(lh_tensor_id id)
{
    return id == LH_Q_PYR || id == LH_K_PYR || id == LH_V_PYR;
}

bool lh_cl_is_long(lh_tensor_id id)
{
    return is_pyramid(id) || lh_listed(lh_layer_strided, id);
}

int64_t lh_cl_window(const lh_plan *plan)
{
    return plan->config.tokens / plan->layout.coarse;
}

int64_t lh_cl_rows_held(const lh_plan *plan, lh_tensor_id id, int64_t segment)
{
    const int64_t tokens = plan->config.tokens;
    if (is_pyramid(id)) {
        int64_t rows = 0, level = segment;
        for (int64_t l = 0; l < plan->config.levels; l++, level /= plan->config.pool)
            rows += level;
        return rows;
    }
    /* An entry hears of the tokens behind it, as many as it has of its own. */
    return id == LH_DOUT && segment + lh_cl_window(plan) < tokens ? segment + lh_cl_window(plan)
           : id == LH_DOUT                                        ? tokens
                                                                  : segment;
}
