/*
 * openmp.h: Lighthouse Attention on CPUs, with OpenMP over heads and tiles and vectors inside.
 *
 * Every file here but backend.c is compiled once per instruction set (meson.build), LH_CPU_SET naming it; the
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
struct cpu_build {
    const char *name;
    /* Lays the plan's workspace out from `base` on and returns its bytes, SIZE_MAX when they overflow. */
    size_t (*arrange)(const lh_plan *plan, void *base);
    lh_execute_fn *stage[LH_STAGE_COUNT];
    lh_execute_fn *forward, *backward, *gather_tokens;
};

/* Attention works on query tiles of so many rows, against key tiles of so many. */
enum {
    CPU_TILE = 96,
    CPU_KEY_TILE = 64,
    CPU_KEY_TILE_BACKWARD = 96,
    CPU_KEY_ROWS = 192,    /* a whole number of either */
    CPU_STRIPE_TILES = 10, /* query tiles that the backward takes at a time */
};

/* Sizes of attention over S rows that follow from the configuration and the instruction set. */
struct cpu_sizes {
    int64_t rows;           /* S */
    int64_t tiles;          /* query tiles */
    int64_t key_rows;       /* S rounded up to whole key tiles */
    int64_t dim;            /* d */
    int64_t dim_group;      /* d rounded up to whole groups of broadcast rows */
    int64_t dim_vector;     /* d rounded up to whole vectors */
    int64_t heads_forward;  /* heads worked on at a time */
    int64_t heads_backward; /* likewise; whole groups that share a key/value head */
    int64_t groups;         /* partial sums of dq_sel per head, fixed whatever the number of threads */
    int64_t first_tile;     /* query tiles before this one are not wanted */
};

struct cpu_state {
    const struct cpu_build *build;
    int threads;
    void *memory;
    struct cpu_sizes sizes;
    lh_tensor index, o_sel, lse; /* kept for backward where the caller keeps none; data NULL if never */
    float *score_q, *score_k;    /* [B,H,P] [B,G,P] */
    int32_t *slot;               /* [B,H,P] where in the sub-sequence an entry stands, -1 if nowhere */
    float *pack;                 /* attention's operands, see attend.c and attend_backward.c */
    char *scratch;               /* scratch_bytes per thread */
    size_t scratch_bytes;
};

/* The builds that this CPU can run, widest first; NULL past the last. */
const struct cpu_build *cpu_build_at(int i);
/* For tests: plans made from now on use cpu_build_at(i). 0 is the default. */
void cpu_build_force(int i);

#ifdef LH_CPU_SET
#define CPU_PASTE_NAMES(name, set) name##_##set
#define CPU_PASTE(name, set) CPU_PASTE_NAMES(name, set)
#define CPU_NAME(name) CPU_PASTE(name, LH_CPU_SET)
#define CPU_TEXT_OF(name) #name
#define CPU_TEXT(name) CPU_TEXT_OF(name)
#define cpu_build_table CPU_NAME(cpu_build)
#define cpu_arrange CPU_NAME(cpu_arrange)
#define cpu_rows_of CPU_NAME(cpu_rows_of)
#define cpu_read_row CPU_NAME(cpu_read_row)
#define cpu_write_row CPU_NAME(cpu_write_row)
#define cpu_pull CPU_NAME(cpu_pull)
#define cpu_slots CPU_NAME(cpu_slots)
#define cpu_pool CPU_NAME(cpu_pool)
#define cpu_score CPU_NAME(cpu_score)
#define cpu_select CPU_NAME(cpu_select)
#define cpu_gather CPU_NAME(cpu_gather)
#define cpu_gather_tokens CPU_NAME(cpu_gather_tokens)
#define cpu_scatter CPU_NAME(cpu_scatter)
#define cpu_scatter_backward CPU_NAME(cpu_scatter_backward)
#define cpu_unpool CPU_NAME(cpu_unpool)
#define cpu_attend CPU_NAME(cpu_attend)
#define cpu_attend_backward CPU_NAME(cpu_attend_backward)
#define cpu_select_bytes CPU_NAME(cpu_select_bytes)
#define cpu_pool_bytes CPU_NAME(cpu_pool_bytes)
#define cpu_forward_bytes CPU_NAME(cpu_forward_bytes)
#define cpu_forward_floats CPU_NAME(cpu_forward_floats)
#define cpu_backward_floats CPU_NAME(cpu_backward_floats)
#define cpu_stage_attend CPU_NAME(cpu_stage_attend)
#define cpu_stage_attend_backward CPU_NAME(cpu_stage_attend_backward)
#define cpu_forward CPU_NAME(cpu_forward)
#define cpu_backward CPU_NAME(cpu_backward)

