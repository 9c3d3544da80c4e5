/* Where the tensors of an explanation come from: the worked example, a sentence, one head of somebody's layer. */
#include <inttypes.h>
#include <string.h>

#include "core/random.h"
#include "explain/explain.h"

/* Makes room for q k v dout and everything derived, shapes from e->config; writes nothing but the pointers. */
static lh_status make_room(explain *e, lh_error *error)
{
    if (e->config.tokens > EXPLAIN_MAX_TOKENS)
        return lh_fail(error, LH_INVALID, "tokens is %" PRId64 ", wanted at most %d to be explained",
                       e->config.tokens, EXPLAIN_MAX_TOKENS);
    lh_status status = lh_config_check(&e->config, &e->layout, error);
    if (status != LH_OK)
        return status;
    e->layout.index_dtype = LH_I64;
    size_t offset[LH_TENSOR_COUNT], bytes = 0;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor_shape(&e->config, &e->layout, LH_F64, (lh_tensor_id)id, &e->trace[id]);
        offset[id] = bytes;
        bytes += (size_t)lh_tensor_elements(&e->trace[id]) * sizeof(double);
    }
    const size_t entries = (size_t)e->layout.entries, selected = (size_t)e->layout.selected;
    char *memory;
    status = lh_alloc((void **)&memory,
                      bytes + entries * (3 * sizeof(int64_t) + sizeof(explain_role)) +
                          selected * selected * sizeof(double),
                      "explanation", error);
    if (status != LH_OK)
        return status;
    e->memory = memory;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        e->trace[id].data = memory + offset[id];
        e->value[id] = e->trace[id].dtype == LH_F64 ? e->trace[id].data : NULL;
    }
    e->index = e->trace[LH_INDEX].data;
    e->coverage = e->trace[LH_COVERAGE].data;
    e->weights = (void *)(memory + bytes);
    e->slot = (void *)(e->weights + selected * selected);
    e->query_rank = e->slot + entries;
    e->key_rank = e->query_rank + entries;
    e->role = (void *)(e->key_rank + entries);
    return LH_OK;
}

/* Rows q, k, v and dout; dout all zero where there is none. */
struct example {
    const char *name, *source;
    lh_config config;
    double query_unit;
    double rows[4][12];
};
static const struct example examples[] = {
    /* tests/test_ref_hand.c: queries are multiples of ln 2, so every weight is a power of two. */
    {"twelve",
     "the 12-token example of docs/algorithm.md",
     {1, 1, 1, 12, 1, 3, 2, 2, 2},
     0.69314718055994530942,
     {{1, 1, -1, -1, 2, 0, 1, 1, 1, -1, 3, 1},
      {1, -1, 1, -1, 0, -2, 3, -1, 1, 1, 2, 0},
      {4, 0, 0, 4, 8, 0, 2, 6, 4, 4, 1, 3},
      {1, 2, -1, 0, 3, 1, -2, 2, 0, 1, 2, -1}}},
    {"six",
     "six tokens that look ahead, SPEC 9",
     {1, 1, 1, 6, 1, 2, 2, 2, 2},
     1,
     {{3, .5, 2, .5, 1, .5}, {1, .5, 2, .5, 1.5, .5}, {1, 2, 3, 4, 5, 6}}},
    {"six-grown",
     "six tokens that look ahead, SPEC 9, q[5] grown to 9",
     {1, 1, 1, 6, 1, 2, 2, 2, 2},
     1,
     {{3, .5, 2, .5, 1, 9}, {1, .5, 2, .5, 1.5, .5}, {1, 2, 3, 4, 5, 6}}},
};

lh_status explain_example(explain *e, const char *name, lh_error *error)
{
    static const lh_tensor_id ids[4] = {LH_Q, LH_K, LH_V, LH_DOUT};
    const struct example *x = NULL;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        if (strcmp(examples[i].name, name) == 0)
            x = &examples[i];
    if (!x)
        return lh_fail(error, LH_INVALID, "--example is '%.100s', wanted twelve, six or six-grown", name);
    e->config = x->config;
    const lh_status status = make_room(e, error);
    if (status != LH_OK)
        return status;
    for (int i = 0; i < 4; i++) {
        for (int64_t j = 0; j < x->config.tokens; j++) {
            ((double *)e->trace[ids[i]].data)[j] = x->rows[i][j] * (i == 0 ? x->query_unit : 1);
            e->backward = e->backward || (i == 3 && x->rows[i][j] != 0);
        }
    }
    snprintf(e->source, sizeof e->source, "%s", x->source);
    return LH_OK;
}

