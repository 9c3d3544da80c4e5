/*
 * verify.h: how a backend, or somebody else's tensors, are judged against the reference.
 *
 * One comparator, one tolerance rule, one table of cases. A stage is judged on inputs both sides share: the
 * reference's own upstream tensors for a backend, the file's own for a dump. docs/verification.md says it in
 * prose. Nothing here knows any one backend; only reference.c, which holds the reference itself to account, does
 * more for "ref" than for the others.
 */
#ifndef LH_VERIFY_H
#define LH_VERIFY_H

#include <stdio.h>

#include "core/backend.h"
#include "core/safetensors.h"
#include "lighthouse_dist.h"

/* ---- buffers: guarded and poisoned (buffer.c) ---------------------------------------------- */

/* Tensors by id; each owns its block. A zeroed trace is empty. */
typedef struct verify_trace {
    lh_tensor tensor[LH_TENSOR_COUNT];
    void *block[LH_TENSOR_COUNT];
    size_t bytes[LH_TENSOR_COUNT];
} verify_trace;

typedef enum verify_strides {
    VERIFY_PACKED,      /* [B,H,N,d] */
    VERIFY_TOKEN_MAJOR, /* [B,N,H,d] in memory, a gap after each token, base aligned to one element only */
} verify_strides;

/* Gives the trace tensor `id` of the configuration: payload poisoned, guards before, after and in gaps. Only
 * tensors that a plan lets be strided follow `strides`. */
lh_status verify_make(verify_trace *trace, const lh_config *config, lh_dtype dtype, lh_tensor_id id,
                      verify_strides strides, lh_error *error);
/* All tensors of the configuration. */
lh_status verify_make_all(verify_trace *trace, const lh_config *config, lh_dtype dtype,
                          verify_strides strides, lh_error *error);
/* Fills the payload with the pattern that verify_compare calls unwritten: a NaN, or a negative integer. */
void verify_poison(verify_trace *trace, lh_tensor_id id);
/* True while every guard byte of tensor id is as it was made. */
bool verify_guards_hold(const verify_trace *trace, lh_tensor_id id);
void verify_free(verify_trace *trace);
/* Element i, counted row-major over the shape whatever the strides; integers as doubles. */
double verify_element(const lh_tensor *tensor, int64_t i);
/* True when the element at this offset still holds the poison. */
bool verify_is_poison(const lh_tensor *tensor, int64_t offset);
int64_t verify_offset(const lh_tensor *tensor, int64_t i);

/* ---- the comparator (compare.c) ------------------------------------------------------------ */

typedef enum verify_verdict {
    VERIFY_EXACT,      /* every element equal */
    VERIFY_WITHIN,     /* the worst element within its allowance */
    VERIFY_EXCUSED,    /* index: differs, but only where scores tie within rounding */
    VERIFY_WRONG,      /* the worst element is not */
    VERIFY_SHAPE,      /* shapes disagree */
    VERIFY_KIND,       /* integers where floating numbers are wanted, or the other way */
    VERIFY_UNWRITTEN,  /* an element still holds the poison */
    VERIFY_NAN,        /* ... a NaN */
    VERIFY_INF,        /* ... an infinity */
    VERIFY_GUARD,      /* memory around the tensor was written */
    VERIFY_INPUT,      /* an input was written */
    VERIFY_UNSTABLE,   /* a second run gave other bits */
    VERIFY_UNCOVERED,  /* out, where no entry reaches, is not +0.0 */
    VERIFY_OTHER_BITS, /* over ranks: other bits than on one machine, where the same are promised */
    VERIFY_REFUSED,    /* the call returned a status; the note has its line */
    VERIFY_OVERFLOW,   /* of a dump: infinite where the type holds no such number; neither right nor wrong */
    VERIFY_UNJUDGED,   /* of a dump: rounding alone, or something missing, decides; neither right nor wrong */
    VERIFY_SKIPPED, /* attention that was asked for by name does not take the shape or dtype; the note has why */
    VERIFY_VERDICTS,
} verify_verdict;

const char *verify_verdict_name(verify_verdict verdict);
bool verify_passed(verify_verdict verdict);
/* Neither passed nor not judged nor skipped. */
bool verify_failed(verify_verdict verdict);

