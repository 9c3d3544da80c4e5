/* Configurations: every rule of SPEC 2, by name and value, and the sizes that follow from one. */
#include <inttypes.h>
#include <string.h>

#include "core/base.h"

static lh_status at_least(const char *name, int64_t value, int64_t least, lh_error *error)
{
    if (value >= least)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "%s is %" PRId64 ", wanted at least %" PRId64, name, value, least);
}

/* True when a*b would pass INT64_MAX; a, b >= 1. */
static bool product_overflows(int64_t a, int64_t b)
{
    return a > INT64_MAX / b;
}

static lh_status check_levels(const lh_config *c, lh_layout *layout, lh_error *error)
{
    if (c->levels > LH_MAX_LEVELS)
        return lh_fail(error, LH_INVALID, "levels is %" PRId64 ", wanted at most %d", c->levels,
                       LH_MAX_LEVELS);
    int64_t window = 1;
    for (int64_t l = 0; l < c->levels; l++) {
        layout->window[l] = window;
        layout->level_size[l] = c->tokens / window;
        layout->level_offset[l + 1] = layout->level_offset[l] + layout->level_size[l];
        if (l + 1 < c->levels) {
            if (product_overflows(window, c->pool) || c->tokens % (window * c->pool) != 0)
                return lh_fail(error, LH_INVALID,
                               "tokens is %" PRId64 ", wanted a multiple of pool^(levels-1) = %" PRId64
                               "^%" PRId64,
                               c->tokens, c->pool, c->levels - 1);
            window *= c->pool;
        }
    }
    layout->entries = layout->level_offset[c->levels];
    layout->coarse = layout->level_size[c->levels - 1];
    return LH_OK;
}

static lh_status check_tiles(const lh_config *c, lh_layout *layout, lh_error *error)
{
    lh_status status = at_least("tile_topk", c->tile_topk, 2, error);
    if (status == LH_OK)
        status = at_least("topk", c->topk, 2, error);
    if (status != LH_OK)
        return status;
    if (c->tile_topk % 2 != 0)
        return lh_fail(error, LH_INVALID,
                       "tile_topk is %" PRId64 ", wanted an even number (half by query, half by key score)",
                       c->tile_topk);
    if (c->topk % c->tile_topk != 0)
        return lh_fail(error, LH_INVALID, "topk is %" PRId64 ", wanted a multiple of tile_topk %" PRId64,
                       c->topk, c->tile_topk);
    layout->tiles = c->topk / c->tile_topk;
    if (layout->coarse % layout->tiles != 0)
        return lh_fail(error, LH_INVALID,
                       "topk is %" PRId64 ": its %" PRId64
                       " tiles (topk/tile_topk) do not divide the %" PRId64
                       " coarsest entries (tokens/pool^(levels-1))",
                       c->topk, layout->tiles, layout->coarse);
    layout->tile_coarse = layout->coarse / layout->tiles;
    if (layout->tile_coarse < c->tile_topk)
        return lh_fail(error, LH_INVALID,
                       "tile_topk is %" PRId64 ", wanted at most a tile's %" PRId64 " coarsest entries",
                       c->tile_topk, layout->tile_coarse);
    /* m <= c and T*c = N/p^(L-1) bound (L-1)*p*k by (L-1)*N, so this cannot overflow where P did not. */
    layout->selected = layout->coarse + (c->levels - 1) * c->pool * c->topk;
    return LH_OK;
}

/* Elements of the largest tensor, times the widest dtype, must be addressable. */
static lh_status check_size(const lh_config *c, const lh_layout *layout, lh_error *error)
{
    const int64_t rows = layout->entries > layout->selected ? layout->entries : layout->selected;
    int64_t elements = rows;
    const int64_t factors[] = {c->dim, c->heads, c->batch, 16};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        if (product_overflows(elements, factors[i]))
            return lh_fail(error, LH_INVALID,
                           "batch %" PRId64 ", heads %" PRId64 ", tokens %" PRId64 ", dim %" PRId64
                           ": a tensor would pass 2^63 bytes",
                           c->batch, c->heads, c->tokens, c->dim);
        elements *= factors[i];
    }
    return LH_OK;
}

lh_status lh_config_check(const lh_config *c, lh_layout *layout, lh_error *error)
{
    if (!c)
        return lh_fail(error, LH_INVALID, "config is NULL, wanted a configuration");
    lh_layout found;
    memset(&found, 0, sizeof found);
    const struct {
        const char *name;
        int64_t value, least;
    } bounds[] = {
        {"batch", c->batch, 1},   {"heads", c->heads, 1}, {"kv_heads", c->kv_heads, 1},
        {"tokens", c->tokens, 1}, {"dim", c->dim, 1},     {"levels", c->levels, 1},
        {"pool", c->pool, 2},
    };
    lh_status status = LH_OK;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds && status == LH_OK; i++)
        status = at_least(bounds[i].name, bounds[i].value, bounds[i].least, error);
    if (status != LH_OK)
        return status;
    if (c->heads % c->kv_heads != 0)
        return lh_fail(error, LH_INVALID, "kv_heads is %" PRId64 ", wanted a divisor of heads %" PRId64,
                       c->kv_heads, c->heads);
    if (c->tokens > INT64_MAX / 4) /* keys of SPEC 3.4 reach 2N, entries reach 2N */
        return lh_fail(error, LH_INVALID, "tokens is %" PRId64 ", wanted at most 2^61 - 1", c->tokens);
    status = check_levels(c, &found, error);
    if (status != LH_OK)
        return status;
    if (c->levels == 1) {
        found.tiles = 1;
        found.tile_coarse = c->tokens;
        found.selected = c->tokens;
    } else {
        status = check_tiles(c, &found, error);
    }
    if (status == LH_OK)
        status = check_size(c, &found, error);
    if (status != LH_OK)
        return status;
    found.index_dtype = found.entries > INT32_MAX ? LH_I64 : LH_I32;
    if (layout)
        *layout = found;
    return LH_OK;
}
