/* layer.h: a whole trace of one small layer in host memory, for tests of any backend. */
#ifndef LH_TESTS_LAYER_H
#define LH_TESTS_LAYER_H

#include "core/backend.h"

struct layer {
    lh_config config;
    lh_tensor trace[LH_TENSOR_COUNT]; /* q k v dout Gaussian, the rest filled with a pattern */
};

void layer_create(struct layer *layer, const lh_config *config, lh_dtype dtype, uint64_t seed);
void layer_free(struct layer *layer);
size_t layer_bytes(const lh_tensor *tensor);

/* Argument 1 of the program, "ref" without one. Ends the program with 77 where that backend was not built or
 * has no device. */
const char *backend_under_test(int argc, char **argv);
/* The same for ranks that are threads of one process: a backend that works on a device is a SKIP too. */
const char *backend_over_threads(int argc, char **argv);
/* Binary32, or binary64 where the backend has no other. */
lh_dtype dtype_under_test(const char *backend);

#endif
