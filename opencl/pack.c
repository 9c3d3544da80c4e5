/* CPU body: tensors of any dtype as attention's float32 operands, and back. */
#include "opencl/launch.h"

int lh_cl_packed_width(const struct lh_cl_state *state, bool backward)
{
    const struct lh_cl_tuning *t = &state->tuning;
    const int panel = backward ? t->backward.column_block * t->vec : t->forward.row_block;
    return (state->width + panel - 1) / panel * panel;
}

/* [heads,S,d] in tiles of so many tokens */
static lh_status pack(struct lh_cl_chunk *k, bool backward, enum lh_cl_kernel kernel, lh_tensor_id from,
                      enum lh_cl_scratch to, int tile, lh_error *error)
{
    struct lh_cl_state *state = k->state;
    const struct lh_cl_tuning *t = &state->tuning;
    const int64_t padded = backward ? state->padded_backward : state->padded;
    const bool columns = kernel == LH_CL_PACK_COLUMNS;
    const struct lh_cl_arg args[] = {
        MEM(k->view[from].mem),
        MEM(state->scratch[to]),
        INT(backward ? t->backward.column_block * t->vec : t->forward.row_block),
        INT(columns ? state->width : lh_cl_packed_width(state, backward)),
        INT(tile),
        LONG(padded),
        INT(from == LH_K_SEL), /* of columns alone */
    };
    return lh_cl_launch(k, backward ? LH_ATTEND_BACKWARD : LH_ATTEND, kernel, k->heads * (padded / tile), 1,
                        args, (int)(sizeof args / sizeof *args) - !columns, error);
}

lh_status lh_cl_pack_columns(struct lh_cl_chunk *k, bool backward, lh_tensor_id from, enum lh_cl_scratch to,
                             lh_error *error)
{
    const struct lh_cl_tuning *t = &k->state->tuning;
    return pack(k, backward, LH_CL_PACK_COLUMNS, from, to,
                backward ? t->backward.columns : t->forward.columns, error);
}

lh_status lh_cl_pack_rows(struct lh_cl_chunk *k, bool backward, lh_tensor_id from, enum lh_cl_scratch to,
                          int tile, lh_error *error)
{
    return pack(k, backward, LH_CL_PACK_ROWS, from, to, tile, error);
}

static bool is_wide(const struct lh_cl_chunk *k)
{
    return k->plan->options.dtype == LH_F32;
}

cl_mem lh_cl_wide(const struct lh_cl_chunk *k, lh_tensor_id id, enum lh_cl_scratch scratch)
{
    return is_wide(k) ? k->view[id].mem : k->state->scratch[scratch];
}

int64_t lh_cl_wide_first(const struct lh_cl_chunk *k)
{
    return is_wide(k) ? k->sel_first : 0;
}

lh_status lh_cl_widen(struct lh_cl_chunk *k, lh_stage stage, lh_tensor_id id, enum lh_cl_scratch scratch,
                      cl_mem *rows, lh_error *error)
{
    *rows = lh_cl_wide(k, id, scratch);
    if (is_wide(k))
        return LH_OK;
    const struct lh_cl_arg args[] = {MEM(k->view[id].mem), MEM(*rows)};
    return LH_CL_LAUNCH(k, stage, LH_CL_WIDEN_ROWS, k->heads * k->plan->layout.selected,
                        k->state->small_group, args, error);
}

lh_status lh_cl_narrow(struct lh_cl_chunk *k, lh_stage stage, enum lh_cl_scratch scratch, lh_tensor_id id,
                       lh_error *error)
{
    if (is_wide(k))
        return LH_OK;
    const struct lh_cl_arg args[] = {MEM(k->state->scratch[scratch]), MEM(k->view[id].mem)};
    return LH_CL_LAUNCH(k, stage, LH_CL_NARROW_ROWS, k->heads * k->plan->layout.selected,
                        k->state->small_group, args, error);
}
