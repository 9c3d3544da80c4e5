/* allow.h: from errors of the twin and sizes of terms to allowances (allow.c, tolerance.c). */
#ifndef LH_VERIFY_ALLOW_H
#define LH_VERIFY_ALLOW_H

#include "verify/verify.h"

/* An error of binary32 in the port's own unit: an F64 port is held to the same multiple of its own. */
double verify_in_own_unit(const verify_expect *e, double error);
/* Widens e->twin[id] and the tiles' errors by one run of the twin over the tensor. */
lh_status verify_note_twin(verify_expect *e, lh_tensor_id id, const lh_tensor *twin, lh_error *error);
/* Allowances of what a stage writes, from what it read and wrote (trace) and the twin's errors noted so far. */
lh_status verify_allow_stage(verify_expect *e, lh_stage stage, const lh_tensor *trace, lh_error *error);

/* True where tensors are stored in less than the arithmetic has (tolerance.c). */
bool verify_half(const verify_expect *e);
/* The smallest number of a storage. */
double verify_least(lh_dtype dtype);
/* Relative rounding of a stored lse; of the weights, by the habits of a port whose largest logit is `logit`. */
double verify_lse_rounding(const verify_expect *e);
double verify_habit_rounding(const verify_expect *e, double logit);

/* Runs of `per` rows of a head; a row has `width` elements, features or 1. */
struct verify_tiling {
    int64_t heads, rows, width, per, tiles; /* tiles of a head */
};

struct verify_tiling verify_tiling_of(const lh_tensor *t, int64_t per);
/* First element of tile i, and one past its last, row-major. */
void verify_tile_range(const struct verify_tiling *g, int64_t i, int64_t *first, int64_t *end);
/* Root sum of squares of a - b there; infinite where it is not finite. */
double verify_tile_error(const lh_tensor *a, const lh_tensor *b, int64_t first, int64_t end);

#endif
