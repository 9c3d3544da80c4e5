/* small_run.h: what suites that train whole runs start from. */
#ifndef LH_TESTS_SMALL_RUN_H
#define LH_TESTS_SMALL_RUN_H

#include "train/settings.h"

/* A scratch folder with a file "text" of 20,000 bytes, of which a few are far commoner than the rest. */
const char *small_run_folder(void);
/* Removes it and all that is in it. */
void small_run_remove(const char *folder);
/* A decoder of three layers over that text, layer 0 dense: why it is, test_train_backends.c says. Steps are the suite's. */
settings small_run(const char *folder);

#endif
