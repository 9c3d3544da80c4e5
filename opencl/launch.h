/*
 * launch.h: what the stages launch their kernels with.
 */
#ifndef LH_OPENCL_LAUNCH_H
#define LH_OPENCL_LAUNCH_H

#include "opencl/opencl.h"

enum lh_cl_arg_kind {
    LH_CL_MEM,
    LH_CL_VIEW,
    LH_CL_INT,
    LH_CL_LONG,
    LH_CL_LOCAL,
};

struct lh_cl_arg {
    enum lh_cl_arg_kind kind;
    union {
        cl_mem mem;
        const struct lh_cl_view *view;
        int64_t integer;
    } value;
};

#define MEM(x) ((struct lh_cl_arg){LH_CL_MEM, {.mem = (x)}})
#define VIEW(x) ((struct lh_cl_arg){LH_CL_VIEW, {.view = &(x)}})
#define INT(x) ((struct lh_cl_arg){LH_CL_INT, {.integer = (x)}})
#define LONG(x) ((struct lh_cl_arg){LH_CL_LONG, {.integer = (x)}})
/* Bytes of local memory. */
#define LOCAL(x) ((struct lh_cl_arg){LH_CL_LOCAL, {.integer = (x)}})

/* Sets the arguments, and the shape as the last, and enqueues at least `items` work-items in groups of `group`. */
lh_status lh_cl_launch(struct lh_cl_chunk *chunk, lh_stage stage, enum lh_cl_kernel kernel, int64_t items,
                       int64_t group, const struct lh_cl_arg *args, int count, lh_error *error);
#define LH_CL_LAUNCH(chunk, stage, kernel, items, group, args, error)                                        \
    lh_cl_launch(chunk, stage, kernel, items, group, args, (int)(sizeof(args) / sizeof *(args)), error)

/* rows.cl: work-groups that share the `rows` rows of a head, `lanes` work-items a row, each `run` rows; and the work-items of so many
 * work-groups for each of `heads` heads. */
int64_t lh_cl_blocks(const struct lh_cl_state *state, int64_t rows, int lanes, int run);
int64_t lh_cl_block_items(const struct lh_cl_state *state, int64_t heads, int64_t blocks);

/* slots.c: fills scratch LH_CL_SLOT from the index; its time is booked under `stage`. */
lh_status lh_cl_find_slots(struct lh_cl_chunk *chunk, lh_stage stage, lh_error *error);

/* pack.c, CPU body: one *_sel tensor of the chunk into panels, pack.cl; columns of LH_K_SEL are scaled for logits in base 2. tile:
 * rows that lie together. */
lh_status lh_cl_pack_columns(struct lh_cl_chunk *chunk, bool backward, lh_tensor_id from,
                             enum lh_cl_scratch to, lh_error *error);
lh_status lh_cl_pack_rows(struct lh_cl_chunk *chunk, bool backward, lh_tensor_id from, enum lh_cl_scratch to,
                          int tile, lh_error *error);
/* Columns of a packed row. */
int lh_cl_packed_width(const struct lh_cl_state *state, bool backward);
/* A *_sel tensor of the chunk as float32 rows: itself, or a copy of it in `scratch`, which is filled to be read or is where
 * lh_cl_narrow will find what was written. *first: where its first head lies. */
lh_status lh_cl_widen(struct lh_cl_chunk *chunk, lh_stage stage, lh_tensor_id id, enum lh_cl_scratch scratch,
                      cl_mem *rows, lh_error *error);
cl_mem lh_cl_wide(const struct lh_cl_chunk *chunk, lh_tensor_id id, enum lh_cl_scratch scratch);
int64_t lh_cl_wide_first(const struct lh_cl_chunk *chunk);
lh_status lh_cl_narrow(struct lh_cl_chunk *chunk, lh_stage stage, enum lh_cl_scratch scratch, lh_tensor_id id,
                       lh_error *error);

/* launch.c, CPU body: the same for `items` pieces of work, which work-items take from LH_CL_TURNS: panel_cpu.cl. */
lh_status lh_cl_launch_pieces(struct lh_cl_chunk *chunk, lh_stage stage, enum lh_cl_kernel kernel,
                              int64_t items, const struct lh_cl_arg *args, int count, lh_error *error);

/* attend.c: work-groups along so many rows. */
int64_t lh_cl_tiles_of(int64_t rows, int tile);
/* GPU body: bytes of local memory for the operands of a step and for a tile of weights, tile_gpu.cl; and one
 * work-group a tile, head and slice of d. */
int64_t lh_cl_step_bytes(const struct lh_cl_state *state, const struct lh_cl_tile *tile);
int64_t lh_cl_weights_bytes(const struct lh_cl_tile *tile);
lh_status lh_cl_launch_tiles(struct lh_cl_chunk *chunk, lh_stage stage, enum lh_cl_kernel kernel,
                             const struct lh_cl_tile *tile, const struct lh_cl_arg *args, int count,
                             lh_error *error);

#endif
