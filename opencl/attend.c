/* Attention over the selected rows, in the body that fits the device. */
#include <math.h>

#include "opencl/launch.h"

float lh_cl_scale(const lh_plan *plan)
{
    return (float)(1 / sqrt((double)plan->config.dim));
}

/* CPU body: one *_sel tensor of the chunk into panels. */
lh_status lh_cl_pack(struct lh_cl_chunk *k, bool backward, bool columns, lh_tensor_id from,
                     enum lh_cl_scratch to, lh_error *error)
{
    struct lh_cl_state *state = k->state;
    const int64_t padded = backward ? state->padded_backward : state->padded;
    const struct lh_cl_tile *tile = backward ? &state->tuning.backward : &state->tuning.forward;
    const enum lh_cl_kernel kernel = backward
                                         ? (columns ? LH_CL_BACKWARD_PACK_COLUMNS : LH_CL_BACKWARD_PACK_ROWS)
                                         : (columns ? LH_CL_PACK_COLUMNS : LH_CL_PACK_ROWS);
    const struct lh_cl_arg args[] = {
        MEM(k->view[from].mem),          MEM(state->scratch[to]), LONG(k->sel_first),
        INDEX(k->plan->layout.selected), INDEX(padded),
    };
    return LH_CL_LAUNCH(k, backward ? LH_ATTEND_BACKWARD : LH_ATTEND, kernel,
                        k->heads * (padded / tile->columns), 1, args, error);
}

static int64_t tiles_of(int64_t rows, int tile)
{
    return (rows + tile - 1) / tile;
}

static lh_status attend_cpu(struct lh_cl_chunk *k, lh_error *error)
{
    struct lh_cl_state *state = k->state;
    const int64_t selected = k->plan->layout.selected;
    lh_status status = lh_cl_pack(k, false, true, LH_K_SEL, LH_CL_PACK_0, error);
    if (status == LH_OK)
        status = lh_cl_pack(k, false, false, LH_V_SEL, LH_CL_PACK_1, error);
    if (status != LH_OK)
        return status;
    const struct lh_cl_arg args[] = {
        MEM(k->view[LH_Q_SEL].mem),
        MEM(state->scratch[LH_CL_PACK_0]),
        MEM(state->scratch[LH_CL_PACK_1]),
        MEM(k->view[LH_O_SEL].mem),
        MEM(k->view[LH_LSE].mem),
        LONG(k->sel_first),
        LONG(k->heads),
        INDEX(selected),
        INDEX(state->padded),
        REAL(lh_cl_scale(k->plan)),
    };
    return LH_CL_LAUNCH(k, LH_ATTEND, LH_CL_ATTEND_FORWARD,
                        k->heads * tiles_of(selected, state->tuning.forward.rows), 1, args, error);
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
    const int64_t slices = tiles_of(k->plan->config.dim, k->state->slice);
    const int64_t groups = k->heads * tiles_of(k->plan->layout.selected, tile->rows) * slices;
    return lh_cl_launch(k, stage, kernel, groups * group, group, args, count, error);
}

static lh_status attend_gpu(struct lh_cl_chunk *k, lh_error *error)
{
    const struct lh_cl_tile *tile = &k->state->tuning.forward;
    const struct lh_cl_arg args[] = {
        MEM(k->view[LH_Q_SEL].mem),
        MEM(k->view[LH_K_SEL].mem),
        MEM(k->view[LH_V_SEL].mem),
        MEM(k->view[LH_O_SEL].mem),
        MEM(k->view[LH_LSE].mem),
        LONG(k->sel_first),
        LONG(k->heads),
        INDEX(k->plan->layout.selected),
        REAL(lh_cl_scale(k->plan)),
        LOCAL(lh_cl_step_bytes(k->state, tile)),
        LOCAL(lh_cl_weights_bytes(tile)),
    };
    return lh_cl_launch_tiles(k, LH_ATTEND, LH_CL_ATTEND_FORWARD, tile, args,
                              (int)(sizeof args / sizeof *args), error);
}

lh_status lh_cl_attend(struct lh_cl_chunk *k, lh_error *error)
{
    return k->state->tuning.cpu_body ? attend_cpu(k, error) : attend_gpu(k, error);
}
