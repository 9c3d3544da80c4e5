/* json.h: JSON out, with jansson. */
#ifndef LH_JSON_H
#define LH_JSON_H

#include <jansson.h>

#include "lighthouse.h"

/* JSON knows no NaN and no infinity: they are null. */
json_t *lh_json_number(double value);
/* Replaces `path` by the indented text of `value`, which is released; NULL stands for a value that could not be made.
 * LH_OK, LH_NO_MEMORY, LH_IO. */
lh_status lh_json_write(const char *path, json_t *value, lh_error *error);

#endif
