/*
 * A factor common to a whole head of dq or dk: in half types less than single elements may be off.
 *
 * Roundings of single terms average out over a head, a factor does not. So the error of a head is projected on two
 * directions: on the gradient itself, which finds dq * 1.1, and on that part of it which D makes, which finds D * 0.9.
 * What honest rounding amounts to along a direction is a sum over the terms that a port may round (P, dS, D, lse),
 * each times its own share of the projection X[s,j]. It is taken four times, for nobody knows how those roundings go
 * together: independent of each other, alike along a row, alike along a column (a sink), alike throughout.
 *
 *   dS      u                  of X = dS t; t[s,j] is what one unit of dS adds to the projection
 *   D       u |do o|           on the row's sum of P t, and D itself in the half type
 *   lse     expm1(u(lse) |lse|)  on the row's sums of X and of P D t
 *   twin    MULTIPLE           its own projection, and root sum of squares over rows
 *   stored  u                  of the gradient's own elements
 */
#include <math.h>
#include <string.h>

#include "scalar/run.h"
#include "verify/allow.h"
#include "verify/factor.h"

/* Independent roundings, each of at most a unit, amount to this many root sums of squares of units: five standard
 * deviations, and a little. */
static const double SPREADS = 3;

enum {
    PROBES = 2 * VERIFY_DIRECTIONS /* pairs of gradient and direction */
};

static const struct {
    int gradient, direction;
} pairs[PROBES] = {{0, VERIFY_ALL}, {0, VERIFY_OF_D}, {1, VERIFY_ALL}, {1, VERIFY_OF_D}};
static const lh_tensor_id selected[] = {LH_DQ_SEL, LH_DK_SEL};
static const lh_tensor_id unpooled[] = {LH_DQ, LH_DK};

/* Shares of one projection, summed: squares where they are independent. */
struct shares {
    double each, rows, columns, total; /* of X */
    double D_rows, D_total;            /* of what D is made of; of D's own part */
    double lse_rows, vanishing;
};

/* One direction in the rows of a head, and what it collects. */
struct probe {
    const double *along; /* [S,d] */
    double *column;      /* [S] */
    struct shares *to;
};

static bool has_factors(lh_tensor_id id)
{
    return id == LH_DQ_SEL || id == LH_DK_SEL || id == LH_DQ || id == LH_DK;
}

const double *verify_factor_direction(const verify_expect *e, lh_tensor_id id, int direction)
{
    return direction == VERIFY_ALL ? e->want.tensor[id].data : e->part_of_D.tensor[id].data;
}

lh_status verify_factor_note(verify_expect *e, lh_tensor_id id, const lh_tensor *twin, lh_error *error)
{
    lh_status status = LH_OK;
    if (!verify_half(e) || !has_factors(id))
        return LH_OK;
    if (!e->twin_error.tensor[id].data)
        status = verify_make(&e->twin_error, &e->config, LH_F64, id, VERIFY_PACKED, error);
    for (int64_t i = 0; status == LH_OK && i < lh_tensor_elements(twin); i++)
        ((double *)e->twin_error.tensor[id].data)[i] =
            verify_element(twin, i) - verify_element(&e->want.tensor[id], i);
    return status;
}

static double square(double x)
{
    return x * x;
}

/* A head of query head `head`, rows [S,d]. */
struct head {
    int64_t d, rows;
    const double *q, *k, *v, *o, *go, *lse;
    double scale, u_lse;
};

static struct head head_of(const verify_expect *e, const lh_tensor *trace, int64_t head)
{
    const int64_t d = e->config.dim, rows = e->layout.selected, at = head * rows * d;
    return (struct head){d,
                         rows,
                         (const double *)trace[LH_Q_SEL].data + at,
                         (const double *)trace[LH_K_SEL].data + at,
                         (const double *)trace[LH_V_SEL].data + at,
                         (const double *)trace[LH_O_SEL].data + at,
                         (const double *)trace[LH_DO_SEL].data + at,
                         (const double *)trace[LH_LSE].data + head * rows,
                         1 / sqrt((double)d),
                         verify_lse_rounding(e)};
}

/* Weights P[s,0..s] of a row, and do.v; returns D. */
static double row_weights(const struct head *h, int64_t s, double *P, double *dP)
{
    for (int64_t j = 0; j <= s; j++) {
        P[j] = exp(h->scale * verify_dot(h->q + s * h->d, h->k + j * h->d, h->d) - h->lse[s]);
        dP[j] = verify_dot(h->go + s * h->d, h->v + j * h->d, h->d);
    }
    return verify_dot(h->go + s * h->d, h->o + s * h->d, h->d);
}

/* What D makes of dq and dk of a head: scale D P k, scale P D q. */
static void add_part_of_D(const struct head *h, double *P, double *dP, double *dq, double *dk)
{
    for (int64_t s = 0; s < h->rows; s++) {
        const double D = h->scale * row_weights(h, s, P, dP);
        for (int64_t j = 0; j <= s; j++) {
            for (int64_t c = 0; c < h->d; c++) {
                dq[s * h->d + c] += D * P[j] * h->k[j * h->d + c];
                dk[j * h->d + c] += D * P[j] * h->q[s * h->d + c];
            }
        }
    }
}

