/* audit_made.h: what a run was made of and with, for its audit. */
#ifndef TRAIN_AUDIT_MADE_H
#define TRAIN_AUDIT_MADE_H

#include <jansson.h>

#include "train/settings.h"
#include "train/text.h"

/* Every setting under its name, as text. */
json_t *settings_json(const settings *s);
json_t *text_json(const settings *s, const corpus *t);
/* Program, compiler, library of the products (NULL or "": the processor's), host, processor, and the date and time now (UTC). */
json_t *made_json(const char *products);

#endif
