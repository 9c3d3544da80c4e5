/* Walks over whole tensors on the host: copies between strides and dtypes, the search for NaN and Inf. */
#include <inttypes.h>
#include <string.h>

#include "core/backend.h"
#include "core/convert.h"
#include "core/mode.h"

/* "[0,1,37,5]": where row-major element i stands. */
static const char *position_text(const lh_tensor *t, int64_t i, char text[LH_SHAPE_TEXT])
{
    lh_tensor position = {.rank = t->rank};
    for (int d = t->rank - 1; d >= 0; d--) {
        position.shape[d] = i % t->shape[d];
        i /= t->shape[d];
    }
    return lh_shape_text(&position, text);
}

/* A tensor as rows of contiguous elements: one row when it is contiguous altogether. */
struct rows {
    int64_t count, length;
};

static struct rows rows_of(const lh_tensor *t, bool whole)
{
    const int64_t elements = lh_tensor_elements(t);
    if (elements == 0)
        return (struct rows){0, 0};
    if (whole || t->rank == 0)
        return (struct rows){1, elements};
    const int64_t length = t->shape[t->rank - 1];
    return (struct rows){elements / length, length};
}

/* Where row r (of all dimensions but the last, row-major) starts, in elements. */
static int64_t row_start(const lh_tensor *t, int64_t r)
{
    int64_t start = 0;
    for (int d = t->rank - 2; d >= 0; d--) {
        start += r % t->shape[d] * t->stride[d];
        r /= t->shape[d];
    }
    return start;
}

lh_status lh_tensor_check(const lh_tensor *t, const char *name, lh_error *error)
{
    if (!t)
        return lh_fail(error, LH_INVALID, "%s is NULL, wanted a tensor", name);
    if ((unsigned)t->dtype >= LH_DTYPE_COUNT)
        return lh_fail(error, LH_INVALID, "%s has dtype %d, wanted 0 to %d", name, (int)t->dtype,
                       LH_DTYPE_COUNT - 1);
    if (t->rank < 0 || t->rank > LH_MAX_RANK)
        return lh_fail(error, LH_INVALID, "%s has rank %d, wanted 0 to %d", name, t->rank, LH_MAX_RANK);
    int64_t bytes = (int64_t)lh_dtype_size(t->dtype);
    for (int d = 0; d < t->rank; d++) {
        if (t->shape[d] < 0)
            return lh_fail(error, LH_INVALID, "%s has size %" PRId64 " in dimension %d, wanted at least 0",
                           name, t->shape[d], d);
        const bool last = d == t->rank - 1;
        if (t->shape[d] > 1 && (last ? t->stride[d] != 1 : t->stride[d] < 1))
            return lh_fail(error, LH_INVALID, "%s has stride %" PRId64 " in dimension %d, wanted %s", name,
                           t->stride[d], d, last ? "1" : "at least 1");
        if (t->shape[d] > 1 && bytes > INT64_MAX / t->shape[d])
            return lh_fail(error, LH_INVALID,
                           "%s has size %" PRId64 " in dimension %d, wanted fewer than 2^63 bytes", name,
                           t->shape[d], d);
        bytes *= t->shape[d] > 1 ? t->shape[d] : 1;
    }
    if (!t->data && lh_tensor_elements(t) != 0)
        return lh_fail(error, LH_INVALID, "%s has data NULL, wanted its elements", name);
    return LH_OK;
}

static bool is_integer(lh_dtype dtype)
{
    return dtype == LH_I32 || dtype == LH_I64;
}

/* Every int64 of src must fit in an int32. */
static lh_status check_fits(const lh_tensor *src, lh_error *error)
{
    const struct rows rows = rows_of(src, lh_tensor_contiguous(src));
    for (int64_t r = 0; r < rows.count; r++) {
        const int64_t *row = (const int64_t *)src->data + row_start(src, r);
        for (int64_t i = 0; i < rows.length; i++) {
            char text[LH_SHAPE_TEXT];
            if (row[i] < INT32_MIN || row[i] > INT32_MAX)
                return lh_fail(error, LH_INVALID, "src%s is %" PRId64 ", wanted a value that I32 holds",
                               position_text(src, r * rows.length + i, text), row[i]);
        }
    }
    return LH_OK;
}

