/* AdamW: see adam.h for the equations. */
#include "train/adam.h"

#include <math.h>
#include <string.h>

#include "core/base.h"

enum {
    NORM_PIECE = 4096, /* gradients summed in float before they join a double */
    LITTLE = 1 << 15,  /* weights that are not worth waking threads for */
};

lh_status adam_create(const model *m, adam *a, lh_error *error)
{
    const size_t bytes = (size_t)m->size * sizeof(real);
    memset(a, 0, sizeof *a);
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
    lh_free(a->m);
    lh_free(a->v);
    memset(a, 0, sizeof *a);
}

double gradient_norm(const model *m)
{
    double squares = 0;
    for (int64_t first = 0; first < m->size; first += NORM_PIECE) {
        const int64_t n = m->size - first < NORM_PIECE ? m->size - first : NORM_PIECE;
        const real *g = m->gradients + first;
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += g[i] * g[i];
        squares += (double)sum;
    }
    return sqrt(squares);
}

static void step_parameter(const adam *a, const model *m, const parameter *p, const adam_options *o,
                           double rate, double scale, int64_t t)
{
    real *w = m->values + p->offset, *g = m->gradients + p->offset;
    real *first = a->m + p->offset, *second = a->v + p->offset;
    const real b1 = (real)o->beta1, b2 = (real)o->beta2, clip = (real)scale;
    const real by_first = (real)(rate / (1 - pow(o->beta1, (double)t)));
    const real by_second = (real)(1 / (1 - pow(o->beta2, (double)t)));
    const real keep = (real)(p->deviation == 0 ? 1 : 1 - rate * o->decay);
    const int64_t n = p->shape[0] * p->shape[1];
#pragma omp parallel for if (n > LITTLE)
    for (int64_t i = 0; i < n; i++) {
        const real gradient = g[i] * clip;
        first[i] = b1 * first[i] + (1 - b1) * gradient;
        second[i] = b2 * second[i] + (1 - b2) * gradient * gradient;
        w[i] = keep * w[i] - by_first * first[i] / (sqrtf(second[i] * by_second) + (real)1e-8);
        g[i] = 0;
    }
}

void adam_step(const adam *a, const model *m, const adam_options *options, double rate, double norm,
               int64_t t)
{
    const double scale = options->clip > 0 && norm > options->clip ? options->clip / norm : 1;
    for (int i = 0; i < m->count; i++)
        step_parameter(a, m, &m->parameters[i], options, rate, scale, t);
}
