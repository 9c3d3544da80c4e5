/*
 * openmp.h: Lighthouse Attention on CPUs, with OpenMP over heads and tiles and vectors inside.
 *
 * Every file here but backend.c is compiled once per instruction set (meson.build), LH_OMP_SET naming it; the
 * widest that this CPU has is chosen when a plan is made. Plain names below are renamed per build.
 *
 * Same bits at any number of threads: whatever a thread writes it owns, and every sum has an order that
 * follows from the configuration alone. Nothing here is atomic and nothing allocates while it executes.
 */
#ifndef LH_OPENMP_OPENMP_H
#define LH_OPENMP_OPENMP_H

#include <omp.h>

#include "core/backend.h"

/* What one instruction set offers; backend.c picks one. */
struct lh_omp_build {
    const char *name;
    /* Lays the plan's workspace out from `base` on and returns its bytes, SIZE_MAX when they overflow. */
    size_t (*arrange)(const lh_plan *plan, void *base);
    lh_execute_fn *stage[LH_STAGE_COUNT];
    lh_execute_fn *forward, *backward, *gather_tokens;
    const struct lh_windows *windows;
};

enum {
    LH_OMP_TILE = 96, /* attention works on tiles of so many queries against so many keys */
    LH_OMP_ROWS_OF_WINDOWS = LH_OMP_TILE, /* a whole number of tiles */
    LH_OMP_STRIPE_TILES =
        10, /* query tiles that the backward takes at a time, of a head that is there whole */
};

/* Sizes of attention over S rows that follow from the configuration and the instruction set. */
struct lh_omp_sizes {
    int64_t rows;           /* S */
    int64_t tiles;          /* of queries, and of keys */
    int64_t key_rows;       /* S rounded up to whole tiles */
    int64_t dim;            /* d */
    int64_t dim_group;      /* d rounded up to whole groups of broadcast rows */
    int64_t dim_vector;     /* d rounded up to whole vectors */
    int64_t heads_forward;  /* heads worked on at a time */
    int64_t heads_backward; /* likewise; whole groups that share a key/value head */
    int64_t groups;         /* partial sums of dq_sel per head, fixed whatever the number of threads */
    int64_t sums;           /* of those, there at a time: all, but for a window's */
    int64_t heads_window;   /* heads of a window, 0 in a plan that has none */
    int64_t first_tile;     /* query tiles before this one are not wanted */
    int64_t stripe_tiles;   /* query tiles that the backward takes at a time */
};

struct lh_omp_state {
    const struct lh_omp_build *build;
    int threads;
    void *memory; /* of `bytes`; NULL in a plan with workspace_given */
    size_t bytes;
    struct lh_omp_sizes sizes;
    lh_tensor index, o_sel, lse; /* kept for backward where the caller keeps none; data NULL if never */
    float *score_q, *score_k;    /* [B,H,P] [B,G,P] */
    int32_t *slot;               /* [B,H,P] where in the sub-sequence an entry stands, -1 if nowhere */
    float *pack;                 /* attention's operands, see attend.c and attend_backward.c */
    char *scratch;               /* scratch_bytes per thread */
    size_t scratch_bytes;
};

/* The builds that this CPU can run, widest first; NULL past the last. */
const struct lh_omp_build *lh_omp_build_at(int i);
/* For tests: plans made from now on use lh_omp_build_at(i). 0 is the default. */
void lh_omp_build_force(int i);

/* parallel.c: body(plan, job, i, scratch) for every i < count, on the plan's threads, `chunk` pieces at a time as threads
 * come free, or in equal parts where chunk is 0. scratch: the thread's own scratch_bytes, 64-byte aligned. */
typedef void lh_omp_body(const lh_plan *plan, const void *job, int64_t i, void *scratch);
void lh_omp_for(const lh_plan *plan, int64_t count, int chunk, lh_omp_body *body, const void *job);
/* As many of `wanted` threads as this process can have now; 1 in the child of a fork that lost them. */
int lh_omp_threads(int wanted);

