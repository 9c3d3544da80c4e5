/* Memory of a plan over ranks. */
#include <string.h>

#include "dist/dist.h"

lh_status dist_alloc(lh_dist_plan *plan, void **memory, size_t bytes, const char *what, lh_error *error)
{
    enum {
        MOST = sizeof plan->owned / sizeof *plan->owned
    };
    *memory = NULL;
    if (plan->owned_count == MOST)
        return lh_fail(error, LH_NO_MEMORY, "%s: a plan over ranks has %d buffers, wanted no more", what,
                       MOST);
    const lh_status status = lh_alloc(memory, bytes ? bytes : 1, what, error);
    if (status != LH_OK)
        return status;
    memset(*memory, 0, bytes);
    plan->owned[plan->owned_count++] = *memory;
    plan->workspace += bytes;
    return LH_OK;
}

lh_status dist_tensor(lh_dist_plan *plan, const lh_config *config, lh_dtype dtype, lh_tensor_id id,
                      lh_tensor *tensor, lh_error *error)
{
    lh_status status = lh_tensor_describe(config, dtype, id, tensor, error);
    if (status == LH_OK)
        status =
            dist_alloc(plan, &tensor->data, (size_t)lh_tensor_elements(tensor) * lh_dtype_size(tensor->dtype),
                       lh_tensor_name(id), error);
    return status;
}

lh_status dist_move_create(lh_dist_plan *plan, struct dist_move *move, lh_error *error)
{
    /* By rows, a rank owns two runs of rows. */
    const size_t most = sizeof(lh_block) * (size_t)plan->exchange.ranks * DIST_TRAVELLERS * 2;
    lh_status status = dist_alloc(plan, (void **)&move->sends, most, "blocks to send", error);
    if (status == LH_OK)
        status = dist_alloc(plan, (void **)&move->receives, most, "blocks to receive", error);
    return status;
}