typedef struct verify_result {
    verify_verdict verdict;
    int64_t elements;
    int64_t worst; /* row-major position of the element that decides; -1 when none does */
    double got, wanted;
    double error;   /* |got - wanted| there */
    double allowed; /* the allowance it was held to */
    double share;   /* error / allowed; 0 where both are 0 */
    double mean;    /* mean |got - wanted|: informs, never decides */
} verify_result;

/* NaN, Inf and unwritten elements fail before any error is measured; then the worst element decides.
 * `want` is F64 or integers. */
verify_result verify_compare(const lh_tensor *got, const lh_tensor *want, double allowed);
/* Largest |a - b|; infinite where either is not finite. */
double verify_distance(const lh_tensor *a, const lh_tensor *b);
/* I32 or I64: held to equality, never to an allowance. */
bool verify_integer(lh_dtype dtype);
/* Same bits, element by element; both of one dtype and shape. The first that differs, or -1. */
int64_t verify_first_difference(const lh_tensor *a, const lh_tensor *b);

/* ---- cases (cases.c, generate.c, data.c) ------------------------------------------------ */

typedef enum verify_pattern {
    VERIFY_GAUSSIAN,
    VERIFY_INTEGERS, /* small integers: norms and dot products exact, ties everywhere */
    VERIFY_SIGNS,    /* q, k of +-1: every score ties */
    VERIFY_SHARP,    /* q, k times 8: softmax close to one-hot */
    VERIFY_SHARPEST, /* q, k times 40: exp overflows unless the maximum is taken off */
    VERIFY_FLAT,     /* q, k times 2^-8: softmax close to a mean */
    VERIFY_RAMP,     /* queries grow along the sequence, keys shrink */
    VERIFY_RISING,   /* scores rise along each row: the running maximum always moves */
    VERIFY_OFFSET,   /* v far from zero: D and dP cancel */
    VERIFY_TINY,     /* q, k times 2^-83: their squares are below binary32 */
    VERIFY_APART,    /* q times 2^83, k times 2^-83: squares leave binary32 on both sides, products do not */
    VERIFY_HAND,     /* a case worked out by hand; dout is 1 */
    VERIFY_FILE,     /* q k v dout from an upstream file */
    VERIFY_PATTERNS,
} verify_pattern;

const char *verify_pattern_name(verify_pattern pattern);

/* Inputs and expected tensors of a case worked out on paper (reference_hand.c); q, k NULL: zeros. */
struct verify_hand {
    const double *q, *k, *v;
    const void *want[LH_TENSOR_COUNT]; /* doubles, int32_t for index and coverage; NULL: not worked out */
};
extern const struct verify_hand verify_hand_ties, verify_hand_ahead, verify_hand_moved, verify_hand_levels,
    verify_hand_tiny, verify_hand_apart, verify_hand_huge, verify_hand_token;

typedef struct verify_case {
    const char *id;
    lh_config config;
    uint64_t seed;
    verify_pattern pattern;
    const struct verify_hand *hand;
    verify_strides strides;
    unsigned dtypes;     /* bit per lh_dtype to run it in; 0: all. Of a file: its own */
    bool exact_scores;   /* every honest evaluation gets the same scores: index must be equal end to end */
    const char *exposes; /* faults of SPEC 8 by number, "1 2 24" */
    const char *why;
} verify_case;

const verify_case *verify_case_at(int i); /* NULL past the last */
/* Shell pattern (fnmatch) over ids. */
bool verify_case_matches(const verify_case *c, const char *pattern);
/* LH_INVALID where no case matches. */
lh_status verify_check_pattern(const char *pattern, lh_error *error);
bool verify_case_wants(const verify_case *c, lh_dtype dtype);

typedef enum verify_invalid_kind {
    VERIFY_BAD_CONFIG,
    VERIFY_NOT_FINITE,  /* `value` stands in tensor [0,1,2,1] */
    VERIFY_OTHER_SHAPE, /* the tensor has H heads instead of G */
    VERIFY_OTHER_DTYPE,
    VERIFY_NO_DATA,
} verify_invalid_kind;

/* An input that must be refused, and the line that must say why (invalid.c). */
typedef struct verify_invalid {
    const char *id, *why;
    lh_config config;
    verify_invalid_kind kind;
    lh_tensor_id tensor;
    double value;
    const char *error;
} verify_invalid;

