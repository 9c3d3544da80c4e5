/*
 * opencl.h: the parts of the OpenCL backend.
 *
 * A unit is one key/value head of one batch with its H/G query heads: units are independent of each other. A
 * plan works on chunks of consecutive units, as many as the device's memory and its largest allocation allow. Where not
 * even one fits, its long tensors, those with rows of d for each token, pass through buffers that hold a segment of it.
 */
#ifndef LH_OPENCL_H
#define LH_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "core/backend.h"

/* ---- device.c: devices, and what went wrong on one ------------------------------------------ */

struct lh_cl_device {
    cl_device_id id;
    char name[128], driver[128], vendor[128];
    bool is_cpu;
    bool
        has_cpu_body; /* a CPU with vectors of its own; one that has none makes them of work-items, as a GPU does */
    bool
        keeps_programs; /* caches on disk itself what it compiles, and compiles again to give a binary away */
    bool exact_division; /* offers -cl-fp32-correctly-rounded-divide-sqrt */
    cl_uint compute_units, float_width;
    cl_ulong memory, largest_allocation, local_memory;
    size_t group_size; /* of the largest work-group */
};

/* LH_DEVICE in a child of a process that used OpenCL: drivers keep threads, which a fork leaves behind, and calls would
 * wait for them for ever. */
lh_status lh_cl_same_process(lh_error *error);
lh_status lh_cl_device_count(int *count, lh_error *error);
lh_status lh_cl_device_query(int device, lh_device_info *info, lh_error *error);
lh_status lh_cl_device_find(int device, cl_device_id *id, lh_error *error);
lh_status lh_cl_device_describe(cl_device_id id, struct lh_cl_device *device, lh_error *error);
/* The status of an OpenCL error code: LH_NO_MEMORY where memory could not be had, else LH_DEVICE. */
lh_status lh_cl_fail(const struct lh_cl_device *device, cl_int code, const char *what, lh_error *error);

/* ---- ceilings.c: a GPU's own rates; LH_UNSUPPORTED for a CPU, whose are the host's ------------- */

lh_status lh_cl_ceilings(int device, lh_dtype dtype, double seconds, lh_ceilings *ceilings, lh_error *error);

/* ---- tiles.c: how kernels are sized ---------------------------------------------------------- */

/* Tiles of attention, `rows` queries by `columns` keys. On CPUs a product holds row_block rows of column_block vectors
 * in registers: forward the vectors are of queries, backward of keys. On GPUs work-items hold row_block rows of a tile,
 * and `chunk` of the inner dimension are in local memory at a time. */
struct lh_cl_tile {
    int rows, columns, row_block, column_block, chunk;
};

struct lh_cl_tuning {
    bool cpu_body;
    int vec;   /* floats in a vector */
    int group; /* work-items in a work-group; 1 on CPUs */
    int run;   /* rows in sequence per work-item */
    struct lh_cl_tile forward, backward;
};

/* A tile as the numbers of core/backend.h and back. */
struct lh_cl_tile lh_cl_tile_of(const lh_tiling *tiling);
lh_tiling lh_cl_tiling_of(const struct lh_cl_tile *tile);
/* The committed row of the device's class. */
void lh_cl_tuning_of_class(const struct lh_cl_device *device, struct lh_cl_tuning *tuning);
/* Whether kernels can be built for both tiles. */
bool lh_cl_tuning_fits(const struct lh_cl_tuning *tuning);

/* Tiles worth measuring on the device for one pass; returns how many, at most LH_TILINGS. */
int lh_cl_tuning_candidates(const struct lh_cl_device *device, bool backward,
                            struct lh_cl_tile tiles[LH_TILINGS]);

/* ---- tuned.c, tuner.c: the tiles of a plan, and what `lighthouse tune` measured ---------------- */

