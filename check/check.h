/*
 * check.h: somebody else's tensors, judged and explained.
 */
#ifndef LH_CHECK_CHECK_H
#define LH_CHECK_CHECK_H

#include "check/faults.h"
#include "core/safetensors.h"
#include "verify/verify.h"

enum {
    CHECK_ROWS = 4 * LH_TENSOR_COUNT,
    CHECK_NAMES = 3, /* faults named for one stage, at most */
    CHECK_FAULTS = CHECK_NAMES * LH_STAGE_COUNT,
    CHECK_UNKNOWN = 32,
};

typedef enum check_verdict {
    CHECK_RIGHT,
    CHECK_WRONG,
    CHECK_NOT_JUDGED, /* nothing is wrong, but nothing was judged, or not all that had to be */
} check_verdict;

/* What the caller wants of a judgement beside the tensors. */
typedef struct check_wish {
    unsigned required; /* bit per lh_tensor_id that must have been judged; 0: all that the dump has */
    unsigned habits;   /* bits of verify_habit */
} check_wish;

/* A name in a dump that is none of the trace's, and what was probably meant; NULL: nothing is near. */
struct check_unknown {
    char name[64];
    const char *guess;
};

/* How tensors of the size that people train with are judged (sample.h). */
typedef struct check_sample {
    int64_t
        rows; /* drawn in each head and tensor, besides the first and the last 64; 0: everything is judged */
    uint64_t seed;  /* of the draw */
    int heads;      /* heads judged by rows at most, 0: all; the first and last are always among them */
    FILE *progress; /* NULL: silent */
} check_sample;

/* 70 KiB: not for a stack. */
typedef struct check_report {
    lh_config config;
    lh_dtype dtype; /* of the arithmetic: q's, or F32 where q is F64 and what was computed is not */
    check_wish wish;
    check_sample sampled; /* rows 0: everything was judged */
    verify_row rows[CHECK_ROWS];
    int row_count;
    unsigned present, judged; /* bit per lh_tensor_id: in the dump; judged, right or wrong */
    check_verdict verdict;
    int first_wrong;                      /* row of the first wrong stage, -1 when there is none */
    unsigned suspects;                    /* bit per lh_stage that may have made it wrong */
    const lh_fault *faults[CHECK_FAULTS]; /* that reproduce what is wrong, the closest first */
    lh_stage explained[CHECK_FAULTS];     /* the stage whose tensors the fault reproduces */
    double distance[CHECK_FAULTS]; /* of what it gives from what was found, over that of the right one */
    int fault_count;
    const char *suggested; /* the habit with which nothing would be wrong, where no bug explains it; NULL */
    struct check_unknown unknown[CHECK_UNKNOWN];
    int unknown_count;
} check_report;

/* present: LH_TENSOR_COUNT tensors by id, data NULL where absent; q and k there, and v for what hangs on it. wish may
 * be NULL. LH_OK when it could be judged, whatever the verdicts. Fills all of report but `unknown`, which is left as it is. */
lh_status check_dump(const lh_config *config, const lh_tensor *present, const check_wish *wish,
                     check_report *report, lh_error *error);

/* How the tensors of a dump lie: [B,H,N,d], or tokens before heads. */
typedef struct check_layout {
    bool token_major;          /* q k v and their like; what else does is read off the shapes */
    unsigned turned, straight; /* bits per lh_tensor_id of those that were said to, or not to */
} check_layout;

/* "bnhd", "bhnd", or either with "lse=bnhd,..." behind it. LH_INVALID says what was found. */
lh_status check_parse_layout(const char *text, check_layout *layout, lh_error *error);
/* Which of the tensors (of rank 0 where absent) lie as [B,rows,heads,(d)]. A shape that reads either way is read as those
 * of its kin that read one way only: rows of pyramid and selection, or what has no features; LH_INVALID asks where
 * there is none. */
lh_status check_read_layout(const lh_config *config, const check_layout *layout, const lh_tensor *found,
                            bool turned[LH_TENSOR_COUNT], lh_error *error);
