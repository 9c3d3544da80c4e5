/*
 * The identities of SPEC 7 on ref/: what must hold whatever the numbers are. Where a sum keeps its order, to the bit.
 */
#include <string.h>

#include "ref/ref.h"
#include "tests/sample.h"
#include "tests/suite.h"

static const struct ref_shape shapes[] = {
    {2, 2, 2, 48, 3, 3, 2, 8, 4}, {1, 4, 2, 54, 2, 3, 3, 4, 2}, {2, 6, 2, 32, 1, 2, 4, 4, 4},
    {1, 1, 1, 64, 5, 4, 2, 4, 2}, {1, 2, 1, 17, 4, 1, 2, 0, 0},
};
enum {
    SHAPES = sizeof shapes / sizeof *shapes
};

static struct sample drawn(int shape, uint64_t seed)
{
    struct sample layer = sample_new(&shapes[shape]);
    sample_fill(&layer, GAUSSIAN, &seed);
    return layer;
}

/* Forward with the index that the trace holds. */
static void forward_given(const struct sample *layer)
{
    ref_layer_pool(&layer->shape, &layer->trace);
    ref_layer_gather(&layer->shape, &layer->trace);
    ref_layer_attend(&layer->shape, &layer->trace);
    ref_layer_scatter(&layer->shape, &layer->trace);
}

/* Equal as numbers, element by element, NaN to nothing. */
static void expect_equal(const char *name, const real *a, const real *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(a[i] == b[i], "%s[%d]: %a is not %a", name, (int)i, (double)a[i], (double)b[i]);
}

/* A few roundings apart, measured against the sum of magnitudes. */
static void expect_near(const char *name, real a, real b, real magnitude)
{
    real unit = 1;
    for (int i = 0; i < REAL_DIGITS - 6; i++)
        unit /= 2;
    const real difference = a > b ? a - b : b - a;
    ck_assert_msg(difference <= unit * magnitude, "%s: %a is not %a", name, (double)a, (double)b);
}

static real absolute(real x)
{
    return x < 0 ? -x : x;
}

START_TEST(no_token_sees_its_future)
{
    struct sample layer = drawn(_i, 1);
    const struct ref_shape *s = &layer.shape;
    ref_forward(s, &layer.trace);
    for (int64_t j = 0; j < s->tokens; j++) {
        struct sample other = drawn(_i, 1);
        memcpy(other.trace.index, layer.trace.index,
               (size_t)(s->batch * s->heads * ref_selected(s)) * sizeof *other.trace.index);
        for (int i = 0; i < 3; i++) /* q, k, v of every token after j */
            for (int64_t e = 0; e < other.tensor[i].elements; e++)
                if (e / s->dim % s->tokens > j)
                    other.tensor[i].values[e] = 3 - 2 * other.tensor[i].values[e];
        forward_given(&other);
        for (int64_t head = 0; head < s->batch * s->heads; head++) {
            const int64_t at = head * s->tokens * s->dim;
            expect_equal("out", layer.trace.out + at, other.trace.out + at, (j + 1) * s->dim);
        }
        sample_free(&other);
    }
    sample_free(&layer);
}
END_TEST

START_TEST(out_is_linear_in_v)
{
    struct sample a = drawn(_i, 2), b = drawn(_i, 2), c = drawn(_i, 3);
    const struct ref_shape *s = &a.shape;
    const int64_t kv = a.tensor[2].elements, n = s->batch * s->heads * s->tokens * s->dim;
    ref_forward(s, &a.trace);
    for (int64_t i = 0; i < kv; i++)
        b.trace.v[i] = 4 * a.trace.v[i];
    ref_forward(s, &b.trace);
    for (int64_t i = 0; i < n; i++)
        ck_assert(b.trace.out[i] == 4 * a.trace.out[i]); /* a power of two: no rounding differs */

    for (int64_t i = 0; i < kv; i++)
        b.trace.v[i] = a.trace.v[i] + c.trace.v[i];
    ref_forward(s, &b.trace);
    memcpy(c.trace.q, a.trace.q, (size_t)a.tensor[0].elements * sizeof(real));
    memcpy(c.trace.k, a.trace.k, (size_t)a.tensor[1].elements * sizeof(real));
    ref_forward(s, &c.trace);
    for (int64_t i = 0; i < n; i++)
        expect_near("out", b.trace.out[i], a.trace.out[i] + c.trace.out[i], 16);

    for (int64_t i = 0; i < kv; i++) /* weights add up to 1 for every entry a token receives */
        b.trace.v[i] = 1;
    ref_forward(s, &b.trace);
    for (int64_t i = 0; i < n; i++)
        expect_near("out", b.trace.out[i], (real)b.trace.coverage[i / s->dim], 4);
    sample_free(&a);
    sample_free(&b);
    sample_free(&c);
}
END_TEST

