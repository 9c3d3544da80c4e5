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
#define BEFORE_NAME "checkpoint-before.safetensors" /* the checkpoint before that one */
#define JOURNAL_NAME "log.jsonl"
#define LOCK_NAME ".lighthouse.lock" /* marks a folder as a run's, too */

/* "FOLDER/NAME"; LH_INVALID where that has PATH_SIZE characters or more. */
lh_status folder_path(const char *folder, const char *name, char path[PATH_SIZE], lh_error *error);

/* Makes the folder, and those it lies in, where need be, and locks it until the descriptor *lock is closed or the process
 * ends, in whatever way. LH_INVALID, naming who has it, when another process does. */
lh_status folder_lock(const char *folder, int *lock, lh_error *error);
/* Removes what writers of files had begun when their process was killed; the folder is locked. */
lh_status folder_tidy(const char *folder, lh_error *error);

#endif
