/* AdamW: see adam.h for the equations. */
#include "train/adam.h"

#include <math.h>
#include <string.h>

#include "core/base.h"
#include "train/kernels.h"

lh_status adam_create(const model *m, adam *a, lh_error *error)
{
    const size_t bytes = (size_t)m->size * sizeof(real);
    memset(a, 0, sizeof *a);
    a->on = &host_arithmetic;
    lh_status status = lh_alloc((void **)&a->m, bytes, "optimiser's first moments", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&a->v, bytes, "optimiser's second moments", error);
    if (status != LH_OK) {
        adam_destroy(a);
        return status;
    }
    memset(a->m, 0, bytes);
    memset(a->v, 0, bytes);
    return LH_OK;
}

void adam_destroy(adam *a)
{
    if (!a->on)
        return; /* never made */
    a->on->give(a->on, a->m);
    a->on->give(a->on, a->v);
    memset(a, 0, sizeof *a);
}

lh_status adam_move(adam *a, const model *m, lh_error *error)
{
    const lh_arithmetic *on = m->on;
    const size_t bytes = (size_t)m->size * sizeof(real);
    adam there = {.on = on};
    lh_status status = on->take(on, bytes, "optimiser's first moments", (void **)&there.m, error);
    if (status == LH_OK)
        status = on->take(on, bytes, "optimiser's second moments", (void **)&there.v, error);
    if (status == LH_OK) {
        on->put(on, there.m, a->m, bytes);
        on->put(on, there.v, a->v, bytes);
        status = on->wait(on, error);
    }
    adam_destroy(a);
    *a = there;
    return status;
}

lh_status adam_fetch(const adam *a, const model *m, adam *host, lh_error *error)
{
    const size_t bytes = (size_t)m->size * sizeof(real);
    lh_status status = adam_create(m, host, error);
    if (status == LH_OK)
        status = a->on->get(a->on, host->m, a->m, bytes, error);
    if (status == LH_OK)
        status = a->on->get(a->on, host->v, a->v, bytes, error);
    if (status != LH_OK)
        adam_destroy(host);
    return status;
}

lh_status gradient_norm(const model *m, double *norm, lh_error *error)
{
    return m->on->length(m->on, m->size, m->gradients, norm, error);
}

static void step_parameter(const adam *a, const model *m, const parameter *p, const adam_options *o,
                           double rate, double scale, int64_t t)
{
    const lh_adam_step step = {
        .b1 = (real)o->beta1,
        .b2 = (real)o->beta2,
        .by_first = (real)(rate / (1 - pow(o->beta1, (double)t))),
        .by_second = (real)(1 / (1 - pow(o->beta2, (double)t))),
        .keep = (real)(p->deviation == 0 ? 1 : 1 - rate * o->decay),
        .clip = (real)scale,
    };
    m->on->adam(m->on, p->shape[0] * p->shape[1], &step, m->gradients + p->offset, a->m + p->offset,
                a->v + p->offset, m->values + p->offset);
}

void adam_step(const adam *a, const model *m, const adam_options *options, double rate, double norm,
               int64_t t)
{
    const double scale = options->clip > 0 && norm > options->clip ? options->clip / norm : 1;
    for (int i = 0; i < m->count; i++)
        step_parameter(a, m, &m->parameters[i], options, rate, scale, t);
}