static void convert_integers(void *dst, lh_dtype dst_dtype, const void *src, lh_dtype src_dtype, int64_t n)
{
    if (dst_dtype == src_dtype) {
        memcpy(dst, src, (size_t)n * lh_dtype_size(dst_dtype));
    } else if (dst_dtype == LH_I64) {
        for (int64_t i = 0; i < n; i++)
            ((int64_t *)dst)[i] = ((const int32_t *)src)[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            ((int32_t *)dst)[i] = (int32_t)((const int64_t *)src)[i];
    }
}

static lh_status convert(const lh_tensor *dst, const lh_tensor *src, lh_error *error)
{
    lh_status status = lh_tensor_check(dst, "dst", error);
    if (status == LH_OK)
        status = lh_tensor_check(src, "src", error);
    if (status != LH_OK)
        return status;
    if (dst->rank != src->rank)
        return lh_fail(error, LH_INVALID, "dst has rank %d, wanted src's %d", dst->rank, src->rank);
    for (int d = 0; d < src->rank; d++) {
        if (dst->shape[d] != src->shape[d])
            return lh_fail(error, LH_INVALID,
                           "dst has size %" PRId64 " in dimension %d, wanted src's %" PRId64, dst->shape[d],
                           d, src->shape[d]);
    }
    const bool integers = is_integer(src->dtype);
    if (is_integer(dst->dtype) != integers)
        return lh_fail(error, LH_INVALID, "dst is %s, wanted %s type as src is %s", lh_dtype_name(dst->dtype),
                       integers ? "an integer" : "a floating", lh_dtype_name(src->dtype));
    if (src->dtype == LH_I64 && dst->dtype == LH_I32)
        status = check_fits(src, error);
    if (status != LH_OK)
        return status;
    const size_t dst_size = lh_dtype_size(dst->dtype), src_size = lh_dtype_size(src->dtype);
    const struct rows rows = rows_of(src, lh_tensor_contiguous(src) && lh_tensor_contiguous(dst));
    for (int64_t r = 0; r < rows.count; r++) {
        unsigned char *to = (unsigned char *)dst->data + (size_t)row_start(dst, r) * dst_size;
        const unsigned char *from = (const unsigned char *)src->data + (size_t)row_start(src, r) * src_size;
        if (integers)
            convert_integers(to, dst->dtype, from, src->dtype, rows.length);
        else
            lh_convert(to, dst->dtype, from, src->dtype, rows.length);
    }
    return LH_OK;
}

lh_status lh_tensor_convert(const lh_tensor *dst, const lh_tensor *src, lh_error *error)
{
    lh_mode mode;
    lh_mode_begin(&mode);
    const lh_status status = convert(dst, src, error);
    lh_mode_end(&mode);
    return status;
}

/* n where all of row [n] are finite. All-ones exponents are looked for as integers, so that no compiler
 * option that assumes finite arithmetic can remove the test. */
static int64_t first_not_finite(const void *row, lh_dtype dtype, int64_t n)
{
    int64_t i = 0;
    switch (dtype) {
    case LH_F64:
        for (const uint64_t *x = row; i < n && (~x[i] & UINT64_C(0x7ff) << 52) != 0;)
            i++;
        return i;
    case LH_F32:
        for (const uint32_t *x = row; i < n && (~x[i] & 0x7f800000u) != 0;)
            i++;
        return i;
    case LH_F16:
        for (const uint16_t *x = row; i < n && (~x[i] & 0x7c00) != 0;)
            i++;
        return i;
    case LH_BF16:
        for (const uint16_t *x = row; i < n && (~x[i] & 0x7f80) != 0;)
            i++;
        return i;
    default:
        return n;
    }
}

lh_status lh_tensor_finite(const lh_tensor *tensor, const char *name, lh_error *error)
{
    const lh_status status = lh_tensor_check(tensor, name, error);
    if (status != LH_OK)
        return status;
    const struct rows rows = rows_of(tensor, lh_tensor_contiguous(tensor));
    for (int64_t r = 0; r < rows.count; r++) {
        const unsigned char *row =
            (const unsigned char *)tensor->data + (size_t)row_start(tensor, r) * lh_dtype_size(tensor->dtype);
        const int64_t i = first_not_finite(row, tensor->dtype, rows.length);
        if (i < rows.length) {
            const double value = lh_load(row, tensor->dtype, i);
            char text[LH_SHAPE_TEXT];
            return lh_fail(error, LH_INVALID, "%s%s is %s, wanted a finite value", name,
                           position_text(tensor, r * rows.length + i, text),
                           value != value ? "NaN"
                           : value > 0    ? "Inf"
                                          : "-Inf");
        }
    }
    return LH_OK;
}
