/*
 * plan.h: one small layer and a plan for it on the backend under test, which suites of plans share.
 *
 * [batch, heads, tokens, dim] = [2, 4, 48, 8], two kv heads, three levels, p = 2: 44 rows of 84 are selected.
 */
#ifndef LH_TESTS_PLAN_H
#define LH_TESTS_PLAN_H

#include "tests/layer.h"
#include "tests/suite.h"

extern const lh_config config;
extern const char *backend;
extern lh_dtype dtype;

extern struct layer work;
extern lh_plan *plan;
extern lh_error error;

/* backend and dtype from the program's arguments; the suite "NAME BACKEND". */
Suite *plan_suite(const char *name, int argc, char **argv);

/* Forward and backward, stages, and inputs looked at for NaN and Inf. */
lh_options options(void);
/* Sets `plan`, whose old value is not destroyed. */
void make_plan(const lh_options *wanted);

/* A case whose tests find `work` and `plan` made anew, and leave nothing allocated. */
TCase *plan_case(Suite *suite, const char *name);

/* Whether a caller's tensor may have strides (SPEC 2). */
bool may_be_strided(lh_tensor_id id);

#endif