const verify_invalid *verify_invalid_at(int i); /* NULL past the last */
/* Hands it to the reference; the status and line that come back. */
lh_status verify_invalid_try(const verify_invalid *c, lh_error *error);
/* Replaces `path` with the manifest of all cases (manifest.c). */
lh_status verify_write_manifest(const char *path, lh_error *error);

/* Every tensor of a case, given in `dtype`, by the reference; trace is made here. */
lh_status verify_case_trace(const verify_case *c, lh_dtype dtype, verify_trace *trace, lh_error *error);
/* The same as a safetensors file whose metadata says what it is (vectors.c). */
lh_status verify_write_vector(const verify_case *c, lh_dtype dtype, const char *path, lh_error *error);

/* Folder of the data files: $LIGHTHOUSE_DATA, else the source tree's, else the installed one; NULL when none
 * has the vectors. */
const char *verify_data_folder(void);
/* Opens upstream/<id>.safetensors of the data folder. */
lh_status verify_upstream_open(const char *id, lh_file **file, lh_error *error);
/* q k v dout of a case, F64, unrounded. A file without dout: zeros. */
lh_status verify_inputs(const verify_case *c, verify_trace *inputs, lh_error *error);

/* ---- expectations (expect.c, tolerance.c) --------------------------------------------------- */

/* The reference run in one precision over F64 tensors: what a stage or layer should write, and how far an
 * honest port in `dtype` may be from it. */
typedef struct verify_expect {
    lh_config config;
    lh_layout layout;
    lh_dtype dtype;                   /* of the port */
    lh_dtype stored[LH_TENSOR_COUNT]; /* what each tensor is stored in */
    verify_trace given;               /* F64 values that dtype holds: what every stage is given */
    verify_trace want; /* F64, each tensor as the stage that writes it should, given the above */
    double allowed[LH_TENSOR_COUNT];
    double twin[LH_TENSOR_COUNT];  /* the twin's own error: the measured part of allowed */
    double size[LH_TENSOR_COUNT];  /* of the largest terms that are added up in an element */
    double *tile[LH_TENSOR_COUNT]; /* root sum of squares allowed in VERIFY_TILE rows of a head; NULL: none */
    double *row[LH_TENSOR_COUNT];  /* the same in one row, of half types */
    double *factor[LH_TENSOR_COUNT]; /* [VERIFY_DIRECTIONS][B,heads], of dq, dk in half types (factor.c) */
    verify_trace part_of_D;          /* what D makes of dq_sel, dk_sel, dq, dk */
    verify_trace twin_error;         /* of those gradients, the last run's */
    verify_trace stored_size, weighed_size; /* of attention's results end to end (condition.c) */
    double score_rounding;                  /* relative rounding of a score in this precision */
    unsigned needed;                        /* bit per lh_stage that was run */
    unsigned habits;                        /* of the port, VERIFY_TF32 ... */
    bool whole;                             /* end to end */
} verify_expect;

enum {
    VERIFY_TILE = 64
};

/* n of them, empty, on the heap: one takes 16 KiB. */
lh_status verify_expect_make(verify_expect **e, int n, lh_error *error);
/* Their memory too; NULL is nothing. */
void verify_expect_unmake(verify_expect *e, int n);

/* Along which a gradient is projected: all of it, and the part that D makes. */
enum {
    VERIFY_ALL,
    VERIFY_OF_D,
    VERIFY_DIRECTIONS
};

/* What a port may do besides rounding to its types, if it says so: each widens allowances. */
enum verify_habit {
    VERIFY_TF32 = 1,           /* products of attention take operands cut to 11 bits */
    VERIFY_ROUNDED_LOGITS = 2, /* logits are rounded to the type of q */
    VERIFY_HALF_SUMS = 4,      /* sums are kept in the type of q */
    VERIFY_STAGE =
        256, /* no habit: VERIFY_STAGE << stage, which is wanted though `present` has nothing of it */
};

/* Stages that must run for what `present` has of their outputs (NULL: all) and for those of `also` (bit per lh_stage):
 * those that made it and, where it lacks what they read, or whole, those before. */
unsigned verify_needed(const lh_tensor *present, unsigned also, bool whole);
/* got, judged by worst element, tiles of rows, rows, factors and, for out, +0.0 where nothing reaches; note says what more
 * than the worst element tells (judge_tensor.c). */
