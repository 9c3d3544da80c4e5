/* Faults of causal attention over the sub-sequence and of its backward: SPEC 3.6 and 4. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/backend.h"
#include "check/faults.h"
#include "verify/verify.h"

enum attend_fault {
    NO_MASK,
    STRICT_MASK,
    STRICT_MASK_GUARDED,
    MASK_BY_END,
    MASK_BY_START,
    SCALE_ONE,
    SCALE_BY_D,
    NO_MAXIMUM,
    LSE_WITHOUT_MAXIMUM,
    LSE_BASE_2,
    LSE_BASE_10,
    MASK_FINITE,
    SOFT_CAP,
    LAST_ROW_SHORT,
};

struct rows {
    const lh_config *config;
    const lh_layout *layout;
    const lh_tensor *index;
    int64_t base; /* first element of this head's rows */
    enum attend_fault how;
};

static bool sees(const struct rows *r, int64_t s, int64_t other)
{
    if (r->how == NO_MASK)
        return true;
    if (r->how == STRICT_MASK || r->how == STRICT_MASK_GUARDED)
        return other < s;
    if (r->how == LAST_ROW_SHORT && s == r->layout->selected - 1)
        return other < s || s == 0;
    if (r->how != MASK_BY_END && r->how != MASK_BY_START)
        return other <= s;
    const struct lh_span me = lh_span_of(r->config, r->layout, lh_index_at(r->index, r->base + s));
    const struct lh_span it = lh_span_of(r->config, r->layout, lh_index_at(r->index, r->base + other));
    if (r->how == MASK_BY_START)
        return it.first <= me.first;
    return it.first + it.window <= me.first + me.window;
}

static double scale_of(int64_t dim, enum attend_fault how)
{
    if (how == SCALE_ONE)
        return 1.0;
    return how == SCALE_BY_D ? 1.0 / (double)dim : 1.0 / sqrt((double)dim);
}

/* Without the maximum, a float32 port overflows where exp passes FLT_MAX. */
static double weight_of(double logit, double top, enum attend_fault how)
{
    if (how != NO_MAXIMUM)
        return exp(logit - top);
    const double e = exp(logit);
    return e > (double)FLT_MAX ? INFINITY : e < (double)FLT_MIN * (double)FLT_EPSILON ? 0.0 : e;
}

static double logsumexp(double top, double z, enum attend_fault how)
{
    if (how == NO_MAXIMUM || how == LSE_WITHOUT_MAXIMUM)
        return log(z);
    return (top + log(z)) / (how == LSE_BASE_2 ? log(2.0) : how == LSE_BASE_10 ? log(10.0) : 1.0);
}

/* What people put in place of minus infinity, and the cap of models that have one. */
static const double FINITE_MASK = -10, CAP = 30;

static void attend_row(const struct rows *r, const lh_tensor *trace, int64_t s, double *weights)
{
    const int64_t d = r->config->dim, rows = r->layout->selected;
    const double *q = (const double *)trace[LH_Q_SEL].data + (r->base + s) * d;
    const double *k = (const double *)trace[LH_K_SEL].data + r->base * d;
    const double *v = (const double *)trace[LH_V_SEL].data + r->base * d;
    double *o = (double *)trace[LH_O_SEL].data + (r->base + s) * d;
    const double scale = scale_of(d, r->how);
    double top = -INFINITY, z = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        weights[i] = sees(r, s, i)           ? scale * verify_dot(q, k + i * d, d)
                     : r->how == MASK_FINITE ? FINITE_MASK
                                             : -INFINITY;
        if (r->how == SOFT_CAP && sees(r, s, i))
            weights[i] = CAP * tanh(weights[i] / CAP);
        top = fmax(top, weights[i]);
    }
    memset(o, 0, sizeof(double) * (size_t)d);
    for (int64_t i = 0; i < rows; i++) {
        if (!(weights[i] > -INFINITY))
            continue;
        const double e = weight_of(weights[i], top, r->how);
        z += e;
        for (int64_t c = 0; c < d; c++)
            o[c] += e * v[i * d + c];
    }
    const bool guarded = r->how == STRICT_MASK_GUARDED && z == 0.0;
    for (int64_t c = 0; c < d && !guarded; c++)
        o[c] /= z;
    ((double *)trace[LH_LSE].data)[r->base + s] = logsumexp(top, z, r->how);
}

