/*
 * explain.h: one head of one small layer, opened up: what `lighthouse explain` prints and draws.
 *
 * Every number comes out of the reference (scalar/run.h) and every choice is read off its index; what is derived here,
 * ranks and attention weights, is held to that index and to lse before anything is shown.
 */
#ifndef LH_EXPLAIN_H
#define LH_EXPLAIN_H

#include <stdio.h>

#include "core/backend.h"

enum {
    EXPLAIN_MAX_TOKENS = 256, /* more can be neither printed nor drawn */
    EXPLAIN_VARIANTS = 5,     /* of the layer, in explain_leak */
};

/* What became of a pyramid entry (SPEC 3.3). */
typedef enum explain_role {
    EXPLAIN_ABSENT,       /* never a candidate: an ancestor stayed a leaf */
    EXPLAIN_LEAF,         /* selected, not opened */
    EXPLAIN_QUERY_PARENT, /* opened, chosen by its query score */
    EXPLAIN_KEY_PARENT,   /* opened, chosen by its key score among those that the query scores left */
} explain_role;

typedef struct explain {
    lh_config config; /* batch, heads and kv_heads are 1 */
    lh_layout layout;
    char source[160];                       /* where the tensors come from, for headings */
    unsigned char text[EXPLAIN_MAX_TOKENS]; /* the sentence's bytes; only where has_text */
    bool has_text;
    bool backward;                        /* dout is there, and everything after it */
    int64_t gradient;                     /* dout is 1 at this token and 0 elsewhere; -1: as given */
    lh_tensor trace[LH_TENSOR_COUNT];     /* F64; index I64, coverage I32 */
    const double *value[LH_TENSOR_COUNT]; /* their data, NULL for index and coverage */
    const int64_t *index;                 /* [S] */
    const int32_t *coverage;              /* [N] */
    int64_t *slot;                        /* [P] place in the sub-sequence, -1 where not selected */
    explain_role *role;                   /* [P] */
    int64_t *query_rank; /* [P] place among the candidates of its level and tile, 1 the strongest */
    int64_t *key_rank;   /* [P] likewise among those not chosen by query; 0 for the chosen */
    double *weights;     /* [S,S] attention weights, 0 where s' > s */
    int64_t probed;      /* explain_leak's token */
    bool moved[EXPLAIN_VARIANTS][EXPLAIN_MAX_TOKENS];
    void *memory; /* all of the above */
} explain;

/* Where the tensors come from. Each fills q, k, v and, where there is one, dout. */
/* "twelve": docs/algorithm.md; "six": SPEC 9's look-ahead; "six-grown": the same with q[5] = 9. LH_INVALID for others. */
lh_status explain_example(explain *e, const char *name, lh_error *error);
/* One token a byte: q, k, v of d = `dim` drawn by counter from `seed` and the byte's value, so that equal bytes are equal
 * tokens. config gives levels, pool, topk, tile_topk; the text is padded with spaces to a valid length. */
lh_status explain_sentence(explain *e, const char *text, const lh_config *config, uint64_t seed,
                           lh_error *error);
/* Tensors of one layer [B,H,N,d] in host memory, any floating dtype, dout data NULL where absent: head (batch, head). */
lh_status explain_head(explain *e, const lh_config *config, const lh_tensor *q, const lh_tensor *k,
                       const lh_tensor *v, const lh_tensor *dout, int64_t batch, int64_t head,
                       lh_error *error);

/* Runs the reference over them and derives the rest. gradient: -1, or the token whose output is differentiated. */
lh_status explain_run(explain *e, int64_t gradient, lh_error *error);
void explain_free(explain *e); /* all zero is allowed */

/* The steps, in order. */
typedef enum explain_step {
    EXPLAIN_POOL,
    EXPLAIN_SCORE,
    EXPLAIN_SELECT,
    EXPLAIN_ORDER,
    EXPLAIN_ATTEND,
    EXPLAIN_SCATTER,
    EXPLAIN_BACKWARD,
    EXPLAIN_STEPS,
} explain_step;

const char *explain_step_name(explain_step step);
/* One step as text. EXPLAIN_BACKWARD prints nothing without e->backward. */
void explain_print(const explain *e, explain_step step, FILE *to);
void explain_print_configuration(const explain *e, FILE *to);
/* Whom token `token` hears from, and who hears it. */
void explain_token(const explain *e, int64_t token, FILE *to);
/* Why pyramid entry `entry` was selected or not, opened or not, and what would change it. */
void explain_why(const explain *e, int64_t entry, FILE *to);

/* Adds 1 to q, k and v of `token` and notes which outputs move: in the layer as it is meant, without its shift, without its
 * mask, with parents in front of what they hold, and with the index chosen anew. After explain_run. */
lh_status explain_leak(explain *e, int64_t token, lh_error *error);
const char *explain_variant_name(int variant);
void explain_print_leak(const explain *e, FILE *to);

/* The steps of the set (a bit each) as one SVG document, one below the other; the bit EXPLAIN_STEPS is explain_leak's. */
lh_status explain_write_svg(const explain *e, unsigned steps, const char *path, lh_error *error);

/* ---- shared by the parts of this folder ---- */

static inline int explain_level(const explain *e, int64_t entry)
{
    return lh_level_of(&e->layout, (int)e->config.levels, entry);
}

/* Tokens of an entry: its window [first, first + size). */
typedef struct explain_window {
    int64_t first, size;
} explain_window;
explain_window explain_tokens(const explain *e, int64_t entry);
/* Positions an entry is written to (SPEC 3.7), clipped at N; size may be less than the window's. */
explain_window explain_positions(const explain *e, int64_t entry);
/* The entry of a level that holds `token`, and the one that position `token` receives or -1 (SPEC 3.7). */
int64_t explain_above(const explain *e, int level, int64_t token);
int64_t explain_received(const explain *e, int level, int64_t token);
/* Tile of an entry of level 1 and up. */
int64_t explain_tile(const explain *e, int64_t entry);
bool explain_is_parent(const explain *e, int64_t entry);
/* "6" or "4-7": text holds 48 bytes and is returned. */
const char *explain_range(explain_window window, char *text);
/* The norm of row `row` of tensor id; of d = 1 the value itself. */
double explain_size(const explain *e, lh_tensor_id id, int64_t row);
/* At most 5 characters: "1.386", "-0.25", "12.3"; text holds 32 bytes and is returned. */
const char *explain_number(double value, char *text);

/* The pictures: each draws below y and returns the y below itself. */
typedef double explain_draw(const explain *e, explain_step step, FILE *svg, double y);
explain_draw explain_draw_pyramid, explain_draw_order, explain_draw_attend, explain_draw_scatter,
    explain_draw_backward;
double explain_draw_leak(const explain *e, FILE *svg, double y);
/* Width of a token's column and the x where token 0 begins, in every picture. */
double explain_column(const explain *e);
#define EXPLAIN_LEFT 116.0
/* Text with what XML reserves escaped. */
void svg_escape(FILE *svg, const char *text);
void svg_box(FILE *svg, double x, double y, double width, double height, const char *class);
void svg_line(FILE *svg, double x1, double y1, double x2, double y2, const char *class);
__attribute__((format(printf, 5, 6))) void svg_text(FILE *svg, double x, double y, const char *class,
                                                    const char *format, ...);
/* The token axis: numbers, and the sentence's letters where there is one. */
double svg_tokens(const explain *e, FILE *svg, double y);

#endif
