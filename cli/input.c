/* Reads one layer out of a safetensors file: SPEC section 5 names, configuration in __metadata__. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "cli/input.h"

enum {
    DEFAULT_TILE_TOPK = 128
}; /* what the original implementation always uses */

/* *value keeps what it holds when the file does not say. */
static lh_status metadata_integer(const lh_file *file, const char *key, int64_t *value, lh_error *error)
{
    const char *text = lh_file_metadata(file, key);
    if (!text)
        return LH_OK;
    char *end;
    errno = 0;
    const long long found = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return lh_fail(error, LH_INVALID, "__metadata__ %s is '%.100s', wanted an integer", key, text);
    *value = found;
    return LH_OK;
}

static lh_status need_tensor(const lh_file *file, const char *name, const lh_tensor **tensor, lh_error *error)
{
    char kind[LH_KIND_TEXT];
    *tensor = lh_file_find(file, name);
    if (!*tensor)
        return lh_fail(error, LH_INVALID, "tensor %s is absent, wanted it in the file%s", name,
                       lh_file_find(file, "out")
                           ? ": results alone are not enough, lighthouse run --trace writes "
                             "what they were computed from beside them"
                           : "");
    if ((*tensor)->dtype == LH_DTYPE_COUNT)
        return lh_fail(
            error, LH_INVALID,
            "%s is %s, wanted F64, F32, F16 or BF16 (index: I32 or I64) in at most four dimensions", name,
            lh_file_kind(file, name, kind));
    return LH_OK;
}

static bool is_floating(lh_dtype dtype)
{
    return dtype == LH_F64 || dtype == LH_F32 || dtype == LH_F16 || dtype == LH_BF16;
}

/* Shape and dtype of a [B,heads,N,d] input; heads 0 leaves that dimension free. */
static lh_status check_input(const lh_tensor *t, const char *name, const lh_config *c, int64_t heads,
                             bool token_major, lh_error *error)
{
    char found[LH_SHAPE_TEXT], number[24] = "G", tokens[24];
    const int at = token_major ? 2 : 1;
    if (!is_floating(t->dtype))
        return lh_fail(error, LH_INVALID, "%s is %s, wanted F64, F32, F16 or BF16", name,
                       lh_dtype_name(t->dtype));
    if (heads > 0)
        snprintf(number, sizeof number, "%" PRId64, heads);
    snprintf(tokens, sizeof tokens, "%" PRId64, c->tokens);
    if (t->rank != 4 || t->shape[0] != c->batch || (heads > 0 && t->shape[at] != heads) ||
        t->shape[3 - at] != c->tokens || t->shape[3] != c->dim)
        return lh_fail(error, LH_INVALID, "%s has shape %s, wanted [%" PRId64 ",%s,%s,%" PRId64 "]", name,
                       lh_shape_text(t, found), c->batch, token_major ? tokens : number,
                       token_major ? number : tokens, c->dim);
    return LH_OK;
}

/* B H N d from q, G from k. */
static lh_status sizes(const lh_file *file, const cli_wish *wish, lh_config *c, lh_error *error)
{
    const lh_tensor *q, *k, *v = lh_file_find(file, "v"), *dout = lh_file_find(file, "dout");
    const bool turned = wish->token_major;
    lh_status status = need_tensor(file, "q", &q, error);
    if (status == LH_OK)
        status = need_tensor(file, "k", &k, error);
    if (status == LH_OK && (v || !wish->without_v))
        status = need_tensor(file, "v", &v, error);
    if (status == LH_OK && dout)
        status = need_tensor(file, "dout", &dout, error);
    if (status != LH_OK)
        return status;
    char found[LH_SHAPE_TEXT];
    if (q->rank != 4)
        return lh_fail(error, LH_INVALID, "q has shape %s, wanted four dimensions [B,%s,d]",
                       lh_shape_text(q, found), turned ? "N,H" : "H,N");
    c->batch = q->shape[0];
    c->heads = q->shape[turned ? 2 : 1];
    c->tokens = q->shape[turned ? 1 : 2];
    c->dim = q->shape[3];
    status = check_input(q, "q", c, c->heads, turned, error);
    if (status == LH_OK)
        status = check_input(k, "k", c, 0, turned, error);
    if (status == LH_OK)
        c->kv_heads = k->shape[turned ? 2 : 1];
    if (status == LH_OK && v)
        status = check_input(v, "v", c, c->kv_heads, turned, error);
    if (status == LH_OK && dout)
        status = check_input(dout, "dout", c, c->heads, turned, error);
    return status;
}

static lh_status agree_kv_heads(int64_t said, const char *where, int64_t found, lh_error *error)
{
    if (said == found)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "kv_heads is %" PRId64 " (%s), wanted %" PRId64 ", the heads of k",
                   said, where, found);
}

