/* Attention over the selected rows, in the body that fits the device. */
#include "opencl/launch.h"

int64_t lh_cl_tiles_of(int64_t rows, int tile)
{
    return (rows + tile - 1) / tile;
}

static lh_status attend_cpu(struct lh_cl_chunk *k, lh_error *error)
{
    struct lh_cl_state *state = k->state;
    cl_mem q_sel;
    lh_status status = lh_cl_pack_columns(k, false, LH_K_SEL, LH_CL_PACK_0, error);
    if (status == LH_OK)
        status = lh_cl_pack_rows(k, false, LH_V_SEL, LH_CL_PACK_1, state->tuning.forward.columns, error);
    if (status == LH_OK)
        status = lh_cl_widen(k, LH_ATTEND, LH_Q_SEL, LH_CL_WIDE_0, &q_sel, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg args[] = {
        MEM(q_sel),
        MEM(state->scratch[LH_CL_PACK_0]),
        MEM(state->scratch[LH_CL_PACK_1]),
        MEM(lh_cl_wide(k, LH_O_SEL, LH_CL_WIDE_1)),
        MEM(k->view[LH_LSE].mem),
        MEM(state->scratch[LH_CL_TURNS]),
        LONG(lh_cl_wide_first(k)),
        LONG(state->padded),
    };
    const int64_t tiles = lh_cl_tiles_of(k->plan->layout.selected, state->tuning.forward.rows);
    status = lh_cl_launch_pieces(k, LH_ATTEND, LH_CL_ATTEND_FORWARD, k->heads * tiles, args,
                                 (int)(sizeof args / sizeof *args), error);
    return status == LH_OK ? lh_cl_narrow(k, LH_ATTEND, LH_CL_WIDE_1, LH_O_SEL, error) : status;
}

/* Work-items of a GPU tile: TILE_LANES along its columns. */
enum {
    TILE_LANES = 16
};

enum {
    TILE_PAD = 4
};

/* Bytes of local memory for the operands of a step and for a tile of weights: tile_gpu.cl. */
int64_t lh_cl_step_bytes(const struct lh_cl_state *state, const struct lh_cl_tile *t)
{
    const int dot = t->chunk * (t->rows + t->columns + 2 * TILE_PAD), apply = t->chunk * state->slice;
    const int most = dot > apply ? dot : apply, maxima = TILE_LANES * t->rows;
    return (most > maxima ? most : maxima) * (int64_t)sizeof(cl_float);
}

int64_t lh_cl_weights_bytes(const struct lh_cl_tile *t)
{
    return t->columns * (t->rows + TILE_PAD) * (int64_t)sizeof(cl_float);
}

lh_status lh_cl_launch_tiles(struct lh_cl_chunk *k, lh_stage stage, enum lh_cl_kernel kernel,
                             const struct lh_cl_tile *tile, const struct lh_cl_arg *args, int count,
                             lh_error *error)
{
    const int64_t group = tile->rows / tile->row_block * TILE_LANES;
    const int64_t slices = lh_cl_tiles_of(k->plan->config.dim, k->state->slice);
    const int64_t groups = k->heads * lh_cl_tiles_of(k->plan->layout.selected, tile->rows) * slices;
    return lh_cl_launch(k, stage, kernel, groups * group, group, args, count, error);
}

static lh_status attend_gpu(struct lh_cl_chunk *k, lh_error *error)
{
    const struct lh_cl_tile *tile = &k->state->tuning.forward;
    const struct lh_cl_arg args[] = {
        MEM(k->view[LH_Q_SEL].mem),       MEM(k->view[LH_K_SEL].mem), MEM(k->view[LH_V_SEL].mem),
        MEM(k->view[LH_O_SEL].mem),       MEM(k->view[LH_LSE].mem),   LOCAL(lh_cl_step_bytes(k->state, tile)),
        LOCAL(lh_cl_weights_bytes(tile)),
    };
    return lh_cl_launch_tiles(k, LH_ATTEND, LH_CL_ATTEND_FORWARD, tile, args,
                              (int)(sizeof args / sizeof *args), error);
}

lh_status lh_cl_attend(struct lh_cl_chunk *k, lh_error *error)
{
    return k->state->tuning.cpu_body ? attend_cpu(k, error) : attend_gpu(k, error);
}
