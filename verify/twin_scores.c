/*
 * How far float32 is off a score (SPEC 3.2).
 *
 * A norm is as exact in float32 at 1e-30 as at 1, but the twin's squares underflow there. So the twin sees every row
 * times a power of two that brings its largest element near 1, which changes no rounding; what it says is scaled back.
 * Coarser levels are maxima, which round nothing: the tokens' scores tell all.
 */
#include <math.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "verify/verify.h"

/* The power of two that takes the largest element of x [d] into [1/2, 1); of zeros, 0. */
static int exponent_of(const double *x, int64_t d)
{
    int exponent = 0;
    double most = 0;
    for (int64_t c = 0; c < d; c++)
        most = fmax(most, fabs(x[c]));
    (void)frexp(most, &exponent);
    return most > 0 ? exponent : 0;
}

/* x [rows,d] in float32, row by row in order or reversed, each scaled. */
static void scale_rows(const double *x, int64_t rows, int64_t d, bool reversed, lh_tensor *to)
{
    for (int64_t r = 0; r < rows; r++) {
        const int exponent = exponent_of(x + r * d, d);
        for (int64_t c = 0; c < d; c++)
            lh_store(to->data, to->dtype, r * d + (reversed ? d - 1 - c : c), ldexp(x[r * d + c], -exponent));
    }
}

lh_status verify_twin_scores(const lh_tensor *x, const lh_tensor *want, lh_dtype storage, double *error_most,
                             double *relative, lh_error *error)
{
    /* One head after another as one dense layer: its scores are those of the tokens alone. */
    const int64_t rows = x->shape[0] * x->shape[1] * x->shape[2], d = x->shape[3];
    const int64_t tokens = x->shape[2], entries = want->shape[2];
    const lh_config flat = {
        .batch = 1, .heads = 1, .kv_heads = 1, .tokens = rows, .dim = d, .levels = 1, .pool = 2};
    verify_trace twin = {0};
    lh_status status = verify_make(&twin, &flat, LH_F32, LH_Q, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = verify_make(&twin, &flat, LH_F32, LH_K, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = verify_make(&twin, &flat, storage, LH_SCORE_Q, VERIFY_PACKED, error);
    for (int reversed = 0; reversed < 2 && status == LH_OK; reversed++) {
        scale_rows(x->data, rows, d, reversed, &twin.tensor[LH_Q]);
        memcpy(twin.tensor[LH_K].data, twin.tensor[LH_Q].data, (size_t)(rows * d) * sizeof(float));
        status = lh_ref_run(32, &flat, LH_REF_STAGE(LH_SCORE), twin.tensor, NULL, error);
        for (int64_t r = 0; r < rows && status == LH_OK; r++) {
            const double wanted = ((const double *)want->data)[r / tokens * entries + r % tokens];
            const double got = ldexp(verify_element(&twin.tensor[LH_SCORE_Q], r),
                                     exponent_of((const double *)x->data + r * d, d));
            *error_most = fmax(*error_most, fabs(got - wanted));
            if (wanted > 0)
                *relative = fmax(*relative, fabs(got - wanted) / wanted);
        }
    }
    verify_free(&twin);
    return status;
}
