/*
 * How large the terms are that a stage adds up: what a rounding of each of them amounts to.
 *
 * A sum is no more exact than its terms, however small it comes out. For every element that a stage writes:
 *
 *   stored   size of the terms that a port may round to the type of its tensors: P v, P do, dS k, and what D
 *            inherits from a stored o_sel (root of the squares of do o)
 *   weighed  size of the terms that carry the weights' own relative error: the same with |dP| and sum P |dP| in place
 *            of dP - D, which may nearly cancel; by_feature: with sums of |do v| over the features for dP, where that
 *            itself was added up no better than the weights
 *
 * The linear stages are the stage itself on the absolute values of what it reads.
 */
#include <math.h>
#include <string.h>

#include "scalar/run.h"
#include "verify/condition.h"

double verify_dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t c = 0; c < n; c++)
        sum += a[c] * b[c];
    return sum;
}

static double absolute_dot(const double *a, const double *b, int64_t d)
{
    double sum = 0;
    for (int64_t c = 0; c < d; c++)
        sum += fabs(a[c] * b[c]);
    return sum;
}

static double size_of_dot(const double *a, const double *b, int64_t d)
{
    return fabs(verify_dot(a, b, d));
}

static void add_absolute(double *to, double factor, const double *x, int64_t d)
{
    for (int64_t c = 0; c < d; c++)
        to[c] += factor * fabs(x[c]);
}

static const double *rows_of(const lh_tensor *trace, lh_tensor_id id, int64_t first, int64_t d)
{
    return (const double *)trace[id].data + first * d;
}

static double *result(const verify_trace *to, lh_tensor_id id, int64_t first, int64_t d)
{
    return (double *)to->tensor[id].data + first * d;
}

/* One row of attention: o_sel and lse. */
static void attend_row(const lh_config *c, const lh_tensor *trace, int64_t first, int64_t row, double *logit,
                       double small, const verify_trace *stored)
{
    const int64_t d = c->dim;
    const double *q = rows_of(trace, LH_Q_SEL, first + row, d), *k = rows_of(trace, LH_K_SEL, first, d),
                 *v = rows_of(trace, LH_V_SEL, first, d), scale = 1 / sqrt((double)d);
    double *o = result(stored, LH_O_SEL, first + row, d), most = -INFINITY, sum = 0, size = 0;
    for (int64_t j = 0; j <= row; j++)
        most = fmax(most, logit[j] = scale * verify_dot(q, k + j * d, d));
    for (int64_t j = 0; j <= row; j++) {
        const double e = exp(logit[j] - most);
        sum += e;
        add_absolute(o, e + small, v + j * d, d);
        if (e == 0)
            continue;
        size += e * scale * absolute_dot(q, k + j * d, d);
    }
    for (int64_t f = 0; f < d; f++)
        o[f] /= sum;
    *result(stored, LH_LSE, first + row, 1) = fmax(size / sum, fabs(most + log(sum)));
}

/* One row of its backward: what it adds to dq_sel, dk_sel and dv_sel. */
static void attend_backward_row(const lh_config *c, const lh_tensor *trace, int64_t first, int64_t row,
                                double *weight, const struct verify_coarse *coarse,
                                const verify_trace *stored, const verify_trace *weighed)
{
    double (*const dP_size)(const double *, const double *, int64_t) =
        coarse->by_feature ? absolute_dot : size_of_dot;
    const double small = coarse->small;
    const int64_t d = c->dim;
    const double *q = rows_of(trace, LH_Q_SEL, first + row, d), *k = rows_of(trace, LH_K_SEL, first, d),
                 *v = rows_of(trace, LH_V_SEL, first, d), *o = rows_of(trace, LH_O_SEL, first + row, d),
                 *go = rows_of(trace, LH_DO_SEL, first + row, d), scale = 1 / sqrt((double)d),
                 lse = *rows_of(trace, LH_LSE, first + row, 1);
    const double D = verify_dot(go, o, d);
    double squares = 0, size = 0;
    for (int64_t f = 0; f < d; f++)
        squares += go[f] * o[f] * go[f] * o[f];
    for (int64_t j = 0; j <= row; j++) {
        weight[j] = exp(scale * verify_dot(q, k + j * d, d) - lse);
        if (weight[j] > 0)
            size += weight[j] * dP_size(go, v + j * d, d);
    }
    for (int64_t j = 0; j <= row; j++) {
        const double P = weight[j];
        if (!(P > 0) && small == 0)
            continue;
        const double dS = scale * (P * (fabs(verify_dot(go, v + j * d, d) - D) + sqrt(squares)) + small),
                     parts = scale * P * (dP_size(go, v + j * d, d) + size);
        add_absolute(result(stored, LH_DQ_SEL, first + row, d), dS, k + j * d, d);
        add_absolute(result(stored, LH_DK_SEL, first + j, d), dS, q, d);
        add_absolute(result(stored, LH_DV_SEL, first + j, d), P + small, go, d);
        add_absolute(result(weighed, LH_DQ_SEL, first + row, d), parts, k + j * d, d);
        add_absolute(result(weighed, LH_DK_SEL, first + j, d), parts, q, d);
        add_absolute(result(weighed, LH_DV_SEL, first + j, d), P, go, d);
    }
}

