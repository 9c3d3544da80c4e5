/*
 * backend.h: what a backend is, and what core does for it.
 *
 * A backend is one constant table. core checks every argument (configuration, dtype, shapes, strides,
 * NULL, finite inputs) before it calls in, so a backend only computes. A backend never prints, never
 * aborts, and on error leaves the plan destroyable.
 */
#ifndef LH_BACKEND_H
#define LH_BACKEND_H

#include "core/arithmetic.h"

typedef lh_status lh_execute_fn(lh_plan *plan, const lh_tensor *trace, lh_error *error);

/* ---- tuners: what of a backend can be measured on a device, optional ------------------------- */

enum {
    LH_TILE_NUMBERS = 8, /* of a tiling, at most */
    LH_TILINGS = 64,     /* candidates of a pass, at most */
    LH_TUNED_PATH = 932,
    LH_TUNED_ROW = 160
};

/* How attention is tiled in one pass; what each number means is the backend's own. */
typedef struct lh_tiling {
    int number[LH_TILE_NUMBERS];
} lh_tiling;

/* A plan made with lh_options.tiles uses these. */
typedef struct lh_tiles {
    lh_tiling forward, backward;
} lh_tiles;

typedef struct lh_tuner {
    const char *columns; /* titles of the numbers, separated by commas */
    int numbers;         /* of a tiling */
    const char *source;  /* the file that holds the committed tiles */
    /* The tiles that the device has without having been measured, and over how many tokens to measure. */
    lh_status (*committed)(int device, lh_tiles *tiles, int64_t *tokens, lh_error *error);
    /* Tilings worth measuring in one pass, the committed one first. */
    lh_status (*candidates)(int device, bool backward, lh_tiling tilings[LH_TILINGS], int *count,
                            lh_error *error);
    /* Every later plan on this device uses them; path: the file that says so. */
    lh_status (*keep)(int device, const lh_tiles *tiles, char path[LH_TUNED_PATH], lh_error *error);
    /* The row of `source` that would commit them. */
    lh_status (*row)(int device, const lh_tiles *tiles, char text[LH_TUNED_ROW], lh_error *error);
} lh_tuner;

/* ---- ceilings: what a device does at its best, optional ------------------------------------- */

typedef struct lh_ceilings {
    char product[64];                 /* what was multiplied, and by whom; "" where nothing there can */
    double product_flops, copy_bytes; /* per second; a copy's bytes are those read and those written */
} lh_ceilings;

/* ---- windows: a layer over ranks in less memory, optional ------------------------------------ */

/*
 * Rows of the sub-sequence a window at a time (dist/window.c), in plans with options.part. A window is a whole multiple of
 * `rows` rows, of which S and where it begins are too, and d of `dim`. Tensors of a window hold its rows alone, x_sel
 * [B,H,n,d] and lse [B,H,n]; index is whole. Those with data NULL are left out. Nothing is checked, and the bits are those
 * of the stages.
 */
typedef struct lh_windows {
    int64_t rows, dim;
    /* q k v dout index -> q_sel k_sel v_sel do_sel of rows `first` on. The tokens' dtype need not be the plan's. */
    void (*gather)(lh_plan *plan, const lh_tensor *trace, int64_t first);
    /* index dq_sel dk_sel dv_sel -> dq dk dv: whole, or a window after the other from row 0 on. */
    void (*unpool)(lh_plan *plan, const lh_tensor *trace, int64_t first);
    /* k_sel v_sel, whole -> memory, of `bytes` */
    size_t (*bytes)(const lh_plan *plan);
    void (*keys)(lh_plan *plan, const lh_tensor *trace, void *memory);
    /* memory, q_sel -> o_sel, which may be q_sel's memory, and lse */
    void (*attend)(lh_plan *plan, const lh_tensor *trace, void *memory, int64_t first);
    /* k_sel v_sel, whole, q_sel o_sel lse do_sel -> dq_sel, which may be q_sel's memory, and dk_sel dv_sel, whole, done
     * after the last window; windows from row 0 on */
    void (*attend_backward)(lh_plan *plan, const lh_tensor *trace, int64_t first);
} lh_windows;

typedef struct lh_backend {
    const char *name;
    lh_capabilities can;
    /* A driver of the user's compiles its kernels, which may end the process: the program tries it in another first. */
    bool compiles;
    /* LH_NO_DEVICE and a hint on what to install when *count would be 0. */
    lh_status (*device_count)(int *count, lh_error *error);
    /* memory 0 stands for the host's. */
    lh_status (*device_query)(int device, lh_device_info *info, lh_error *error);
    /* Sets plan->state and adds to plan->workspace_bytes; releases everything it took on error. */
    lh_status (*create)(lh_plan *plan, lh_error *error);
    void (*destroy)(lh_plan *plan);
    lh_status (*run_stage)(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error);
    /* Both honour plan->options.index_given, scores_given and NULL index, o_sel, lse, coverage. */
    lh_execute_fn *forward, *backward;
    const lh_tuner *tuner; /* NULL: nothing to tune; without one, lh_options.tiles is refused */
    /* NULL: no plans with workspace_given. Else the bytes that forward or backward takes from plan->lent, and works in
     * plan->options.stream as it is at the call. */
    size_t (*needs)(const lh_plan *plan, bool backward);
    /* Optional: q k v index -> q_sel k_sel v_sel as whole-layer calls read them, no pyramid in between. */
    lh_execute_fn *gather_tokens;
    /* Optional: q k v -> score_q score_k index q_sel k_sel v_sel likewise, in one pass; else score, select and gather_tokens
     * are run. */
    lh_execute_fn *select_rows;
    const lh_windows *windows; /* NULL: none */
    /* Optional: measured on the device for about `seconds` each. Without it, its ceilings are those of the host. */
    lh_status (*ceilings)(int device, lh_dtype dtype, double seconds, lh_ceilings *ceilings, lh_error *error);
    /* Optional: a decoder's arithmetic in the device's memory, to be closed. bf16: products may round what they read to
     * bfloat16. LH_UNSUPPORTED where a library that it needs is not installed, and says which. */
    lh_status (*arithmetic)(int device, bool bf16, const lh_arithmetic **on, lh_error *error);
} lh_backend;