static inline struct cpu_state *cpu_state(const lh_plan *plan)
{
    return plan->state;
}

/* The calling thread's scratch, 64-byte aligned. */
static inline void *cpu_scratch(const struct cpu_state *state)
{
    return state->scratch + (size_t)omp_get_thread_num() * state->scratch_bytes;
}

/* Head `head` of the B*H query heads: where its rows begin in a [B,X,*,*] tensor, X being H or G. */
static inline int64_t cpu_head_offset(const lh_plan *plan, const lh_tensor *t, int64_t head)
{
    const int64_t heads = plan->config.heads;
    return lh_offset(t, head / heads, head % heads / (heads / t->shape[1]), 0);
}

static inline char *cpu_at(const void *data, lh_dtype dtype, int64_t element)
{
    return (char *)data + element * (int64_t)lh_dtype_size(dtype);
}

/* Books the time since *since under `stage` and starts anew. */
static inline void cpu_book(lh_plan *plan, lh_stage stage, double *since)
{
    if (!plan->options.profile)
        return;
    const double now = lh_seconds();
    plan->profile.seconds[stage] += now - *since;
    *since = now;
}

/* rows.c: rows of one head, read as float32. */
enum cpu_reading {
    CPU_ROW,    /* row s itself */
    CPU_MEAN,   /* mean over the window of entry index[s]: gather and pool in one (SPEC 3.1, 3.5) */
    CPU_SPREAD, /* sum over the positions that entry index[s] is scattered to (SPEC 4, do_sel) */
};
struct cpu_rows {
    const lh_plan *plan;
    const void *data; /* row 0 */
    lh_dtype dtype;
    int64_t stride; /* elements from row to row */
    enum cpu_reading reading;
    const lh_tensor *index; /* not read by CPU_ROW */
    int64_t at;             /* the head's first element of index */
};
/* The rows of query head `head` of t; a NULL index is CPU_ROW. */
struct cpu_rows cpu_rows_of(const lh_plan *plan, const lh_tensor *t, int64_t head, enum cpu_reading reading,
                            const lh_tensor *index);
/* row: [d] */
void cpu_read_row(const struct cpu_rows *rows, int64_t s, float *row);
/* data[at ... at+d) <- row: [d] */
void cpu_write_row(void *data, lh_dtype dtype, int64_t at, const float *row, int64_t d);

/* scatter.c: out[j] = sum over l of weight[l] x[slot(l, place of j at level l)], fine to coarse. */
struct cpu_pull {
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
void cpu_pull(const lh_plan *plan, const struct cpu_pull *pull);
/* index -> the plan's slot */
void cpu_slots(const lh_plan *plan, const lh_tensor *index);

/* attend.c, attend_backward.c: q k v over S rows that are tensor rows, or means where index is given. */
struct cpu_attention {
    lh_tensor q, k, v;      /* [B,H|G,*,d] */
    const lh_tensor *index; /* NULL: rows as they are */
    lh_tensor o[2];         /* [B,H,S,d], strided; data NULL where unwanted. Backward reads the first. */
    lh_tensor lse;          /* [B,H,S], data NULL where unwanted */
    lh_tensor dout;         /* rows as they are, or spread over index's windows */
    lh_tensor dq, dk, dv;   /* [B,H|G,*,d]; summed over windows where index is given */
};
void cpu_attend(lh_plan *plan, const struct cpu_attention *job);
void cpu_attend_backward(lh_plan *plan, const struct cpu_attention *job);

/* Scratch that each needs: bytes per thread, floats of cpu_state.pack. */
size_t cpu_select_bytes(const lh_plan *plan);
size_t cpu_pool_bytes(const lh_plan *plan);
size_t cpu_forward_bytes(const struct cpu_sizes *sizes);
size_t cpu_forward_floats(const struct cpu_sizes *sizes);
size_t cpu_backward_floats(const struct cpu_sizes *sizes);

/* The scores, the index and the whole stages. */
lh_execute_fn cpu_pool, cpu_score, cpu_select, cpu_gather, cpu_gather_tokens, cpu_stage_attend, cpu_scatter,
    cpu_scatter_backward, cpu_stage_attend_backward, cpu_unpool, cpu_forward, cpu_backward;
#endif

#endif