static void clear(const verify_trace *to, lh_stage stage)
{
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
        memset(to->tensor[*id].data, 0,
               (size_t)lh_tensor_elements(&to->tensor[*id]) * lh_dtype_size(to->tensor[*id].dtype));
}

static void copy_outputs(const verify_trace *to, const verify_trace *from, lh_stage stage)
{
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
        memcpy(to->tensor[*id].data, from->tensor[*id].data,
               (size_t)lh_tensor_elements(&to->tensor[*id]) * lh_dtype_size(to->tensor[*id].dtype));
}

static lh_status attention(const lh_config *c, const lh_layout *layout, lh_stage stage,
                           const lh_tensor *trace, const struct verify_coarse *coarse,
                           const verify_trace *stored, const verify_trace *weighed, lh_error *error)
{
    const int64_t rows = layout->selected;
    double *scratch;
    const lh_status status =
        lh_alloc((void **)&scratch, (size_t)rows * sizeof *scratch, "row of attention weights", error);
    clear(stored, stage);
    clear(weighed, stage);
    for (int64_t i = 0; i < c->batch * c->heads * rows && status == LH_OK; i++) {
        if (stage == LH_ATTEND)
            attend_row(c, trace, i / rows * rows, i % rows, scratch, coarse->small, stored);
        else
            attend_backward_row(c, trace, i / rows * rows, i % rows, scratch, coarse, stored, weighed);
    }
    if (status == LH_OK && stage == LH_ATTEND)
        copy_outputs(weighed, stored, stage);
    lh_free(scratch);
    return status;
}

/* A stage that is linear in what it reads: itself, on absolute values. */
lh_status verify_absolute(const lh_config *c, lh_stage stage, const lh_tensor *trace,
                          const verify_trace *stored, lh_error *error)
{
    verify_trace absolute = {0};
    lh_tensor work[LH_TENSOR_COUNT] = {0};
    lh_status status = LH_OK;
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        work[*id] = trace[*id];
        if (verify_integer(trace[*id].dtype))
            continue;
        status = verify_make(&absolute, c, LH_F64, *id, VERIFY_PACKED, error);
        for (int64_t i = 0; status == LH_OK && i < lh_tensor_elements(&trace[*id]); i++)
            ((double *)absolute.tensor[*id].data)[i] = fabs(((const double *)trace[*id].data)[i]);
        work[*id] = absolute.tensor[*id];
    }
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
        work[*id] = stored->tensor[*id];
    if (status == LH_OK)
        status = lh_ref_run(64, c, LH_REF_STAGE(stage), work, NULL, error);
    verify_free(&absolute);
    return status;
}

lh_status verify_condition(const lh_config *c, const lh_layout *layout, lh_stage stage,
                           const lh_tensor *trace, const struct verify_coarse *coarse,
                           const verify_trace *stored, const verify_trace *weighed, lh_error *error)
{
    if (stage == LH_ATTEND || stage == LH_ATTEND_BACKWARD)
        return attention(c, layout, stage, trace, coarse, stored, weighed, error);
    lh_status status = LH_OK;
    if (stage == LH_SCORE || stage == LH_GATHER) {
        for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
            memcpy(stored->tensor[*id].data, trace[*id].data,
                   (size_t)lh_tensor_elements(&trace[*id]) * sizeof(double));
    } else if (stage != LH_SELECT) {
        status = verify_absolute(c, stage, trace, stored, error);
    }
    clear(weighed, stage);
    return status;
}
