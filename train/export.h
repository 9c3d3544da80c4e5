/*
 * export.h: a finished model for others to load.
 */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include <jansson.h>

#include "train/model.h"
#include "train/settings.h"

/*
 * Writes the model as a Llama of Hugging Face's transformers: a folder with config.json, model.safetensors (float32, each
 * matrix [out, in]), tokenizer.json and tokenizer_config.json, token i being byte i. `folder` is not there yet, or empty, and
 * the one that it lies in is there; it is written whole or not at all. python/lighthouse/export.py writes the same.
 * LH_OK; LH_INVALID (something is there already); LH_IO; LH_NO_MEMORY.
 */
lh_status export_llama(const settings *s, const model *m, const char *folder, lh_error *error);

/* export_json.c: new documents, NULL where memory could not be had. */
json_t *export_config(const settings *s);
json_t *export_tokenizer(void);
json_t *export_tokenizer_config(const settings *s);

#endif