/* What one unit of dS[s,j] adds to the projection: of dq where gradient is 0, of dk where it is 1. */
static double unit_of(const struct head *h, int gradient, const double *along, int64_t s, int64_t j)
{
    return h->scale * (gradient == 0 ? verify_dot(along + s * h->d, h->k + j * h->d, h->d)
                                     : verify_dot(along + j * h->d, h->q + s * h->d, h->d));
}

static void probe_row(const struct head *h, int gradient, const struct probe *probe, int64_t s,
                      const double *P, const double *dP, double D)
{
    struct shares *to = probe->to;
    double squares = 0, X = 0, unit = 0;
    for (int64_t c = 0; c < h->d; c++)
        squares += square(h->go[s * h->d + c] * h->o[s * h->d + c]);
    for (int64_t j = 0; j <= s; j++) {
        const double t = unit_of(h, gradient, probe->along, s, j), x = P[j] * (dP[j] - D) * t;
        to->each += square(x);
        to->vanishing += fabs(t);
        probe->column[j] += x;
        X += x;
        unit += P[j] * t;
    }
    const double of_D = D * unit;
    to->rows += square(X);
    to->total += X;
    to->D_rows += squares * square(unit);
    to->D_total += of_D;
    to->lse_rows += square(expm1(h->u_lse * fabs(h->lse[s])) * (fabs(X) + fabs(of_D)));
}

/* along: PROBES directions of a head, [S,d] each; to: its shares. scratch: [3][S] */
static void probe_head(const struct head *h, const double *const *along, struct shares *const *to,
                       double *scratch)
{
    double *P = scratch, *dP = P + h->rows, *columns = dP + h->rows;
    memset(columns, 0, sizeof *columns * (size_t)(PROBES * h->rows));
    for (int64_t s = 0; s < h->rows; s++) {
        const double D = row_weights(h, s, P, dP);
        for (int i = 0; i < PROBES; i++)
            probe_row(h, pairs[i].gradient, &(struct probe){along[i], columns + i * h->rows, to[i]}, s, P, dP,
                      D);
    }
    for (int i = 0; i < PROBES; i++) {
        for (int64_t j = 0; j < h->rows; j++)
            to[i]->columns += square(columns[i * h->rows + j]);
    }
}

/* Un-pooling the other way: along[s] is the mean of its tokens' rows of a direction in dq, dk or dv. */
static void pull_back(const verify_expect *e, const lh_tensor *index, int64_t head, const double *direction,
                      double *along)
{
    const int64_t d = e->config.dim, rows = e->layout.selected;
    memset(along, 0, sizeof *along * (size_t)(rows * d));
    for (int64_t s = 0; s < rows; s++) {
        const int64_t entry = lh_index_at(index, head * rows + s);
        const int level = lh_level_of(&e->layout, (int)e->config.levels, entry);
        const int64_t window = e->layout.window[level],
                      first = (entry - e->layout.level_offset[level]) * window;
        for (int64_t i = first * d; i < (first + window) * d; i++)
            along[s * d + i % d] += direction[i] / (double)window;
    }
}

/* What the roundings behind `shares` amount to. */
static double rounding_of(const verify_expect *e, const lh_tensor *lse, const struct shares *x)
{
    const double u = verify_roundoff(e->dtype), weights = u + verify_habit_rounding(e, e->size[LH_LSE]),
                 u_lse = verify_lse_rounding(e);
    double most = 0;
    for (int64_t i = 0; i < lh_tensor_elements(lse); i++)
        most = fmax(most, fabs(verify_element(lse, i)));
    return weights * (SPREADS * (sqrt(x->each) + sqrt(x->rows) + sqrt(x->columns)) + fabs(x->total)) +
           u * (SPREADS * sqrt(x->D_rows) + fabs(x->D_total)) + SPREADS * sqrt(x->lse_rows) +
           expm1(u_lse * most) * (fabs(x->total) + fabs(x->D_total)) + verify_least(e->dtype) * x->vanishing;
}

/* What storing a head of a gradient amounts to, and what the twin is off there. */
static double storing_of(const verify_expect *e, lh_tensor_id id, const double *along, int64_t head)
{
    const lh_tensor *want = &e->want.tensor[id];
    const int64_t d = want->shape[3], rows = want->shape[2], first = head * rows * d;
    const double *w = (const double *)want->data + first,
                 *off = (const double *)e->twin_error.tensor[id].data + first;
    double squares = 0, sum = 0, vanishing = 0, error = 0, error_rows = 0;
    for (int64_t i = 0; i < rows * d; i++) {
        squares += square(w[i] * along[i]);
        sum += w[i] * along[i];
        vanishing += fabs(along[i]);
    }
    for (int64_t r = 0; r < rows; r++) {
        const double here = verify_dot(off + r * d, along + r * d, d);
        error += here;
        error_rows += square(here);
    }
    return verify_allowance(fmax(fabs(error), sqrt(error_rows)), 0, 0, 0) +
           verify_roundoff(e->stored[id]) * (SPREADS * sqrt(squares) + fabs(sum)) +
           verify_least(e->stored[id]) * vanishing;
}

