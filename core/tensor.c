/* The tensors of a layer: names, shapes, dtypes, and which stage reads and writes which. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/backend.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[LH_DTYPE_COUNT] = {
    [LH_F64] = {"F64", 8},   [LH_F32] = {"F32", 4}, [LH_F16] = {"F16", 2},
    [LH_BF16] = {"BF16", 2}, [LH_I32] = {"I32", 4}, [LH_I64] = {"I64", 8},
};

const char *lh_dtype_name(lh_dtype dtype)
{
    return (unsigned)dtype < LH_DTYPE_COUNT ? dtypes[dtype].name : "unknown";
}

size_t lh_dtype_size(lh_dtype dtype)
{
    return (unsigned)dtype < LH_DTYPE_COUNT ? dtypes[dtype].size : 0;
}

lh_status lh_dtype_parse(const char *text, lh_dtype *dtype, lh_error *error)
{
    if (!dtype)
        return lh_fail(error, LH_INVALID, "dtype is NULL, wanted where to put the dtype");
    for (int i = 0; i < LH_DTYPE_COUNT && text; i++) {
        if (strcasecmp(text, dtypes[i].name) == 0) {
            *dtype = (lh_dtype)i;
            return LH_OK;
        }
    }
    return lh_fail(error, LH_INVALID, "dtype is %.40s, wanted one of f64 f32 f16 bf16 i32 i64",
                   text ? text : "NULL");
}

/* Which heads and rows a tensor has, and where its dtype comes from. */
enum heads {
    QUERY_HEADS,
    KV_HEADS,
};
enum rows {
    TOKENS,
    ENTRIES,
    SELECTED,
};
enum element {
    VECTOR,   /* [B,heads,rows,d] in the plan's dtype */
    SCALAR,   /* [B,heads,rows] in the plan's dtype, F32 when that is a half */
    POSITION, /* [B,heads,rows] in the layout's index dtype */
    COUNT,    /* [B,heads,rows] int32 */
};

static const struct {
    const char *name;
    enum heads heads;
    enum rows rows;
    enum element element;
} tensors[LH_TENSOR_COUNT] = {
    [LH_Q] = {"q", QUERY_HEADS, TOKENS, VECTOR},
    [LH_K] = {"k", KV_HEADS, TOKENS, VECTOR},
    [LH_V] = {"v", KV_HEADS, TOKENS, VECTOR},
    [LH_Q_PYR] = {"q_pyr", QUERY_HEADS, ENTRIES, VECTOR},
    [LH_K_PYR] = {"k_pyr", KV_HEADS, ENTRIES, VECTOR},
    [LH_V_PYR] = {"v_pyr", KV_HEADS, ENTRIES, VECTOR},
    [LH_SCORE_Q] = {"score_q", QUERY_HEADS, ENTRIES, SCALAR},
    [LH_SCORE_K] = {"score_k", KV_HEADS, ENTRIES, SCALAR},
    [LH_INDEX] = {"index", QUERY_HEADS, SELECTED, POSITION},
    [LH_Q_SEL] = {"q_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_K_SEL] = {"k_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_V_SEL] = {"v_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_O_SEL] = {"o_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_LSE] = {"lse", QUERY_HEADS, SELECTED, SCALAR},
    [LH_OUT] = {"out", QUERY_HEADS, TOKENS, VECTOR},
    [LH_COVERAGE] = {"coverage", QUERY_HEADS, TOKENS, COUNT},
    [LH_DOUT] = {"dout", QUERY_HEADS, TOKENS, VECTOR},
    [LH_DO_SEL] = {"do_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_DQ_SEL] = {"dq_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_DK_SEL] = {"dk_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_DV_SEL] = {"dv_sel", QUERY_HEADS, SELECTED, VECTOR},
    [LH_DQ] = {"dq", QUERY_HEADS, TOKENS, VECTOR},
    [LH_DK] = {"dk", KV_HEADS, TOKENS, VECTOR},
    [LH_DV] = {"dv", KV_HEADS, TOKENS, VECTOR},
};

const char *lh_tensor_name(lh_tensor_id id)
{
    return (unsigned)id < LH_TENSOR_COUNT ? tensors[id].name : "unknown";
}

lh_tensor_id lh_tensor_by_name(const char *name)
{
    int id = 0;
    while (id < LH_TENSOR_COUNT && (!name || strcmp(name, tensors[id].name) != 0))
        id++;
    return (lh_tensor_id)id;
}

bool lh_has_kv_heads(lh_tensor_id id)
{
    return tensors[id].heads == KV_HEADS;
}

void lh_tensor_shape(const lh_config *c, const lh_layout *layout, lh_dtype dtype, lh_tensor_id id,
                     lh_tensor *t)
{
    const int64_t rows[] = {[TOKENS] = c->tokens, [ENTRIES] = layout->entries, [SELECTED] = layout->selected};
    const bool half = dtype == LH_F16 || dtype == LH_BF16;
    const lh_dtype dtype_of[] = {[VECTOR] = dtype,
                                 [SCALAR] = half ? LH_F32 : dtype,
                                 [POSITION] = layout->index_dtype,
                                 [COUNT] = LH_I32};
    memset(t, 0, sizeof *t);
    t->dtype = dtype_of[tensors[id].element];
    t->rank = tensors[id].element == VECTOR ? 4 : 3;
    t->shape[0] = c->batch;
    t->shape[1] = tensors[id].heads == KV_HEADS ? c->kv_heads : c->heads;
    t->shape[2] = rows[tensors[id].rows];
    t->shape[3] = t->rank == 4 ? c->dim : 1;
    lh_tensor_pack(t);
}

void lh_tensor_pack(lh_tensor *t)
{
    int64_t stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        t->stride[i] = stride;
        stride *= t->shape[i];
    }
}

