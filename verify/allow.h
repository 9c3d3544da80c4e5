/* allow.h: from errors of the twin and sizes of terms to allowances (allow.c). */
#ifndef LH_VERIFY_ALLOW_H
#define LH_VERIFY_ALLOW_H

#include "verify/verify.h"

/* An error of binary32 in the port's own unit: an F64 port is held to the same multiple of its own. */
double verify_in_own_unit(const verify_expect *e, double error);
/* Widens e->twin[id] and the tiles' errors by one run of the twin over the tensor. */
lh_status verify_note_twin(verify_expect *e, lh_tensor_id id, const lh_tensor *twin, lh_error *error);
/* Allowances of what a stage writes, from what it read and wrote (trace) and the twin's errors noted so far. */
lh_status verify_allow_stage(verify_expect *e, lh_stage stage, const lh_tensor *trace, lh_error *error);

#endif
