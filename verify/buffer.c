/*
 * Buffers that tell on whoever mistreats them: a guard of fixed bytes before, after and in the gaps of
 * every tensor, and a payload that starts as a NaN (or a negative integer) nobody computes by chance.
 */
#include <string.h>

#include "core/convert.h"
#include "verify/verify.h"

enum {
    GUARD = 256, /* bytes on either side; a multiple of every element size */
    GUARD_BYTE = 0xa5,
    GAP = 3, /* elements between tokens of a token-major tensor */
};

static bool may_be_strided(lh_tensor_id id)
{
    return id == LH_Q || id == LH_K || id == LH_V || id == LH_OUT || id == LH_DOUT || id == LH_DQ ||
           id == LH_DK || id == LH_DV;
}

static int64_t extent(const lh_tensor *t)
{
    int64_t last = 0;
    for (int i = 0; i < t->rank; i++)
        last += (t->shape[i] - 1) * t->stride[i];
    return last + 1;
}

int64_t verify_offset(const lh_tensor *t, int64_t i)
{
    int64_t offset = 0;
    for (int r = t->rank - 1; r >= 0; r--) {
        offset += i % t->shape[r] * t->stride[r];
        i /= t->shape[r];
    }
    return offset;
}

double verify_element(const lh_tensor *t, int64_t i)
{
    const int64_t at = lh_tensor_contiguous(t) ? i : verify_offset(t, i);
    if (t->dtype == LH_I32)
        return ((const int32_t *)t->data)[at];
    if (t->dtype == LH_I64)
        return (double)((const int64_t *)t->data)[at];
    return lh_load(t->data, t->dtype, at);
}

lh_status verify_make(verify_trace *trace, const lh_config *config, lh_dtype dtype, lh_tensor_id id,
                      verify_strides strides, lh_error *error)
{
    lh_tensor t;
    lh_status status = lh_tensor_describe(config, dtype, id, &t, error);
    if (status != LH_OK)
        return status;
    size_t before = GUARD;
    if (strides == VERIFY_TOKEN_MAJOR && may_be_strided(id)) {
        const int64_t token = t.shape[1] * t.shape[3] + GAP;
        t.stride[0] = t.shape[2] * token;
        t.stride[1] = t.shape[3];
        t.stride[2] = token;
        before += lh_dtype_size(t.dtype);
    }
    const size_t bytes = before + (size_t)extent(&t) * lh_dtype_size(t.dtype) + GUARD;
    lh_free(trace->block[id]);
    status = lh_alloc(&trace->block[id], bytes, lh_tensor_name(id), error);
    if (status != LH_OK)
        return status;
    memset(trace->block[id], GUARD_BYTE, bytes);
    trace->bytes[id] = bytes;
    t.data = (unsigned char *)trace->block[id] + before;
    trace->tensor[id] = t;
    verify_poison(trace, id);
    return LH_OK;
}

lh_status verify_make_all(verify_trace *trace, const lh_config *config, lh_dtype dtype,
                          verify_strides strides, lh_error *error)
{
    lh_status status = LH_OK;
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++)
        status = verify_make(trace, config, dtype, (lh_tensor_id)id, strides, error);
    return status;
}

/* Bytes of one poisoned element, in the machine's order: quiet NaNs with a payload, negative integers. */
static void poison_of(lh_dtype dtype, unsigned char *bytes)
{
    const uint64_t f64 = UINT64_C(0x7ffdeadbeefbeef5);
    const uint32_t f32 = UINT32_C(0x7fedbee5);
    const uint16_t f16 = 0x7eb5, bf16 = 0x7fd5;
    const int32_t i32 = -0x5eadbee5;
    const int64_t i64 = -INT64_C(0x5eadbeefbee5);
    const void *const pattern[] = {[LH_F64] = &f64,   [LH_F32] = &f32, [LH_F16] = &f16,
                                   [LH_BF16] = &bf16, [LH_I32] = &i32, [LH_I64] = &i64};
    memcpy(bytes, pattern[dtype], lh_dtype_size(dtype));
}

bool verify_is_poison(const lh_tensor *t, int64_t at)
{
    unsigned char pattern[8];
    const size_t size = lh_dtype_size(t->dtype);
    poison_of(t->dtype, pattern);
    return memcmp((const unsigned char *)t->data + (size_t)at * size, pattern, size) == 0;
}

void verify_poison(verify_trace *trace, lh_tensor_id id)
{
    const lh_tensor *t = &trace->tensor[id];
    unsigned char pattern[8];
    const size_t size = lh_dtype_size(t->dtype);
    const int64_t elements = lh_tensor_elements(t);
    const bool packed = lh_tensor_contiguous(t);
    poison_of(t->dtype, pattern);
    for (int64_t i = 0; i < elements; i++)
        memcpy((unsigned char *)t->data + (size_t)(packed ? i : verify_offset(t, i)) * size, pattern, size);
}

static bool all_guard(const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != GUARD_BYTE)
            return false;
    }
    return true;
}

bool verify_guards_hold(const verify_trace *trace, lh_tensor_id id)
{
    const lh_tensor *t = &trace->tensor[id];
    const unsigned char *block = trace->block[id];
    const unsigned char *data = t->data;
    const size_t size = lh_dtype_size(t->dtype);
    const size_t end = (size_t)(data - block) + (size_t)extent(t) * size;
    bool hold = all_guard(block, (size_t)(data - block)) && all_guard(block + end, trace->bytes[id] - end);
    if (lh_tensor_contiguous(t))
        return hold;
    for (int64_t token = 0; token < t->shape[0] * t->shape[2] - 1 && hold; token++)
        hold = all_guard(data + (size_t)(token * t->stride[2] + t->stride[2] - GAP) * size, GAP * size);
    return hold;
}

void verify_free(verify_trace *trace)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        lh_free(trace->block[id]);
    memset(trace, 0, sizeof *trace);
}
