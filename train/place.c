/* Where a model is computed: see place.h. */
#include "train/place.h"

#include <stdio.h>
#include <string.h>

#include "core/backend.h"

static lh_status stay(const char *reason, char why[PLACE_TEXT])
{
    if (why)
        snprintf(why, PLACE_TEXT, "%.255s", reason);
    return LH_OK;
}

lh_status place_model(const settings *s, const char *keep, model *m, char why[PLACE_TEXT], lh_error *error)
{
    const lh_backend *backend;
    const lh_arithmetic *on;
    lh_error missing;
    if (why)
        why[0] = '\0';
    lh_status status = lh_backend_find(settings_backend(s), (int)s->device, &backend, error);
    if (status != LH_OK || !backend->arithmetic)
        return status;
    if (keep)
        return stay(keep, why);
    status = backend->arithmetic((int)s->device, strcmp(s->dtype, "bf16") == 0, &on, &missing);
    if (status == LH_OK)
        return model_move(m, on, error);
    if (status == LH_UNSUPPORTED)
        return stay(missing.text, why);
    if (error)
        *error = missing;
    return status;
}
