/* condition.h: how large the terms are that a stage adds up (condition.c). */
#ifndef LH_VERIFY_CONDITION_H
#define LH_VERIFY_CONDITION_H

#include "verify/verify.h"

/* trace: what the stage reads and, for score and gather, what it writes, F64 and integers. stored and weighed have the
 * stage's outputs, F64, which are filled. small: below it an operand of a product is off by small u, not by a part of
 * itself (the smallest normal number of a half type; else 0). */
lh_status verify_condition(const lh_config *config, const lh_layout *layout, lh_stage stage,
                           const lh_tensor *trace, double small, const verify_trace *stored,
                           const verify_trace *weighed, lh_error *error);
/* A linear stage on absolute values of what it reads; `to` has its outputs. */
lh_status verify_absolute(const lh_config *config, lh_stage stage, const lh_tensor *trace,
                          const verify_trace *to, lh_error *error);

#endif
