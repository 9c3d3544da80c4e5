/*
 * faults.h: the bugs that ports of this algorithm have, each as a small alternative stage.
 *
 * The reference stays clean: when a stage of somebody's port is wrong, these are run on the same inputs,
 * and one that reproduces the port's tensors names the bug. All of them work on contiguous host tensors,
 * floating ones in F64, and write what lh_stage_writes says of their stage.
 */
#ifndef LH_CHECK_FAULTS_H
#define LH_CHECK_FAULTS_H

#include "lighthouse.h"

typedef struct lh_fault lh_fault;

/* Reads the stage's inputs (and index, for attention) from trace and writes its outputs there.
 * LH_UNSUPPORTED when the fault cannot act on this configuration (a tile fault with one tile). */
typedef lh_status lh_fault_fn(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                              const lh_tensor *trace, lh_error *error);

struct lh_fault {
    int family; /* number of its kind in SPEC 8, 1 to 26 */
    lh_stage stage;
    const char *name;   /* "scatter-no-shift" */
    const char *breaks; /* the rule it breaks, "SPEC 3.7" */
    const char *fix;    /* one sentence */
    int variant;        /* for run: which of its family */
    lh_fault_fn *run;
};

/* One table a file, joined by lh_fault_at: NULL past the last. */
extern const lh_fault lh_faults_pool[], lh_faults_select[], lh_faults_attend[], lh_faults_scatter[],
    lh_faults_unpool[], lh_faults_field[];
const lh_fault *lh_fault_at(int i);
const lh_fault *lh_fault_by_name(const char *name); /* NULL if there is none */

/* span.c: the tokens under a pyramid entry. */
struct lh_span {
    int level;
    int64_t window; /* p^level tokens */
    int64_t first;  /* first token of the window */
};
/* Of pyramid entry `entry`, which is in [0,P). */
struct lh_span lh_span_of(const lh_config *config, const lh_layout *layout, int64_t entry);

#endif
