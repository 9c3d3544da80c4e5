/* Invalid cases: what SPEC 2 refuses, and tensors that no plan takes, each with the one line it must produce. */
#include <math.h>
#include <string.h>

#include "verify/verify.h"

#define CONFIG(B, H, G, N, D, L, P, K, M)                                                                    \
    {                                                                                                        \
        .batch = (B), .heads = (H), .kv_heads = (G), .tokens = (N), .dim = (D), .levels = (L), .pool = (P),  \
        .topk = (K), .tile_topk = (M)                                                                        \
    }
#define VALID CONFIG(2, 4, 2, 48, 3, 3, 2, 8, 4)

static const verify_invalid cases[] = {
    {"batch-zero", "nothing to do is a mistake, not a result", CONFIG(0, 2, 2, 48, 3, 3, 2, 8, 4),
     .error = "batch is 0, wanted at least 1"},
    {"heads-zero", "no head is no layer", CONFIG(1, 0, 1, 48, 3, 3, 2, 8, 4),
     .error = "heads is 0, wanted at least 1"},
    {"kv-heads-zero", "H/G would divide by zero", CONFIG(1, 2, 0, 48, 3, 3, 2, 8, 4),
     .error = "kv_heads is 0, wanted at least 1"},
    {"kv-heads-no-divisor", "G divides H", CONFIG(1, 4, 3, 48, 3, 3, 2, 8, 4),
     .error = "kv_heads is 3, wanted a divisor of heads 4"},
    {"kv-heads-more", "more key/value heads than query heads", CONFIG(1, 2, 4, 48, 3, 3, 2, 8, 4),
     .error = "kv_heads is 4, wanted a divisor of heads 2"},
    {"tokens-zero", "an empty sequence has no row to attend", CONFIG(1, 2, 2, 0, 3, 3, 2, 8, 4),
     .error = "tokens is 0, wanted at least 1"},
    {"tokens-negative", "a negative size is named as it was given", CONFIG(1, 2, 2, -48, 3, 3, 2, 8, 4),
     .error = "tokens is -48, wanted at least 1"},
    {"tokens-no-multiple", "p^(L-1) divides N", CONFIG(1, 2, 2, 50, 3, 3, 2, 8, 4),
     .error = "tokens is 50, wanted a multiple of pool^(levels-1) = 2^2"},
    {"tokens-overflow", "keys of the post-order reach 2N", CONFIG(1, 1, 1, INT64_MAX, 1, 1, 2, 0, 0),
     .error = "tokens is 9223372036854775807, wanted at most 2^61 - 1"},
    {"pool-overflow", "p^(L-1) past 64 bits divides nothing", CONFIG(1, 1, 1, 1 << 20, 1, 40, 3, 2, 2),
     .error = "tokens is 1048576, wanted a multiple of pool^(levels-1) = 3^39"},
    {"tensor-overflow", "a tensor of 2^63 bytes", CONFIG(1 << 20, 1 << 20, 1, 1 << 20, 1 << 10, 1, 2, 0, 0),
     .error = "batch 1048576, heads 1048576, tokens 1048576, dim 1024: a tensor would pass 2^63 bytes"},
    {"dim-zero", "the scale 1/sqrt(d) would be infinite", CONFIG(1, 2, 2, 48, 0, 3, 2, 8, 4),
     .error = "dim is 0, wanted at least 1"},
    {"levels-zero", "L >= 1", CONFIG(1, 2, 2, 48, 3, 0, 2, 8, 4), .error = "levels is 0, wanted at least 1"},
    {"levels-many", "windows of p^62 fit no 64-bit count", CONFIG(1, 2, 2, 48, 3, 63, 2, 8, 4),
     .error = "levels is 63, wanted at most 62"},
    {"pool-one", "p >= 2: p = 1 would give levels that are all alike", CONFIG(1, 2, 2, 48, 3, 3, 1, 8, 4),
     .error = "pool is 1, wanted at least 2"},
    {"topk-zero", "no parents: nothing to descend into", CONFIG(1, 2, 2, 48, 3, 3, 2, 0, 4),
     .error = "topk is 0, wanted at least 2"},
    {"topk-no-multiple", "m divides k", CONFIG(1, 2, 2, 48, 3, 3, 2, 10, 4),
     .error = "topk is 10, wanted a multiple of tile_topk 4"},
    {"topk-below-tile", "m divides k: at least one tile", CONFIG(1, 2, 2, 48, 3, 3, 2, 4, 8),
     .error = "topk is 4, wanted a multiple of tile_topk 8"},
    {"topk-tiles", "T divides N/p^(L-1); upstream leaves -1 in the index there",
     CONFIG(1, 2, 2, 80, 3, 3, 2, 12, 4),
     .error = "topk is 12: its 3 tiles (topk/tile_topk) do not divide the 20 coarsest entries "
              "(tokens/pool^(levels-1))"},
    {"tile-topk-zero", "k/m would divide by zero", CONFIG(1, 2, 2, 48, 3, 3, 2, 8, 0),
     .error = "tile_topk is 0, wanted at least 2"},
    {"tile-topk-odd", "m is even: half by query, half by key score", CONFIG(1, 2, 2, 48, 3, 3, 2, 9, 3),
     .error = "tile_topk is 3, wanted an even number (half by query, half by key score)"},
    {"tile-topk-large", "a tile's c coarsest entries are at least m", CONFIG(1, 2, 2, 48, 3, 3, 2, 16, 8),
     .error = "tile_topk is 8, wanted at most a tile's 6 coarsest entries"},
    {"nan-q", "NaN is named with its place", VALID, VERIFY_NOT_FINITE, LH_Q, NAN,
     .error = "q[0,1,2,1] is NaN, wanted a finite value"},
    {"inf-k", "an infinite key scores above all", VALID, VERIFY_NOT_FINITE, LH_K, INFINITY,
     .error = "k[0,1,2,1] is Inf, wanted a finite value"},
    {"inf-v", "minus infinity keeps its sign in the message", VALID, VERIFY_NOT_FINITE, LH_V, -INFINITY,
     .error = "v[0,1,2,1] is -Inf, wanted a finite value"},
    {"nan-dout", "gradients are inputs too", VALID, VERIFY_NOT_FINITE, LH_DOUT, NAN,
     .error = "dout[0,1,2,1] is NaN, wanted a finite value"},
    {"shape-k", "k with the heads of q", VALID, VERIFY_OTHER_SHAPE, LH_K,
     .error = "k has shape [2,4,48,3], wanted [2,2,48,3] as the plan has it"},
    {"shape-v", "v with the heads of q", VALID, VERIFY_OTHER_SHAPE, LH_V,
     .error = "v has shape [2,4,48,3], wanted [2,2,48,3] as the plan has it"},
    {"dtype-q", "a plan refuses another dtype", VALID, VERIFY_OTHER_DTYPE, LH_Q,
     .error = "q is F32, wanted F64 as the plan has it"},
    {"null-out", "an output without memory", VALID, VERIFY_NO_DATA, LH_OUT,
     .error = "out is NULL, wanted data"},
};

