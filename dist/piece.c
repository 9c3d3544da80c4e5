/* Piece: some heads of this rank's tensors, and the stages around attention that are the same however it is shared out. */
#include "dist/dist.h"

lh_tensor dist_view(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece)
{
    const int64_t group = plan->config.heads / plan->config.kv_heads, each = plan->piece.heads;
    const int64_t a_batch = plan->config.heads / each;
    const int64_t b = piece / a_batch * plan->piece.batch, h = piece % a_batch * each;
    lh_tensor v = *t;
    if (!t->data)
        return v;
    const int64_t at = b * t->stride[0] + (lh_has_kv_heads(id) ? h / group : h) * t->stride[1];
    v.data = (char *)t->data + at * (int64_t)lh_dtype_size(t->dtype);
    v.shape[0] = plan->piece.batch;
    v.shape[1] = lh_has_kv_heads(id) ? each / group : each;
    return v;
}

lh_status dist_bring(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece,
                     const lh_tensor *buffer, lh_tensor *brought, lh_error *error)
{
    const lh_tensor from = dist_view(plan, t, id, piece);
    *brought = from.dtype == plan->work ? from : *buffer;
    return from.dtype == plan->work ? LH_OK : lh_tensor_convert(brought, &from, error);
}

lh_tensor dist_place(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece,
                     const lh_tensor *buffer)
{
    const lh_tensor v = dist_view(plan, t, id, piece);
    return v.dtype == plan->work ? v : *buffer;
}

lh_status dist_deliver(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece,
                       const lh_tensor *placed, lh_error *error)
{
    const lh_tensor v = dist_view(plan, t, id, piece);
    return v.data == placed->data ? LH_OK : lh_tensor_convert(&v, placed, error);
}

lh_tensor dist_kept(const lh_dist_plan *plan, const lh_tensor *trace, int which)
{
    return trace[lh_layer_kept[which]].data ? trace[lh_layer_kept[which]] : plan->kept[which];
}

lh_status dist_select(lh_dist_plan *plan, const lh_tensor *q, const lh_tensor *k, const lh_tensor *index,
                      lh_error *error)
{
    lh_tensor stage[LH_TENSOR_COUNT] = {[LH_Q] = *q,
                                        [LH_K] = *k,
                                        [LH_SCORE_Q] = plan->score_q,
                                        [LH_SCORE_K] = plan->score_k,
                                        [LH_INDEX] = *index};
    const lh_status status = lh_run_stage(plan->local, LH_SCORE, stage, error);
    return status == LH_OK ? lh_run_stage(plan->local, LH_SELECT, stage, error) : status;
}

lh_status dist_scatter(lh_dist_plan *plan, const lh_tensor *trace, int64_t piece, const lh_tensor *o_sel,
                       lh_error *error)
{
    const lh_tensor index = dist_kept(plan, trace, 0);
    lh_tensor stage[LH_TENSOR_COUNT] = {
        [LH_O_SEL] = *o_sel,
        [LH_INDEX] = dist_view(plan, &index, LH_INDEX, piece),
        [LH_OUT] = dist_place(plan, &trace[LH_OUT], LH_OUT, piece, &plan->tokens[0]),
        [LH_COVERAGE] = dist_view(plan, &trace[LH_COVERAGE], LH_COVERAGE, piece),
    };
    lh_status status = lh_run_stage(plan->local, LH_SCATTER, stage, error);
    if (status == LH_OK)
        status = dist_halo_forward(plan, stage, error);
    return status == LH_OK ? dist_deliver(plan, &trace[LH_OUT], LH_OUT, piece, &stage[LH_OUT], error)
                           : status;
}