static lh_status read_config(const lh_file *file, const cli_wish *wish, lh_config *config, lh_error *error)
{
    lh_config c = {.tile_topk = DEFAULT_TILE_TOPK};
    const char *scorer = lh_file_metadata(file, "scorer");
    if (scorer && strcmp(scorer, "norm") != 0)
        return lh_fail(error, LH_INVALID, "__metadata__ scorer is '%.100s', wanted norm", scorer);
    lh_status status = sizes(file, wish, &c, error);
    if (status != LH_OK)
        return status;
    int64_t kv_heads = c.kv_heads;
    struct {
        const char *key, *flag;
        int64_t *value;
        int64_t wished;
    } members[] = {
        {"levels", "--levels", &c.levels, wish->dense ? 1 : wish->levels},
        {"pool", "--pool", &c.pool, wish->pool},
        {"topk", "--topk", &c.topk, wish->topk},
        {"tile_topk", "--tile-topk", &c.tile_topk, wish->tile_topk},
        {"kv_heads", "--kv-heads", &kv_heads, 0},
    };
    for (size_t i = 0; i < sizeof members / sizeof *members && status == LH_OK; i++) {
        status = metadata_integer(file, members[i].key, members[i].value, error);
        if (members[i].wished)
            *members[i].value = members[i].wished;
        /* Dense attention reads neither pool nor topk. */
        if (status == LH_OK && *members[i].value == 0 && c.levels == 1)
            *members[i].value = 2;
        if (status == LH_OK && *members[i].value == 0 && !lh_file_metadata(file, members[i].key))
            status =
                lh_fail(error, LH_INVALID, "%s is in neither __metadata__ nor %s, wanted it from one of them",
                        members[i].key, members[i].flag);
    }
    if (status == LH_OK)
        status = agree_kv_heads(kv_heads, "__metadata__", c.kv_heads, error);
    if (status == LH_OK && wish->kv_heads)
        status = agree_kv_heads(wish->kv_heads, "--kv-heads", c.kv_heads, error);
    if (status == LH_OK)
        status = lh_config_check(&c, NULL, error);
    if (status == LH_OK)
        *config = c;
    return status;
}

lh_status cli_input_config(const lh_file *file, const cli_wish *wish, lh_config *config, lh_error *error)
{
    cli_wish turned = *wish;
    const lh_status status = read_config(file, wish, config, error);
    turned.token_major = true;
    if (status != LH_INVALID || !wish->may_turn || wish->token_major ||
        read_config(file, &turned, config, NULL) != LH_OK)
        return status;
    char text[sizeof error->text];
    snprintf(text, sizeof text, "%s", error->text);
    return lh_fail(error, LH_INVALID, "%.430s; it fits as [B,N,H,d]: --layout bnhd reads it so", text);
}

/* `from` itself where it is what is wanted, else a converted copy. */
static lh_status convert(const lh_tensor *from, lh_dtype dtype, const char *name, lh_tensor *tensor,
                         void **copy, lh_error *error)
{
    *tensor = *from;
    *copy = NULL;
    if (from->dtype == dtype)
        return LH_OK;
    tensor->dtype = dtype;
    const lh_status status =
        lh_alloc(copy, (size_t)lh_tensor_elements(from) * lh_dtype_size(dtype), name, error);
    tensor->data = *copy;
    return status == LH_OK ? lh_tensor_convert(tensor, from, error) : status;
}

lh_status cli_input_tensor(const lh_file *file, lh_tensor_id id, lh_dtype dtype, lh_tensor *tensor,
                           void **copy, lh_error *error)
{
    const char *name = lh_tensor_name(id);
    const lh_tensor *from;
    lh_status status = need_tensor(file, name, &from, error);
    if (status == LH_OK)
        status = lh_tensor_finite(from, name, error);
    if (status == LH_OK)
        status = convert(from, dtype, name, tensor, copy, error);
    lh_error overflow; /* a finite F64 may be infinite in F16 */
    if (status == LH_OK && from->dtype != dtype && lh_tensor_finite(tensor, name, &overflow) != LH_OK)
        status = lh_fail(error, LH_INVALID, "%.400s (as %s)", overflow.text, lh_dtype_name(dtype));
    return status;
}

lh_status cli_input_index(const lh_file *file, const lh_config *config, lh_tensor *tensor, void **copy,
                          lh_error *error)
{
    char found[LH_SHAPE_TEXT], wanted[LH_SHAPE_TEXT];
    const lh_tensor *from;
    lh_tensor like;
    lh_layout layout;
    lh_status status = lh_config_check(config, &layout, error);
    if (status == LH_OK)
        status = lh_tensor_describe(config, LH_F64, LH_INDEX, &like, error);
    if (status == LH_OK)
        status = need_tensor(file, "index", &from, error);
    if (status != LH_OK)
        return status;
    if (is_floating(from->dtype))
        return lh_fail(error, LH_INVALID, "index is %s, wanted I32 or I64", lh_dtype_name(from->dtype));
    if (from->rank != like.rank || memcmp(from->shape, like.shape, sizeof(int64_t) * (size_t)like.rank) != 0)
        return lh_fail(error, LH_INVALID, "index has shape %s, wanted %s", lh_shape_text(from, found),
                       lh_shape_text(&like, wanted));
    status = lh_index_check(config, &layout, from, error);
    return status == LH_OK ? convert(from, like.dtype, "index", tensor, copy, error) : status;
}
