/* The pairs of a query and a key behind the judged rows of a gradient, and what rounding in them does to a projection. */
#include <math.h>
#include <string.h>

#include "check/sample_factor.h"

/* What the pairs of one judged row come to in one direction. */
struct reached {
    const double *along;    /* [d] */
    double *first, *second; /* [d]: derivatives with respect to its own q and do, or k and v */
    double X, unit;
};

static double square(double x)
{
    return x * x;
}

/* Sum of squares of what one unit of relative rounding of each element of x does, given the derivatives. */
static double through(const double *derivative, const double *size, int64_t d)
{
    double squares = 0;
    for (int64_t c = 0; c < d; c++)
        squares += square(derivative[c] * size[c]);
    return squares;
}

/* What rounding D and lse of row s does, whose sums of X and of P t are given. */
static void add_query(const struct sample_head *h, double u_lse, int64_t s, double X, double unit,
                      struct sample_shares *to)
{
    const double of_D = h->D[s] * unit;
    to->D_rows += through(h->go + s * h->dim, h->o + s * h->dim, h->dim) * square(unit);
    to->D_total += of_D;
    const double lse = expm1(u_lse * fabs(h->lse[s]));
    to->lse_rows += square(lse * (fabs(X) + fabs(of_D)));
    to->lse_most = fmax(to->lse_most, lse);
}

/* Whether rows of slot s are sums over a window: those of a token are copies. */
static bool averaged(const struct walk *w, int64_t s)
{
    return lh_level_of(&w->layout, (int)w->config->levels, w->index[s]) > 0;
}

/* One pair of the judged row `fixed` and of `run`, in one direction; P off is its dS. */
static void add_pair(const struct sample_head *h, struct sample_factor *f, int direction, bool of_key,
                     int64_t fixed, int64_t run, double P, double off, double size, struct reached *sum)
{
    struct sample_shares *to = &f->to[direction];
    const int64_t d = h->dim, s = of_key ? run : fixed, j = of_key ? fixed : run;
    const double scale = 1 / sqrt((double)d), *mine = (of_key ? h->k : h->q) + fixed * d,
                 *other = (of_key ? h->q : h->k) + run * d, *go = h->go + s * d;
    const double t = scale * verify_dot(sum->along, other, d), x = P * off * t;
    to->each += square(x);
    to->products += square(P * t * size);
    to->vanishing += fabs(t) * (1 + fabs(off));
    f->X[direction][run] += x;
    f->unit[direction][run] += P * t;
    sum->X += x;
    sum->unit += P * t;
    if (!f->first[direction])
        return;
    double *first = f->first[direction] + run * d, *second = f->second[direction] + run * d;
    for (int64_t c = 0; c < d; c++) {
        sum->first[c] += scale * x * other[c];
        first[c] += scale * (x * mine[c] + P * off * sum->along[c]);
    }
    sample_add(of_key ? sum->second : second, P * t, go, d);
    sample_add(of_key ? second : sum->second, P * t, h->v + j * d, d); /* less o, once the pairs are over */
}

/* All pairs of the n-th judged query (of dq) or key (of dk). */
static void probe(const struct walk *w, int gradient, int64_t n)
{
    const struct sample_head *h = &w->head;
    struct sample_factor *f = w->factor;
    const bool of_key = gradient == 1;
    const int64_t d = h->dim, fixed = f->fixed[n], end = of_key ? h->rows : fixed + 1;
    const double scale = 1 / sqrt((double)d), *mine = (of_key ? h->k : h->q) + fixed * d,
                 *others = of_key ? h->q : h->k;
    struct reached sum[VERIFY_DIRECTIONS];
    double *made = f->row;
    memset(f->row, 0, sizeof(double) * (size_t)(SAMPLE_PROBE_ROWS * d));
    for (int i = 0; i < VERIFY_DIRECTIONS; i++)
        sum[i] =
            (struct reached){f->pull[i] + n * d, f->row + (1 + 2 * i) * d, f->row + (2 + 2 * i) * d, 0, 0};
    for (int64_t run = of_key ? fixed : 0; run < end; run++) {
        const int64_t s = of_key ? run : fixed, j = of_key ? fixed : run;
        const double logit = scale * verify_dot(mine, others + run * d, d), P = exp(logit - h->lse[s]);
        if (!(P > 0))
            continue;
        const double off = verify_dot(h->go + s * d, h->v + j * d, d) - h->D[s],
                     size = sqrt(through(h->go + s * d, h->v + j * d, d));
        f->logit = fmax(f->logit, fabs(logit));
        if (f->unpooled)
            sample_add(made, scale * P * off, others + run * d, d);
        for (int i = 0; i < VERIFY_DIRECTIONS; i++)
            add_pair(h, f, i, of_key, fixed, run, P, off, size, &sum[i]);
    }
    for (int i = 0; i < VERIFY_DIRECTIONS; i++) {
        struct sample_shares *to = &f->to[i];
        to->fixed += square(sum[i].X);
        to->total += sum[i].X;
        to->kept += through(made, sum[i].along, d);
        if (!of_key)
            add_query(h, f->u_lse, fixed, sum[i].X, sum[i].unit, to);
        if (!of_key)
            sample_add(sum[i].second, -sum[i].unit, h->o + fixed * d, d);
        if (f->first[i] && averaged(w, fixed))
            to->unseen += through(sum[i].first, (of_key ? h->k_size : h->q_size) + fixed * d, d) +
                          through(sum[i].second, (of_key ? h->v_size : h->go) + fixed * d, d);
    }
}

/* The probes of one head over, the side that ran is summed up. */
static void end_head(const struct walk *w, int gradient, int direction)
{
    const struct sample_head *h = &w->head;
    struct sample_factor *f = w->factor;
    struct sample_shares *to = &f->to[direction];
    const int64_t d = h->dim;
    for (int64_t run = 0; run < h->rows; run++) {
        to->running += square(f->X[direction][run]);
        if (gradient == 1)
            add_query(h, f->u_lse, run, f->X[direction][run], f->unit[direction][run], to);
        if (f->first[direction] && gradient == 1)
            sample_add(f->second[direction] + run * d, -f->unit[direction][run], h->o + run * d, d);
        if (f->first[direction] && averaged(w, run))
            to->unseen +=
                through(f->first[direction] + run * d, (gradient == 1 ? h->q_size : h->k_size) + run * d, d) +
                through(f->second[direction] + run * d, (gradient == 1 ? h->go : h->v_size) + run * d, d);
    }
}

void sample_probe_head(const struct walk *w, int gradient)
{
    struct sample_factor *f = w->factor;
    const int64_t d = w->config->dim;
    const size_t rows = (size_t)w->layout.selected;
    for (int i = 0; i < VERIFY_DIRECTIONS; i++) {
        memset(f->X[i], 0, rows * sizeof(double));
        memset(f->unit[i], 0, rows * sizeof(double));
        if (f->first[i]) {
            memset(f->first[i], 0, rows * (size_t)d * sizeof(double));
            memset(f->second[i], 0, rows * (size_t)d * sizeof(double));
        }
    }
    for (int64_t n = 0; n < f->count; n++)
        probe(w, gradient, n);
    for (int i = 0; i < VERIFY_DIRECTIONS; i++)
        end_head(w, gradient, i);
}
