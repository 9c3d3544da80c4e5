/*
 * safetensors.h: reading and writing safetensors files (https://github.com/huggingface/safetensors).
 *
 * A file is 8 bytes of little-endian header length, a JSON header, and the tensors' bytes, little-endian and
 * row-major, which the header's offsets cover without gap or overlap. Nothing of a file is believed before it
 * is checked. Elements are F64 F32 F16 BF16 I32 I64, ranks 0 to 4; a tensor of another dtype or rank (a BOOL mask, U8, F8,
 * five dimensions) may lie in the file but is not read: dtype LH_DTYPE_COUNT, data NULL.
 */
#ifndef LH_SAFETENSORS_H
#define LH_SAFETENSORS_H

#include "lighthouse.h"

#define LH_FILE_MAX_HEADER 100000000 /* bytes, as in the format's own implementation */

/* An open file, fully validated, in memory: contiguous tensors in the machine's byte order, 64-byte aligned.
 */
typedef struct lh_file lh_file;

/* *file is NULL on error: LH_IO when the file cannot be read, LH_FORMAT when it is malformed. */
lh_status lh_file_read(const char *path, lh_file **file, lh_error *error);
/* The same of a file's bytes in memory; `name` stands for it in errors. */
lh_status lh_file_parse(const void *bytes, size_t size, const char *name, lh_file **file, lh_error *error);
void lh_file_free(lh_file *file); /* NULL is allowed */
/* As lh_file_read, but the tensors' bytes stay in the file: data is NULL, and lh_file_fetch has them by pieces. */
lh_status lh_file_open(const char *path, lh_file **file, lh_error *error);
/* Elements first ... first+count-1 of tensor i (row-major, within it), of its dtype, into `to`. LH_IO, LH_FORMAT. */
lh_status lh_file_fetch(const lh_file *file, int i, int64_t first, int64_t count, void *to, lh_error *error);

int lh_file_count(const lh_file *file);
const char *lh_file_name(const lh_file *file, int i); /* in the order of the header */
const lh_tensor *lh_file_tensor(const lh_file *file, int i);
const lh_tensor *lh_file_find(const lh_file *file, const char *name); /* NULL if absent */
const char *lh_file_metadata(const lh_file *file, const char *key);   /* NULL if absent */

/* Dtype and shape of tensor `name` as the header has them, "BOOL [2,3,4,5,6]", whether it could be read or not. */
enum {
    LH_KIND_TEXT = 224
};
const char *lh_file_kind(const lh_file *file, const char *name, char text[LH_KIND_TEXT]);

typedef struct lh_file_entry {
    const char *name;
    lh_tensor tensor; /* host memory; the last stride is 1 */
} lh_file_entry;

typedef struct lh_file_meta {
    const char *key, *value;
} lh_file_meta;

/* Atomic: a temporary file in the same folder, synced, takes the place of `path` when it is complete; on
 * error `path` is as it was and nothing else is left behind. Bytes depend on the arguments alone. */
lh_status lh_file_write(const char *path, const lh_file_entry *entries, int count, const lh_file_meta *meta,
                        int metas, lh_error *error);

/* The configuration as __metadata__ carries it (SPEC 5): fills LH_CONFIG_METAS of meta, whose values point into text. */
enum {
    LH_CONFIG_METAS = 5
};
void lh_config_metadata(const lh_config *config, char text[LH_CONFIG_METAS][24], lh_file_meta *meta);

#endif
