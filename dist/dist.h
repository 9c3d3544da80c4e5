/*
 * dist.h: one layer over ranks, what its files share. No file here knows a port; ranks_mpi.c and threads.c alone know a
 * transport.
 *
 *   plan.c      what fits, agreement among ranks      memory.c   what it owns
 *   layer.c     forward and backward, a piece of heads at a time: all that is local      piece.c   what of it is shared
 *   halo.c      what the scatter and its backward take from across an edge
 *   heads.c     attention by heads      rows.c   attention by rows
 *   stages.c    what a part is; plans for what is local and for attention by heads, for callers with a transport of their own
 *   window.c    a piece by heads in less memory: k and v whole, queries a window of rows at a time
 *   exchange.c  exchanges of tensors over the one that a transport offers
 */
#ifndef LH_DIST_DIST_H
#define LH_DIST_DIST_H

#include "core/backend.h"
#include "lighthouse_dist.h"

enum {
    DIST_SETS = 2,      /* pieces of heads under way at a time, at most */
    DIST_TRAVELLERS = 6 /* tensors of one exchange at most */
};

/* An exchange that is being made up or under way. */
struct dist_move {
    lh_block *sends, *receives;
    int send_count, receive_count, request;
    bool under_way;
};

/* One piece of heads on its way. */
struct dist_set {
    int64_t piece;
    lh_tensor here[LH_TENSOR_COUNT];  /* this rank's rows of all the piece's heads: [pb,ph,S/W,d] */
    lh_tensor there[LH_TENSOR_COUNT]; /* what this rank attends over, as the layout has it */
    struct dist_move move;
};

/* How attention is shared out. `there` of a set is the layout's own. */
struct dist_attention {
    lh_status (*create)(lh_dist_plan *plan, lh_error *error);
    /* here: q_sel k_sel v_sel, and o_sel lse do_sel in the backward, on their way. */
    lh_status (*begin)(lh_dist_plan *plan, struct dist_set *set, bool backward, lh_error *error);
    /* -> here: o_sel lse; dq_sel dk_sel dv_sel in the backward. */
    lh_status (*attend)(lh_dist_plan *plan, struct dist_set *set, bool backward, lh_error *error);
};
extern const struct dist_attention dist_by_heads, dist_by_rows;

struct lh_dist_plan {
    lh_config config, part, piece; /* the whole layer, this rank's tokens, a piece of their heads */
    lh_layout layout, part_layout, piece_layout;
    lh_options options;
    lh_dtype work; /* what is computed in: F64 where the backend has it, else F32 */
    lh_dist_layout kind;
    const struct dist_attention *attention;
    lh_exchange exchange;
    int64_t pieces;
    int sets;           /* pieces under way at a time */
    int64_t window;     /* rows of a window (window.c); 0: a piece is attended over at once */
    lh_plan *local;     /* score, select, gather, scatter, unpool of a piece */
    lh_plan *attend[2]; /* the layout's */
    struct dist_set set[DIST_SETS];
    struct dist_move back, edge;
    lh_tensor score_q, score_k, pyramid[3]; /* of a piece */
    lh_tensor tokens[3]; /* tensors of the caller in the work dtype, where theirs is another */
    lh_tensor
        out[5]; /* results of a piece's attention here, see dist_results; the layout says where they are */
    lh_tensor scratch[8]; /* the layout's */
    lh_tensor kept[3];    /* index o_sel lse of the last forward, in the plan's dtype */
    bool keeps[3];
    lh_tensor edge_out, edge_in;             /* rows across an edge, see halo.c */
    lh_tensor edge_there_out, edge_there_in; /* whether an entry is there at all, likewise */
    void *owned[64];
    int owned_count;
    size_t workspace;
    char *cards; /* what ranks tell each other, DIST_CARD bytes each */
    lh_dist_profile profile;
};

/* Attention's results in lh_dist_plan.out. */
static const lh_tensor_id dist_results[] = {LH_O_SEL, LH_LSE, LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};

/* Memory that the plan owns. */
lh_status dist_alloc(lh_dist_plan *plan, void **memory, size_t bytes, const char *what, lh_error *error);
/* The tensor `id` of `config` in `dtype`, its memory zero. */
lh_status dist_tensor(lh_dist_plan *plan, const lh_config *config, lh_dtype dtype, lh_tensor_id id,
                      lh_tensor *tensor, lh_error *error);
lh_status dist_move_create(lh_dist_plan *plan, struct dist_move *move, lh_error *error);

/* ---- piece.c ---- */

/* The piece's heads of a tensor of this rank. */
lh_tensor dist_view(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece);
/* The piece's heads of a caller's tensor in the work dtype: themselves, or converted into `buffer`. */
lh_status dist_bring(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece,
                     const lh_tensor *buffer, lh_tensor *brought, lh_error *error);
/* Where a stage is to write the piece's heads of a caller's tensor, */
lh_tensor dist_place(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece,
                     const lh_tensor *buffer);
