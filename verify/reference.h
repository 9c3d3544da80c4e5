/* reference.h: what the checks of the reference itself share. */
#ifndef LH_VERIFY_REFERENCE_H
#define LH_VERIFY_REFERENCE_H

#include "verify/row.h"

struct verify_reference {
    const verify_case *subject;
    const verify_expect *trace; /* F64: given and want hold the reference's whole trace */
    verify_sink *sink;
};

static inline void verify_reference_row(const struct verify_reference *reference, const char *part,
                                        lh_tensor_id id, verify_result result, const char *note)
{
    verify_row_send(reference->sink,
                    &(verify_row){.subject = reference->subject,
                                  .backend = "ref",
                                  .dtype = LH_F64,
                                  .part = part,
                                  .tensor = id,
                                  .shape = reference->trace->want.tensor[id],
                                  .result = result},
                    note);
}

void verify_reference_hand(const struct verify_reference *reference);
lh_status verify_reference_definition(const struct verify_reference *reference, lh_error *error);
lh_status verify_reference_identities(const struct verify_reference *reference, lh_error *error);

#endif