/* Fewest tokens, at least n, that the configuration takes: whole windows, the same number in every tile. */
static int64_t padded(int64_t n, const lh_config *c)
{
    int64_t unit = 1;
    for (int64_t l = 1; l < c->levels && unit <= EXPLAIN_MAX_TOKENS; l++)
        unit *= c->pool;
    if (c->levels > 1 && c->tile_topk > 0 && c->topk >= c->tile_topk && unit <= EXPLAIN_MAX_TOKENS) {
        unit *= c->topk / c->tile_topk;
        const int64_t least = unit * c->tile_topk;
        n = n > least ? n : least;
    }
    return (n + unit - 1) / unit * unit;
}

lh_status explain_sentence(explain *e, const char *text, const lh_config *config, uint64_t seed,
                           lh_error *error)
{
    const int64_t n = (int64_t)strlen(text), d = config->dim;
    static const lh_tensor_id ids[3] = {LH_Q, LH_K, LH_V};
    if (n == 0)
        return lh_fail(error, LH_INVALID, "text has 0 bytes, wanted at least 1");
    e->config = *config;
    e->config.tokens = config->levels >= 1 && config->pool >= 2 ? padded(n, config) : n;
    const lh_status status = make_room(e, error);
    if (status != LH_OK)
        return status;
    e->has_text = true;
    for (int64_t j = 0; j < e->config.tokens; j++) {
        e->text[j] = j < n ? (unsigned char)text[j] : ' ';
        for (int i = 0; i < 3; i++)
            for (int64_t c = 0; c < d; c++)
                ((double *)e->trace[ids[i]].data)[j * d + c] =
                    lh_random_gaussian(seed, e->text[j], (uint64_t)(i * d + c));
    }
    snprintf(e->source, sizeof e->source,
             "a sentence of %" PRId64 " bytes%s; a byte's q, k, v are drawn from its value, seed %" PRIu64, n,
             e->config.tokens > n ? ", padded with spaces" : "", seed);
    return LH_OK;
}

/* One head of a [B,H,N,d] tensor as a [1,1,N,d] view. */
static lh_tensor head_of(const lh_tensor *t, int64_t batch, int64_t head)
{
    lh_tensor view = *t;
    view.data = (char *)t->data + lh_offset(t, batch, head, 0) * (int64_t)lh_dtype_size(t->dtype);
    view.shape[0] = view.shape[1] = 1;
    return view;
}

lh_status explain_head(explain *e, const lh_config *config, const lh_tensor *q, const lh_tensor *k,
                       const lh_tensor *v, const lh_tensor *dout, int64_t batch, int64_t head,
                       lh_error *error)
{
    if (batch < 0 || batch >= config->batch)
        return lh_fail(error, LH_INVALID, "--batch is %" PRId64 ", wanted 0 to %" PRId64, batch,
                       config->batch - 1);
    if (head < 0 || head >= config->heads)
        return lh_fail(error, LH_INVALID, "--head is %" PRId64 ", wanted 0 to %" PRId64, head,
                       config->heads - 1);
    e->config = *config;
    e->config.batch = e->config.heads = e->config.kv_heads = 1;
    lh_status status = make_room(e, error);
    const int64_t kv = head / (config->heads / config->kv_heads);
    const struct {
        lh_tensor_id id;
        const lh_tensor *from;
        int64_t head;
    } inputs[] = {{LH_Q, q, head}, {LH_K, k, kv}, {LH_V, v, kv}, {LH_DOUT, dout, head}};
    for (int i = 0; i < 4 && status == LH_OK; i++) {
        if (!inputs[i].from || !inputs[i].from->data)
            continue;
        const lh_tensor from = head_of(inputs[i].from, batch, inputs[i].head);
        status = lh_tensor_convert(&e->trace[inputs[i].id], &from, error);
    }
    e->backward = dout && dout->data;
    return status;
}