static lh_status attend_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                                const lh_tensor *trace, lh_error *error)
{
    double *weights;
    const lh_status status = lh_alloc((void **)&weights, sizeof(double) * (size_t)layout->selected,
                                      "row of attention weights", error);
    if (status != LH_OK)
        return status;
    for (int64_t head = 0; head < config->batch * config->heads; head++) {
        const struct rows r = {config, layout, &trace[LH_INDEX], head * layout->selected,
                               (enum attend_fault)fault->variant};
        for (int64_t s = 0; s < layout->selected; s++)
            attend_row(&r, trace, s, weights);
    }
    lh_free(weights);
    return LH_OK;
}

enum backward_fault {
    WITHOUT_D,
    D_FROM_V,
    WITHOUT_SCALE,
    SCALE_TWICE,
    DK_FROM_DO,
    DQ_DK_SWAPPED,
    UNMASKED,
    PROBABILITIES_UNSCALED,
};

struct head_gradients {
    const double *q, *k, *v, *o, *go, *lse;
    double *dq, *dk, *dv;
};

static struct head_gradients head_of(const lh_tensor *trace, int64_t row, int64_t d, bool swapped)
{
    const lh_tensor_id dq = swapped ? LH_DK_SEL : LH_DQ_SEL, dk = swapped ? LH_DQ_SEL : LH_DK_SEL;
    return (struct head_gradients){
        .q = (const double *)trace[LH_Q_SEL].data + row * d,
        .k = (const double *)trace[LH_K_SEL].data + row * d,
        .v = (const double *)trace[LH_V_SEL].data + row * d,
        .o = (const double *)trace[LH_O_SEL].data + row * d,
        .go = (const double *)trace[LH_DO_SEL].data + row * d,
        .lse = (const double *)trace[LH_LSE].data + row,
        .dq = (double *)trace[dq].data + row * d,
        .dk = (double *)trace[dk].data + row * d,
        .dv = (double *)trace[LH_DV_SEL].data + row * d,
    };
}

static void backward_pair(const struct head_gradients *g, int64_t d, int64_t s, int64_t i, double D,
                          enum backward_fault how)
{
    const double scale = 1.0 / sqrt((double)d);
    const double logit =
        (how == PROBABILITIES_UNSCALED ? 1.0 : scale) * verify_dot(g->q + s * d, g->k + i * d, d);
    const double p = exp(logit - g->lse[s]);
    const double ds = p * (verify_dot(g->go + s * d, g->v + i * d, d) - (how == WITHOUT_D ? 0.0 : D));
    const double factor = how == WITHOUT_SCALE ? 1.0 : how == SCALE_TWICE ? scale * scale : scale;
    const double *row = how == DK_FROM_DO ? g->go : g->q;
    for (int64_t c = 0; c < d; c++) {
        g->dq[s * d + c] += factor * ds * g->k[i * d + c];
        g->dk[i * d + c] += factor * ds * row[s * d + c];
        g->dv[i * d + c] += p * g->go[s * d + c];
    }
}

