/*
 * lighthouse_dist.h: one layer of Lighthouse Attention over many ranks.
 *
 * A tile of the selection is a run of consecutive tokens. So with the N tokens cut into W runs of whole tiles, rank r
 * holding tokens r N/W ... (r+1) N/W - 1, all but two things are local: attention over the S selected rows, and the
 * p^(L-1) - 1 positions of the scatter behind each edge. The selected rows of the ranks, one after another, are the
 * sub-sequence of one machine. Conventions are those of lighthouse.h; docs/distributed.md says what travels.
 *
 * Every rank makes the same calls in the same order. What one rank refuses, all refuse: the status and line of the
 * lowest rank that has one, "rank 2: ..." on the others.
 */
#ifndef LIGHTHOUSE_DIST_H
#define LIGHTHOUSE_DIST_H

#include "lighthouse.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what a transport does ---------------------------------------------------------------- */

/* `count` runs of `bytes` bytes, `stride` bytes apart, to or from rank `peer`. */
typedef struct lh_block {
    int peer;
    void *data;
    size_t bytes, stride;
    int64_t count;
} lh_block;

enum {
    LH_EXCHANGES = 4 /* exchanges that a rank may have begun and not finished */
};

/*
 * One exchange among all ranks: the i-th receive from rank s gets the i-th send of rank s to this rank; runs and their
 * bytes agree on both sides. Ranks begin exchanges in the same order and may finish them in any. Blocks and what they
 * point to stay as they are until the exchange is finished. A rank may send to itself.
 * LH_DEVICE when another rank has failed or gone: the exchange is of no use any more.
 */
typedef struct lh_exchange {
    int rank, ranks;
    void *context;
    lh_status (*begin)(void *context, const lh_block *sends, int send_count, const lh_block *receives,
                       int receive_count, int *request, lh_error *error);
    lh_status (*finish)(void *context, int request, lh_error *error);
    /* What is begun goes on while the rank computes. A plan then holds a second piece of heads, on its way while the first
     * is attended over; else one is enough. */
    bool background;
    bool together; /* ranks are threads of one process: no backend that works on a device */
} lh_exchange;

/* Runs `work` on `ranks` threads of this process, an exchange among them each. Returns when all have; the status of the
 * lowest rank whose own it was. Threads that wait for a rank that has failed are told so. */
typedef lh_status lh_rank_fn(const lh_exchange *exchange, void *context, lh_error *error);
LH_API lh_status lh_dist_threads(int ranks, lh_rank_fn *work, void *context, lh_error *error);

/* ---- a layer over ranks ------------------------------------------------------------------- */

typedef enum lh_dist_layout {
    LH_DIST_AUTO,     /* by heads where the ranks divide batch * heads, else by rows */
    LH_DIST_BY_HEADS, /* each rank attends over all S rows for its share of the heads: the bits of one machine */
    LH_DIST_BY_ROWS, /* each rank attends for its share of the rows of every head: dk and dv differ by rounding */
} lh_dist_layout;

LH_API const char *lh_dist_layout_name(lh_dist_layout layout); /* "auto", "heads", "rows" */

/* The configuration of one rank's part: tokens N/W, topk k/W. LH_INVALID where `ranks` does not divide the tiles k/m
 * (the tokens, where levels is 1). */
LH_API lh_status lh_dist_part(const lh_config *config, int ranks, lh_config *part, lh_error *error);

/* Seconds and traffic of this rank since the plan was made. */
typedef struct lh_dist_profile {
    double local;    /* score, select, gather, scatter, unpool, conversions */
    double attend;   /* attention, forward and backward */
    double exchange; /* waiting for and copying what travels */
    uint64_t bytes;  /* sent to other ranks */
    int64_t messages;
} lh_dist_profile;

typedef struct lh_dist_plan lh_dist_plan;

/* `config` is the whole layer's; options.memory is LH_HOST, options.attention and stream are handed on. The exchange is
 * used until the plan is destroyed. LH_INVALID also where ranks disagree about the configuration. */