/* Rows without coverage are +0.0, and coverage counts what the entries of index write. */
START_TEST(coverage_counts_writes)
{
    struct sample layer = drawn(_i, 4);
    const struct ref_shape *s = &layer.shape;
    const struct ref_trace *t = &layer.trace;
    const int64_t selected = ref_selected(s);
    ref_forward(s, t);
    for (int64_t head = 0; head < s->batch * s->heads; head++)
        for (int64_t j = 0; j < s->tokens; j++) {
            int32_t writes = 0;
            for (int64_t i = head * selected; i < (head + 1) * selected; i++) {
                int64_t level = 0;
                while (t->index[i] >= ref_offset(s, level + 1))
                    level++;
                const int64_t last = (t->index[i] - ref_offset(s, level) + 1) * ref_window(s, level) - 1;
                writes += j >= last && j < last + ref_window(s, level);
            }
            ck_assert_int_eq(t->coverage[head * s->tokens + j], writes);
            const real *row = t->out + (head * s->tokens + j) * s->dim;
            for (int64_t c = 0; c < s->dim; c++) {
                if (writes == 0)
                    ck_assert(row[c] == 0 && 1 / row[c] > 0);
                else
                    ck_assert(row[c] != 0);
            }
        }
    sample_free(&layer);
}
END_TEST

/* Batch entries and key/value groups with their query heads, in reverse order: everything comes out reversed. */
START_TEST(batch_and_heads_are_equivariant)
{
    struct sample a = drawn(_i, 5), b = sample_new(&shapes[_i]);
    const struct ref_shape *s = &a.shape;
    const int64_t groups = s->batch * s->kv_heads;
    for (int i = 0; i < SAMPLE_INPUTS; i++) {
        const int64_t size = a.tensor[i].elements / groups;
        for (int64_t g = 0; g < groups; g++)
            memcpy(b.tensor[i].values + g * size, a.tensor[i].values + (groups - 1 - g) * size,
                   (size_t)size * sizeof(real));
    }
    ref_forward(s, &a.trace);
    ref_backward(s, &a.trace);
    ref_forward(s, &b.trace);
    ref_backward(s, &b.trace);
    for (int i = 0; i < SAMPLE_TENSORS; i++) {
        const int64_t size = a.tensor[i].elements / groups;
        for (int64_t g = 0; g < groups; g++)
            expect_equal(a.tensor[i].name, b.tensor[i].values + g * size,
                         a.tensor[i].values + (groups - 1 - g) * size, size);
    }
    sample_free(&a);
    sample_free(&b);
}
END_TEST

/* G < H is G = H with keys and values repeated; dk and dv are then summed over the group, in head order. */
START_TEST(groups_are_repeated_heads)
{
    struct sample a = drawn(_i, 6);
    const struct ref_shape *s = &a.shape;
    struct ref_shape wide = *s;
    wide.kv_heads = s->heads;
    struct sample b = sample_new(&wide);
    const int64_t head = s->tokens * s->dim, share = s->heads / s->kv_heads;
    memcpy(b.trace.q, a.trace.q, (size_t)a.tensor[0].elements * sizeof(real));
    memcpy(b.trace.dout, a.trace.dout, (size_t)a.tensor[3].elements * sizeof(real));
    for (int64_t i = 0; i < s->batch * s->heads; i++) {
        memcpy(b.trace.k + i * head, a.trace.k + i / share * head, (size_t)head * sizeof(real));
        memcpy(b.trace.v + i * head, a.trace.v + i / share * head, (size_t)head * sizeof(real));
    }
    ref_forward(s, &a.trace);
    ref_backward(s, &a.trace);
    ref_forward(&wide, &b.trace);
    ref_backward(&wide, &b.trace);
    expect_equal("out", a.trace.out, b.trace.out, s->batch * s->heads * head);
    expect_equal("dq", a.trace.dq, b.trace.dq, s->batch * s->heads * head);
    for (int64_t g = 0; g < s->batch * s->kv_heads; g++)
        for (int64_t e = 0; e < head; e++) {
            real dk = 0, dv = 0;
            for (int64_t i = g * share; i < (g + 1) * share; i++) {
                dk += b.trace.dk[i * head + e];
                dv += b.trace.dv[i * head + e];
            }
            expect_equal("dk", &a.trace.dk[g * head + e], &dk, 1);
            expect_equal("dv", &a.trace.dv[g * head + e], &dv, 1);
        }
    sample_free(&a);
    sample_free(&b);
}
END_TEST

