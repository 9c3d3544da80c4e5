#include <math.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "tests/honest.h"

/* A port at work on one layer, tensors widened to float. */
struct work {
    const struct honest *port;
    const lh_config *config;
    lh_layout layout;
    const lh_tensor *trace;
};

static float cut(const struct work *w, float x)
{
    int exponent;
    if (w->port->operand_bits >= 24)
        return x;
    const double mantissa = frexp((double)x, &exponent);
    return (float)ldexp(rint(ldexp(mantissa, w->port->operand_bits)), exponent - w->port->operand_bits);
}

static float get(const lh_tensor *t, int64_t i)
{
    return (float)lh_load(t->data, t->dtype, i);
}

static void put(const lh_tensor *t, int64_t i, float x)
{
    lh_store(t->data, t->dtype, i, (double)x);
}

/* A running sum in several parts. */
struct sum {
    float part[16];
    int parts, next;
    bool fused;
};

static struct sum begin(const struct work *w)
{
    return (struct sum){.parts = w->port->parts, .fused = w->port->fused};
}

static void add_product(struct sum *s, float a, float b)
{
    float *part = &s->part[s->next++ % s->parts];
    const float product = a * b;
    *part = s->fused ? fmaf(a, b, *part) : *part + product;
}

static float total(struct sum *s)
{
    for (int width = 1; width < s->parts; width *= 2) {
        for (int i = 0; i + width < s->parts; i += 2 * width)
            s->part[i] += s->part[i + width];
    }
    return s->part[0];
}

static int64_t place(const struct work *w, int64_t i, int64_t n)
{
    return w->port->reversed ? n - 1 - i : i;
}

static float dot(const struct work *w, const lh_tensor *a, int64_t ia, const lh_tensor *b, int64_t ib)
{
    const int64_t d = w->config->dim;
    struct sum s = begin(w);
    for (int64_t c = 0; c < d; c++) {
        const int64_t at = place(w, c, d);
        add_product(&s, cut(w, get(a, ia * d + at)), cut(w, get(b, ib * d + at)));
    }
    return total(&s);
}

static int64_t heads_of(const struct work *w, lh_tensor_id id)
{
    return w->config->batch * w->trace[id].shape[1];
}

static void pool(const struct work *w, lh_tensor_id from, lh_tensor_id to)
{
    const int64_t d = w->config->dim, p = w->config->pool, entries = w->layout.entries;
    const lh_tensor *x = &w->trace[from], *pyramid = &w->trace[to];
    for (int64_t i = 0; i < heads_of(w, from) * entries * d; i++) {
        const int64_t head = i / (entries * d), entry = i / d % entries, c = i % d;
        const int level = lh_level_of(&w->layout, (int)w->config->levels, entry);
        const int64_t at = entry - w->layout.level_offset[level];
        const bool stepwise = w->port->level_by_level && level > 0;
        const int64_t n = stepwise ? p : w->layout.window[level];
        struct sum s = begin(w);
        for (int64_t j = 0; j < n; j++) {
            const int64_t child = at * n + place(w, j, n);
            const float value =
                stepwise ? get(pyramid, (head * entries + w->layout.level_offset[level - 1] + child) * d + c)
                         : get(x, (head * w->config->tokens + child) * d + c);
            add_product(&s, value, 1.0f);
        }
        put(pyramid, i, total(&s) / (float)n);
    }
}

/* Squared norms rank alike except where the root rounds two of them together. */
static void score(const struct work *w, lh_tensor_id from, lh_tensor_id to, bool rooted)
{
    const int64_t entries = w->layout.entries;
    const lh_tensor *x = &w->trace[from], *score_x = &w->trace[to];
    for (int64_t i = 0; i < heads_of(w, from) * entries; i++) {
        const int64_t head = i / entries, entry = i % entries;
        const int level = lh_level_of(&w->layout, (int)w->config->levels, entry);
        const int64_t n = w->layout.window[level], first = (entry - w->layout.level_offset[level]) * n;
        float top = 0;
        for (int64_t j = 0; j < n; j++) {
            const int64_t row = head * w->config->tokens + first + j, d = w->config->dim;
            struct sum s = begin(w);
            for (int64_t c = 0; c < d; c++) {
                const float value = get(x, row * d + place(w, c, d));
                add_product(&s, value, value);
            }
            const float square = total(&s);
            top = fmaxf(top, rooted ? sqrtf(square) : square);
        }
        put(score_x, i, top);
    }
}