#ifdef LH_OMP_SET
#define LH_OMP_PASTE_NAMES(name, set) name##_##set
#define LH_OMP_PASTE(name, set) LH_OMP_PASTE_NAMES(name, set)
#define LH_OMP_NAME(name) LH_OMP_PASTE(name, LH_OMP_SET)
#define LH_OMP_TEXT_OF(name) #name
#define LH_OMP_TEXT(name) LH_OMP_TEXT_OF(name)
#define lh_omp_build_table LH_OMP_NAME(lh_omp_build)
#define lh_omp_arrange LH_OMP_NAME(lh_omp_arrange)
#define lh_omp_rows_of LH_OMP_NAME(lh_omp_rows_of)
#define lh_omp_row LH_OMP_NAME(lh_omp_row)
#define lh_omp_fetch_row LH_OMP_NAME(lh_omp_fetch_row)
#define lh_omp_write_row LH_OMP_NAME(lh_omp_write_row)
#define lh_omp_pull LH_OMP_NAME(lh_omp_pull)
#define lh_omp_slots LH_OMP_NAME(lh_omp_slots)
#define lh_omp_pool LH_OMP_NAME(lh_omp_pool)
#define lh_omp_score LH_OMP_NAME(lh_omp_score)
#define lh_omp_select LH_OMP_NAME(lh_omp_select)
#define lh_omp_gather LH_OMP_NAME(lh_omp_gather)
#define lh_omp_gather_tokens LH_OMP_NAME(lh_omp_gather_tokens)
#define lh_omp_scatter LH_OMP_NAME(lh_omp_scatter)
#define lh_omp_scatter_backward LH_OMP_NAME(lh_omp_scatter_backward)
#define lh_omp_unpool LH_OMP_NAME(lh_omp_unpool)
#define lh_omp_attend LH_OMP_NAME(lh_omp_attend)
#define lh_omp_attend_backward LH_OMP_NAME(lh_omp_attend_backward)
#define lh_omp_select_bytes LH_OMP_NAME(lh_omp_select_bytes)
#define lh_omp_pool_bytes LH_OMP_NAME(lh_omp_pool_bytes)
#define lh_omp_forward_bytes LH_OMP_NAME(lh_omp_forward_bytes)
#define lh_omp_forward_floats LH_OMP_NAME(lh_omp_forward_floats)
#define lh_omp_window_bytes LH_OMP_NAME(lh_omp_window_bytes)
#define lh_omp_window_floats LH_OMP_NAME(lh_omp_window_floats)
#define lh_omp_pack_keys LH_OMP_NAME(lh_omp_pack_keys)
#define lh_omp_attend_tiles LH_OMP_NAME(lh_omp_attend_tiles)
#define lh_omp_windows LH_OMP_NAME(lh_omp_windows)
#define lh_omp_backward_floats LH_OMP_NAME(lh_omp_backward_floats)
#define lh_omp_stripe_floats LH_OMP_NAME(lh_omp_stripe_floats)
#define lh_omp_partial_floats LH_OMP_NAME(lh_omp_partial_floats)
#define lh_omp_stripe_in LH_OMP_NAME(lh_omp_stripe_in)
#define lh_omp_pack_queries LH_OMP_NAME(lh_omp_pack_queries)
#define lh_omp_pair LH_OMP_NAME(lh_omp_pair)
#define lh_omp_sum_partials LH_OMP_NAME(lh_omp_sum_partials)
#define lh_omp_stage_attend LH_OMP_NAME(lh_omp_stage_attend)
#define lh_omp_stage_attend_backward LH_OMP_NAME(lh_omp_stage_attend_backward)
#define lh_omp_forward LH_OMP_NAME(lh_omp_forward)
#define lh_omp_backward LH_OMP_NAME(lh_omp_backward)

static inline struct lh_omp_state *lh_omp_state(const lh_plan *plan)
{
    return plan->state;
}

/* Head `head` of the B*H query heads: where its rows begin in a [B,X,*,*] tensor, X being H or G. */
static inline int64_t lh_omp_head_offset(const lh_plan *plan, const lh_tensor *t, int64_t head)
{
    const int64_t heads = plan->config.heads;
    return lh_offset(t, head / heads, head % heads / (heads / t->shape[1]), 0);
}

static inline int64_t lh_omp_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline char *lh_omp_at(const void *data, lh_dtype dtype, int64_t element)
{
    return (char *)data + element * (int64_t)lh_dtype_size(dtype);
}

/* Books the time since *since under `stage` and starts anew. */
static inline void lh_omp_book(lh_plan *plan, lh_stage stage, double *since)
{
    if (!plan->options.profile)
        return;
    const double now = lh_seconds();
    plan->profile.seconds[stage] += now - *since;
    *since = now;
}

/* rows.c: rows of one head, read as float32. */
enum lh_omp_reading {
    LH_OMP_ROW,    /* row s itself */
    LH_OMP_MEAN,   /* mean over the window of entry index[s]: gather and pool in one (SPEC 3.1, 3.5) */
    LH_OMP_SPREAD, /* sum over the positions that entry index[s] is scattered to (SPEC 4, do_sel) */
};
struct lh_omp_rows {
    const lh_plan *plan;
    const void *data; /* row 0 */
    lh_dtype dtype;
    int64_t stride; /* elements from row to row */
    enum lh_omp_reading reading;
    const lh_tensor *index; /* not read by LH_OMP_ROW */
    int64_t at;             /* the head's first element of index */
};
/* The rows of query head `head` of t; a NULL index is LH_OMP_ROW. */
struct lh_omp_rows lh_omp_rows_of(const lh_plan *plan, const lh_tensor *t, int64_t head,
                                  enum lh_omp_reading reading, const lh_tensor *index);
