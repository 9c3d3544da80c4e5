/* Dumps of the other layout: tokens before heads, as most attention kernels have them. */
#include <stdio.h>
#include <string.h>

#include "check/check.h"

static bool same_shape(const lh_tensor *a, const lh_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank) == 0;
}

/* How a tensor's shape can be read. */
enum reading {
    NEITHER,
    STRAIGHT = 1,
    TURNED = 2,
    BOTH = 3
};

static enum reading reading_of(const lh_tensor *found, const lh_tensor *want)
{
    lh_tensor turned = *found;
    turned.shape[1] = found->shape[2];
    turned.shape[2] = found->shape[1];
    return (enum reading)((same_shape(found, want) ? STRAIGHT : 0) |
                          (found->rank >= 3 && same_shape(&turned, want) ? TURNED : 0));
}

/* Tensors that one line of a port's code lays out: what goes in and out, rows of the pyramid and of the selection,
 * and what has no features. */
enum kin {
    OUTER,
    INNER,
    FLAT,
    KINS
};

static enum kin kin_of(lh_tensor_id id, const lh_tensor *want)
{
    static const lh_tensor_id outer[] = {LH_Q,  LH_K,  LH_V,  LH_DOUT,        LH_OUT,
                                         LH_DQ, LH_DK, LH_DV, LH_TENSOR_COUNT};
    return lh_listed(outer, id) ? OUTER : want->rank == 4 ? INNER : FLAT;
}

lh_status check_read_layout(const lh_config *config, const check_layout *layout, const lh_tensor *found,
                            bool turned[LH_TENSOR_COUNT], lh_error *error)
{
    enum reading reading[LH_TENSOR_COUNT] = {NEITHER}, shown[KINS] = {TURNED, NEITHER, NEITHER};
    lh_tensor want;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        turned[id] = false;
        if (!layout->token_major || found[id].dtype == LH_DTYPE_COUNT || found[id].rank == 0)
            continue;
        const lh_status status = lh_tensor_describe(config, LH_F64, (lh_tensor_id)id, &want, error);
        if (status != LH_OK)
            return status;
        reading[id] = reading_of(&found[id], &want);
        const enum reading said = layout->turned >> id & 1     ? TURNED
                                  : layout->straight >> id & 1 ? STRAIGHT
                                                               : BOTH;
        char shape[LH_SHAPE_TEXT];
        if (reading[id] != NEITHER && !(reading[id] & said))
            return lh_fail(error, LH_INVALID, "%s has shape %s, wanted one that lies as --layout says",
                           lh_tensor_name((lh_tensor_id)id), lh_shape_text(&found[id], shape));
        reading[id] = (enum reading)(reading[id] & said);
        const enum kin kin = kin_of((lh_tensor_id)id, &want);
        if (kin != OUTER && reading[id] != BOTH)
            shown[kin] = (enum reading)(shown[kin] | reading[id]);
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        if (reading[id] == BOTH) {
            lh_tensor_describe(config, LH_F64, (lh_tensor_id)id, &want, NULL);
            reading[id] = shown[kin_of((lh_tensor_id)id, &want)];
            char shape[LH_SHAPE_TEXT];
            const char *name = lh_tensor_name((lh_tensor_id)id);
            if (reading[id] != STRAIGHT && reading[id] != TURNED)
                return lh_fail(
                    error, LH_INVALID,
                    "%s has shape %s, which reads either way, wanted it said: --layout bnhd,%s=bnhd "
                    "or bnhd,%s=bhnd",
                    name, lh_shape_text(&found[id], shape), name, name);
        }
        turned[id] = reading[id] == TURNED;
    }
    return LH_OK;
}

static lh_status parse_one(const char *text, check_layout *layout, lh_error *error)
{
    const char *equals = strchr(text, '=');
    char name[32];
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - text) : 0, text);
    const char *value = equals ? equals + 1 : text;
    const lh_tensor_id id = lh_tensor_by_name(name);
    const bool turned = strcmp(value, "bnhd") == 0;
    if (equals && id == LH_TENSOR_COUNT)
        return lh_fail(error, LH_INVALID, "'%.100s' is the layout of no tensor, wanted lse=bnhd, ...", text);
    if (!turned && strcmp(value, "bhnd") != 0)
        return lh_fail(error, LH_INVALID, "'%.100s', wanted bhnd or bnhd", text);
    if (!equals)
        layout->token_major = turned;
    else
        *(turned ? &layout->turned : &layout->straight) |= 1u << id;
    return LH_OK;
}

lh_status check_parse_layout(const char *text, check_layout *layout, lh_error *error)
{
    lh_status status = LH_OK;
    *layout = (check_layout){0};
    do {
        char one[64];
        const size_t n = strcspn(text, ",");
        snprintf(one, sizeof one, "%.*s", (int)(n < sizeof one ? n : sizeof one - 1), text);
        status = parse_one(one, layout, error);
        text += n + (text[n] == ',');
    } while (*text && status == LH_OK);
    return status;
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

lh_status check_turn(const lh_config *config, const check_layout *layout, lh_tensor *present, void **copies,
                     lh_error *error)
{
    bool turned[LH_TENSOR_COUNT];
    memset(copies, 0, sizeof *copies * LH_TENSOR_COUNT);
    lh_status status = check_read_layout(config, layout, present, turned, error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor want;
        status = lh_tensor_describe(config, LH_F64, (lh_tensor_id)id, &want, error);
        if (status == LH_OK && turned[id])
            status = turn(&present[id], &want, lh_tensor_name((lh_tensor_id)id), &copies[id], error);
    }
    return status;
}
