/* plant.h: dumps of a port that does everything right but for chosen faults. */
#ifndef LH_TESTS_PLANT_H
#define LH_TESTS_PLANT_H

#include "check/faults.h"
#include "verify/verify.h"

/* Which tensors a dump shows. */
enum plant_shape {
    PLANT_FULL,  /* every tensor of the trace */
    PLANT_FUSED, /* q k v dout index o_sel lse out dq dk dv */
    PLANT_RUN,   /* q k v dout out dq dk dv */
    PLANT_SHAPES,
};

struct planted {
    verify_trace trace;                 /* of the dump's dtype; verify_free */
    lh_tensor present[LH_TENSOR_COUNT]; /* of the shape; data NULL where the shape has it not */
};

/* The case of that name, which there is. */
const verify_case *plant_case(const char *id);

/* A float32 port of the case with tensors stored in dtype; faults: `count` of them, in different stages. Behind an
 * index that nothing can follow the dump ends. */
lh_status plant(const verify_case *c, lh_dtype dtype, enum plant_shape shape, const lh_fault *const *faults,
                int count, struct planted *planted, lh_error *error);
/* A tensor of the dump differs from that of the honest port, which shows all of its own. */
bool plant_shows(const struct planted *planted, const struct planted *honest);

#endif
