/* The decoder's weights: one array, a table of names, and initial values drawn by counter. */
#include "train/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base.h"
#include "core/random.h"
#include "train/kernels.h"

enum {
    PER_LAYER = 6,
    OUTSIDE_LAYERS = 3,
    ALIGN = 16
};

static int64_t padded(int64_t elements)
{
    return (elements + ALIGN - 1) / ALIGN * ALIGN;
}

/* Shapes of a layer's parameters in the order in which they lie. */
static void layer_shapes(const model_shape *s, int64_t shapes[PER_LAYER][2])
{
    const int64_t found[PER_LAYER][2] = {
        {1, s->width},
        {s->width, (s->heads + 2 * s->kv_heads) * s->dim},
        {s->heads * s->dim, s->width},
        {1, s->width},
        {s->width, 2 * s->hidden},
        {s->hidden, s->width},
    };
    memcpy(shapes, found, sizeof found);
}

static parameter *add(model *m, const char *name, int64_t rows, int64_t columns, double deviation)
{
    parameter *p = &m->parameters[m->count++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->offset = m->size;
    p->shape[0] = rows;
    p->shape[1] = columns;
    p->deviation = deviation;
    m->size += padded(rows * columns);
    return p;
}

/* 0.02 everywhere, and that over sqrt(2 layers) for what is added to the residual stream (GPT-2's rule). */
static void lay_out(model *m)
{
    static const char *const names[PER_LAYER] = {"norm_in", "qkv", "out", "norm_mid", "gate_up", "down"};
    const model_shape *s = &m->shape;
    const double usual = 0.02, residual = 0.02 / sqrt(2.0 * (double)s->layers);
    const double deviations[PER_LAYER] = {0, usual, residual, 0, usual, residual};
    int64_t shapes[PER_LAYER][2];
    layer_shapes(s, shapes);
    m->embed = add(m, "embed", BYTES, s->width, usual)->offset;
    m->layer_offset = m->size;
    for (int64_t l = 0; l < s->layers; l++)
        for (int i = 0; i < PER_LAYER; i++) {
            char name[32];
            snprintf(name, sizeof name, "layer%" PRId64 ".%s", l, names[i]);
            add(m, name, shapes[i][0], shapes[i][1], deviations[i]);
        }
    m->layer_size = (m->size - m->layer_offset) / s->layers;
    m->norm_out = add(m, "norm_out", 1, s->width, 0)->offset;
    m->head = s->tied ? m->embed : add(m, "head", s->width, BYTES, usual)->offset;
}

static void initialise(model *m, uint64_t seed)
{
    for (int i = 0; i < m->count; i++) {
        const parameter *p = &m->parameters[i];
        real *values = m->values + p->offset;
        const int64_t n = p->shape[0] * p->shape[1];
#pragma omp parallel for if (n > 1 << 15)
        for (int64_t j = 0; j < n; j++)
            values[j] = p->deviation == 0
                            ? 1
                            : (real)(p->deviation * lh_random_gaussian(seed, (uint64_t)i, (uint64_t)j));
    }
}

lh_status model_create(const model_shape *shape, uint64_t seed, bool gradients, model *m, lh_error *error)
{
    memset(m, 0, sizeof *m);
    m->shape = *shape;
    m->on = &host_arithmetic;
    const size_t parameters = (size_t)(shape->layers * PER_LAYER + OUTSIDE_LAYERS);
    lh_status status =
        lh_alloc((void **)&m->parameters, parameters * sizeof *m->parameters, "parameter table", error);
    if (status != LH_OK)
        return status;
    lay_out(m);
    const size_t bytes = (size_t)m->size * sizeof(real);
    status = lh_alloc((void **)&m->values, bytes, "weights", error);
    if (status == LH_OK && gradients)
        status = lh_alloc((void **)&m->gradients, bytes, "gradients", error);
    if (status != LH_OK) {
        model_destroy(m);
        return status;
    }
    memset(m->values, 0, bytes);
    if (gradients)
        memset(m->gradients, 0, bytes);
    initialise(m, seed);
    return LH_OK;
}

void model_destroy(model *m)
{
    if (!m->on)
        return; /* never made */
    lh_free(m->parameters);
    m->on->give(m->on, m->values);
    m->on->give(m->on, m->gradients);
    m->on->close(m->on);
    memset(m, 0, sizeof *m);
}

lh_status model_move(model *m, const lh_arithmetic *on, lh_error *error)
{
    const size_t bytes = (size_t)m->size * sizeof(real);
    real *values = m->values, *gradients = m->gradients;
    m->values = m->gradients = NULL;
    m->on = on;
    lh_status status = on->take(on, bytes, "weights", (void **)&m->values, error);
    if (status == LH_OK && gradients)
        status = on->take(on, bytes, "gradients", (void **)&m->gradients, error);
    if (status == LH_OK)
        on->put(on, m->values, values, bytes);
    if (status == LH_OK && gradients)
        on->put(on, m->gradients, gradients, bytes);
    lh_free(values);
    lh_free(gradients);
    return status == LH_OK ? on->wait(on, error) : status;
}

lh_status model_fetch(const model *m, model *host, lh_error *error)
{
    const size_t bytes = (size_t)m->size * sizeof(real), table = (size_t)m->count * sizeof *m->parameters;
    *host = *m;
    host->on = &host_arithmetic;
    host->parameters = NULL;
    host->values = host->gradients = NULL;
    lh_status status = lh_alloc((void **)&host->parameters, table, "parameter table", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&host->values, bytes, "weights", error);
    if (status == LH_OK)
        status = m->on->get(m->on, host->values, m->values, bytes, error);
    if (status == LH_OK)
        memcpy(host->parameters, m->parameters, table);
    else
        model_destroy(host);
    return status;
}

layer_weights model_layer(const model *m, real *values, int64_t layer)
{
    int64_t shapes[PER_LAYER][2];
    layer_shapes(&m->shape, shapes);
    real *at[PER_LAYER];
    real *next = values + m->layer_offset + layer * m->layer_size;
    for (int i = 0; i < PER_LAYER; i++) {
        at[i] = next;
        next += padded(shapes[i][0] * shapes[i][1]);
    }
    return (layer_weights){at[0], at[1], at[2], at[3], at[4], at[5]};
}

int64_t model_parameters(const model_shape *s)
{
    int64_t shapes[PER_LAYER][2], layer = 0;
    layer_shapes(s, shapes);
    for (int i = 0; i < PER_LAYER; i++)
        layer += shapes[i][0] * shapes[i][1];
    return s->layers * layer + s->width + (s->tied ? 1 : 2) * BYTES * s->width;
}

double model_layer_flops(const model_shape *s)
{
    const double width = (double)s->width;
    return 2 * width * (double)((2 * s->heads + 2 * s->kv_heads) * s->dim + 3 * s->hidden);
}

double model_head_flops(const model_shape *s)
{
    return 2.0 * BYTES * (double)s->width;
}
