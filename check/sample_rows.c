/* Single rows of attention and of its backward, each in O(S d) (SPEC 6). */
#include <math.h>
#include <string.h>

#include "check/sample.h"

/* a . b and, beside it, the sum of the absolute products and the root of their squares. */
struct product {
    double sum, size, spread;
};

static struct product multiply(const double *a, const double *b, int64_t d)
{
    struct product p = {0};
    for (int64_t c = 0; c < d; c++) {
        const double term = a[c] * b[c];
        p.sum += term;
        p.size += fabs(term);
        p.spread += term * term;
    }
    p.spread = sqrt(p.spread);
    return p;
}

void sample_add(double *to, double factor, const double *x, int64_t d)
{
    for (int64_t c = 0; c < d; c++)
        to[c] += factor * x[c];
}

static void add_absolute(double *to, double factor, const double *x, int64_t d)
{
    for (int64_t c = 0; c < d; c++)
        to[c] += factor * fabs(x[c]);
}

void sample_clear(struct sample_row *row, int64_t d)
{
    memset(row->want, 0, (size_t)d * sizeof(double));
    memset(row->stored, 0, (size_t)d * sizeof(double));
    memset(row->weighed, 0, (size_t)d * sizeof(double));
    if (row->of_D)
        memset(row->of_D, 0, (size_t)d * sizeof(double));
    row->logit = row->spread = 0;
}

static double scaled_logit(const struct sample_head *h, int64_t s, int64_t j, struct sample_row *row)
{
    const double scale = 1 / sqrt((double)h->dim);
    const struct product p = multiply(h->q + s * h->dim, h->k + j * h->dim, h->dim);
    row->logit = fmax(row->logit, scale * p.size);
    row->spread = fmax(row->spread, scale * p.spread);
    return scale * p.sum;
}

void sample_attend(const struct sample_head *h, int64_t s, struct sample_row *o, double *lse)
{
    const int64_t d = h->dim;
    double most = -INFINITY, sum = 0;
    sample_clear(o, d);
    for (int64_t j = 0; j <= s; j++)
        most = fmax(most, h->weight[j] = scaled_logit(h, s, j, o));
    for (int64_t j = 0; j <= s; j++) {
        const double e = exp(h->weight[j] - most);
        sum += e;
        add_absolute(o->stored, e + h->small, h->v_size + j * d, d);
        if (e > 0)
            sample_add(o->want, e, h->v + j * d, d);
    }
    for (int64_t c = 0; c < d; c++) {
        o->want[c] /= sum;
        o->weighed[c] = o->stored[c] /= sum;
    }
    *lse = most + log(sum);
}

void sample_query(const struct sample_head *h, int64_t s, struct sample_row *dq)
{
    const int64_t d = h->dim;
    const double scale = 1 / sqrt((double)d), *go = h->go + s * d;
    const double inherited = multiply(go, h->o + s * d, d).spread;
    double size = 0;
    sample_clear(dq, d);
    for (int64_t j = 0; j <= s; j++) {
        h->weight[j] = exp(scaled_logit(h, s, j, dq) - h->lse[s]);
        if (h->weight[j] > 0)
            size += h->weight[j] * multiply(go, h->v + j * d, d).size;
    }
    for (int64_t j = 0; j <= s; j++) {
        const double P = h->weight[j];
        if (!(P > 0) && h->small == 0)
            continue;
        const struct product dP = multiply(go, h->v + j * d, d);
        sample_add(dq->want, scale * P * (dP.sum - h->D[s]), h->k + j * d, d);
        if (dq->of_D)
            sample_add(dq->of_D, scale * P * h->D[s], h->k + j * d, d);
        add_absolute(dq->stored, scale * (P * (fabs(dP.sum - h->D[s]) + inherited) + h->small), h->k + j * d,
                     d);
        add_absolute(dq->weighed, scale * P * (dP.size + size), h->k_size + j * d, d);
    }
}

void sample_key(const struct sample_head *h, int64_t j, struct sample_row *dk, struct sample_row *dv)
{
    const int64_t d = h->dim;
    const double scale = 1 / sqrt((double)d);
    sample_clear(dk, d);
    sample_clear(dv, d);
    for (int64_t s = j; s < h->rows; s++) {
        const double *go = h->go + s * d, *q = h->q + s * d;
        const double P = exp(scaled_logit(h, s, j, dk) - h->lse[s]);
        if (!(P > 0) && h->small == 0)
            continue;
        const struct product dP = multiply(go, h->v + j * d, d), own = multiply(go, h->o + s * d, d);
        sample_add(dk->want, scale * P * (dP.sum - h->D[s]), q, d);
        if (dk->of_D)
            sample_add(dk->of_D, scale * P * h->D[s], q, d);
        add_absolute(dk->stored, scale * (P * (fabs(dP.sum - h->D[s]) + own.spread) + h->small),
                     h->q_size + s * d, d);
        /* D of the row is an average of its dP: the larger of the two sizes stands for it. */
        add_absolute(dk->weighed, scale * P * (dP.size + fmax(own.size, dP.size)), h->q_size + s * d, d);
        sample_add(dv->want, P, go, d);
        add_absolute(dv->stored, P + h->small, go, d);
        add_absolute(dv->weighed, P, go, d);
    }
    dv->logit = dk->logit;
    dv->spread = dk->spread;
}
