/* place.h: where a model is computed. */
#ifndef TRAIN_PLACE_H
#define TRAIN_PLACE_H

#include "train/settings.h"

enum {
    PLACE_TEXT = 256
};

/*
 * Moves a model from the processor to the device of the settings' backend, where that offers a decoder's arithmetic
 * (core/arithmetic.h). Else it stays: `why` (NULL: nobody asks) says in a line what is missing on this machine, or `keep`, which is a reason not
 * to move (NULL: there is none); "" where the backend has nothing to offer. LH_NO_DEVICE, LH_NO_MEMORY, LH_DEVICE, LH_INVALID (no such backend or device).
 */
lh_status place_model(const settings *s, const char *keep, model *m, char why[PLACE_TEXT], lh_error *error);

#endif