verify_result verify_judge_tensor(const verify_expect *e, lh_tensor_id id, const lh_tensor *got, char *note,
                                  size_t room);
/* The same, of what e wants, allowing what either allows. */
verify_result verify_judge_either(const verify_expect *e, const verify_expect *also, lh_tensor_id id,
                                  const lh_tensor *got, char *note, size_t room);
/* Where nothing is covered, out must be +0.0 itself (SPEC 3.7): the first element that is not, or -1. */
int64_t verify_uncovered(const lh_tensor *out, const lh_tensor *coverage);

/* Stage by stage. `present` (may be NULL) holds tensors that replace the reference's as what later stages are
 * given: a dump. q, k, v (and dout for the backward stages) come from inputs. */
lh_status verify_expect_stages(verify_expect *expect, const lh_config *config, lh_dtype dtype,
                               const verify_trace *inputs, const lh_tensor *present, unsigned habits,
                               lh_error *error);
/* End to end, nothing rounded on the way. The index of `present` (may be NULL) is forced where it has a legal one. */
lh_status verify_expect_layer(verify_expect *expect, const lh_config *config, lh_dtype dtype,
                              const verify_trace *inputs, const lh_tensor *present, unsigned habits,
                              lh_error *error);
/* The two at once, on two threads. */
lh_status verify_expect_both(verify_expect *stages, verify_expect *layer, const lh_config *config,
                             lh_dtype dtype, const verify_trace *inputs, const lh_tensor *present,
                             unsigned habits, lh_error *error);
void verify_expect_free(verify_expect *expect);

/* Unit roundoff of a dtype, and of the arithmetic a port of that dtype computes in. */
double verify_roundoff(lh_dtype dtype);
double verify_arithmetic(lh_dtype dtype);
/* The sum over c < n of a[c] b[c], in order. */
double verify_dot(const double *a, const double *b, int64_t n);
/* The tolerance rule (tolerance.c). */
double verify_allowance(double twin, double roundoff, double size, double least);
/* Relative rounding of one score, from the twin's largest relative error on the scores. */
double verify_score_rounding(lh_dtype dtype, double twin);

/* What float32 is off the scores of x [B,heads,N,d] F64; want [B,heads,P] F64. Raises *error_most to the largest
 * |twin - want| of a token, *relative to the largest of those over want (twin_scores.c). */
lh_status verify_twin_scores(const lh_tensor *x, const lh_tensor *want, lh_dtype storage, double *error_most,
                             double *relative, lh_error *error);

/* ---- selection (judge_select.c) ------------------------------------------------------------- */

typedef struct verify_selection {
    bool legal;        /* strictly ascending in the post-order key, leaves partition [0,N) */
    int64_t differing; /* (b,h,slot) that differ from the reference's index */
    int64_t first;     /* row-major position of the first of them, -1 */
    int64_t others;    /* entries the reference keeps that are not kept; one moves the slots behind it */
    bool excused;      /* every tile's choices are some exact selection of scores within the rounding */
    double margin;     /* the largest relative score difference that had to be excused */
    char text[160];    /* one line: where and why not */
} verify_selection;

/* `rounding` is the relative rounding of one score; 0 excuses exact ties alone. scores F64 [B,H,P], [B,G,P].
 * An error is memory that could not be had; the verdict is in *selection. */
lh_status verify_judge_index(const lh_config *config, const lh_layout *layout, const lh_tensor *got,
                             const lh_tensor *want, const lh_tensor *score_q, const lh_tensor *score_k,
                             double rounding, verify_selection *selection, lh_error *error);

/* Of each head of q [B,H,N,d], k [B,G,N,d] (F64), whether its index hangs on scores that differ by no more than `tol` of
 * themselves, not exactly equal: then a port's rounding may choose otherwise, and without its index what follows cannot
 * be judged (determined.c). open: [B,H] */
lh_status verify_undetermined(const lh_config *config, const lh_layout *layout, const lh_tensor *q,
                              const lh_tensor *k, double tol, bool *open, lh_error *error);

/* ---- judging (judge.c, dump.c, reference.c) ------------------------------------------------------- */