/* `given` where that is not NULL, else LIGHTHOUSE_OPENCL_TILES where that is set and possible, else what was measured on
 * this device, else the committed row; on a CPU with fewer rows where d, `dim` floats wide in products, is large. LH_FORMAT when
 * the file of measured tiles cannot be used, LH_UNSUPPORTED when not even the smallest tile fits a thread's stack. */
lh_status lh_cl_tuning_find(const struct lh_cl_device *device, const lh_tiles *given, int64_t dim,
                            struct lh_cl_tuning *tuning, lh_error *error);
extern const lh_tuner lh_cl_tuner;

/* Replaces the tiles if this device has measured ones. */
lh_status lh_cl_tuned_read(const struct lh_cl_device *device, struct lh_cl_tuning *tuning, lh_error *error);
/* Adds or replaces the device's; path: the file. */
lh_status lh_cl_tuned_write(const struct lh_cl_device *device, const struct lh_cl_tuning *tuning,
                            char path[LH_TUNED_PATH], lh_error *error);

/* ---- cache.c: built programs on disk --------------------------------------------------------- */

/* *binary is NULL when there is none or it is damaged; freed with lh_free. */
lh_status lh_cl_cache_read(const char key[65], unsigned char **binary, size_t *bytes, lh_error *error);
/* Best effort: a program that could not be kept is built again next time. */
void lh_cl_cache_write(const char key[65], const unsigned char *binary, size_t bytes);

/* ---- shared.c: contexts and programs of the process -------------------------------------------- */

/* The context that plans on this device share, retained; NULL and *code where there is none. */
cl_context lh_cl_context_share(cl_device_id id, cl_int *code);
/* Later plans get a new one: a fault may have spoiled this for good. */
void lh_cl_context_forget(cl_context context);
typedef lh_status lh_cl_build_fn(const void *how, cl_program *program, lh_error *error);
/* The program of this key in a context, retained: one that is there, else what `build` gives, which stays if the context is
 * shared. */
lh_status lh_cl_program_share(cl_context context, const char key[65], lh_cl_build_fn *build, const void *how,
                              cl_program *program, lh_error *error);

/* ---- program.c ------------------------------------------------------------------------------- */

lh_status lh_cl_program_build(cl_context context, const struct lh_cl_device *device,
                              const char *const *sources, int count, const char *options, cl_program *program,
                              lh_error *error);

/* ---- the plan's state ------------------------------------------------------------------------ */

enum lh_cl_kernel {
    LH_CL_SCORE_ROWS,
    LH_CL_SCORE_LEVEL,
    LH_CL_SELECT_PARENTS,
    LH_CL_ORDER_ENTRIES,
    LH_CL_ORDER_TOKENS,
    LH_CL_CLEAR_SLOTS,
    LH_CL_FIND_SLOTS,
    LH_CL_GATHER_ROWS,
    LH_CL_SCATTER_PULL,
    LH_CL_SCATTER_BACKWARD,
    LH_CL_UNPOOL_PULL,
    LH_CL_POOL_WINDOWS,
    LH_CL_ROW_PRODUCTS,
    LH_CL_PACK_ROWS, /* CPU body, as far as LH_CL_SUM_PARTS */
    LH_CL_PACK_COLUMNS,
    LH_CL_WIDEN_ROWS,
    LH_CL_NARROW_ROWS,
    LH_CL_SUM_PARTS,
    LH_CL_ATTEND_FORWARD,
    LH_CL_ATTEND_BACKWARD,  /* CPU body: dq in parts, dk, dv */
    LH_CL_BACKWARD_QUERIES, /* GPU body: dq */
    LH_CL_BACKWARD_KEYS,    /* GPU body: dk, dv */
    LH_CL_KERNEL_COUNT,
};

