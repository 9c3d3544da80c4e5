/*
 * The identities of SPEC 7 that take another run of the reference: with the index held fixed, nothing moves
 * before a token that moves, out is linear in v, gradients are what central differences say; batches and heads
 * do not know of each other; grouped heads are repeated heads.
 */
#include <math.h>
#include <string.h>

#include "core/random.h"
#include "scalar/run.h"
#include "verify/reference.h"

static const lh_tensor_id qkv[] = {LH_Q, LH_K, LH_V};

static double *values(const verify_trace *t, lh_tensor_id id)
{
    return t->tensor[id].data;
}

static int64_t count(const verify_trace *t, lh_tensor_id id)
{
    return lh_tensor_elements(&t->tensor[id]);
}

static void copy(verify_trace *to, const verify_trace *from, lh_tensor_id id)
{
    memcpy(to->tensor[id].data, from->tensor[id].data,
           (size_t)count(from, id) * lh_dtype_size(from->tensor[id].dtype));
}

/* q k v dout index as the trace of the case has them. */
static void reset(const struct verify_reference *reference, verify_trace *t)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_INDEX};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        copy(t, &reference->trace->want, ids[i]);
}

static lh_status forward(const struct verify_reference *reference, verify_trace *t, lh_error *error)
{
    return lh_ref_run(64, &reference->subject->config, LH_REF_FORWARD_GIVEN, t->tensor, NULL, error);
}

/* Everything after token j moves: out up to j has the same bits. */
static lh_status check_causality(const struct verify_reference *reference, verify_trace *t, lh_error *error)
{
    const lh_config *c = &reference->subject->config;
    lh_status status = LH_OK;
    verify_result result = {.verdict = VERIFY_EXACT, .worst = -1};
    for (int64_t j = 0; j + 1 < c->tokens && status == LH_OK; j += c->tokens / 7 + 1) {
        reset(reference, t);
        for (size_t i = 0; i < 3; i++) {
            for (int64_t e = 0; e < count(t, qkv[i]); e++) {
                if (e / c->dim % c->tokens > j)
                    values(t, qkv[i])[e] = lh_random_gaussian(reference->subject->seed, 100 + i, (uint64_t)e);
            }
        }
        status = forward(reference, t, error);
        for (int64_t e = 0; e < count(t, LH_OUT) && status == LH_OK; e++) {
            const double got = values(t, LH_OUT)[e], wanted = values(&reference->trace->want, LH_OUT)[e];
            if (e / c->dim % c->tokens <= j && got != wanted && result.worst < 0)
                result = (verify_result){.verdict = VERIFY_WRONG, .worst = e, .got = got, .wanted = wanted};
        }
    }
    if (status == LH_OK)
        verify_reference_row(reference, "causality", LH_OUT, result, "later tokens moved, index fixed");
    return status;
}

/* out(2 v + w) = 2 out(v) + out(w) */
static lh_status check_linearity(const struct verify_reference *reference, verify_trace *t, lh_error *error)
{
    verify_trace sum = {0};
    lh_status status = verify_make_all(&sum, &reference->subject->config, LH_F64, VERIFY_PACKED, error);
    if (status != LH_OK) {
        verify_free(&sum);
        return status;
    }
    reset(reference, t);
    reset(reference, &sum);
    for (int64_t e = 0; e < count(t, LH_V); e++) {
        values(t, LH_V)[e] = lh_random_gaussian(reference->subject->seed, 200, (uint64_t)e);
        values(&sum, LH_V)[e] = 2 * values(&reference->trace->want, LH_V)[e] + values(t, LH_V)[e];
    }
    status = forward(reference, t, error);
    if (status == LH_OK)
        status = forward(reference, &sum, error);
    for (int64_t e = 0; e < count(t, LH_OUT) && status == LH_OK; e++)
        values(t, LH_OUT)[e] += 2 * values(&reference->trace->want, LH_OUT)[e];
    if (status == LH_OK)
        verify_reference_row(
            reference, "linear in v", LH_OUT,
            verify_compare(&sum.tensor[LH_OUT], &t->tensor[LH_OUT], 8 * reference->trace->allowed[LH_O_SEL]),
            "");
    verify_free(&sum);
    return status;
}