typedef struct verify_row {
    const verify_case *subject; /* NULL for a dump */
    const char *backend;
    lh_dtype dtype;
    const char *part; /* a stage's name, "layer", "layer, index given", ..., or the name of an identity */
    lh_tensor_id tensor;
    lh_tensor shape; /* of the tensor, for writing the worst position; data NULL */
    verify_result result;
    char note[512]; /* more, in one line; empty when there is no more */
} verify_row;

typedef struct verify_sink {
    void (*row)(void *context, const verify_row *row);
    void *context;
} verify_sink;

/* Each stage alone, then the whole layer: every tensor a row. LH_OK when it could be judged, whatever the
 * verdicts; a status of the backend itself becomes a VERIFY_REFUSED row. */
lh_status verify_judge_backend(const verify_case *c, const verify_expect *stages, const verify_expect *layer,
                               const char *backend, int device, lh_attention attention,
                               const struct lh_tiles *tiles, verify_sink *sink, lh_error *error);
/* Somebody else's tensors. */
typedef struct verify_dump {
    const verify_case *subject; /* NULL when it is none of the table's */
    const char *name;           /* whose tensors they are, in the rows */
    lh_config config;
    lh_dtype dtype;                     /* of q */
    lh_tensor present[LH_TENSOR_COUNT]; /* data NULL where absent; q, k are there */
    unsigned habits;                    /* as of verify_expect */
    unsigned
        lost; /* bit per lh_tensor_id: it had the tensor, which cannot be used. Behind index nothing is judged */
} verify_dump;

/* Each tensor on the dump's own upstream tensors where those are there, then everything end to end ("layer") with
 * the dump's index; what is wrong there once more from the nearest tensors that the dump has ("nearest"). stages and layer receive what was expected; verify_expect_free both, whatever the status. */
lh_status verify_judge_dump(const verify_dump *dump, verify_sink *sink, verify_expect *stages,
                            verify_expect *layer, lh_error *error);
/* The reference held to what is not itself: upstream's tensors, hand-worked values, identities, 113 bits. */
lh_status verify_judge_reference(const verify_case *c, const verify_trace *inputs, verify_sink *sink,
                                 lh_error *error);

/* ---- runs and reports (run.c, report.c, report_json.c) --------------------------------------- */

enum {
    VERIFY_MAX_BACKENDS = 8
};

/* What to judge. */
typedef struct verify_wish {
    const char *backend[VERIFY_MAX_BACKENDS]; /* present here */
    int device;                               /* of backends with numbered devices */
    int backends;
    const char *pattern; /* of case ids; NULL: all */
    unsigned dtypes;     /* bit per lh_dtype; 0: all that the backend computes in */
    /* Of device backends. Equal bits in a second run are asked of OWN alone: cuDNN adds dq up in any order. */
    lh_attention attention;
    const struct lh_tiles *tiles; /* of lh_options; then the one backend is tuned */
} verify_wish;

/* The device of a backend that the wish is for. */
int verify_device(const verify_wish *wish, const char *backend);

typedef struct verify_report verify_report;

/* Rows are printed to `out` (NULL: nowhere) as they come: one line a case, one more for each failure. */
lh_status verify_report_create(const verify_wish *wish, FILE *out, bool keep_json, verify_report **report,
                               lh_error *error);
/* LH_OK when every chosen case could be judged; failures are in the report. */
lh_status verify_run(const verify_wish *wish, verify_report *report, lh_error *error);
/* Every chosen case that the ranks divide, in both layouts, against the same backend on one machine and against the
 * reference. All ranks call it; `report` is the first one's. */
lh_status verify_run_ranks(const verify_wish *wish, const lh_exchange *exchange, verify_report *report,
                           lh_error *error);
/* Tensors judged so far, and those that failed. */
int64_t verify_report_tensors(const verify_report *report);
int64_t verify_report_failures(const verify_report *report);
/* The last line. LH_NO_MEMORY where rows could not be kept: the report does not have all that was judged. */
lh_status verify_report_summary(const verify_report *report, lh_error *error);
/* Replaces `path` with the whole report (a JSON object, docs/verification.md). */
lh_status verify_report_write(const verify_report *report, const char *path, lh_error *error);
void verify_report_destroy(verify_report *report);

/* For run.c: a case starts, one of its backends is done, the case is done. */
void verify_report_case(verify_report *report, const verify_case *c);
void verify_report_row(void *report, const verify_row *row);
void verify_report_done(verify_report *report);

#endif