enum lh_cl_scratch {
    LH_CL_PARENTS, /* [heads,T,L-1,m] index */
    LH_CL_SLOT,    /* [heads,P] index */
    LH_CL_DELTA,   /* [heads,S] f32 */
    LH_CL_PACK_0,  /* CPU body: packed operands of attention */
    LH_CL_PACK_1,
    LH_CL_PACK_2,
    LH_CL_PACK_3,
    LH_CL_PACK_4,
    LH_CL_DQ_PARTS, /* CPU body: [heads,parts,padded,wide] f32 */
    LH_CL_TURNS,    /* CPU body: [1] u32, pieces of a kernel that are taken */
    LH_CL_WIDE_0,   /* CPU body, half dtypes: [heads,S,d] f32 of rows that attention reads or writes */
    LH_CL_WIDE_1,
    LH_CL_SCRATCH_COUNT,
};

enum {
    LH_CL_EVENTS = 128,
    LH_CL_TRANSFER = LH_STAGE_COUNT
};

/* What a kernel knows of the plan and the chunk: struct shape of common.cl, the same bytes. Its last argument. */
struct lh_cl_shape {
    cl_long tokens, entries, selected;
    cl_long coarse, tiles, tile_coarse, tile_topk, pool;
    cl_long sel_first;
    cl_int levels, dim;
    cl_int heads, kv_heads;
    cl_int first, first_kv;
    cl_int here, kv_here;
    cl_float scale;
    cl_int parts;
    cl_long begin, end;
};

struct lh_cl_state {
    struct lh_cl_device device;
    struct lh_cl_tuning tuning;
    cl_context context;
    cl_command_queue queue;
    bool out_of_order; /* a queue of the caller's that runs its commands in any order */
    cl_kernel kernel[LH_CL_KERNEL_COUNT];
    int64_t group; /* query heads of a unit, H/G */
    int64_t units, chunk_units, chunks;
    int64_t segment; /* tokens that buffers of long tensors hold; N, or whole windows of the top level */
    int64_t padded, padded_backward; /* S rounded up to whole tiles (CPU body) */
    int width;                       /* of a row in products, d and zeros (CPU body) */
    int parts;                       /* of dq (CPU body) */
    int slice;                       /* columns of d that a work-group handles (GPU body) */
    int lanes, score_lanes;          /* work-items that share a row */
    int pulled;                      /* rows in sequence per work-item of a pull */
    int small_group;                 /* work-group of kernels that do one entry a work-item */
    cl_mem buffer[LH_TENSOR_COUNT];  /* a chunk of each tensor that the plan keeps on the device */
    cl_mem scratch[LH_CL_SCRATCH_COUNT];
    /* index, o_sel, lse of every chunk, for a later backward; without one, chunk 0's serve all. */
    cl_mem *kept;
    int64_t kept_count; /* three a chunk */
    struct {
        cl_event event;
        int stage; /* or LH_CL_TRANSFER */
    } events[LH_CL_EVENTS];
    int event_count;
};

/* A tensor in a buffer: row_at of common.cl. */
struct lh_cl_view {
    cl_mem mem;
    cl_long4 at;
};

struct lh_cl_chunk {
    lh_plan *plan;
    struct lh_cl_state *state;
    int64_t number;
    int64_t first, heads; /* query heads, counted over batches */
    int64_t first_kv, kv_heads;
    int64_t sel_first;  /* where head `first` lies in the *_sel tensors, o_sel and lse */
    int64_t begin, end; /* the segment: tokens, or rows of the pyramids that are gathered from */
    struct lh_cl_view view[LH_TENSOR_COUNT];
};

/* ---- queue.c, kernels.c: parts of a plan ------------------------------------------------------ */

/* A context and queue of the plan's own, or the caller's; sets state->device. */
lh_status lh_cl_queue_open(lh_plan *plan, lh_error *error);
/* What is enqueued next waits for all that was enqueued before, also where the queue itself keeps no order. */
cl_int lh_cl_in_order(const struct lh_cl_state *state);
/* Waits for the queue and lets go of both. */
void lh_cl_queue_close(struct lh_cl_state *state);
/* Everything that the plan will launch. */
lh_status lh_cl_kernels_build(lh_plan *plan, lh_error *error);
void lh_cl_kernels_release(struct lh_cl_state *state);

