/* Rates of devices: a table of known ones, and a short measurement of this one. */
#include <math.h>
#include <string.h>

#include "core/convert.h"
#include "core/random.h"
#include "train/audit.h"
#include "train/cost.h"
#include "train/place.h"

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

enum {
    REPEATS = 3,
    TRIES = 3,
    DENSE_TOKENS = 2048,
    TOKENS = 8192,
    LEVELS = 3,
    POOL = 4
};

/* Seconds of a one-layer model outside its attention, over random bytes: the best of three steps. resident: the model is
 * where its attention is. */
static lh_status time_products(const settings *s, double *outside, bool *resident, lh_error *error)
{
    settings one = *s;
    model m;
    pass p = {0};
    uint8_t *bytes;
    one.layers = 1;
    one.micro_batch = one.batch = 1;
    one.context = DENSE_TOKENS;
    const model_shape shape = settings_shape(&one);
    const pass_options options = settings_pass(&one, false, NULL);
    lh_status status = model_create(&shape, 1, true, &m, error);
    if (status != LH_OK)
        return status;
    status = place_model(&one, NULL, &m, NULL, error);
    *resident = !m.on->host;
    if (status == LH_OK)
        status = pass_create(&m, &options, &p, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&bytes, DENSE_TOKENS, "random bytes", error);
    if (status == LH_OK) {
        for (int64_t i = 0; i < DENSE_TOKENS; i++)
            bytes[i] = (uint8_t)(lh_random_uniform(1, 0, (uint64_t)i) * 256);
        *outside = INFINITY;
        for (int repeat = 0; repeat < REPEATS && status == LH_OK; repeat++) {
            double loss;
            p.clock[0] = (layer_clock){0, 0};
            status = pass_forward(&p, bytes, error);
            if (status == LH_OK)
                status = pass_backward(&p, bytes, 1, &loss, error);
            *outside = fmin(*outside, p.clock[0].outside);
        }
        lh_free(bytes);
    }
    pass_destroy(&p);
    model_destroy(&m);
    return status;
}

/* Random q k v dout and room for what comes of them, in one block that the caller frees. */
static lh_status make_tensors(const lh_config *c, lh_dtype dtype, lh_tensor trace[LH_TENSOR_COUNT],
                              void **memory, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_OUT, LH_DQ, LH_DK, LH_DV};
    size_t bytes = 0;
    memset(trace, 0, LH_TENSOR_COUNT * sizeof *trace);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        lh_tensor_describe(c, dtype, ids[i], &trace[ids[i]], NULL);
        bytes += (size_t)lh_tensor_elements(&trace[ids[i]]) * lh_dtype_size(dtype);
    }
    const lh_status status = lh_alloc(memory, bytes, "tensors to measure with", error);
    if (status != LH_OK)
        return status;
    char *at = *memory;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        lh_tensor *t = &trace[ids[i]];
        const int64_t n = lh_tensor_elements(t);
        t->data = at;
        for (int64_t e = 0; e < n; e++) {
            const float value = (float)lh_random_uniform(2, i, (uint64_t)e) - 0.5f;
            lh_store(t->data, dtype, e, value);
        }
        at += (size_t)n * lh_dtype_size(dtype);
    }
    return LH_OK;
}

static double sum_of(const lh_profile *p, bool attention)
{
    double sum = 0;
    for (lh_stage stage = 0; stage < LH_STAGE_COUNT; stage++) {
        if ((stage == LH_ATTEND || stage == LH_ATTEND_BACKWARD) == attention)
            sum += p->seconds[stage];
    }
    return sum;
}

/* Seconds of a layer, forward and backward, in attention and in the stages around it, by the plan's own clocks; transfers
 * count where the model is not resident. */
