/* reference.h: what the checks of the reference itself share. */
#ifndef LH_VERIFY_REFERENCE_H
#define LH_VERIFY_REFERENCE_H

#include "verify/verify.h"

struct verify_reference {
    const verify_case *subject;
    const verify_expect *trace; /* F64: given and want hold the reference's whole trace */
    verify_sink *sink;
};

void verify_reference_row(const struct verify_reference *own, const char *part, lh_tensor_id id,
                          verify_result result, const char *note);

void verify_reference_hand(const struct verify_reference *own);
lh_status verify_reference_definition(const struct verify_reference *own, lh_error *error);
lh_status verify_reference_identities(const struct verify_reference *own, lh_error *error);

#endif
