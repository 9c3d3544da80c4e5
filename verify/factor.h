/* factor.h: what a common factor does to a whole head, which no single element shows (factor.c). */
#ifndef LH_VERIFY_FACTOR_H
#define LH_VERIFY_FACTOR_H

#include "verify/verify.h"

/* Keeps the twin's error on dq, dk and their *_sel, for verify_factor_allow; nothing of others. */
lh_status verify_factor_note(verify_expect *e, lh_tensor_id id, const lh_tensor *twin, lh_error *error);
/* Allowances along each direction of what the stage writes: the backward of attention, or un-pooling end to end. */
lh_status verify_factor_allow(verify_expect *e, lh_stage stage, const lh_tensor *trace, lh_error *error);
/* The direction: what was wanted, or its part that D makes; NULL where there is none. */
const double *verify_factor_direction(const verify_expect *e, lh_tensor_id id, int direction);

#endif