static lh_status time_attention(const settings *s, const lh_config *c, bool resident, double *attention,
                                double *around, lh_error *error)
{
    const pass_options like = settings_pass(s, true, NULL);
    const lh_options options = {.backend = like.backend,
                                .device = like.device,
                                .dtype = like.bf16 ? LH_BF16 : LH_F32,
                                .backward = true,
                                .profile = true,
                                .threads = like.threads};
    lh_tensor trace[LH_TENSOR_COUNT];
    void *memory = NULL;
    lh_plan *plan = NULL;
    lh_status status = make_tensors(c, options.dtype, trace, &memory, error);
    if (status == LH_OK)
        status = lh_plan_create(c, &options, &plan, error);
    *attention = *around = INFINITY;
    for (int repeat = 0; repeat < REPEATS && status == LH_OK; repeat++) {
        lh_profile profile;
        lh_profile_reset(plan);
        status = lh_forward(plan, trace, error);
        if (status == LH_OK)
            status = lh_backward(plan, trace, error);
        lh_plan_profile(plan, &profile);
        *attention = fmin(*attention, sum_of(&profile, true));
        *around = fmin(*around, sum_of(&profile, false) + (resident ? 0 : profile.transfer));
    }
    lh_plan_destroy(plan);
    lh_free(memory);
    return status;
}

/* A Lighthouse layer of the settings' heads over TOKENS, its tiles as large as it can have. */
static lh_config sparse_config(const settings *s, lh_layout *layout)
{
    lh_config c = {1, s->heads, s->kv_heads, TOKENS, s->dim, LEVELS, POOL, TOKENS / (POOL * POOL) / 2, 0};
    for (c.tile_topk = c.topk; lh_config_check(&c, layout, NULL) != LH_OK && c.tile_topk > 2;)
        c.tile_topk /= 2;
    return c;
}

/* What no machine is, and what a clock that jumps or stands still makes of one. */
const char *rates_nonsense(const device_rates *r)
{
    return !(r->attention > 1e6 && r->attention < 1e18) ? "attention"
           : !(r->products > 1e6 && r->products < 1e18) ? "the rest"
           : !(r->bytes > 1e3 && r->bytes < 1e15)       ? "around attention"
                                                        : NULL;
}

static lh_status measure_once(const settings *s, device_rates *rates, lh_error *error)
{
    const model_shape shape = settings_shape(s);
    const lh_config dense = {1, s->heads, s->kv_heads, DENSE_TOKENS, s->dim, 1, 2, 0, 0};
    lh_layout layout;
    const lh_config sparse = sparse_config(s, &layout);
    double attention, around, outside, unused;
    bool resident;
    lh_status status = time_products(s, &outside, &resident, error);
    if (status == LH_OK)
        status = time_attention(s, &dense, resident, &attention, &unused, error);
    if (status == LH_OK)
        status = time_attention(s, &sparse, resident, &unused, &around, error);
    if (status != LH_OK)
        return status;
    settings one = *s;
    one.batch = 1;
    one.context = TOKENS;
    *rates = (device_rates){
        .name = "here",
        .attention = attention_flops(&shape, DENSE_TOKENS, 1) / attention,
        .products = 3 * DENSE_TOKENS * model_layer_flops(&shape) / outside,
        .bytes = cost_bytes_around(&one, layout.selected) / around,
        .source = "measured",
    };
    return LH_OK;
}

lh_status device_measure(const settings *s, device_rates *rates, lh_error *error)
{
    for (int again = 0; again < TRIES; again++) {
        const lh_status status = measure_once(s, rates, error);
        if (status != LH_OK || !rates_nonsense(rates))
            return status;
    }
    return lh_fail(error, LH_DEVICE,
                   "%s was measured as %g a second, %d times, wanted what a machine can do: give rates with "
                   "--no-measure --on",
                   rates_nonsense(rates),
                   strcmp(rates_nonsense(rates), "attention") == 0  ? rates->attention
                   : strcmp(rates_nonsense(rates), "the rest") == 0 ? rates->products
                                                                    : rates->bytes,
                   TRIES);
}