/* ---- plan.c: everything a plan holds --------------------------------------------------------- */

lh_status lh_cl_create(lh_plan *plan, lh_error *error);
void lh_cl_destroy(lh_plan *plan);
void lh_cl_chunk_at(lh_plan *plan, int64_t number, struct lh_cl_chunk *chunk);

/* ---- memory.c: how much, and taking it ------------------------------------------------------- */

lh_status lh_cl_memory_take(lh_plan *plan, lh_error *error);
void lh_cl_memory_release(struct lh_cl_state *state);
/* The plan's own buffer for a chunk of a tensor; index, o_sel and lse have one for every chunk. */
cl_mem lh_cl_own_buffer(const struct lh_cl_state *state, int64_t chunk, lh_tensor_id id);

/* ---- launch.c: the time that kernels take; launch.h has the rest ------------------------------ */

/* NULL unless the plan profiles; the event that lh_cl_note books under `stage` or LH_CL_TRANSFER. */
cl_event *lh_cl_event(lh_plan *plan, int stage);
/* Waits for all that was enqueued and books its time. */
lh_status lh_cl_finish(lh_plan *plan, lh_error *error);

/* ---- held.c, segment.c: what of a head is on the device at a time ----------------------------- */

/* Tensors with a row of d for each token, and pyramids, which alone are cut into segments. */
bool lh_cl_is_long(lh_tensor_id id);
/* Rows of such a tensor in a buffer that serves segments of so many tokens. */
int64_t lh_cl_rows_held(const lh_plan *plan, lh_tensor_id id, int64_t segment);
/* Tokens of a window of the coarsest level: a segment is a multiple. */
int64_t lh_cl_window(const lh_plan *plan);

typedef lh_status lh_cl_stage_fn(struct lh_cl_chunk *chunk, lh_error *error);
/* Runs the stage for each segment of the chunk, its long inputs brought over before and its long outputs brought back after;
 * ids end with LH_TENSOR_COUNT and the others of them are passed over. *there: inputs that need not be brought again. */
lh_status lh_cl_over_segments(struct lh_cl_chunk *chunk, lh_cl_stage_fn *stage, const lh_tensor_id *reads,
                              const lh_tensor_id *writes, const lh_tensor *trace, unsigned *there,
                              lh_error *error);

/* ---- transfer.c: tensors of the caller and the plan's buffers --------------------------------- */

/* A view of a chunk of `id` in `mem`, which holds that chunk alone, or of a long tensor the segment of it. */
struct lh_cl_view lh_cl_chunk_view(const struct lh_cl_chunk *chunk, lh_tensor_id id, cl_mem mem);
/* Makes chunk->view[id] readable: the caller's device memory itself, or a buffer filled from the host. */
lh_status lh_cl_bind_input(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor,
                           lh_error *error);
/* Makes chunk->view[id] writable; lh_cl_flush_output brings it to the host. */
void lh_cl_bind_output(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor);
lh_status lh_cl_flush_output(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor,
                             lh_error *error);
/* Contiguous tensors between the caller, on either side, and a buffer that holds the chunk. */
lh_status lh_cl_copy_in(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor, cl_mem to,
                        lh_error *error);
lh_status lh_cl_copy_out(struct lh_cl_chunk *chunk, lh_tensor_id id, const lh_tensor *tensor, cl_mem from,
                         lh_error *error);

/* ---- a file a stage: one chunk's views in, views out --------------------------------------- */

lh_cl_stage_fn lh_cl_pool, lh_cl_score, lh_cl_select, lh_cl_gather, lh_cl_gather_windows, lh_cl_scatter,
    lh_cl_scatter_backward, lh_cl_unpool, lh_cl_attend, lh_cl_attend_backward;

/* ---- layer.c ----------------------------------------------------------------------------------- */

lh_execute_fn lh_cl_forward, lh_cl_backward;
lh_status lh_cl_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error);

#endif
