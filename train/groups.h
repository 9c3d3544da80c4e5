/* groups.h: Lighthouse attention of heads in groups, each with a tile budget of its own. */
#ifndef TRAIN_GROUPS_H
#define TRAIN_GROUPS_H

#include "train/pass.h"

/* Plans for p->options.group_tile_topk. */
lh_status groups_create(pass *p, lh_error *error);
void groups_destroy(pass *p);
/* Attention of a layer, group by group. */
lh_status groups_attend(const pass *p, int64_t layer, bool backward, lh_error *error);

#endif