/* Row-major position with batch and heads counted backwards. */
static int64_t mirrored(const lh_tensor *t, int64_t e)
{
    const int64_t inner = t->stride[1], outer = t->shape[0] * t->shape[1];
    return (outer - 1 - e / inner) * inner + e % inner;
}

/* Batches and heads in reverse order give the same results in reverse order. */
static lh_status check_equivariance(const struct verify_reference *reference, verify_trace *t,
                                    lh_error *error)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT},
                              outputs[] = {LH_OUT, LH_DQ, LH_DK, LH_DV};
    const verify_trace *want = &reference->trace->want;
    for (size_t i = 0; i < 4; i++) {
        for (int64_t e = 0; e < count(t, inputs[i]); e++)
            values(t, inputs[i])[e] = values(want, inputs[i])[mirrored(&want->tensor[inputs[i]], e)];
    }
    const lh_status status = lh_ref_run(64, &reference->subject->config, LH_REF_ALL, t->tensor, NULL, error);
    for (size_t i = 0; i < 4 && status == LH_OK; i++) {
        /* Heads of a group are added in head order, so dk and dv may round otherwise. */
        const lh_tensor_id id = outputs[i];
        double *x = values(t, id);
        const int64_t n = count(t, id);
        for (int64_t e = 0; e < n; e++) {
            const int64_t other = mirrored(&t->tensor[id], e);
            if (other > e) {
                const double first = x[e];
                x[e] = x[other];
                x[other] = first;
            }
        }
        verify_reference_row(reference, "heads reversed", id,
                             verify_compare(&t->tensor[id], &want->tensor[id],
                                            id == LH_DK || id == LH_DV ? reference->trace->allowed[id] : 0),
                             "");
    }
    return status;
}

/* Position in a [B,G,...] tensor that position e of the [B,H,...] tensor repeats. */
static int64_t repeated(const lh_config *c, const lh_tensor *wide, int64_t e)
{
    const int64_t inner = wide->stride[1], head = e / inner;
    const int64_t group = head / c->heads * c->kv_heads + head % c->heads / (c->heads / c->kv_heads);
    return group * inner + e % inner;
}

/* k and v repeated for every query head give the same out and dq; their gradients add up over the group. */
static lh_status check_groups(const struct verify_reference *reference, lh_error *error)
{
    static const lh_tensor_id same[] = {LH_INDEX, LH_OUT, LH_DQ}, gradients[] = {LH_DK, LH_DV};
    const verify_trace *want = &reference->trace->want;
    const lh_config *c = &reference->subject->config;
    lh_config wide = *c;
    verify_trace t = {0}, sums = {0};
    wide.kv_heads = wide.heads;
    lh_status status = verify_make_all(&t, &wide, LH_F64, VERIFY_PACKED, error);
    for (size_t i = 0; i < 2 && status == LH_OK; i++)
        status = verify_make(&sums, c, LH_F64, gradients[i], VERIFY_PACKED, error);
    if (status == LH_OK) {
        copy(&t, want, LH_Q);
        copy(&t, want, LH_DOUT);
        for (int64_t e = 0; e < count(&t, LH_K); e++) {
            values(&t, LH_K)[e] = values(want, LH_K)[repeated(c, &t.tensor[LH_K], e)];
            values(&t, LH_V)[e] = values(want, LH_V)[repeated(c, &t.tensor[LH_V], e)];
        }
        status = lh_ref_run(64, &wide, LH_REF_ALL, t.tensor, NULL, error);
    }
    for (size_t i = 0; i < 3 && status == LH_OK; i++)
        verify_reference_row(reference, "groups repeated", same[i],
                             verify_compare(&t.tensor[same[i]], &want->tensor[same[i]], 0), "");
    for (size_t i = 0; i < 2 && status == LH_OK; i++) {
        const lh_tensor_id id = gradients[i];
        memset(values(&sums, id), 0, (size_t)count(&sums, id) * sizeof(double));
        for (int64_t e = 0; e < count(&t, id); e++)
            values(&sums, id)[repeated(c, &t.tensor[id], e)] += values(&t, id)[e];
        verify_reference_row(
            reference, "groups repeated", id,
            verify_compare(&sums.tensor[id], &want->tensor[id], reference->trace->allowed[id]), "");
    }
    verify_free(&t);
    verify_free(&sums);
    return status;
}

