/*
 * Overlap: tensors as runs of bytes at regular distances.
 *
 * A tensor is nested when each stride is at least what lies within it: then its runs do not touch, and the runs that
 * meet an interval are found dimension by dimension. Two of equal strides, which is what views of one packed array are,
 * meet if and only if the differences of their positions can make up the distance of their starts: a search with two or
 * three candidates a dimension. Others are walked over run by run, once their extents meet.
 */
#include <inttypes.h>

#include "core/backend.h"
#include "core/overlap.h"

struct runs {
    uintptr_t first;
    int64_t length; /* bytes of a run */
    int dims;
    int64_t stride[LH_MAX_RANK], count[LH_MAX_RANK]; /* bytes, falling */
    bool nested;
};

/* Bytes from the first to the last of dimensions d and up. */
static int64_t span(const struct runs *r, int d)
{
    int64_t bytes = r->length;
    for (; d < r->dims && d < LH_MAX_RANK; d++)
        bytes += (r->count[d] - 1) * r->stride[d];
    return bytes;
}

static void insert(struct runs *r, int64_t stride, int64_t count)
{
    int at = r->dims++;
    for (; at > 0 && r->stride[at - 1] < stride; at--) {
        r->stride[at] = r->stride[at - 1];
        r->count[at] = r->count[at - 1];
    }
    r->stride[at] = stride;
    r->count[at] = count;
}

static struct runs runs_of(const lh_tensor *t)
{
    const int64_t size = (int64_t)lh_dtype_size(t->dtype);
    struct runs r = {.first = (uintptr_t)t->data, .length = size, .nested = true};
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] > 1)
            insert(&r, t->stride[i] * size, t->shape[i]);
    }
    while (r.dims > 0 && r.stride[r.dims - 1] == r.length)
        r.length *= r.count[--r.dims];
    for (int d = 0; d < r.dims; d++)
        r.nested = r.nested && r.stride[d] >= span(&r, d + 1);
    return r;
}

static int64_t floor_ratio(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Whether bytes [at, at + length) behind the start of dimensions d and up of r meet a run. */
static bool meets(const struct runs *r, int d, int64_t at, int64_t length)
{
    if (d == r->dims || d == LH_MAX_RANK)
        return at < r->length && at + length > 0;
    const int64_t stride = r->stride[d], inner = span(r, d + 1);
    const int64_t from = larger(floor_ratio(at - inner, stride) + 1, 0);
    const int64_t to = smaller(floor_ratio(at + length - 1, stride), r->count[d] - 1);
    for (int64_t i = from; i <= to; i++) {
        if (meets(r, d + 1, at - i * stride, length))
            return true;
    }
    return false;
}

/* Whether a run of a meets one of b, whose strides are the same; b starts `at` bytes behind a. */
static bool meets_alike(const struct runs *a, const struct runs *b, int d, int64_t at)
{
    if (d == a->dims || d == LH_MAX_RANK)
        return at < a->length && at + b->length > 0;
    const int64_t stride = a->stride[d];
    const int64_t from = larger(floor_ratio(at - span(a, d + 1), stride) + 1, 1 - b->count[d]);
    const int64_t to = smaller(floor_ratio(at + span(b, d + 1) - 1, stride), a->count[d] - 1);
    for (int64_t i = from; i <= to; i++) {
        if (meets_alike(a, b, d + 1, at - i * stride))
            return true;
    }
    return false;
}

/* Whether a run of a, from dimension d on and `at` bytes behind b's start, meets b. */
static bool walk(const struct runs *a, const struct runs *b, int d, int64_t at)
{
    if (d == a->dims || d == LH_MAX_RANK)
        return meets(b, 0, at, a->length);
    for (int64_t i = 0; i < a->count[d]; i++) {
        if (walk(a, b, d + 1, at + i * a->stride[d]))
            return true;
    }
    return false;
}

static bool alike(const struct runs *a, const struct runs *b)
{
    bool same = a->dims == b->dims;
    for (int d = 0; d < a->dims && same; d++)
        same = a->stride[d] == b->stride[d];
    return same;
}

/* a is nested. */
static bool share(const struct runs *a, const struct runs *b)
{
    if (a->first + (uintptr_t)span(a, 0) <= b->first || b->first + (uintptr_t)span(b, 0) <= a->first)
        return false;
    const int64_t apart = (int64_t)(b->first - a->first);
    if (b->nested && alike(a, b))
        return meets_alike(a, b, 0, apart);
    return walk(b, a, 0, apart);
}

static lh_status check_self(const lh_tensor *t, const char *name, lh_error *error)
{
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] == 1)
            continue;
        int64_t within = 1; /* elements from the first to the last of what has smaller strides */
        for (int k = 0; k < t->rank; k++) {
            if (k != i && t->shape[k] > 1 &&
                (t->stride[k] < t->stride[i] || (t->stride[k] == t->stride[i] && k > i)))
                within += (t->shape[k] - 1) * t->stride[k];
        }
        if (t->stride[i] < within)
            return lh_fail(error, LH_INVALID,
                           "%s has stride %" PRId64 " in dimension %d, wanted at least %" PRId64
                           ": it is written, and its elements overlap",
                           name, t->stride[i], i, within);
    }
    return LH_OK;
}

static lh_status check_pair(const struct lh_use *a, const struct lh_use *b, const lh_tensor *trace,
                            bool addresses, lh_error *error)
{
    const lh_tensor *x = &trace[a->id], *y = &trace[b->id];
    bool shared = x->data == y->data;
    if (addresses && !shared) {
        const struct runs p = runs_of(x), q = runs_of(y);
        shared = share(&p, &q);
    }
    if (!shared)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "%s shares memory with %s, which the call %s, wanted memory of its own",
                   lh_tensor_name(a->id), lh_tensor_name(b->id), b->written ? "writes too" : "reads");
}

lh_status lh_overlap_check(const struct lh_use *uses, int count, const lh_tensor *trace, bool addresses,
                           lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < count && status == LH_OK; i++) {
        if (!uses[i].written || !trace[uses[i].id].data)
            continue;
        status = check_self(&trace[uses[i].id], lh_tensor_name(uses[i].id), error);
        for (int k = 0; k < count && status == LH_OK; k++) {
            if (k != i && trace[uses[k].id].data && (!uses[k].written || k > i))
                status = check_pair(&uses[i], &uses[k], trace, addresses, error);
        }
    }
    return status;
}