/* Contiguous tensors of a dump, those that lie turned replaced by copies. copies: LH_TENSOR_COUNT, NULL or for lh_free,
 * whatever the status. */
lh_status check_turn(const lh_config *config, const check_layout *layout, lh_tensor *present, void **copies,
                     lh_error *error);

/* The tensors of a file by id, and the names that are none. */
void check_collect(const lh_file *file, lh_tensor *present, check_report *report);
/* Names separated by commas -> bits by lh_tensor_id; habits likewise -> bits of verify_habit. LH_INVALID names one that
 * is none. */
lh_status check_parse_tensors(const char *names, unsigned *ids, lh_error *error);
lh_status check_parse_habits(const char *names, unsigned *habits, lh_error *error);
/* The i-th habit's name, bit and what it is; NULL past the last. */
const char *check_habit(int i, unsigned *habit, const char **what);

const char *check_verdict_name(check_verdict verdict);
/* The row of a tensor: end to end, or on the dump's own tensors; NULL where there is none. */
const verify_row *check_row(const check_report *report, lh_tensor_id id, bool end_to_end);
lh_stage check_stage_of(lh_tensor_id id); /* that writes it; LH_STAGE_COUNT: an input */
unsigned check_computed(void);            /* bit per lh_tensor_id that a stage writes */
/* What had to be judged and was not, bit per lh_tensor_id. */
unsigned check_missing(const check_report *report);

/* Whether an infinite x stands where a tensor of that dtype should hold what it cannot; the verdict for it. */
bool check_overflows(lh_dtype dtype, double x, double wanted);
void check_note_overflow(verify_row *row, lh_dtype dtype);

/* A row of the report, as verify_sink has it. */
void check_take_row(void *report, const verify_row *row);
/* first_wrong, and the stages to be explained; then judged and verdict, from the rows. */
void check_find_wrong(check_report *report, bool wrong[LH_STAGE_COUNT]);
void check_conclude(check_report *report);

/* The report as text, a line a tensor, and as JSON with the text in it; both from malloc. */
lh_status check_text(const check_report *report, char **text, lh_error *error);
lh_status check_json(const check_report *report, char **text, lh_error *error);

/* The same for continuous integration: JUnit XML, a case a tensor; SARIF 2.1.0, a result a wrong tensor, at `path`. */
lh_status check_junit(const check_report *report, char **text, lh_error *error);
lh_status check_sarif(const check_report *report, const char *path, char **text, lh_error *error);

/* Whether a tensor's values follow from those of v. */
bool check_hangs_on_v(lh_tensor_id id);
/* Puts what can be judged of `present` into the dump, whose configuration and dtype the report has; what cannot be
 * is a row of the report, and what hangs on a v that is not there leaves `present` too. LH_INVALID when q, k or v are not
 * what a layer could be computed from. */
lh_status check_screen(check_report *report, lh_tensor *present, verify_dump *dump, lh_error *error);

/* What a diagnosis rests on. */
struct check_evidence {
    const verify_dump *dump;             /* the tensors that could be used */
    const lh_tensor *found;              /* all that were in the file, NaN and illegal indices too */
    const verify_expect *stages, *layer; /* what was expected of them */
};

/* Stages whose faults can show in `stage`: itself, and those that made what `present` lacks of its inputs. */
unsigned check_suspects(const lh_tensor *present, lh_stage stage);
/* Adds the faults that reproduce the outputs of `stage`, tried at that stage and at those before it whose outputs
 * the dump lacks. */
lh_status check_explain(const struct check_evidence *evidence, lh_stage stage, check_report *report,
                        lh_error *error);
/* Names the habit, if there is one, with which nothing would be wrong. */
lh_status check_suggest(const lh_config *config, const lh_tensor *present, check_report *report,
                        lh_error *error);
/* Adds to the rows of tensors with NaN or Inf what their first such element was made of (origin.c). */
lh_status check_origin(const struct check_evidence *evidence, check_report *report, lh_error *error);
/* How far an error reaches, added to the row's note: how many elements, which heads and rows, a constant ratio,
 * another tensor's values (extent.c). */
void check_extent(const struct check_evidence *evidence, verify_row *row);

#endif
