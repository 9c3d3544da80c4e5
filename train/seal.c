/* Hashing what a checkpoint holds. */
#include "train/seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/hash.h"

static int by_name(const void *left, const void *right)
{
    return strcmp(((const lh_file_entry *)left)->name, ((const lh_file_entry *)right)->name);
}

lh_status seal_hash(const lh_file_meta *meta, int metas, lh_file_entry *entries, int count, char hash[65],
                    lh_error *error)
{
    size_t size = 1, used = 0;
    char *text;
    for (int i = 0; i < metas; i++)
        size += strlen(meta[i].key) + strlen(meta[i].value) + 2;
    for (int i = 0; i < count; i++)
        size += strlen(entries[i].name) + 65 + LH_SHAPE_TEXT + 16;
    const lh_status status = lh_alloc((void **)&text, size, "checkpoint's seal", error);
    if (status != LH_OK)
        return status;
    for (int i = 0; i < metas; i++)
        used += (size_t)snprintf(text + used, size - used, "%s=%s\n", meta[i].key, meta[i].value);
    qsort(entries, (size_t)count, sizeof *entries, by_name);
    for (int i = 0; i < count; i++) {
        const lh_tensor *t = &entries[i].tensor;
        char shape[LH_SHAPE_TEXT];
        lh_tensor_sha256(t, hash);
        used += (size_t)snprintf(text + used, size - used, "%s %s %s %s\n", entries[i].name,
                                 lh_dtype_name(t->dtype), lh_shape_text(t, shape), hash);
    }
    lh_sha256_hex(text, used, hash);
    lh_free(text);
    return LH_OK;
}

lh_status seal_check(const lh_file *file, const char *key, const char *const *keys, int count,
                     lh_error *error)
{
    const char *wanted = lh_file_metadata(file, key);
    const int tensors = lh_file_count(file);
    char hash[65];
    lh_file_entry *entries;
    lh_file_meta *meta;
    int metas = 0;
    if (!wanted)
        return lh_fail(error, LH_FORMAT, "%s is missing, wanted the hash of what the file holds", key);
    lh_status status =
        lh_alloc((void **)&entries, ((size_t)tensors + 1) * sizeof *entries, "checkpoint entries", error);
    if (status != LH_OK)
        return status;
    status = lh_alloc((void **)&meta, ((size_t)count + 1) * sizeof *meta, "checkpoint metadata", error);
    if (status == LH_OK) {
        for (int i = 0; i < count; i++) {
            meta[metas] = (lh_file_meta){keys[i], lh_file_metadata(file, keys[i])};
            metas += meta[metas].value != NULL;
        }
        for (int i = 0; i < tensors; i++)
            entries[i] = (lh_file_entry){lh_file_name(file, i), *lh_file_tensor(file, i)};
        status = seal_hash(meta, metas, entries, tensors, hash, error);
        lh_free(meta);
    }
    lh_free(entries);
    if (status == LH_OK && strcmp(hash, wanted) != 0)
        status =
            lh_fail(error, LH_FORMAT, "%s is %.64s, but that of what the file holds is %s: it is damaged",
                    key, wanted, hash);
    return status;
}
