/* A small layer's tensors, drawn from a fixed seed. */
#include <math.h>
#include <stdlib.h>

#include "core/backend.h"
#include "core/random.h"
#include "tests/small_layer.h"
#include "tests/suite.h"

const lh_config small = {.batch = 2,
                         .heads = 2,
                         .kv_heads = 1,
                         .tokens = 48,
                         .dim = 3,
                         .levels = 3,
                         .pool = 2,
                         .topk = 8,
                         .tile_topk = 4};

static void *filled(lh_tensor *t, uint64_t stream)
{
    const int64_t elements = lh_tensor_elements(t);
    t->data = malloc((size_t)elements * lh_dtype_size(t->dtype));
    ck_assert_ptr_nonnull(t->data);
    for (int64_t i = 0; i < elements; i++) {
        const double draw = lh_random_gaussian(1, stream, (uint64_t)i);
        if (t->dtype == LH_F64)
            ((double *)t->data)[i] = draw;
        else if (t->dtype == LH_F32)
            ((float *)t->data)[i] = (float)draw;
        else
            ((int32_t *)t->data)[i] = (int32_t)i;
    }
    return t->data;
}

void write_small(const char *path, enum fault fault)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_DOUT, LH_V};
    lh_file_entry entries[4];
    lh_error error;
    for (int i = 0; i < 4; i++) {
        lh_tensor *t = &entries[i].tensor;
        const lh_tensor_id id = ids[i];
        entries[i].name = lh_tensor_name(id);
        ck_assert_int_eq(lh_tensor_describe(&small, LH_F32, id, t, NULL), LH_OK);
        if (fault == INTEGER_Q && id == LH_Q)
            t->dtype = LH_I32;
        if (fault == HUGE_V && id == LH_V)
            t->dtype = LH_F64;
        t->shape[3] += fault == WIDE_K && id == LH_K;
        t->shape[2] -= fault == SHORT_V && id == LH_V;
        t->rank -= fault == RANK_3_Q && id == LH_Q;
        lh_tensor_pack(t);
        filled(t, (uint64_t)id + (fault == OTHER_DRAW ? LH_TENSOR_COUNT : 0));
        if (fault == NAN_IN_Q && id == LH_Q)
            ((float *)t->data)[lh_offset(t, 1, 0, 47) + 2] = NAN;
        if (fault == INF_IN_DOUT && id == LH_DOUT)
            ((float *)t->data)[lh_offset(t, 0, 1, 5)] = -INFINITY;
        if (fault == HUGE_V && id == LH_V)
            ((double *)t->data)[lh_offset(t, 0, 0, 7) + 1] = 1e300;
    }
    const lh_file_meta meta[] = {
        {"levels", fault == WORD_FOR_LEVELS ? "three" : "3"},
        {"pool", "2"},
        {"topk", "8"},
        {"tile_topk", "4"},
        {"kv_heads", fault == KV_HEADS_SAID_2 ? "2" : "1"},
        {"scorer", fault == GLA_SCORER ? "gla" : "norm"},
    };
    const lh_status status =
        lh_file_write(path, entries, fault == NO_V ? 3 : 4, meta, fault == NO_METADATA ? 0 : 6, &error);
    ck_assert_msg(status == LH_OK, "%s", error.text);
    for (int i = 0; i < 4; i++)
        free(entries[i].tensor.data);
}

lh_file *read_whole(const char *path)
{
    lh_file *file;
    lh_error error;
    const lh_status status = lh_file_read(path, &file, &error);
    ck_assert_msg(status == LH_OK, "%s", error.text);
    return file;
}