const verify_invalid *verify_invalid_at(int i)
{
    return i >= 0 && i < (int)(sizeof cases / sizeof *cases) ? &cases[i] : NULL;
}

static void spoil(const verify_invalid *c, verify_trace *t)
{
    lh_tensor *tensor = &t->tensor[c->tensor];
    switch (c->kind) {
    case VERIFY_NOT_FINITE:
        ((double *)tensor->data)[lh_offset(tensor, 0, 1, 2) + 1] = c->value;
        break;
    case VERIFY_OTHER_SHAPE:
        tensor->shape[1] = c->config.heads;
        break;
    case VERIFY_OTHER_DTYPE:
        tensor->dtype = LH_F32;
        break;
    case VERIFY_NO_DATA:
        tensor->data = NULL;
        break;
    default:
        break;
    }
}

lh_status verify_invalid_try(const verify_invalid *c, lh_error *error)
{
    const lh_options options = {.dtype = LH_F64, .backward = true, .finite = true};
    verify_trace t = {0};
    lh_plan *plan = NULL;
    lh_status status = lh_config_check(&c->config, NULL, error);
    if (status == LH_OK)
        status = verify_make_all(&t, &c->config, LH_F64, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = lh_plan_create(&c->config, &options, &plan, error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++)
        memset(t.tensor[id].data, 0,
               (size_t)lh_tensor_elements(&t.tensor[id]) * lh_dtype_size(t.tensor[id].dtype));
    if (status == LH_OK) {
        spoil(c, &t);
        status = lh_forward(plan, t.tensor, error);
    }
    if (status == LH_OK)
        status = lh_backward(plan, t.tensor, error);
    lh_plan_destroy(plan);
    verify_free(&t);
    return status;
}