static void attend_row(const struct work *w, int64_t base, int64_t s, float *weights)
{
    const lh_tensor *t = w->trace;
    const int64_t d = w->config->dim, block = w->port->block ? w->port->block : s + 1;
    const float scale = 1.0f / sqrtf((float)d);
    float top = -INFINITY, z = 0, o[256];
    memset(o, 0, sizeof o);
    for (int64_t first = 0; first <= s; first += block) {
        const int64_t end = first + block < s + 1 ? first + block : s + 1;
        float here = top;
        for (int64_t i = first; i < end; i++) {
            weights[i] = scale * dot(w, &t[LH_Q_SEL], base + s, &t[LH_K_SEL], base + i);
            here = fmaxf(here, weights[i]);
        }
        const float shrink = expf(top - here);
        struct sum sums = begin(w);
        for (int64_t i = first; i < end; i++) {
            weights[i] = expf(weights[i] - here);
            add_product(&sums, weights[i], 1.0f);
        }
        z = z * shrink + total(&sums);
        for (int64_t c = 0; c < d; c++) {
            struct sum column = begin(w);
            for (int64_t i = first; i < end; i++) {
                /* Matrix units of the half types take the weights in that type. */
                uint64_t cell = 0;
                lh_store(&cell, t[LH_V_SEL].dtype, 0, (double)weights[i]);
                const float weight = (float)lh_load(&cell, t[LH_V_SEL].dtype, 0);
                add_product(&column, cut(w, weight), cut(w, get(&t[LH_V_SEL], (base + i) * d + c)));
            }
            o[c] = o[c] * shrink + total(&column);
        }
        top = here;
    }
    for (int64_t c = 0; c < d; c++)
        put(&t[LH_O_SEL], (base + s) * d + c, o[c] / z);
    put(&t[LH_LSE], base + s, top + logf(z));
}

/* dq, dk, dv of one head in float, then stored. */
static void attend_backward(const struct work *w, int64_t base, float *gradients)
{
    const lh_tensor *t = w->trace;
    const int64_t d = w->config->dim, rows = w->layout.selected;
    const float scale = 1.0f / sqrtf((float)d);
    float *dq = gradients, *dk = dq + rows * d, *dv = dk + rows * d, *p = dv + rows * d, *dp = p + rows;
    memset(gradients, 0, sizeof *gradients * (size_t)(3 * rows * d));
    for (int64_t at = 0; at < rows; at++) {
        const int64_t s = place(w, at, rows);
        float D = w->port->d_from_p ? 0 : dot(w, &t[LH_DO_SEL], base + s, &t[LH_O_SEL], base + s);
        for (int64_t i = 0; i <= s; i++) {
            const float logit = scale * dot(w, &t[LH_Q_SEL], base + s, &t[LH_K_SEL], base + i);
            p[i] = expf(logit - get(&t[LH_LSE], base + s));
            dp[i] = dot(w, &t[LH_DO_SEL], base + s, &t[LH_V_SEL], base + i);
            D += w->port->d_from_p ? p[i] * dp[i] : 0;
        }
        for (int64_t i = 0; i <= s; i++) {
            const float ds = cut(w, scale * p[i] * (dp[i] - D)), weight = cut(w, p[i]);
            for (int64_t c = 0; c < d; c++) {
                dq[s * d + c] += ds * cut(w, get(&t[LH_K_SEL], (base + i) * d + c));
                dk[i * d + c] += ds * cut(w, get(&t[LH_Q_SEL], (base + s) * d + c));
                dv[i * d + c] += weight * cut(w, get(&t[LH_DO_SEL], (base + s) * d + c));
            }
        }
    }
    for (int64_t i = 0; i < rows * d; i++) {
        put(&t[LH_DQ_SEL], base * d + i, dq[i]);
        put(&t[LH_DK_SEL], base * d + i, dk[i]);
        put(&t[LH_DV_SEL], base * d + i, dv[i]);
    }
}

/* Selection, gather, scatter and un-pooling leave no freedom but their own rounding: the twin does them. */
static lh_status rest(const struct work *w, lh_stage stage, lh_error *error)
{
    return lh_ref_run(32, w->config, LH_REF_STAGE(stage), w->trace, NULL, error);
}

static lh_status attention(const struct work *w, lh_error *error)
{
    const int64_t rows = w->layout.selected, heads = w->config->batch * w->config->heads;
    float *scratch;
    lh_status status =
        lh_alloc((void **)&scratch, sizeof *scratch * (size_t)(rows * (3 * w->config->dim + 2)),
                 "scratch of the honest port", error);
    if (status != LH_OK)
        return status;
    for (int64_t i = 0; i < heads * rows; i++)
        attend_row(w, i / rows * rows, i % rows, scratch);
    status = rest(w, LH_SCATTER, error);
    if (status == LH_OK)
        status = rest(w, LH_SCATTER_BACKWARD, error);
    for (int64_t head = 0; head < heads && status == LH_OK; head++)
        attend_backward(w, head * rows, scratch);
    lh_free(scratch);
    return status;
}

lh_status honest_layer(const struct honest *port, const lh_config *config, const lh_tensor *trace,
                       lh_error *error)
{
    struct work w = {.port = port, .config = config, .trace = trace};
    lh_status status = lh_config_check(config, &w.layout, error);
    if (status != LH_OK)
        return status;
    if (config->dim > 256)
        return lh_fail(error, LH_UNSUPPORTED, "dim is over 256");
    pool(&w, LH_Q, LH_Q_PYR);
    pool(&w, LH_K, LH_K_PYR);
    pool(&w, LH_V, LH_V_PYR);
    score(&w, LH_Q, LH_SCORE_Q, !port->squared_norms);
    score(&w, LH_K, LH_SCORE_K, !port->squared_norms);
    status = rest(&w, LH_SELECT, error);
    if (port->squared_norms) {
        score(&w, LH_Q, LH_SCORE_Q, true);
        score(&w, LH_K, LH_SCORE_K, true);
    }
    if (status == LH_OK)
        status = rest(&w, LH_GATHER, error);
    if (status == LH_OK)
        status = attention(&w, error);
    return status == LH_OK ? rest(&w, LH_UNPOOL, error) : status;
}