/* Row s as float32: [d], where it stands in the tensor if it is float32 there, else made in `row`: [d]. */
const float *lh_omp_row(const struct lh_omp_rows *rows, int64_t s, float *row);
/* Asks the memory for row s, read as LH_OMP_ROW. */
void lh_omp_fetch_row(const struct lh_omp_rows *rows, int64_t s);
/* data[at ... at+d) <- row: [d] */
void lh_omp_write_row(void *data, lh_dtype dtype, int64_t at, const float *row, int64_t d);

/* plan.c: as lh_omp_build.arrange. */
size_t lh_omp_arrange(const lh_plan *plan, void *base);

/* slots.c: out[j] = sum over l of weight[l] x[slot(l, place of j at level l)], fine to coarse. */
struct lh_omp_pull {
    const lh_tensor *dst; /* [B,X,rows,d]: X = H, or X = G, which adds up a group's heads in order */
    int32_t *coverage;    /* [B,H,N] or NULL */
    const void *src;      /* of head first_head */
    lh_dtype src_dtype;
    int64_t src_head, src_row; /* elements from head to head and from row to row */
    int64_t first_head, heads; /* query heads that src holds */
    const int32_t *slot;       /* of head 0, [B*H,P]; NULL: row j is x[j] */
    bool shifted;              /* the scatter's shift (SPEC 3.7): place (j+1)/p^l - 1, else j/p^l */
    bool mean;                 /* weight 1/p^l, else 1 */
};
void lh_omp_pull(const lh_plan *plan, const struct lh_omp_pull *pull);
/* index -> the plan's slot */
void lh_omp_slots(const lh_plan *plan, const lh_tensor *index);

/* attend.c, attend_backward.c: q k v over S rows that are tensor rows, or means where index is given. */
struct lh_omp_attention {
    lh_tensor q, k, v;      /* [B,H|G,*,d] */
    const lh_tensor *index; /* NULL: rows as they are */
    bool selected;          /* q k v are rows as they are, whatever index says */
    lh_tensor o[2];         /* [B,H,S,d], strided; data NULL where unwanted. Backward reads the first. */
    lh_tensor lse;          /* [B,H,S], data NULL where unwanted */
    lh_tensor dout;         /* rows as they are, or spread over index's windows */
    int64_t first;          /* the head's row that stands first in q, o, lse and dout */
    lh_tensor dq, dk, dv;   /* [B,H|G,*,d]; summed over windows where index is given */
};
void lh_omp_attend(lh_plan *plan, const struct lh_omp_attention *job);
void lh_omp_attend_backward(lh_plan *plan, const struct lh_omp_attention *job);

/* attend.c: packs k and v into `memory` of lh_omp_forward_floats for all heads at once, and attends for query tiles
 * [from, from + tiles) of them. */
void lh_omp_pack_keys(lh_plan *plan, const struct lh_omp_attention *job, float *memory);
void lh_omp_attend_tiles(lh_plan *plan, const struct lh_omp_attention *job, float *memory, int64_t from,
                         int64_t tiles);

/* Scratch that each needs: bytes per thread, floats of lh_omp_state.pack. */
size_t lh_omp_select_bytes(const lh_plan *plan);
size_t lh_omp_pool_bytes(const lh_plan *plan);
size_t lh_omp_forward_bytes(const struct lh_omp_sizes *sizes);
size_t lh_omp_forward_floats(const struct lh_omp_sizes *sizes);
size_t lh_omp_window_bytes(const struct lh_omp_sizes *sizes);
size_t lh_omp_window_floats(const struct lh_omp_sizes *sizes);
size_t lh_omp_backward_floats(const struct lh_omp_sizes *sizes);

extern const struct lh_windows lh_omp_windows; /* window.c */

/* The scores, the index and the whole stages. */
lh_execute_fn lh_omp_pool, lh_omp_score, lh_omp_select, lh_omp_gather, lh_omp_gather_tokens,
    lh_omp_stage_attend, lh_omp_scatter, lh_omp_scatter_backward, lh_omp_stage_attend_backward, lh_omp_unpool,
    lh_omp_forward, lh_omp_backward;
#endif

#endif
