/* condition.h: how large the terms are that a stage adds up (condition.c). */
#ifndef LH_VERIFY_CONDITION_H
#define LH_VERIFY_CONDITION_H

#include "verify/verify.h"

/* How coarse the port's products are. */
struct verify_coarse {
    double
        small; /* below it an operand is off by small u, not by a part of itself: the smallest normal number of a half
                        type; else 0 */
    bool by_feature; /* dP is added up no better than the weights are: its size is that of its terms */
};

/* trace: what the stage reads and, for score and gather, what it writes, F64 and integers. stored and weighed have the
 * stage's outputs, F64, which are filled. */
lh_status verify_condition(const lh_config *config, const lh_layout *layout, lh_stage stage,
                           const lh_tensor *trace, const struct verify_coarse *coarse,
                           const verify_trace *stored, const verify_trace *weighed, lh_error *error);
/* A linear stage on absolute values of what it reads; `to` has its outputs. */
lh_status verify_absolute(const lh_config *config, lh_stage stage, const lh_tensor *trace,
                          const verify_trace *to, lh_error *error);

#endif
