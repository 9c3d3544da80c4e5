/*
 * honest.h: ports of the algorithm that do it right in their own way.
 *
 * Everything an honest port may do otherwise than the reference is a knob: the order of sums, fused products,
 * softmax in blocks with a running maximum, matrix units that cut their operands, squared norms for ranking,
 * pooling level by level, tensors stored in a half type. A checker that calls one of these wrong cries wolf.
 */
#ifndef LH_TESTS_HONEST_H
#define LH_TESTS_HONEST_H

#include "core/base.h"

struct honest {
    lh_dtype storage;    /* F32, BF16, F16: what tensors are stored in */
    int parts;           /* sums go in this many interleaved partial sums, then pairwise; 1 is serial */
    bool reversed;       /* sums run from the last term to the first */
    bool fused;          /* products are fused into sums */
    int block;           /* keys a block of the softmax; 0: whole rows */
    int operand_bits;    /* of the mantissa of a product's operands: 24, or 11 as tf32 has */
    bool squared_norms;  /* ranks by squared norms; stores their roots */
    bool level_by_level; /* pools each level from the one below */
    bool d_from_p;       /* D = sum P dP instead of do.o */
};

/* Fills every tensor of trace from its q, k, v, dout; all in their storage dtype, contiguous. */
lh_status honest_layer(const struct honest *port, const lh_config *config, const lh_tensor *trace,
                       lh_error *error);

#endif
