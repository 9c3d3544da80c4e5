/* JSON out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/json.h"
#include "core/replace.h"

json_t *lh_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

lh_status lh_json_write(const char *path, json_t *value, lh_error *error)
{
    char *text = value ? json_dumps(value, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    const lh_status status =
        text ? lh_replace_text(path, text, strlen(text), error)
             : lh_fail(error, LH_NO_MEMORY, "%.300s: memory for its text could not be had", path);
    free(text);
    json_decref(value);
    return status;
}