LH_API lh_status lh_dist_create(const lh_config *config, const lh_options *options, lh_dist_layout layout,
                                const lh_exchange *exchange, lh_dist_plan **plan, lh_error *error);
LH_API void lh_dist_destroy(lh_dist_plan *plan);                  /* NULL is allowed; travels nowhere */
LH_API const lh_config *lh_dist_config(const lh_dist_plan *plan); /* of this rank's part */
LH_API lh_dist_layout lh_dist_layout_of(const lh_dist_plan *plan);
/* True where tensor `id` has the bits that lh_forward and lh_backward give for the whole layer. By heads all have; by
 * rows all but dk and dv. Of backend ref in F64 alone, of openmp in all its dtypes; other backends promise none. */
LH_API bool lh_dist_same_bits(const lh_dist_plan *plan, lh_tensor_id id);
LH_API size_t lh_dist_workspace(const lh_dist_plan *plan); /* bytes the plan holds, all told */
LH_API void lh_dist_get_profile(const lh_dist_plan *plan, lh_dist_profile *profile);

/*
 * As lh_forward and lh_backward, on this rank's part: tensors have the shapes of lh_tensor_describe for lh_dist_config.
 * index counts entries of the rank's own pyramid; lse and o_sel are the rank's rows of the whole sub-sequence.
 */
LH_API lh_status lh_dist_forward(lh_dist_plan *plan, const lh_tensor *trace, lh_error *error);
LH_API lh_status lh_dist_backward(lh_dist_plan *plan, const lh_tensor *trace, lh_error *error);

/* ---- by heads, where the caller moves the rows -------------------------------------------------- */

/*
 * For a caller whose transport moves tensors itself, on devices too (PyTorch's torch.distributed). It makes two plans of the
 * whole layer's `config`, with options.memory as it likes (options.stages is taken as true), and between their calls
 * sends rows as "by heads" says. The bits are those of lh_forward and lh_backward; what crosses an edge is the caller's to add.
 */
/* This rank's tokens, the configuration being lh_dist_part's: lh_dist_select, LH_SCATTER, LH_SCATTER_BACKWARD, LH_UNPOOL. As
 * lh_plan_create; LH_INVALID also as lh_dist_part. */
LH_API lh_status lh_dist_local(const lh_config *config, const lh_options *options, int ranks, lh_plan **plan,
                               lh_error *error);
/* All S rows of `sequences` of the batch * heads, the configuration being dense, [1,sequences,S,d]: LH_ATTEND,
 * LH_ATTEND_BACKWARD. As lh_plan_create; LH_INVALID also where sequences is below 1. */
LH_API lh_status lh_dist_attention(const lh_config *config, const lh_options *options, int64_t sequences,
                                   lh_plan **plan, lh_error *error);
/* q k v -> score_q score_k index q_sel k_sel v_sel, as LH_SCORE, LH_SELECT, LH_POOL and LH_GATHER, without a pyramid in memory. LH_OK,
 * LH_INVALID, LH_DEVICE; LH_UNSUPPORTED by a backend that has only the stages (opencl). */
LH_API lh_status lh_dist_select(lh_plan *local, const lh_tensor *trace, lh_error *error);

/* Entry offset(l) + i of rank r's pyramid is offset(l) + i + r N/(W p^l) of the whole one, each with its own offsets.
 * Copies the rows of `rank` between part [B,H,S/W] and whole [B,H,S], both contiguous host memory in the index dtype of
 * their configuration. `config` is the whole layer's, one that lh_dist_part takes. */
LH_API void lh_dist_index_to_whole(const lh_config *config, int rank, int ranks, const lh_tensor *part,
                                   const lh_tensor *whole);
LH_API void lh_dist_index_to_part(const lh_config *config, int rank, int ranks, const lh_tensor *whole,
                                  const lh_tensor *part);

#ifdef __cplusplus
}
#endif
#endif
