/* Attention backward (SPEC 4), in the body that fits the device. */
#include "opencl/launch.h"

static lh_status backward_cpu(struct lh_cl_chunk *k, lh_error *error)
{
    struct lh_cl_state *state = k->state;
    const struct lh_cl_tile *tile = &state->tuning.backward;
    lh_status status = lh_cl_pack_columns(k, true, LH_K_SEL, LH_CL_PACK_0, error);
    if (status == LH_OK)
        status = lh_cl_pack_columns(k, true, LH_V_SEL, LH_CL_PACK_1, error);
    if (status == LH_OK)
        status = lh_cl_pack_rows(k, true, LH_K_SEL, LH_CL_PACK_2, tile->columns, error);
    if (status == LH_OK)
        status = lh_cl_pack_rows(k, true, LH_Q_SEL, LH_CL_PACK_3, tile->rows, error);
    if (status == LH_OK)
        status = lh_cl_pack_rows(k, true, LH_DO_SEL, LH_CL_PACK_4, tile->rows, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg args[] = {
        MEM(state->scratch[LH_CL_PACK_0]),
        MEM(state->scratch[LH_CL_PACK_1]),
        MEM(state->scratch[LH_CL_PACK_2]),
        MEM(state->scratch[LH_CL_PACK_3]),
        MEM(state->scratch[LH_CL_PACK_4]),
        MEM(k->view[LH_LSE].mem),
        MEM(state->scratch[LH_CL_DELTA]),
        MEM(state->scratch[LH_CL_DQ_PARTS]),
        MEM(lh_cl_wide(k, LH_DK_SEL, LH_CL_WIDE_0)),
        MEM(lh_cl_wide(k, LH_DV_SEL, LH_CL_WIDE_1)),
        MEM(state->scratch[LH_CL_TURNS]),
        LONG(lh_cl_wide_first(k)),
        LONG(state->padded_backward),
    };
    status = lh_cl_launch_pieces(k, LH_ATTEND_BACKWARD, LH_CL_ATTEND_BACKWARD, k->heads * state->parts, args,
                                 (int)(sizeof args / sizeof *args), error);
    if (status == LH_OK)
        status = lh_cl_narrow(k, LH_ATTEND_BACKWARD, LH_CL_WIDE_0, LH_DK_SEL, error);
    if (status == LH_OK)
        status = lh_cl_narrow(k, LH_ATTEND_BACKWARD, LH_CL_WIDE_1, LH_DV_SEL, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg sum_args[] = {
        MEM(state->scratch[LH_CL_DQ_PARTS]),
        MEM(k->view[LH_DQ_SEL].mem),
        INT(lh_cl_packed_width(state, true)),
        LONG(state->padded_backward),
        INT(tile->rows),
        INT(tile->columns),
    };
    return LH_CL_LAUNCH(k, LH_ATTEND_BACKWARD, LH_CL_SUM_PARTS, k->heads * k->plan->layout.selected,
                        state->small_group, sum_args, error);
}

static lh_status backward_gpu(struct lh_cl_chunk *k, lh_error *error)
{
    struct lh_cl_state *state = k->state;
    const struct lh_cl_tile *tile = &state->tuning.backward;
    const struct lh_cl_arg dq_args[] = {
        MEM(k->view[LH_Q_SEL].mem),       MEM(k->view[LH_K_SEL].mem),
        MEM(k->view[LH_V_SEL].mem),       MEM(k->view[LH_DO_SEL].mem),
        MEM(k->view[LH_LSE].mem),         MEM(state->scratch[LH_CL_DELTA]),
        MEM(k->view[LH_DQ_SEL].mem),      LOCAL(lh_cl_step_bytes(state, tile)),
        LOCAL(lh_cl_weights_bytes(tile)),
    };
    lh_status status =
        lh_cl_launch_tiles(k, LH_ATTEND_BACKWARD, LH_CL_BACKWARD_QUERIES, &state->tuning.backward, dq_args,
                           (int)(sizeof dq_args / sizeof *dq_args), error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg dkv_args[] = {
        MEM(k->view[LH_Q_SEL].mem),       MEM(k->view[LH_K_SEL].mem),  MEM(k->view[LH_V_SEL].mem),
        MEM(k->view[LH_DO_SEL].mem),      MEM(k->view[LH_LSE].mem),    MEM(state->scratch[LH_CL_DELTA]),
        MEM(k->view[LH_DK_SEL].mem),      MEM(k->view[LH_DV_SEL].mem), LOCAL(lh_cl_step_bytes(state, tile)),
        LOCAL(lh_cl_weights_bytes(tile)),
    };
    return lh_cl_launch_tiles(k, LH_ATTEND_BACKWARD, LH_CL_BACKWARD_KEYS, tile, dkv_args,
                              (int)(sizeof dkv_args / sizeof *dkv_args), error);
}

lh_status lh_cl_attend_backward(struct lh_cl_chunk *k, lh_error *error)
{
    const int64_t rows = k->heads * k->plan->layout.selected;
    const struct lh_cl_arg args[] = {
        MEM(k->view[LH_O_SEL].mem),
        MEM(k->view[LH_DO_SEL].mem),
        MEM(k->state->scratch[LH_CL_DELTA]),
    };
    lh_status status =
        LH_CL_LAUNCH(k, LH_ATTEND_BACKWARD, LH_CL_ROW_PRODUCTS, rows, k->state->small_group, args, error);
    if (status != LH_OK)
        return status;
    return k->state->tuning.cpu_body ? backward_cpu(k, error) : backward_gpu(k, error);
}