static lh_status make_parts(verify_expect *e, lh_stage stage, const lh_tensor *trace, double *scratch,
                            lh_error *error)
{
    const lh_tensor_id *ids = stage == LH_UNPOOL ? unpooled : selected;
    const int64_t heads = e->config.batch * e->config.heads, size = e->layout.selected * e->config.dim;
    lh_status status = LH_OK;
    for (int i = 0; i < 2 && status == LH_OK; i++)
        status = verify_make(&e->part_of_D, &e->config, LH_F64, ids[i], VERIFY_PACKED, error);
    if (status != LH_OK)
        return status;
    if (stage == LH_UNPOOL) {
        lh_tensor work[LH_TENSOR_COUNT];
        memcpy(work, e->part_of_D.tensor, sizeof work);
        work[LH_INDEX] = trace[LH_INDEX];
        work[LH_DV_SEL] = trace[LH_DV_SEL];
        return lh_ref_run(64, &e->config, LH_REF_STAGE(LH_UNPOOL), work, NULL, error);
    }
    for (int i = 0; i < 2; i++)
        memset(e->part_of_D.tensor[ids[i]].data, 0, sizeof(double) * (size_t)(heads * size));
    for (int64_t i = 0; i < heads; i++) {
        const struct head h = head_of(e, trace, i);
        add_part_of_D(&h, scratch, scratch + h.rows, (double *)e->part_of_D.tensor[LH_DQ_SEL].data + i * size,
                      (double *)e->part_of_D.tensor[LH_DK_SEL].data + i * size);
    }
    return LH_OK;
}

/* Heads of a gradient: those of k and v are shared by a group of query heads once un-pooled. */
static int64_t its_head(const verify_expect *e, lh_tensor_id id, int64_t query_head)
{
    return query_head / (e->config.heads / e->want.tensor[id].shape[1]);
}

/* scratch: [2 + PROBES][S] and [PROBES][S,d]; shares: [PROBES][B H] */
static void collect(const verify_expect *e, lh_stage stage, const lh_tensor *trace, double *scratch,
                    struct shares *shares)
{
    const lh_tensor_id *ids = stage == LH_UNPOOL ? unpooled : selected;
    const int64_t heads = e->config.batch * e->config.heads, rows = e->layout.selected,
                  size = rows * e->config.dim;
    double *pulled = scratch + (2 + PROBES) * rows;
    for (int64_t head = 0; head < heads; head++) {
        const struct head h = head_of(e, trace, head);
        const double *along[PROBES];
        struct shares *to[PROBES];
        for (int i = 0; i < PROBES; i++) {
            const lh_tensor_id id = ids[pairs[i].gradient];
            const int64_t mine = its_head(e, id, head);
            const double *direction = verify_factor_direction(e, id, pairs[i].direction) +
                                      mine * e->want.tensor[id].shape[2] * e->config.dim;
            to[i] = &shares[i * heads + mine];
            along[i] = direction;
            if (stage != LH_UNPOOL)
                continue;
            pull_back(e, &trace[LH_INDEX], head, direction, pulled + i * size);
            along[i] = pulled + i * size;
        }
        probe_head(&h, along, to, scratch);
    }
}

lh_status verify_factor_allow(verify_expect *e, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    const lh_tensor_id *ids = stage == LH_UNPOOL ? unpooled : selected;
    const int64_t heads = e->config.batch * e->config.heads, rows = e->layout.selected;
    double *scratch = NULL;
    struct shares *shares = NULL;
    lh_status status = lh_alloc(
        (void **)&scratch, sizeof *scratch * (size_t)((2 + PROBES) * rows + PROBES * rows * e->config.dim),
        "projections of the gradients", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&shares, sizeof *shares * (size_t)(PROBES * heads), "projections", error);
    if (status == LH_OK)
        status = make_parts(e, stage, trace, scratch, error);
    for (int i = 0; i < 2 && status == LH_OK; i++)
        status = lh_alloc((void **)&e->factor[ids[i]], sizeof(double) * (size_t)(VERIFY_DIRECTIONS * heads),
                          "projections", error);
    if (status == LH_OK) {
        memset(shares, 0, sizeof *shares * (size_t)(PROBES * heads));
        collect(e, stage, trace, scratch, shares);
        for (int i = 0; i < PROBES; i++) {
            const lh_tensor_id id = ids[pairs[i].gradient];
            const lh_tensor *want = &e->want.tensor[id];
            const int64_t own = want->shape[0] * want->shape[1], size = want->shape[2] * want->shape[3];
            for (int64_t head = 0; head < own; head++)
                e->factor[id][pairs[i].direction * own + head] =
                    rounding_of(e, &trace[LH_LSE], &shares[i * heads + head]) +
                    storing_of(e, id, verify_factor_direction(e, id, pairs[i].direction) + head * size, head);
        }
    }
    lh_free(shares);
    lh_free(scratch);
    return status;
}