/* dout . out with `step` times a random direction added to tensor `id`. */
static lh_status loss(const struct verify_reference *reference, verify_trace *t, lh_tensor_id id,
                      uint64_t draw, double step, double *sum, lh_error *error)
{
    reset(reference, t);
    for (int64_t e = 0; e < count(t, id); e++)
        values(t, id)[e] += step * lh_random_gaussian(reference->subject->seed, draw, (uint64_t)e);
    const lh_status status = forward(reference, t, error);
    *sum = 0;
    for (int64_t e = 0; e < count(t, LH_OUT) && status == LH_OK; e++)
        *sum += values(t, LH_OUT)[e] * values(t, LH_DOUT)[e];
    return status;
}

/* Slope of the loss along a direction, by the five-point formula, against the gradient's reference. */
static lh_status check_direction(const struct verify_reference *reference, verify_trace *t, lh_tensor_id id,
                                 lh_tensor_id gradient, uint64_t draw, lh_error *error)
{
    static const double weight[4] = {1, -8, 8, -1}, at[4] = {-2, -1, 1, 2};
    const double step = 0x1p-12;
    double slope = 0, wanted = 0, size = 0;
    lh_status status = LH_OK;
    for (int i = 0; i < 4 && status == LH_OK; i++) {
        double sum;
        status = loss(reference, t, id, draw, at[i] * step, &sum, error);
        slope += weight[i] * sum / (12 * step);
    }
    for (int64_t e = 0; e < count(t, id) && status == LH_OK; e++) {
        const double term = values(&reference->trace->want, gradient)[e] *
                            lh_random_gaussian(reference->subject->seed, draw, (uint64_t)e);
        wanted += term;
        size += fabs(term);
    }
    const double allowed = 1e-8 * size;
    verify_result result = {
        .verdict = VERIFY_WITHIN, .elements = 1, .worst = -1, .got = slope, .wanted = wanted};
    result.error = fabs(slope - wanted);
    result.allowed = allowed;
    result.share = allowed > 0 ? result.error / allowed : 0;
    if (!(result.error <= allowed))
        result.verdict = VERIFY_WRONG;
    if (status == LH_OK)
        verify_reference_row(reference, "central differences", gradient, result,
                             "slope along a random direction");
    return status;
}

static lh_status check_gradients(const struct verify_reference *reference, verify_trace *t, lh_error *error)
{
    static const lh_tensor_id gradients[] = {LH_DQ, LH_DK, LH_DV};
    lh_status status = LH_OK;
    for (size_t i = 0; i < 3; i++) {
        for (uint64_t draw = 300; draw < 303 && status == LH_OK; draw++)
            status = check_direction(reference, t, qkv[i], gradients[i], draw, error);
    }
    return status;
}

lh_status verify_reference_identities(const struct verify_reference *reference, lh_error *error)
{
    const verify_case *c = reference->subject;
    verify_trace t = {0};
    lh_status status = verify_make_all(&t, &c->config, LH_F64, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = check_causality(reference, &t, error);
    if (status == LH_OK)
        status = check_linearity(reference, &t, error);
    if (status == LH_OK)
        status = check_equivariance(reference, &t, error);
    if (status == LH_OK && c->config.kv_heads < c->config.heads)
        status = check_groups(reference, error);
    /* Differences need a loss that is smooth at their step: not a softmax close to one-hot. */
    if (status == LH_OK && c->config.tokens > 1 &&
        (c->pattern == VERIFY_GAUSSIAN || c->pattern == VERIFY_RAMP || c->pattern == VERIFY_RISING))
        status = check_gradients(reference, &t, error);
    verify_free(&t);
    return status;
}
