/* Dumps of the other layout: tokens before heads, as most attention kernels have them. */
#include <string.h>

#include "check/check.h"

static bool same_shape(const lh_tensor *a, const lh_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank) == 0;
}

bool check_lies_turned(const lh_tensor *found, const lh_tensor *want)
{
    lh_tensor turned = *found;
    turned.shape[1] = found->shape[2];
    turned.shape[2] = found->shape[1];
    return found->rank >= 3 && same_shape(&turned, want) && (found->rank == 4 || !same_shape(found, want));
}

/* A contiguous copy of t, [B,rows,heads,(d)], as `want` is shaped, in *copy. */
static lh_status turn(lh_tensor *t, const lh_tensor *want, const char *name, void **copy, lh_error *error)
{
    const size_t width = lh_dtype_size(t->dtype) * (size_t)(t->rank == 4 ? t->shape[3] : 1);
    const int64_t heads = want->shape[1], rows = want->shape[2];
    const lh_status status = lh_alloc(copy, (size_t)(want->shape[0] * heads * rows) * width, name, error);
    if (status != LH_OK)
        return status;
    for (int64_t i = 0; i < want->shape[0] * heads * rows; i++) {
        const int64_t b = i / (heads * rows), h = i / rows % heads, n = i % rows;
        memcpy((char *)*copy + (size_t)i * width,
               (const char *)t->data + (size_t)((b * rows + n) * heads + h) * width, width);
    }
    memcpy(t->shape, want->shape, sizeof t->shape);
    memcpy(t->stride, want->stride, sizeof t->stride);
    t->data = *copy;
    return LH_OK;
}

lh_status check_turn(const lh_config *config, lh_tensor *present, void **copies, lh_error *error)
{
    lh_status status = LH_OK;
    memset(copies, 0, sizeof *copies * LH_TENSOR_COUNT);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor want;
        status = lh_tensor_describe(config, LH_F64, (lh_tensor_id)id, &want, error);
        if (status == LH_OK && present[id].data && check_lies_turned(&present[id], &want))
            status = turn(&present[id], &want, lh_tensor_name((lh_tensor_id)id), &copies[id], error);
    }
    return status;
}
