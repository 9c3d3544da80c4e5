/*
 * lighthouse.h: Lighthouse Attention (arXiv 2605.06554) on CPUs and GPUs.
 *
 * The one public header. What is computed is docs/spec.md; the names of tensors (q_pyr, score_q, index, ...) are those
 * of its section 5. A whole program, forward and backward of one layer on the CPU:
 *
 *     lh_config config = {1, 2, 2, 4096, 64, 3, 4, 128, 128};     B H G N d L p k m
 *     lh_options options = {0};                                   the scalar reference
 *     lh_tensor trace[LH_TENSOR_COUNT];
 *     lh_plan *plan;
 *     lh_error error;
 *     options.backend = "openmp", options.dtype = LH_F32, options.backward = 1;
 *     for (id = 0; id < LH_TENSOR_COUNT; id++)
 *         lh_tensor_describe(&config, LH_F32, id, &trace[id], &error);
 *     trace[LH_Q].data = q;                                       and k v out dout dq dk dv likewise
 *     if (lh_plan_create(&config, &options, &plan, &error) != LH_OK || lh_forward(plan, trace, &error) != LH_OK ||
 *         lh_backward(plan, trace, &error) != LH_OK)
 *         puts(error.text);
 *     lh_plan_destroy(plan);
 *
 * Link with -llighthouse (pkg-config lighthouse). C89 and C++98 can include it.
 *
 * Conventions
 *  - Every call that can fail returns an lh_status and, when `error` is not NULL, writes one line
 *    into it: the argument or tensor, the value found and the value wanted. Outputs are untouched
 *    when arguments are refused. No call aborts the process or prints.
 *  - Sizes and indices are int64_t, counted in elements, unless a name says bytes.
 *  - Shapes are written [B,H,N,d]: batch, heads, tokens, head dimension; row-major unless strides
 *    say otherwise. G is the number of key/value heads (kv_heads), S the length of the
 *    sub-sequence that is attended over, P the number of pyramid entries, L the number of levels.
 *  - A plan may be executed by one thread at a time; different plans are independent.
 *  - A status that is not in the list of a call's comment is never returned by it. LH_NO_MEMORY may come from every call
 *    that makes something, LH_INVALID from every call that takes an argument it can check.
 */
#ifndef LIGHTHOUSE_H
#define LIGHTHOUSE_H

#if defined __cplusplus || (defined __STDC_VERSION__ && __STDC_VERSION__ >= 199901L)
#include <stdbool.h>
#else
__extension__ typedef _Bool bool;
#endif
#include <stddef.h>
#include <stdint.h>

#define LH_VERSION "0.2.0"

