/* Rates of devices: a table of known ones, and a short measurement of this one. */
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "core/random.h"
#include "train/audit.h"
#include "train/cost.h"

static const device_rates known[] = {
    {"h200", 547e12, 400e12, 0.9e12,
     "bf16; attention: cuDNN over 131,072 tokens, and bytes: the original's compiled layer over 98,304, both "
     "measured; products: assumed, half the data sheet's rate less elementwise work"},
    {"zen4-2-cores", 160e9, 110e9, 4e9,
     "float32; attention: measured prototypes; the rest: assumed from them"},
};

const device_rates *device_known(int i)
{
    return i >= 0 && i < (int)(sizeof known / sizeof *known) ? &known[i] : NULL;
}

/* A one-layer model of the settings' shape over `tokens` random bytes: seconds of attention and outside it, the
 * best of three steps. */
static lh_status time_layer(const settings *s, int64_t tokens, int64_t levels, int64_t pool, int64_t topk,
                            double *attention, double *outside, lh_error *error)
{
    settings one = *s;
    model m;
    pass p;
    uint8_t *bytes;
    const bool dense[MAX_LAYERS] = {false};
    one.layers = 1;
    one.micro_batch = one.batch = 1;
    one.context = tokens;
    one.levels = levels;
    one.pool = pool;
    one.topk = topk;
    const model_shape shape = settings_shape(&one);
    const pass_options options = settings_pass(&one, true, dense);
    lh_status status = model_create(&shape, 1, true, &m, error);
    if (status != LH_OK)
        return status;
    status = pass_create(&m, &options, &p, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&bytes, (size_t)tokens, "random bytes", error);
    if (status == LH_OK) {
        for (int64_t i = 0; i < tokens; i++)
            bytes[i] = (uint8_t)(lh_random_uniform(1, 0, (uint64_t)i) * 256);
        *attention = *outside = 1e30;
        for (int repeat = 0; repeat < 3 && status == LH_OK; repeat++) {
            double loss;
            p.clock[0] = (layer_clock){0, 0};
            status = pass_forward(&p, bytes, error);
            if (status == LH_OK)
                status = pass_backward(&p, bytes, bytes, 1, &loss, error);
            if (p.clock[0].attention < *attention)
                *attention = p.clock[0].attention;
            if (p.clock[0].outside < *outside)
                *outside = p.clock[0].outside;
        }
        lh_free(bytes);
    }
    pass_destroy(&p);
    model_destroy(&m);
    return status;
}

lh_status device_measure(const settings *s, device_rates *rates, lh_error *error)
{
    enum {
        DENSE_TOKENS = 2048,
        TOKENS = 8192,
        LEVELS = 3,
        POOL = 4
    };
    const model_shape shape = settings_shape(s);
    const int64_t topk = TOKENS / (POOL * POOL) / 2 / s->tile_topk * s->tile_topk;
    lh_layout layout;
    const lh_config sparse = {1, s->heads, s->kv_heads, TOKENS, s->dim, LEVELS, POOL, topk, s->tile_topk};
    double attention, outside, layer, unused;
    *rates = (device_rates){.name = "here", .source = "measured"};
    lh_status status = time_layer(s, DENSE_TOKENS, 1, 2, 0, &attention, &outside, error);
    if (status != LH_OK)
        return status;
    rates->attention = attention_flops(&shape, DENSE_TOKENS, 1) / attention;
    rates->products = 3 * DENSE_TOKENS * model_layer_flops(&shape) / outside;
    rates->bytes = 1e30; /* where tiles are too large to measure with: taken as free */
    if (lh_config_check(&sparse, &layout, NULL) != LH_OK)
        return LH_OK;
    status = time_layer(s, TOKENS, LEVELS, POOL, topk, &layer, &unused, error);
    if (status != LH_OK)
        return status;
    const double around = layer - attention_flops(&shape, layout.selected, 1) / rates->attention;
    settings one = *s;
    one.batch = 1;
    one.context = TOKENS;
    if (around > 0)
        rates->bytes = cost_bytes_around(&one, layout.selected) / around;
    return status;
}
