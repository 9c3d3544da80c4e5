/* own.h: what the checks of the reference itself share. */
#ifndef LH_VERIFY_OWN_H
#define LH_VERIFY_OWN_H

#include "verify/verify.h"

struct verify_own {
    const verify_case *subject;
    const verify_expect *trace; /* F64: given and want hold the reference's whole trace */
    verify_sink *sink;
};

void verify_own_row(const struct verify_own *own, const char *part, lh_tensor_id id, verify_result result,
                    const char *note);

void verify_own_hand(const struct verify_own *own);
lh_status verify_own_definition(const struct verify_own *own, lh_error *error);
lh_status verify_own_identities(const struct verify_own *own, lh_error *error);

#endif
