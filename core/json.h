/* json.h: JSON out, with jansson. */
#ifndef LH_JSON_H
#define LH_JSON_H

#include <jansson.h>

#include "lighthouse.h"

/* `array` with `value` behind the others, `object` with `value` as its member `key`; `value` is taken over. NULL, with
 * everything released, where either is NULL or memory could not be had: what is made of it is NULL in the end, and no
 * document lacks a part. */
json_t *lh_json_append(json_t *array, json_t *value);
json_t *lh_json_set(json_t *object, const char *key, json_t *value);

/* JSON knows no NaN and no infinity: they are null. */
json_t *lh_json_number(double value);
/* The text of `value`, which is released; NULL stands for a value that could not be made. `what` names it in errors;
 * *text is to be released by free(). `flags` are jansson's, whose own json_dumps leaves characters out where it cannot
 * have memory for them. LH_OK, LH_NO_MEMORY. */
lh_status lh_json_text(json_t *value, size_t flags, const char *what, char **text, lh_error *error);
/* Replaces `path` by the indented text of `value`, which is released; NULL stands for a value that could not be made.
 * LH_OK, LH_NO_MEMORY, LH_IO. */
lh_status lh_json_write(const char *path, json_t *value, lh_error *error);

#endif
