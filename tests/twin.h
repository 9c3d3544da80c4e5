/* twin.h: a port's tensors against the reference in binary64, judged by what the same source errs by in binary32, its twin. */
#ifndef LH_TESTS_TWIN_H
#define LH_TESTS_TWIN_H

#include "tests/layer.h"

/* The same layer three times: in the port's dtype twice, and exact in binary64. */
struct twin {
    struct layer got, twin, exact;
    lh_dtype dtype;
};

/* Runs the port on t->got.trace, and gives what it wrote to twin_expect: a stage and what it writes, or LH_STAGE_COUNT for
 * forward and backward of a whole layer and its results. `ids` end with LH_TENSOR_COUNT. */
typedef void twin_port(const struct twin *t, int stage, const lh_tensor_id *ids);

/* Every stage, each on the reference's tensors rounded to the dtype. */
void twin_stages(const lh_config *config, lh_dtype dtype, twin_port *port);
/* The whole layer; the reference takes the index that the port chose. */
void twin_layer(const lh_config *config, lh_dtype dtype, twin_port *port);

/* Half a unit in the last place of 1; of float32 for what is none of the halves. */
double twin_unit(lh_dtype dtype);

/* Each of `ids` is no further from exact than four times what the twin is, and two last places of the tensor's largest
 * element; for dq and dk, which are differences, of dv's where that is larger. Integers are equal. */
void twin_expect(const struct twin *t, const lh_tensor_id *ids);

#endif
