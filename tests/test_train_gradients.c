/*
 * The whole model's gradients against central differences.
 *
 * The model's sources are compiled here with real = double, over the reference in binary64, with the index
 * of Lighthouse layers held fixed (SPEC 4): what is left is the mathematics. A difference quotient of step
 * h = 1e-5 is off by h^2 times a third derivative, and by 1e-16 / h, both far below what is allowed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "tests/suite.h"
#include "train/pass.h"

enum {
    TOKENS = 48,
    BATCH = 2,
    ROWS = TOKENS * BATCH,
    PROBES = 24
};
static const double step = 1e-5, allowed = 1e-6;

static uint8_t inputs[ROWS], targets[ROWS];

static const bool some_dense[] = {false, true, false};

static pass_options options(void)
{
    return (pass_options){
        .batch = BATCH,
        .tokens = TOKENS,
        .training = true,
        .backend = "ref",
        .levels = 3,
        .pool = 2,
        .topk = 8,
        .tile_topk = 4,
        .dense = some_dense,
    };
}

/* Weights large enough for every nonlinearity to matter, norms away from 1. */
static void make_model(bool tied, model *m)
{
    const model_shape shape = {.width = 8,
                               .layers = 3,
                               .heads = 4,
                               .kv_heads = 2,
                               .dim = 4,
                               .hidden = 12,
                               .tied = tied,
                               .rotary_base = 100};
    ck_assert_int_eq(model_create(&shape, 3, true, m, NULL), LH_OK);
    for (int64_t i = 0; i < m->size; i++)
        m->values[i] =
            m->values[i] == 1 ? 1 + 0.1 * lh_random_gaussian(5, 0, (uint64_t)i) : m->values[i] * 12;
    for (int64_t i = 0; i < ROWS; i++) {
        inputs[i] = (uint8_t)(lh_random_uniform(7, 0, (uint64_t)i) * 256);
        targets[i] = (uint8_t)(lh_random_uniform(7, 1, (uint64_t)i) * 256);
    }
}

static double loss_at(pass *p)
{
    ck_assert_int_eq(pass_forward(p, inputs, NULL), LH_OK);
    double loss;
    ck_assert_int_eq(pass_loss(p, targets, &loss, NULL), LH_OK);
    return loss;
}

static double slope(pass *p, double *weight)
{
    const double before = *weight;
    *weight = before + step;
    const double above = loss_at(p);
    *weight = before - step;
    const double below = loss_at(p);
    *weight = before;
    return (above - below) / (2 * step);
}

/* group_tile_topk: [3, 2] tile budgets by group, or NULL. */
static void check_gradients(bool tied, const int64_t *group_tile_topk)
{
    model m;
    make_model(tied, &m);
    pass p;
    pass_options o = options();
    o.group_tile_topk = group_tile_topk;
    ck_assert_int_eq(pass_create(&m, &o, &p, NULL), LH_OK);
    double loss;
    ck_assert_int_eq(pass_forward(&p, inputs, NULL), LH_OK);
    ck_assert_int_eq(pass_backward(&p, targets, 0.5, &loss, NULL), LH_OK);
    ck_assert_int_eq(pass_backward(&p, targets, 0.5, &loss, NULL), LH_OK); /* shares add up */

    pass fixed;
    o.index_given = true;
    ck_assert_int_eq(pass_create(&m, &o, &fixed, NULL), LH_OK);
    const size_t index_bytes = (size_t)(BATCH * 4) * (TOKENS / 4 + 2 * 2 * 8) * sizeof(int32_t);
    for (int l = 0; l < 3; l++)
        if (p.kind[l] == LIGHTHOUSE)
            memcpy(fixed.layer[l].index, p.layer[l].index, index_bytes);
    ck_assert_double_eq_tol(loss_at(&fixed), loss, 1e-12);

    for (int i = 0; i < m.count; i++) {
        const parameter *w = &m.parameters[i];
        const int64_t n = w->shape[0] * w->shape[1];
        for (int k = 0; k < PROBES; k++) {
            int64_t at = (int64_t)(lh_random_uniform(11, (uint64_t)i, (uint64_t)k) * (double)n);
            if (strcmp(w->name, "embed") == 0) /* a byte that occurs */
                at = inputs[k] * w->shape[1] + at % w->shape[1];
            const double want = slope(&fixed, &m.values[w->offset + at]);
            const double got = m.gradients[w->offset + at];
            const double off = fabs(got - want);
            ck_assert_msg(off <= allowed * (1e-3 + fabs(want)),
                          "%s[%d]: gradient %.9g, difference quotient %.9g", w->name, (int)at, got, want);
        }
    }
    pass_destroy(&fixed);
    pass_destroy(&p);
    model_destroy(&m);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

START_TEST(untied_gradients_are_the_slopes_of_the_loss)
{
    check_gradients(false, NULL);
}
END_TEST

START_TEST(tied_gradients_are_the_slopes_of_the_loss)
{
    check_gradients(true, NULL);
}
END_TEST

/* A tile has 6 coarse entries: m = 6 takes them all, m = 2 one by query and one by key. */
START_TEST(gradients_under_uneven_budgets_are_the_slopes_of_the_loss)
{
    static const int64_t uneven[] = {2, 6, 4, 4, 6, 2};
    check_gradients(false, uneven);
}
END_TEST

/* A model with no layers between would have ln 256; a fresh one is near it. */
START_TEST(fresh_model_knows_nothing)
{
    const model_shape shape = {
        .width = 8, .layers = 3, .heads = 4, .kv_heads = 2, .dim = 4, .hidden = 12, .rotary_base = 100};
    model m;
    pass p;
    const pass_options o = options();
    make_model(false, &m);
    model_destroy(&m);
    ck_assert_int_eq(model_create(&shape, 3, false, &m, NULL), LH_OK);
    ck_assert_int_eq(pass_create(&m, &o, &p, NULL), LH_OK);
    ck_assert_double_eq_tol(loss_at(&p), log(256), 0.02);
    pass_destroy(&p);
    model_destroy(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_gradients");
    TCase *gradients = suite_case(suite, "gradients");
    tcase_add_test(gradients, untied_gradients_are_the_slopes_of_the_loss);
    tcase_add_test(gradients, tied_gradients_are_the_slopes_of_the_loss);
    tcase_add_test(gradients, gradients_under_uneven_budgets_are_the_slopes_of_the_loss);
    tcase_add_test(gradients, fresh_model_knows_nothing);
    return suite_run(suite);
}