#ifdef __cplusplus
extern "C" {
#endif

#if defined _WIN32
#define LH_API
#else
#define LH_API __attribute__((visibility("default")))
#endif

/* ---- status ------------------------------------------------------------------------------- */

typedef enum lh_status {
    LH_OK = 0,
    LH_INVALID,     /* an argument, configuration or tensor was refused before any work */
    LH_FORMAT,      /* a file is malformed */
    LH_IO,          /* a file could not be opened, read or written */
    LH_NO_MEMORY,   /* memory could not be had; the message says how many bytes were asked for */
    LH_NO_DEVICE,   /* the backend has no device on this machine */
    LH_DEVICE,      /* a device failed: build, launch, lost device */
    LH_UNSUPPORTED, /* valid, but not offered by this backend (a dtype, a device feature) */
    LH_MISMATCH     /* a comparison failed */
} lh_status;

typedef struct lh_error {
    lh_status status;
    char text[512]; /* one line, no newline at its end */
} lh_error;

LH_API const char *lh_status_name(lh_status status);
LH_API const char *lh_version(void);

/* ---- element types ------------------------------------------------------------------------ */

typedef enum lh_dtype {
    LH_F64,
    LH_F32,
    LH_F16,
    LH_BF16,
    LH_I32,
    LH_I64,
    LH_DTYPE_COUNT
} lh_dtype;

LH_API const char *lh_dtype_name(lh_dtype dtype); /* "F64", ... as safetensors spells them */
LH_API size_t lh_dtype_size(lh_dtype dtype);      /* bytes */
/* Accepts "f32", "F32", "bf16", ... Writes *dtype. LH_OK, LH_INVALID. */
LH_API lh_status lh_dtype_parse(const char *text, lh_dtype *dtype, lh_error *error);

/* ---- configuration: SPEC section 2 -------------------------------------------------------- */

#define LH_MAX_LEVELS 62

typedef struct lh_config {
    int64_t batch;     /* B >= 1 */
    int64_t heads;     /* H >= 1, query heads */
    int64_t kv_heads;  /* G >= 1, divides H; query head h reads kv head h / (H/G) */
    int64_t tokens;    /* N >= 1 */
    int64_t dim;       /* d >= 1 */
    int64_t levels;    /* L >= 1; 1 is plain dense causal attention */
    int64_t pool;      /* p >= 2; p^(L-1) divides N */
    int64_t topk;      /* k: parents kept per level, per head; a multiple of tile_topk */
    int64_t tile_topk; /* m: even, >= 2; k/m tiles */
} lh_config;

/* Everything that follows from a configuration. */
typedef struct lh_layout {
    int64_t entries;                         /* P */
    int64_t selected;                        /* S */
    int64_t coarse;                          /* N / p^(L-1) */
    int64_t tiles;                           /* T = k/m; 1 when L = 1 */
    int64_t tile_coarse;                     /* c = coarse / T */
    int64_t window[LH_MAX_LEVELS];           /* p^l tokens per entry of level l */
    int64_t level_size[LH_MAX_LEVELS];       /* N / p^l */
    int64_t level_offset[LH_MAX_LEVELS + 1]; /* first entry of level l; [L] is P */
    lh_dtype index_dtype;                    /* LH_I32, or LH_I64 where P needs it */
} lh_layout;

/* Checks every rule of SPEC 2 and fills `layout` (may be NULL). topk and tile_topk are not read
 * when levels is 1. LH_OK, LH_INVALID naming the member, the value found and the value wanted. */
LH_API lh_status lh_config_check(const lh_config *config, lh_layout *layout, lh_error *error);

/* ---- tensors: SPEC section 5 -------------------------------------------------------------- */

#define LH_MAX_RANK 4

/* A view; owns nothing. `data` is host memory, or a device address (a cl_mem for OpenCL) in a
 * plan whose options say so. */
typedef struct lh_tensor {
    void *data;
    lh_dtype dtype;
    int rank;
    int64_t shape[LH_MAX_RANK];
    int64_t stride[LH_MAX_RANK]; /* in elements; the last is 1 */
} lh_tensor;

typedef enum lh_tensor_id {
    LH_Q,        /* [B,H,N,d] */
    LH_K,        /* [B,G,N,d] */
    LH_V,        /* [B,G,N,d] */
    LH_Q_PYR,    /* [B,H,P,d] */
    LH_K_PYR,    /* [B,G,P,d] */
    LH_V_PYR,    /* [B,G,P,d] */
    LH_SCORE_Q,  /* [B,H,P] */
    LH_SCORE_K,  /* [B,G,P] */
    LH_INDEX,    /* [B,H,S] pyramid entries in post-order */
    LH_Q_SEL,    /* [B,H,S,d] */
    LH_K_SEL,    /* [B,H,S,d] */
    LH_V_SEL,    /* [B,H,S,d] */
    LH_O_SEL,    /* [B,H,S,d] */
    LH_LSE,      /* [B,H,S] natural logarithm of the row's sum of exponentials */
    LH_OUT,      /* [B,H,N,d] */
    LH_COVERAGE, /* [B,H,N] int32: entries each position received */
    LH_DOUT,     /* [B,H,N,d] */
    LH_DO_SEL,   /* [B,H,S,d] */
    LH_DQ_SEL,   /* [B,H,S,d] */
    LH_DK_SEL,   /* [B,H,S,d] per query head */
    LH_DV_SEL,   /* [B,H,S,d] per query head */
    LH_DQ,       /* [B,H,N,d] */
    LH_DK,       /* [B,G,N,d] */
    LH_DV,       /* [B,G,N,d] */
    LH_TENSOR_COUNT
} lh_tensor_id;

LH_API const char *lh_tensor_name(lh_tensor_id id); /* "q", "q_pyr", ... */
/* LH_TENSOR_COUNT when no tensor has that name. */
LH_API lh_tensor_id lh_tensor_by_name(const char *name);
/* Writes the contiguous tensor `id` of a plan with elements of `dtype` (F64, F32, F16 or BF16), data NULL.
 * score_q, score_k and lse are F32 where dtype is F16 or BF16; index is I32 or I64; coverage I32.
 * LH_OK, LH_INVALID (configuration, dtype or id). */
LH_API lh_status lh_tensor_describe(const lh_config *config, lh_dtype dtype, lh_tensor_id id,
                                    lh_tensor *tensor, lh_error *error);
LH_API int64_t lh_tensor_elements(const lh_tensor *tensor);
LH_API bool lh_tensor_contiguous(const lh_tensor *tensor);
/* Copies src into dst, element by element, converting between floating types with one rounding
 * (to nearest, ties to even). Shapes must agree; strides and dtypes may differ; integers only
 * convert to integers that hold the value. Host memory. LH_OK, LH_INVALID naming the dimension or element. */
LH_API lh_status lh_tensor_convert(const lh_tensor *dst, const lh_tensor *src, lh_error *error);
/* LH_OK, or LH_INVALID naming `name` and the first element that is NaN or infinite. Host memory. */
LH_API lh_status lh_tensor_finite(const lh_tensor *tensor, const char *name, lh_error *error);

/* ---- stages: SPEC sections 3 and 4 -------------------------------------------------------- */

typedef enum lh_stage {
    LH_POOL,             /* q k v                      -> q_pyr k_pyr v_pyr */
    LH_SCORE,            /* q k                        -> score_q score_k */
    LH_SELECT,           /* score_q score_k            -> index */
    LH_GATHER,           /* q_pyr k_pyr v_pyr index    -> q_sel k_sel v_sel */
    LH_ATTEND,           /* q_sel k_sel v_sel          -> o_sel lse */
    LH_SCATTER,          /* o_sel index                -> out coverage */
    LH_SCATTER_BACKWARD, /* dout index                 -> do_sel */
    LH_ATTEND_BACKWARD,  /* q_sel k_sel v_sel o_sel lse do_sel -> dq_sel dk_sel dv_sel */
    LH_UNPOOL,           /* dq_sel dk_sel dv_sel index -> dq dk dv (pool and gather backward in one) */
    LH_STAGE_COUNT
} lh_stage;

LH_API const char *lh_stage_name(lh_stage stage); /* "pool", ..., "unpool" */
/* Lists of tensor ids, each ended by LH_TENSOR_COUNT, and empty for what is no stage. */
LH_API const lh_tensor_id *lh_stage_reads(lh_stage stage);
LH_API const lh_tensor_id *lh_stage_writes(lh_stage stage);

/* ---- backends and devices ----------------------------------------------------------------- */

/* The backends that were built, NULL past the last; 0 is "ref". One is listed even where it finds no device. */
LH_API const char *lh_backend_name(int i);

/* What a backend can do, whatever the device. */
typedef struct lh_capabilities {
    unsigned dtypes;       /* bit 1u << lh_dtype for each that lh_options.dtype may be */
    unsigned attentions;   /* bit 1u << lh_attention likewise */
    bool stages;           /* runs single stages */
    bool device_memory;    /* takes LH_ON_DEVICE */
    bool numbered_devices; /* lh_options.device chooses among several; else there is device 0 alone */
    bool reference;        /* is what the others are judged by */
} lh_capabilities;

/* Writes what `backend` (NULL: "ref") can do. LH_OK, LH_INVALID when none of that name was built. */
LH_API lh_status lh_backend_query(const char *backend, lh_capabilities *can, lh_error *error);

typedef struct lh_device_info {
    char name[128];
    char driver[128];
    char features[256]; /* readable: instruction sets, fp16, ... */
    uint64_t memory;    /* bytes */
    int compute_units;  /* cores, multiprocessors */
} lh_device_info;

/* Writes how many devices `backend` (NULL: "ref") has here. LH_OK; LH_NO_DEVICE with a line that says what to install when
 * there is none; LH_INVALID (no such backend); LH_DEVICE (a driver failed). */
LH_API lh_status lh_device_count(const char *backend, int *count, lh_error *error);
/* Writes *info. LH_OK, LH_INVALID (backend or device), LH_NO_DEVICE, LH_DEVICE. */
LH_API lh_status lh_device_query(const char *backend, int device, lh_device_info *info, lh_error *error);

/* ---- plans -------------------------------------------------------------------------------- */

typedef enum lh_memory {
    LH_HOST,     /* tensors are host pointers */
    LH_ON_DEVICE /* tensors are device addresses (CUDA) or cl_mem (OpenCL) */
} lh_memory;

typedef enum lh_attention {
    LH_ATTENTION_AUTO,
    LH_ATTENTION_OWN,
    LH_ATTENTION_CUDNN /* cuda only; bf16 and f16 */
} lh_attention;

/*
 * Zeroed options are valid: a forward of "ref" in F64 on host memory with the threads and streams of its own choice.
 *
 * Who waits for whom. With LH_HOST a call returns when its results are in place. With LH_ON_DEVICE a call enqueues its
 * work in `stream` and returns; tensors must have been written, and may be read, by work of that stream, or of another
 * that an event orders against it; the caller waits. So the plan must be told the stream: options without one are
 * refused. CUDA's default streams are named by their handles: cudaStreamLegacy and cudaStreamPerThread, or 0 (the legacy
 * one, PyTorch's default) with stream_given. An OpenCL queue may be out-of-order. A stream must outlive
 * its plans.
 */
typedef struct lh_options {
    const char *backend;  /* NULL: "ref" */
    int device;           /* among lh_device_count */
    lh_dtype dtype;       /* of q, k, v and all that has their type */
    bool backward;        /* the plan will run backward stages too */
    bool stages;          /* the plan will run single stages, not only whole layers */
    bool index_given;     /* lh_forward reads the index tensor instead of selecting */
    bool scores_given;    /* lh_forward reads score_q and score_k instead of taking norms */
    bool profile;         /* collect lh_profile */
    bool finite;          /* refuse NaN and Inf in q, k, v, dout before each whole-layer call (host memory) */
    bool stream_given;    /* `stream` names the stream even where it is NULL: CUDA's legacy default stream */
    bool workspace_given; /* works in what lh_plan_lend gives (openmp; cuda with LH_ON_DEVICE) */
    bool rows_kept; /* lh_backward reads q_sel k_sel v_sel, which lh_forward wrote, instead of q k v; with
                       workspace_given and levels above 1 */
    lh_memory memory;
    lh_attention attention;
    int threads;  /* CPU backends; 0: as OpenMP decides */
    void *stream; /* device backends: a cudaStream_t or cl_command_queue to work in */
    const struct lh_tiles
        *tiles; /* NULL: as suits the device; else what a tuner chose, read by lh_plan_create alone */
    const struct lh_part
        *part; /* NULL; lh_dist_create says with it what part of a layer a plan is, likewise */
} lh_options;

/* Seconds since the plan was made or lh_profile_reset. */
typedef struct lh_profile {
    double seconds[LH_STAGE_COUNT]; /* fused stages are booked under the stage named first in docs */
    double transfer;                /* host to device and back */
    int64_t calls;                  /* whole-layer calls */
} lh_profile;

typedef struct lh_plan lh_plan;

/* Makes a plan, which owns shapes, workspace and compiled kernels; *plan is NULL on error. LH_OK; LH_INVALID (config,
 * options, no such backend or device); LH_UNSUPPORTED (a dtype, memory or attention that the backend does not offer:
 * lh_backend_query tells); LH_NO_DEVICE; LH_NO_MEMORY; LH_DEVICE (a kernel could not be built); LH_FORMAT (a file of
 * tuned tiles is damaged). */
LH_API lh_status lh_plan_create(const lh_config *config, const lh_options *options, lh_plan **plan,
                                lh_error *error);
LH_API void lh_plan_destroy(lh_plan *plan); /* NULL is allowed */
LH_API const lh_config *lh_plan_config(const lh_plan *plan);
LH_API const lh_layout *lh_plan_layout(const lh_plan *plan);
LH_API size_t lh_plan_workspace(const lh_plan *plan); /* bytes the plan holds, all told */
LH_API void lh_plan_profile(const lh_plan *plan, lh_profile *profile);
LH_API void lh_profile_reset(lh_plan *plan);

/*
 * A plan with workspace_given owns no memory that grows with N. Before a whole-layer call it is lent some, which it may use
 * until that call's work is done and keeps nothing in: index, o_sel and lse are always the caller's, so that forwards and
 * backwards of many layers of one shape can share one plan, each with its own piece of an allocator's memory.
 */
enum {
    LH_WORKSPACE_ALIGNMENT = 256
};
/* Bytes that lh_forward, or lh_backward where `backward`, must be lent; 0 for a plan with its own. */
LH_API size_t lh_plan_needs(const lh_plan *plan, bool backward);
/* Lends `bytes` at `memory`, aligned to LH_WORKSPACE_ALIGNMENT, on the plan's device or the host as its tensors are, until
 * the next lh_plan_lend. `stream`, as in lh_options, is where later calls work; CPU plans ignore it. LH_OK; LH_INVALID
 * (a plan without workspace_given, memory that is misaligned); a call for which `bytes` are too few is refused. */
LH_API lh_status lh_plan_lend(lh_plan *plan, void *memory, size_t bytes, void *stream, lh_error *error);

/*
 * Execution. `trace` is an array of LH_TENSOR_COUNT tensors by id; those a call neither reads nor
 * writes are ignored. Tensors have the dtype and shape of lh_tensor_describe. q k v out dout dq dk dv
 * may have any positive strides whose last is 1 ([B,N,H,d] callers need no copy); all others are
 * contiguous. What is written may not overlap what else the call reads or writes, nor itself; tensors may interleave, as
 * views of one packed array do.
 *
 * The rounding direction, flush-to-zero and traps of the calling thread are set aside while a call computes and are
 * back when it returns. In the child of a fork the CPU backends compute on one thread where the parent had several.
 *
 * All three return LH_OK; LH_INVALID, before any work, naming the tensor that differs from the plan; LH_DEVICE;
 * LH_NO_MEMORY (threads or device memory that only executing asks for). After an error outputs are undefined and the plan
 * can be used or destroyed.
 */

/* Runs one stage of a plan with options.stages: reads lh_stage_reads, writes lh_stage_writes. coverage may have data
 * NULL. */
LH_API lh_status lh_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error);

