/*
 * Inputs of the cases. Every value is representable in binary32, and drawn by counter: the same on every
 * machine. Stream = tensor id; draw = row-major position in [B,H,N,d].
 */
#include <math.h>
#include <string.h>

#include "core/random.h"
#include "verify/verify.h"

static const char *const names[VERIFY_PATTERNS] = {
    [VERIFY_GAUSSIAN] = "gaussian", [VERIFY_INTEGERS] = "integers", [VERIFY_SIGNS] = "signs",
    [VERIFY_SHARP] = "sharp",       [VERIFY_SHARPEST] = "sharpest", [VERIFY_FLAT] = "flat",
    [VERIFY_RAMP] = "ramp",         [VERIFY_RISING] = "rising",     [VERIFY_OFFSET] = "offset",
    [VERIFY_TINY] = "tiny",         [VERIFY_APART] = "apart",       [VERIFY_HAND] = "hand",
    [VERIFY_FILE] = "file",
};

const char *verify_pattern_name(verify_pattern pattern)
{
    return names[pattern];
}

/* An integer in [-3, 3]. */
static double small_integer(uint64_t seed, uint64_t stream, uint64_t i)
{
    return floor(7 * lh_random_uniform(seed, stream, i)) - 3;
}

/* One element of q or k; `along` runs from 0 to 1 over the tokens. */
static double query_or_key(const verify_case *c, lh_tensor_id id, uint64_t i, double along)
{
    const double g = lh_random_gaussian(c->seed, id, i);
    switch (c->pattern) {
    case VERIFY_INTEGERS:
        return small_integer(c->seed, id, i);
    case VERIFY_SIGNS:
        return g < 0 ? -1 : 1;
    case VERIFY_SHARP:
        return 8 * g;
    case VERIFY_SHARPEST:
        return 40 * g;
    case VERIFY_FLAT:
        return 0x1p-8 * g;
    case VERIFY_TINY:
        return 0x1p-83 * g;
    case VERIFY_APART:
        return (id == LH_Q ? 0x1p83 : 0x1p-83) * g;
    case VERIFY_RAMP:
        return g * (id == LH_Q ? 0.25 + 4 * along : 4.25 - 4 * along);
    case VERIFY_RISING: /* q near 1, k grows: q . k rises with the position of the key */
        return id == LH_Q ? 1 + 0.125 * g : 0.125 * g + 6 * along;
    default:
        return g;
    }
}

static double by_hand(const struct verify_hand *hand, lh_tensor_id id, uint64_t i)
{
    const double *from = id == LH_Q ? hand->q : id == LH_K ? hand->k : hand->v;
    if (id == LH_DOUT)
        return 1;
    return from ? from[i] : 0;
}

static double element(const verify_case *c, lh_tensor_id id, uint64_t i, double along)
{
    if (c->pattern == VERIFY_HAND)
        return by_hand(c->hand, id, i);
    if (id == LH_Q || id == LH_K)
        return query_or_key(c, id, i, along);
    if (c->pattern == VERIFY_INTEGERS)
        return small_integer(c->seed, id, i);
    return lh_random_gaussian(c->seed, id, i) + (c->pattern == VERIFY_OFFSET && id == LH_V ? 64 : 0);
}

static void generate(const verify_case *c, lh_tensor *t, lh_tensor_id id)
{
    const int64_t elements = lh_tensor_elements(t);
    double *x = t->data;
    for (int64_t i = 0; i < elements; i++) {
        const int64_t token = i / t->shape[3] % t->shape[2];
        const double value = element(c, id, (uint64_t)i, (double)token / (double)t->shape[2]);
        x[i] = (double)(float)value;
    }
}

static lh_status read_input(const verify_case *c, const lh_file *file, lh_tensor_id id, lh_tensor *t,
                            lh_error *error)
{
    const lh_tensor *found = lh_file_find(file, lh_tensor_name(id));
    if (found)
        return lh_tensor_convert(t, found, error);
    if (id != LH_DOUT)
        return lh_fail(error, LH_FORMAT, "%s has no tensor %s", c->id, lh_tensor_name(id));
    memset(t->data, 0, (size_t)lh_tensor_elements(t) * lh_dtype_size(t->dtype));
    return LH_OK;
}

lh_status verify_inputs(const verify_case *c, verify_trace *inputs, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    lh_file *file = NULL;
    lh_status status = LH_OK;
    if (c->pattern == VERIFY_FILE)
        status = verify_upstream_open(c->id, &file, error);
    for (size_t i = 0; i < sizeof ids / sizeof *ids && status == LH_OK; i++) {
        status = verify_make(inputs, &c->config, LH_F64, ids[i], VERIFY_PACKED, error);
        if (status == LH_OK && file)
            status = read_input(c, file, ids[i], &inputs->tensor[ids[i]], error);
        else if (status == LH_OK)
            generate(c, &inputs->tensor[ids[i]], ids[i]);
    }
    lh_file_free(file);
    return status;
}
