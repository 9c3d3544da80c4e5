/*
 * libFuzzer target: any nine numbers as a configuration, judged by the rules of SPEC 2 in 128-bit arithmetic.
 * Of small layers that are accepted one in 8,192 also runs, forward and backward, on the backends that compute on the host.
 */
#include "core/backend.h"
#include "core/convert.h"
#include "core/random.h"
#include "tests/fuzz_file.h"

__extension__ typedef __int128 wide;

/* A first byte that is odd: numbers of 8 bytes; else one byte each, so that valid configurations are likely. */
static lh_config decode(const uint8_t *bytes, size_t size)
{
    int64_t member[9] = {0};
    for (size_t i = 0; i < 9 && size > 0; i++) {
        if (bytes[0] % 2 == 0 && 1 + i < size)
            member[i] = (int8_t)bytes[1 + i];
        else if (bytes[0] % 2 == 1 && 9 + 8 * i <= size)
            memcpy(&member[i], bytes + 1 + 8 * i, 8);
    }
    return (lh_config){member[0], member[1], member[2], member[3], member[4],
                       member[5], member[6], member[7], member[8]};
}

/* base^exponent, or something above 2^64 when that is. */
static wide power(wide base, int64_t exponent)
{
    wide result = 1;
    for (int64_t i = 0; i < exponent && result <= (wide)1 << 64; i++)
        result *= base;
    return result;
}

static bool valid_by_spec(const lh_config *c)
{
    if (c->batch < 1 || c->heads < 1 || c->kv_heads < 1 || c->heads % c->kv_heads != 0)
        return false;
    if (c->tokens < 1 || c->dim < 1 || c->levels < 1 || c->pool < 2)
        return false;
    const wide window = power(c->pool, c->levels - 1);
    if (window > c->tokens || c->tokens % window != 0)
        return false;
    if (c->levels == 1)
        return true;
    const wide m = c->tile_topk, coarse = c->tokens / window;
    if (m < 2 || m % 2 != 0 || c->topk < m || c->topk % m != 0)
        return false;
    const wide tiles = c->topk / m;
    return coarse % tiles == 0 && coarse / tiles >= m;
}

/* What the library asks beyond SPEC 2: sizes that 64 bits hold. */
static bool too_large(const lh_config *c)
{
    const wide limit = (wide)1 << 58;
    wide elements = 1;
    const int64_t factors[] = {c->tokens, c->dim, c->heads, c->batch};
    for (int i = 0; i < 4; i++) {
        elements *= factors[i];
        if (elements > limit)
            return true;
    }
    return false;
}

static void run(const lh_config *config, const char *backend)
{
    const lh_options options = {.backend = backend, .dtype = LH_F32, .backward = true};
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_plan *plan;
    if (lh_plan_create(config, &options, &plan, NULL) != LH_OK)
        abort();
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor *t = &trace[id];
        require(lh_tensor_describe(config, LH_F32, (lh_tensor_id)id, t, NULL) == LH_OK);
        const int64_t elements = lh_tensor_elements(t);
        require((t->data = malloc((size_t)elements * lh_dtype_size(t->dtype))) != NULL);
        for (int64_t i = 0; t->dtype == LH_F32 && i < elements; i++)
            lh_store(t->data, LH_F32, i, lh_random_gaussian(1, (uint64_t)id, (uint64_t)i));
    }
    require(lh_forward(plan, trace, NULL) == LH_OK);
    require(lh_index_check(config, lh_plan_layout(plan), &trace[LH_INDEX], NULL) == LH_OK);
    require(lh_backward(plan, trace, NULL) == LH_OK);
    for (int id = LH_DQ; id <= LH_DV; id++)
        require(lh_tensor_finite(&trace[id], lh_tensor_name((lh_tensor_id)id), NULL) == LH_OK);
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        free(trace[id].data);
    lh_plan_destroy(plan);
}

static void use(const lh_config *c, const lh_layout *layout, bool runs)
{
    wide entries = 0;
    for (int64_t l = 0; l < c->levels; l++) {
        require(layout->window[l] == power(c->pool, l) && layout->level_offset[l] == entries);
        require(layout->level_size[l] == c->tokens / layout->window[l]);
        entries += layout->level_size[l];
    }
    const wide coarse = c->tokens / power(c->pool, c->levels - 1);
    require(layout->entries == entries && layout->coarse == coarse);
    require(layout->selected ==
            (c->levels == 1 ? c->tokens : coarse + (wide)(c->levels - 1) * c->pool * c->topk));
    require((layout->index_dtype == LH_I64) == (entries > INT32_MAX));
    const wide heads = (wide)c->batch * c->heads; /* few: a head takes whole tiles, however small it is */
    const wide work = heads * c->dim * layout->selected * layout->selected;
    const wide storage = heads * c->dim * layout->entries;
    if (!runs || heads > 4 || work > 2000 || storage > 2000)
        return;
    for (int i = 0; lh_backend_name(i); i++) {
        if (strcmp(lh_backend_name(i), "ref") == 0 || strcmp(lh_backend_name(i), "openmp") == 0)
            run(c, lh_backend_name(i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    const lh_config config = decode(bytes, size);
    lh_layout layout;
    lh_error error;
    const int64_t live = lh_alloc_live();
    const lh_status status = lh_config_check(&config, &layout, &error);
    if (status == LH_OK)
        use(&config, &layout, fuzz_seldom(bytes, size, 8192));
    else
        require(status == LH_INVALID && *error.text && !strchr(error.text, '\n'));
    require(status != LH_OK || valid_by_spec(&config));
    require(status == LH_OK || !valid_by_spec(&config) || too_large(&config));
    require(lh_alloc_live() == live);
    return 0;
}
