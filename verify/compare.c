/* The one comparator: what is not a number fails first, then the worst element decides. */
#include <math.h>
#include <string.h>

#include "verify/verify.h"

static const char *const names[VERIFY_VERDICTS] = {
    [VERIFY_EXACT] = "exact",
    [VERIFY_WITHIN] = "within rounding",
    [VERIFY_EXCUSED] = "excused",
    [VERIFY_WRONG] = "wrong",
    [VERIFY_SHAPE] = "wrong shape",
    [VERIFY_UNWRITTEN] = "unwritten",
    [VERIFY_NAN] = "NaN",
    [VERIFY_INF] = "Inf",
    [VERIFY_GUARD] = "wrote outside",
    [VERIFY_INPUT] = "input changed",
    [VERIFY_UNSTABLE] = "unstable",
    [VERIFY_UNCOVERED] = "uncovered not +0",
    [VERIFY_OTHER_BITS] = "not one machine's bits",
    [VERIFY_REFUSED] = "refused",
    [VERIFY_KIND] = "wrong dtype",
    [VERIFY_OVERFLOW] = "overflow",
    [VERIFY_UNJUDGED] = "not judged",
    [VERIFY_SKIPPED] = "skipped",
};

const char *verify_verdict_name(verify_verdict verdict)
{
    return names[verdict];
}

bool verify_passed(verify_verdict verdict)
{
    return verdict == VERIFY_EXACT || verdict == VERIFY_WITHIN || verdict == VERIFY_EXCUSED;
}

bool verify_integer(lh_dtype dtype)
{
    return dtype == LH_I32 || dtype == LH_I64;
}

bool verify_failed(verify_verdict verdict)
{
    return !verify_passed(verdict) && verdict != VERIFY_OVERFLOW && verdict != VERIFY_UNJUDGED &&
           verdict != VERIFY_SKIPPED;
}

static bool same_shape(const lh_tensor *a, const lh_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, sizeof(int64_t) * (size_t)a->rank) == 0;
}

/* What disqualifies an element before any norm is taken; VERIFY_EXACT when nothing does. */
static verify_verdict disqualified(const lh_tensor *got, int64_t i, double value)
{
    if (verify_is_poison(got, verify_offset(got, i)))
        return VERIFY_UNWRITTEN;
    if (isnan(value))
        return VERIFY_NAN;
    return isinf(value) ? VERIFY_INF : VERIFY_EXACT;
}

verify_result verify_compare(const lh_tensor *got, const lh_tensor *want, double allowed)
{
    verify_result r = {.verdict = VERIFY_EXACT, .worst = -1, .allowed = allowed};
    if (!same_shape(got, want) || verify_integer(got->dtype) != verify_integer(want->dtype)) {
        r.verdict = same_shape(got, want) ? VERIFY_KIND : VERIFY_SHAPE;
        return r;
    }
    r.elements = lh_tensor_elements(want);
    double total = 0;
    bool equal = true;
    for (int64_t i = 0; i < r.elements; i++) {
        const double value = verify_element(got, i), wanted = verify_element(want, i);
        const bool plain = verify_integer(got->dtype) ? value >= 0 : isfinite(value);
        /* A wanted value that is none passes nothing. */
        const verify_verdict verdict = isnan(wanted) ? VERIFY_WRONG
                                       : plain       ? VERIFY_EXACT
                                                     : disqualified(got, i, value);
        const double error = fabs(value - wanted);
        if (verdict != VERIFY_EXACT) {
            r = (verify_result){.verdict = verdict,
                                .elements = r.elements,
                                .worst = i,
                                .got = value,
                                .wanted = wanted,
                                .error = INFINITY,
                                .allowed = allowed,
                                .share = INFINITY};
            return r;
        }
        equal = equal && value == wanted;
        total += error;
        if (r.worst < 0 || error > r.error) {
            r.worst = i;
            r.got = value;
            r.wanted = wanted;
            r.error = error;
        }
    }
    r.mean = r.elements ? total / (double)r.elements : 0;
    r.share = r.error == 0 ? 0 : r.error / allowed;
    if (!equal)
        r.verdict = r.error <= allowed ? VERIFY_WITHIN : VERIFY_WRONG;
    return r;
}

double verify_distance(const lh_tensor *a, const lh_tensor *b)
{
    const int64_t elements = lh_tensor_elements(a);
    double most = 0;
    for (int64_t i = 0; i < elements; i++) {
        const double error = fabs(verify_element(a, i) - verify_element(b, i));
        if (!(error <= most))
            most = isfinite(error) ? error : INFINITY;
    }
    return most;
}

int64_t verify_first_difference(const lh_tensor *a, const lh_tensor *b)
{
    const int64_t elements = lh_tensor_elements(a);
    const size_t size = lh_dtype_size(a->dtype);
    for (int64_t i = 0; i < elements; i++) {
        const unsigned char *x = (const unsigned char *)a->data + (size_t)verify_offset(a, i) * size;
        const unsigned char *y = (const unsigned char *)b->data + (size_t)verify_offset(b, i) * size;
        if (memcmp(x, y, size) != 0)
            return i;
    }
    return -1;
}

int64_t verify_uncovered(const lh_tensor *out, const lh_tensor *coverage)
{
    const int64_t rows = lh_tensor_elements(coverage), d = out->shape[3];
    const size_t size = lh_dtype_size(out->dtype);
    static const unsigned char zero[8];
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < d && ((const int32_t *)coverage->data)[r] == 0; c++) {
            const unsigned char *bytes = out->data;
            if (memcmp(bytes + (size_t)verify_offset(out, r * d + c) * size, zero, size) != 0)
                return r * d + c;
        }
    }
    return -1;
}