/* <scatter(o), dout> = <o, scatter_backward(dout)> and <gather(pool(x)), y> = <x, unpool(y)>. */
START_TEST(backward_is_the_adjoint)
{
    struct sample layer = drawn(_i, 8);
    const struct ref_shape *s = &layer.shape;
    const struct ref_trace *t = &layer.trace;
    ref_forward(s, t);
    ref_backward(s, t);
    const int64_t nd = s->tokens * s->dim, sd = ref_selected(s) * s->dim;
    ref_slots(s, t->index, t->scratch.slot); /* head 0 of batch entry 0 */
    real pushed = 0, pulled = 0, magnitude = 0;
    for (int64_t i = 0; i < nd; i++)
        pushed += t->out[i] * t->dout[i];
    for (int64_t i = 0; i < sd; i++) {
        pulled += t->o_sel[i] * t->do_sel[i];
        magnitude += absolute(t->o_sel[i] * t->do_sel[i]);
    }
    expect_near("scatter", pushed, pulled, magnitude);

    pushed = pulled = magnitude = 0;
    for (int64_t i = 0; i < sd; i++) {
        pushed += t->q_sel[i] * t->dq_sel[i];
        magnitude += absolute(t->q_sel[i] * t->dq_sel[i]);
    }
    for (int64_t i = 0; i < nd; i++) {
        pulled += t->q[i] * t->dq[i];
        magnitude += absolute(t->q[i] * t->dq[i]);
    }
    expect_near("pool and gather", pushed, pulled, magnitude);
    sample_free(&layer);
}
END_TEST

/* L = 1 is dense causal attention, written down a second time with its weights in full. */
START_TEST(one_level_is_dense_attention)
{
    struct sample layer = drawn(SHAPES - 1, 9);
    const struct ref_shape *s = &layer.shape;
    const struct ref_trace *t = &layer.trace;
    const int64_t n = s->tokens, d = s->dim;
    ref_forward(s, t);
    for (int64_t h = 0; h < s->heads; h++)
        for (int64_t i = 0; i < n; i++) {
            double weight[64], sum = 0;
            ck_assert_int_eq(t->index[h * n + i], i);
            for (int64_t j = 0; j <= i; j++) {
                double logit = 0;
                for (int64_t c = 0; c < d; c++)
                    logit += (double)(t->q[(h * n + i) * d + c] * t->k[j * d + c]);
                weight[j] = exp(logit / sqrt((double)d));
                sum += weight[j];
            }
            const double few = REF_BITS == 32 ? 1e-5 : 1e-13;
            ck_assert_double_eq_tol((double)t->lse[h * n + i], log(sum), few);
            for (int64_t c = 0; c < d; c++) {
                double o = 0;
                for (int64_t j = 0; j <= i; j++)
                    o += weight[j] * (double)t->v[j * d + c] / sum;
                ck_assert_double_eq_tol((double)t->out[(h * n + i) * d + c], o, few);
            }
        }
    sample_free(&layer);
}
END_TEST

/* Logits of plus and minus a million: with the maximum subtracted nothing overflows and the largest takes all. */
START_TEST(softmax_stands_large_logits)
{
    const struct ref_shape s = {1, 1, 1, 4, 1, 1, 2, 0, 0};
    struct sample layer = sample_new(&s);
    const real q[] = {1000, 1000, -1000, 1000}, k[] = {-1000, 1000, 999, 1000}, v[] = {1, 2, 3, 4};
    memcpy(layer.trace.q, q, sizeof q);
    memcpy(layer.trace.k, k, sizeof k);
    memcpy(layer.trace.v, v, sizeof v);
    ref_forward(&s, &layer.trace);
    const real wanted[] = {1, 2, 1, 3};
    expect_equal("out", layer.trace.out, wanted, 4);
    sample_free(&layer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ref identities");
    TCase *tcase = suite_case(suite, "identities");
    tcase_add_loop_test(tcase, no_token_sees_its_future, 0, SHAPES);
    tcase_add_loop_test(tcase, out_is_linear_in_v, 0, SHAPES);
    tcase_add_loop_test(tcase, coverage_counts_writes, 0, SHAPES);
    tcase_add_loop_test(tcase, batch_and_heads_are_equivariant, 0, SHAPES);
    tcase_add_loop_test(tcase, groups_are_repeated_heads, 0, SHAPES);
    tcase_add_loop_test(tcase, backward_is_the_adjoint, 0, SHAPES);
    tcase_add_test(tcase, one_level_is_dense_attention);
    tcase_add_test(tcase, softmax_stands_large_logits);
    return suite_run(suite);
}
