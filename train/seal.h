/* seal.h: the hash that a checkpoint has of itself, so that no flipped bit goes unseen. */
#ifndef TRAIN_SEAL_H
#define TRAIN_SEAL_H

#include "core/safetensors.h"

/* SHA-256 of "KEY=VALUE\n" for each of `meta` and, in the order of their names, "NAME DTYPE SHAPE SHA256\n" for each of
 * `entries`, which are sorted so on return. */
lh_status seal_hash(const lh_file_meta *meta, int metas, lh_file_entry *entries, int count, char hash[65],
                    lh_error *error);
/* LH_FORMAT unless the file's metadata `key` is the hash of its tensors and of those of `keys` that it has. */
lh_status seal_check(const lh_file *file, const char *key, const char *const *keys, int count,
                     lh_error *error);

#endif