static lh_status backward_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                                  const lh_tensor *trace, lh_error *error)
{
    const enum backward_fault how = (enum backward_fault)fault->variant;
    const int64_t d = config->dim, rows = layout->selected;
    const lh_tensor_id gradients[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    (void)error;
    for (int x = 0; x < 3; x++)
        memset(trace[gradients[x]].data, 0,
               sizeof(double) * (size_t)(config->batch * config->heads * rows * d));
    for (int64_t head = 0; head < config->batch * config->heads; head++) {
        const struct head_gradients g = head_of(trace, head * rows, d, how == DQ_DK_SWAPPED);
        for (int64_t s = 0; s < rows; s++) {
            const double D = verify_dot(g.go + s * d, (how == D_FROM_V ? g.v : g.o) + s * d, d);
            const int64_t end = how == UNMASKED ? rows : s + 1;
            for (int64_t i = 0; i < end; i++)
                backward_pair(&g, d, s, i, D, how);
        }
    }
    return LH_OK;
}

const lh_fault lh_faults_attend[] = {
    {18, LH_ATTEND, "attend-no-mask", "SPEC 3.6", "Mask: row s sees rows s' <= s of the sub-sequence.",
     NO_MASK, attend_wrongly},
    {18, LH_ATTEND, "attend-strict-mask", "SPEC 3.6", "Row s sees itself too: s' <= s, not s' < s.",
     STRICT_MASK, attend_wrongly},
    {18, LH_ATTEND, "attend-strict-mask-guarded", "SPEC 3.6", "Row s sees itself too: s' <= s, not s' < s.",
     STRICT_MASK_GUARDED, attend_wrongly},
    {18, LH_ATTEND, "attend-mask-by-window-end", "SPEC 3.6",
     "Mask by position in the sub-sequence, not by the end of the window.", MASK_BY_END, attend_wrongly},
    {18, LH_ATTEND, "attend-mask-by-window-start", "SPEC 3.6",
     "Mask by position in the sub-sequence, not by the start of the window.", MASK_BY_START, attend_wrongly},
    {23, LH_ATTEND, "attend-unscaled", "SPEC 3.6", "Scale q.k by 1/sqrt(d).", SCALE_ONE, attend_wrongly},
    {23, LH_ATTEND, "attend-scale-1/d", "SPEC 3.6", "Scale q.k by 1/sqrt(d), not 1/d.", SCALE_BY_D,
     attend_wrongly},
    {26, LH_ATTEND, "attend-no-maximum", "SPEC 3.6",
     "Subtract the row's maximum before exp, or large logits overflow.", NO_MAXIMUM, attend_wrongly},
    {26, LH_ATTEND, "attend-lse-without-maximum", "SPEC 3.6", "lse includes the maximum: max + log(sum).",
     LSE_WITHOUT_MAXIMUM, attend_wrongly},
    {26, LH_ATTEND, "attend-lse-base-2", "SPEC 3.6", "lse is a natural logarithm: multiply by ln 2.",
     LSE_BASE_2, attend_wrongly},
    {26, LH_ATTEND, "attend-lse-base-10", "SPEC 3.6", "lse is a natural logarithm, not one to base 10.",
     LSE_BASE_10, attend_wrongly},
    {29, LH_ATTEND, "attend-mask-of-minus-10", "SPEC 3.6",
     "What is masked has weight 0: add minus infinity, not a finite number.", MASK_FINITE, attend_wrongly},
    {29, LH_ATTEND, "attend-soft-cap", "SPEC 3.6", "No cap on logits: switch soft-capping off.", SOFT_CAP,
     attend_wrongly},
    {28, LH_ATTEND, "attend-last-row-short", "SPEC 3.6",
     "The last row of the last tile sees itself too: the tile's end is S, not S - 1.", LAST_ROW_SHORT,
     attend_wrongly},
    {25, LH_ATTEND_BACKWARD, "backward-without-D", "SPEC 4", "dS = P * (do.v - D) with D the row's do.o.",
     WITHOUT_D, backward_wrongly},
    {25, LH_ATTEND_BACKWARD, "backward-D-from-v", "SPEC 4", "D is the row's do.o, not do.v.", D_FROM_V,
     backward_wrongly},
    {23, LH_ATTEND_BACKWARD, "backward-without-scale", "SPEC 4", "dq and dk carry the scale 1/sqrt(d).",
     WITHOUT_SCALE, backward_wrongly},
    {23, LH_ATTEND_BACKWARD, "backward-scale-twice", "SPEC 4", "dq and dk carry the scale 1/sqrt(d) once.",
     SCALE_TWICE, backward_wrongly},
    {25, LH_ATTEND_BACKWARD, "backward-dk-from-do", "SPEC 4", "dk_sel = scale * dS' * q_sel, not do_sel.",
     DK_FROM_DO, backward_wrongly},
    {25, LH_ATTEND_BACKWARD, "backward-dq-dk-swapped", "SPEC 4",
     "dq_sel is dS * k_sel, dk_sel is dS' * q_sel: they are exchanged.", DQ_DK_SWAPPED, backward_wrongly},
    {18, LH_ATTEND_BACKWARD, "backward-no-mask", "SPEC 4", "P is zero where the forward masked.", UNMASKED,
     backward_wrongly},
    {23, LH_ATTEND_BACKWARD, "backward-recomputes-unscaled", "SPEC 4",
     "Recompute P with the forward's scale: exp(scale * q.k - lse).", PROBABILITIES_UNSCALED,
     backward_wrongly},
    {0, LH_STAGE_COUNT, NULL, NULL, NULL, 0, NULL},
};
