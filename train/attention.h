/* attention.h: the attention plans of a pass; pass.h has what callers outside use. */
#ifndef TRAIN_ATTENTION_H
#define TRAIN_ATTENTION_H

#include "train/pass.h"

/* Kinds and plans of all layers; p->kind is allocated. On error, destroy what there is. */
lh_status attention_create(pass *p, lh_error *error);
void attention_destroy(pass *p);
/* Attention of a layer, all heads at once or group by group. */
lh_status pass_attend(const pass *p, int64_t layer, bool backward, lh_error *error);

#endif