/* lh_options.part: a plan for some stages of a layer that is larger than the plan (dist/). Read while the plan is made. */
struct lh_part {
    const lh_config *layer; /* sums keep the order they have there */
    const lh_layout *layout;
    unsigned stages; /* 1 << lh_stage of those that will run; no whole-layer calls */
    /* Rows of q before this one have no result that is wanted, and dout 0: they may be left out. */
    int64_t first_query;
    int64_t window; /* rows of a window; 0: attention is run as a stage */
};

struct lh_plan {
    lh_config config;
    lh_layout layout;
    lh_options options;
    const lh_backend *backend;
    void *state; /* the backend's own */
    size_t workspace_bytes;
    lh_profile profile;
    void *lent; /* with options.workspace_given, checked before each whole-layer call */
    size_t lent_bytes;
    /* The last forward was given NULL for these, so the backend holds them for backward. */
    bool kept_index, kept_o_sel, kept_lse;
};

/* The rows of backends.def; only those that were built are defined. */
#define LH_BACKEND(name, folder, needs) extern const lh_backend lh_backend_##name;
#include "core/backends.def"
#undef LH_BACKEND

/* A line of backends.def, whether its port was built or not; false past the last. */
typedef struct lh_known_backend {
    const char *name, *needs;
    const lh_backend *row; /* NULL: not built */
} lh_known_backend;
bool lh_backend_known(int i, lh_known_backend *known);

/* The backend of that name (NULL: the first, ref), once its `device` is known to be there. */
lh_status lh_backend_find(const char *name, int device, const lh_backend **found, lh_error *error);

/* Tensors of a call against the plan's configuration, layout, dtype and memory, and against one another. */
struct lh_use;
lh_status lh_trace_check(const lh_plan *plan, const struct lh_use *uses, int count, const lh_tensor *trace,
                         lh_error *error);
/* The backend's gather_tokens, which is not NULL, in a plan with options.stages. */
lh_status lh_gather_tokens(lh_plan *plan, const lh_tensor *trace, lh_error *error);
/* select_rows, or what stands for it, in a plan with options.stages. LH_UNSUPPORTED where the backend has neither. */
lh_status lh_select_rows(lh_plan *plan, const lh_tensor *trace, lh_error *error);

/* Lists of a whole layer's tensors, each ended by LH_TENSOR_COUNT. */
extern const lh_tensor_id lh_layer_inputs[];    /* q k v, and last dout, which forward does not read */
extern const lh_tensor_id lh_layer_kept[];      /* index o_sel lse: what backward takes from its forward */
extern const lh_tensor_id lh_layer_gradients[]; /* dq dk dv */
extern const lh_tensor_id lh_layer_strided[];   /* the caller's: q k v dout out dq dk dv */
enum {
    LH_LAYER_INPUTS = 4,
    LH_LAYER_KEPT = 3,
    LH_LAYER_GRADIENTS = 3,
    LH_LAYER_STRIDED = 8
};
bool lh_has_kv_heads(lh_tensor_id id); /* [B,G,...]: k v, their pyramids and scores, dk dv */
bool lh_listed(const lh_tensor_id *list, lh_tensor_id id);

/* lh_tensor_describe for a configuration that was checked. */
void lh_tensor_shape(const lh_config *config, const lh_layout *layout, lh_dtype dtype, lh_tensor_id id,
                     lh_tensor *tensor);
/* Sets the strides of a contiguous tensor of this shape. */
void lh_tensor_pack(lh_tensor *tensor);

/* "[1,2,512,8]"; returns text. */
enum {
    LH_SHAPE_TEXT = 96
};
const char *lh_shape_text(const lh_tensor *tensor, char text[LH_SHAPE_TEXT]);

/* SPEC 3.4: entries in [0,P), strictly ascending in the post-order key, leaves that partition [0,N).
 * LH_INVALID names the first position where that fails. index is contiguous, of the layout's shape. */
lh_status lh_index_check(const lh_config *config, const lh_layout *layout, const lh_tensor *index,
                         lh_error *error);

/* Row (b,h,n) of a [B,H,N,d] tensor, or (b,h) of a [B,H,N] one with n = 0, as an element offset. */
static inline int64_t lh_offset(const lh_tensor *t, int64_t b, int64_t h, int64_t n)
{
    return b * t->stride[0] + h * t->stride[1] + n * t->stride[2];
}

/* Reads an index tensor element whatever its width. */
static inline int64_t lh_index_at(const lh_tensor *index, int64_t i)
{
    return index->dtype == LH_I64 ? ((const int64_t *)index->data)[i] : ((const int32_t *)index->data)[i];
}

/* Level of a pyramid entry; entry is in [0,P). */
static inline int lh_level_of(const lh_layout *layout, int levels, int64_t entry)
{
    int level = 0;
    while (level + 1 < levels && entry >= layout->level_offset[level + 1])
        level++;
    return level;
}

#endif