/* and its way from there to the caller. */
lh_status dist_deliver(const lh_dist_plan *plan, const lh_tensor *t, lh_tensor_id id, int64_t piece,
                       const lh_tensor *placed, lh_error *error);
/* lh_layer_kept[which]: the caller's, or the plan's own. */
lh_tensor dist_kept(const lh_dist_plan *plan, const lh_tensor *trace, int which);
/* q k of a piece in the work dtype -> index, all of that piece */
lh_status dist_select(lh_dist_plan *plan, const lh_tensor *q, const lh_tensor *k, const lh_tensor *index,
                      lh_error *error);
/* The piece's o_sel in the work dtype -> the caller's out and coverage, what crosses the edge included. */
lh_status dist_scatter(lh_dist_plan *plan, const lh_tensor *trace, int64_t piece, const lh_tensor *o_sel,
                       lh_error *error);

/* ---- stages.c ---- */

enum {
    DIST_ATTENDS = 1 << LH_ATTEND | 1 << LH_ATTEND_BACKWARD
};
/* A plan for stages of a part in the work dtype, its memory counted as `plan`'s. */
lh_status dist_stages(lh_dist_plan *plan, const lh_config *config, const struct lh_part *part, lh_plan **made,
                      lh_error *error);
/* By heads: sequences of a piece that are this rank's to attend over, */
int64_t dist_share(const lh_dist_plan *plan);
/* and dense attention over all S rows of so many. */
lh_config dist_attended(const lh_config *config, const lh_layout *layout, int64_t sequences);

/* ---- heads.c, window.c ---- */

/* Rows of a piece's sequences to or from the ranks that attend over them. here: [sequences, S/W, (d)], there:
 * [1, sequences/W, S, (d)] */
void dist_travel(const lh_dist_plan *plan, struct dist_move *move, const lh_tensor *here,
                 const lh_tensor *there, bool back);

enum {
    DIST_WINDOWS_FROM = 8192, /* rows S from which on a sequence is attended over in windows */
    DIST_WINDOW_ROWS =
        1536 /* of a window, all sequences of a piece together, and twice those of one, at most */
};
extern int64_t dist_windows_from; /* DIST_WINDOWS_FROM; tests set it lower */
int64_t dist_window_rows(const lh_dist_plan *plan, const lh_backend *backend); /* 0: no windows */
lh_status dist_window_create(lh_dist_plan *plan, lh_error *error);
lh_status dist_window_forward(lh_dist_plan *plan, const lh_tensor *trace, int64_t piece, lh_error *error);
lh_status dist_window_backward(lh_dist_plan *plan, const lh_tensor *trace, int64_t piece, lh_error *error);

/* ---- exchange.c ---- */

static inline int64_t dist_row_bytes(const lh_tensor *t)
{
    return (t->rank == 4 ? t->shape[3] : 1) * (int64_t)lh_dtype_size(t->dtype);
}

void dist_clear(struct dist_move *move);
/* Rows [first, first + rows) of every head of a contiguous [B,H,rows,(d)] tensor, heads from `head` on. */
void dist_send(struct dist_move *move, int peer, const lh_tensor *t, int64_t head, int64_t heads,
               int64_t first, int64_t rows);
void dist_receive(struct dist_move *move, int peer, const lh_tensor *t, int64_t head, int64_t heads,
                  int64_t first, int64_t rows);
lh_status dist_begin(lh_dist_plan *plan, struct dist_move *move, lh_error *error);
lh_status dist_finish(lh_dist_plan *plan, struct dist_move *move, lh_error *error);
/* What is begun is finished, whatever has failed: others may be at its memory. */
void dist_drain(lh_dist_plan *plan);
/* Every rank's `bytes` bytes of `mine` -> all: [ranks][bytes]. */
lh_status dist_gather_all(const lh_exchange *exchange, const void *mine, size_t bytes, void *all,
                          lh_error *error);
/* The status that all ranks return: mine where it is the lowest rank's that failed, that one's otherwise. */
enum {
    DIST_CARD = 384
};
lh_status dist_agree(const lh_exchange *exchange, lh_status mine, char *cards, lh_error *error);

/* ---- halo.c ---- */

lh_status dist_halo_create(lh_dist_plan *plan, lh_error *error);
/* o_sel, index of a piece -> adds to out (and coverage where it has data) what the left neighbour's last entries write. */
lh_status dist_halo_forward(lh_dist_plan *plan, const lh_tensor *trace, lh_error *error);
/* dout of a piece -> what this rank's last entries wrote on the right neighbour, which dist_halo_add then adds to do_sel */
lh_status dist_halo_backward(lh_dist_plan *plan, const lh_tensor *dout, lh_error *error);
/* do_sel: the piece's rows `first` on */
void dist_halo_add(const lh_dist_plan *plan, const lh_tensor *index, const lh_tensor *do_sel, int64_t first);

#endif