const char *lh_shape_text(const lh_tensor *tensor, char text[LH_SHAPE_TEXT])
{
    int at = snprintf(text, LH_SHAPE_TEXT, "[");
    for (int i = 0; i < tensor->rank && i < LH_MAX_RANK; i++)
        at += snprintf(text + at, LH_SHAPE_TEXT - (size_t)at, i ? ",%" PRId64 : "%" PRId64, tensor->shape[i]);
    snprintf(text + at, LH_SHAPE_TEXT - (size_t)at, "]");
    return text;
}

lh_status lh_tensor_describe(const lh_config *config, lh_dtype dtype, lh_tensor_id id, lh_tensor *tensor,
                             lh_error *error)
{
    lh_layout layout;
    if (!tensor)
        return lh_fail(error, LH_INVALID, "tensor is NULL, wanted where to put the tensor");
    const lh_status status = lh_config_check(config, &layout, error);
    if (status != LH_OK)
        return status;
    if ((unsigned)id >= LH_TENSOR_COUNT)
        return lh_fail(error, LH_INVALID, "tensor id is %d, wanted 0 to %d", (int)id, LH_TENSOR_COUNT - 1);
    if ((unsigned)dtype > LH_BF16)
        return lh_fail(error, LH_INVALID, "dtype is %s, wanted F64, F32, F16 or BF16", lh_dtype_name(dtype));
    lh_tensor_shape(config, &layout, dtype, id, tensor);
    return LH_OK;
}

int64_t lh_tensor_elements(const lh_tensor *tensor)
{
    int64_t elements = tensor ? 1 : 0;
    for (int i = 0; tensor && i < tensor->rank; i++)
        elements *= tensor->shape[i];
    return elements;
}

bool lh_tensor_contiguous(const lh_tensor *tensor)
{
    int64_t stride = 1;
    for (int i = tensor ? tensor->rank - 1 : -1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->stride[i] != stride)
            return false;
        stride *= tensor->shape[i];
    }
    return true;
}

#define END LH_TENSOR_COUNT
const lh_tensor_id lh_layer_inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT, END};
const lh_tensor_id lh_layer_kept[] = {LH_INDEX, LH_O_SEL, LH_LSE, END};
const lh_tensor_id lh_layer_gradients[] = {LH_DQ, LH_DK, LH_DV, END};
const lh_tensor_id lh_layer_strided[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_OUT, LH_DQ, LH_DK, LH_DV, END};

static const struct {
    const char *name;
    lh_tensor_id reads[7], writes[4];
} stages[LH_STAGE_COUNT] = {
    [LH_POOL] = {"pool", {LH_Q, LH_K, LH_V, END}, {LH_Q_PYR, LH_K_PYR, LH_V_PYR, END}},
    [LH_SCORE] = {"score", {LH_Q, LH_K, END}, {LH_SCORE_Q, LH_SCORE_K, END}},
    [LH_SELECT] = {"select", {LH_SCORE_Q, LH_SCORE_K, END}, {LH_INDEX, END}},
    [LH_GATHER] = {"gather",
                   {LH_Q_PYR, LH_K_PYR, LH_V_PYR, LH_INDEX, END},
                   {LH_Q_SEL, LH_K_SEL, LH_V_SEL, END}},
    [LH_ATTEND] = {"attend", {LH_Q_SEL, LH_K_SEL, LH_V_SEL, END}, {LH_O_SEL, LH_LSE, END}},
    [LH_SCATTER] = {"scatter", {LH_O_SEL, LH_INDEX, END}, {LH_OUT, LH_COVERAGE, END}},
    [LH_SCATTER_BACKWARD] = {"scatter_backward", {LH_DOUT, LH_INDEX, END}, {LH_DO_SEL, END}},
    [LH_ATTEND_BACKWARD] = {"attend_backward",
                            {LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_O_SEL, LH_LSE, LH_DO_SEL, END},
                            {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL, END}},
    [LH_UNPOOL] = {"unpool", {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL, LH_INDEX, END}, {LH_DQ, LH_DK, LH_DV, END}},
};
#undef END

bool lh_listed(const lh_tensor_id *list, lh_tensor_id id)
{
    while (*list != LH_TENSOR_COUNT && *list != id)
        list++;
    return *list != LH_TENSOR_COUNT;
}

const char *lh_stage_name(lh_stage stage)
{
    return (unsigned)stage < LH_STAGE_COUNT ? stages[stage].name : "unknown";
}

static const lh_tensor_id none[] = {LH_TENSOR_COUNT}; /* of what is no stage */

const lh_tensor_id *lh_stage_reads(lh_stage stage)
{
    return (unsigned)stage < LH_STAGE_COUNT ? stages[stage].reads : none;
}

const lh_tensor_id *lh_stage_writes(lh_stage stage)
{
    return (unsigned)stage < LH_STAGE_COUNT ? stages[stage].writes : none;
}
