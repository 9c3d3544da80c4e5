/*
 * folder.h: the folder a run lives in, and the names in it.
 */
#ifndef TRAIN_FOLDER_H
#define TRAIN_FOLDER_H

#include "lighthouse.h"

enum {
    PATH_SIZE = 4096
};

#define CHECKPOINT_NAME "checkpoint.safetensors"
#define JOURNAL_NAME "log.jsonl"

/* "FOLDER/NAME"; LH_INVALID where that has PATH_SIZE characters or more. */
lh_status folder_path(const char *folder, const char *name, char path[PATH_SIZE], lh_error *error);

#endif
