/*
 * check.h: somebody else's tensors, judged and explained.
 */
#ifndef LH_CHECK_CHECK_H
#define LH_CHECK_CHECK_H

#include "check/faults.h"
#include "verify/verify.h"

enum {
    CHECK_ROWS = 2 * LH_TENSOR_COUNT,
    CHECK_FAULTS = 32,
};

typedef struct check_report {
    lh_config config;
    lh_dtype dtype; /* of q */
    verify_row rows[CHECK_ROWS];
    int row_count;
    int absent;                           /* tensors of the trace that were not there */
    bool tf32;                            /* right only if the products of attention are of tf32 operands */
    int first_wrong;                      /* row of the first wrong stage, -1 when all is right */
    const lh_fault *faults[CHECK_FAULTS]; /* that reproduce what is wrong */
    lh_stage explained[CHECK_FAULTS];     /* the stage whose tensors the fault reproduces */
    int fault_count;
} check_report;

/* present: LH_TENSOR_COUNT tensors by id, data NULL where absent; q, k, v there. LH_OK when it could be judged,
 * whatever the verdicts. */
lh_status check_dump(const lh_config *config, const lh_tensor *present, check_report *report,
                     lh_error *error);

/* The report as text, a line a tensor, and as JSON with the text in it; both from lh_alloc. */
lh_status check_text(const check_report *report, char **text, lh_error *error);
lh_status check_json(const check_report *report, char **text, lh_error *error);

/* Puts what can be judged of `present` into the dump, whose configuration and dtype the report has; what cannot be
 * is a row of the report. LH_INVALID when q, k or v are not what a layer could be computed from. */
lh_status check_screen(check_report *report, const lh_tensor *present, verify_dump *dump, lh_error *error);

/* What a diagnosis rests on. */
struct check_evidence {
    const verify_dump *dump;             /* the tensors that could be used */
    const lh_tensor *found;              /* all that were in the file, NaN and illegal indices too */
    const verify_expect *stages, *layer; /* what was expected of them */
};

/* Adds the faults that reproduce the outputs of `stage`, tried at that stage and at those before it whose outputs
 * the dump lacks. */
lh_status check_explain(const struct check_evidence *evidence, lh_stage stage, check_report *report,
                        lh_error *error);

#endif