/* Whole layer. Reads q k v (and index when the plan says index_given, score_q score_k when it says scores_given).
 * Writes out, q_sel k_sel v_sel when the plan says rows_kept, and index, o_sel, lse, coverage where their data is not NULL;
 * where index, o_sel or lse are NULL the plan keeps its own until its next forward. */
LH_API lh_status lh_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error);

/* Whole-layer backward of the same q k v. Reads q k v (or q_sel k_sel v_sel when the plan says rows_kept), dout, and index
 * o_sel lse (NULL: the plan's own from its last forward). Overwrites dq dk dv. */
LH_API lh_status lh_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error);

/* ---- checking other implementations -------------------------------------------------------- */

/* Judges somebody else's tensors against the reference: `present` is an array of LH_TENSOR_COUNT host tensors by id, data
 * NULL where absent; q and k are there (without v, what hangs on it is not judged), floating tensors may have any floating dtype.
 * None but q, k and v needs to be finite.
 * *report receives JSON (ok, verdict, verdicts by tensor, judged, not_judged, first_wrong, the known faults that explain it, the same as text), to
 * be freed with lh_text_free; NULL when nothing could be judged. LH_OK: all right; LH_MISMATCH: something is wrong, or
 * not all that is computed could be judged; LH_INVALID (configuration, shapes); LH_NO_MEMORY. */
LH_API lh_status lh_check(const lh_config *config, const lh_tensor *present, char **report, lh_error *error);
LH_API void lh_text_free(char *text); /* NULL is allowed */

#ifdef __cplusplus
}
#endif
#endif
