/* JSON out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/json.h"
#include "core/replace.h"
#include "core/text.h"

/* `to` where a value was put into it. */
static json_t *kept(json_t *to, bool put)
{
    if (put)
        return to;
    json_decref(to);
    return NULL;
}

json_t *lh_json_append(json_t *array, json_t *value)
{
    return kept(array, json_array_append_new(array, value) == 0);
}

json_t *lh_json_set(json_t *object, const char *key, json_t *value)
{
    return kept(object, json_object_set_new(object, key, value) == 0);
}

json_t *lh_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

lh_status lh_json_text(json_t *value, size_t flags, const char *what, char **text, lh_error *error)
{
    lh_text made;
    *text = NULL;
    lh_status status = lh_text_open(&made, what, error);
    if (status == LH_OK) {
        const bool dumped = value && json_dumpf(value, made.stream, flags) == 0;
        status = lh_text_close(&made, text, NULL, error);
        if (status == LH_OK && !dumped)
            status = lh_fail(error, LH_NO_MEMORY, "%.300s: memory for its text could not be had", what);
    }
    if (status != LH_OK) {
        free(*text);
        *text = NULL;
    }
    json_decref(value);
    return status;
}

lh_status lh_json_write(const char *path, json_t *value, lh_error *error)
{
    char *text = NULL;
    lh_status status = lh_json_text(value, JSON_INDENT(1) | JSON_REAL_PRECISION(17), path, &text, error);
    if (status == LH_OK)
        status = lh_replace_text(path, text, strlen(text), error);
    free(text);
    return status;
}
