/*
 * folder.h: folders of the user's own, by the XDG base directory rules.
 */
#ifndef LH_FOLDER_H
#define LH_FOLDER_H

#include <stdbool.h>

#include "core/backend.h"

enum {
    LH_FOLDER = LH_TUNED_PATH - 32
};
/* $VARIABLE/lighthouse, or ~/UNDER_HOME/lighthouse; made when `make` is set. False when there is nowhere to put it. */
bool lh_user_folder(const char *variable, const char *under_home, bool make, char folder[LH_FOLDER]);

#endif
