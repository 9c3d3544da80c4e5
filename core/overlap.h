/* overlap.h: whether the tensors of a call share memory that it writes. */
#ifndef LH_OVERLAP_H
#define LH_OVERLAP_H

#include "core/base.h"

/* A tensor that a call reads or writes, checked: positive strides, the last 1. */
struct lh_use {
    lh_tensor_id id;
    bool required, written;
};

/*
 * LH_INVALID by name where two elements of a written tensor share memory, or a written tensor shares an element with
 * another of the call. Tensors may interleave, as q, k, v in one packed array do. `addresses`: data are addresses; else
 * they are handles, of which only equal ones are known to be the same.
 */
lh_status lh_overlap_check(const struct lh_use *uses, int count, const lh_tensor *trace, bool addresses,
                           lh_error *error);

#endif
