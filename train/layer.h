/* layer.h: one decoder layer of a pass, forward and backward. */
#ifndef TRAIN_LAYER_H
#define TRAIN_LAYER_H

#include "train/store.h"

/* Reads the layer's x, writes the next one's. */
lh_status layer_forward(pass *p, int64_t layer, lh_error *error);
/* p->dx: gradient of the next layer's x on entry, of this layer's on return. */
lh_status layer_backward(pass *p, int64_t layer, lh_error *error);

#endif
