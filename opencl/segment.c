/* Heads larger than a buffer: long tensors pass a segment of tokens at a time, whole windows of the coarsest level, so that
 * no entry's tokens are cut and the bits are those of a whole head. */
#include "opencl/opencl.h"

static bool any_long(const lh_tensor_id *ids)
{
    while (*ids != LH_TENSOR_COUNT && !lh_cl_is_long(*ids))
        ids++;
    return *ids != LH_TENSOR_COUNT;
}

lh_status lh_cl_over_segments(struct lh_cl_chunk *k, lh_cl_stage_fn *stage, const lh_tensor_id *reads,
                              const lh_tensor_id *writes, const lh_tensor *trace, unsigned *there,
                              lh_error *error)
{
    const lh_plan *plan = k->plan;
    const int64_t tokens = plan->config.tokens, segment = k->state->segment;
    const bool entries = lh_listed(reads, LH_Q_PYR); /* of a pyramid that is read, rows are rows */
    const int64_t total = entries ? plan->layout.entries : tokens;
    const bool whole = segment == tokens || (!any_long(reads) && !any_long(writes));
    const int64_t step = whole ? total : entries ? lh_cl_rows_held(plan, LH_Q_PYR, segment) : segment;
    lh_status status = LH_OK;
    for (int64_t begin = 0; begin < total && status == LH_OK; begin += step) {
        k->begin = begin;
        k->end = total - begin < step ? total : begin + step;
        for (const lh_tensor_id *id = reads; *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
            if (lh_cl_is_long(*id) && (*there & 1u << *id) == 0)
                status = lh_cl_bind_input(k, *id, &trace[*id], error);
            if (whole)
                *there |= 1u << *id;
        }
        for (const lh_tensor_id *id = writes; *id != LH_TENSOR_COUNT; id++) {
            if (lh_cl_is_long(*id))
                lh_cl_bind_output(k, *id, &trace[*id]);
        }
        if (status == LH_OK)
            status = stage(k, error);
        for (const lh_tensor_id *id = writes; *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
            if (lh_cl_is_long(*id))
                status = lh_cl_flush_output(k, *id, &trace[*id], error);
        }
    }
    k->begin = 0;
    k->end = tokens;
    return status;
}
