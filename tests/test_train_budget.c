/* Budgets by group: shares worked out by hand, spreads, plans by group beside one plan, the journal's line. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/random.h"
#include "tests/small_run.h"
#include "tests/suite.h"
#include "train/audit.h"
#include "train/views.h"
#include "train/trainer.h"

enum {
    STEPS = 12
};

START_TEST(shares_worked_out_by_hand)
{
    const struct {
        int64_t groups, tile_topk, most;
        double spread[4];
        int64_t want[4];
    } cases[] = {
        {4, 16, 64, {0.5, 0.5, 0.5, 0.5}, {16, 16, 16, 16}},
        {2, 16, 64, {0.6, 0.2}, {24, 8}},
        {3, 4, 64, {0.5, 0.3, 0.2}, {6, 4, 2}},              /* 6, 3.6, 2.4 */
        {3, 4, 64, {0.5, 0.25, 0.25}, {6, 4, 2}},            /* 6, 3, 3: a tie */
        {2, 4, 64, {0.375, 0.625}, {4, 4}},                  /* 3, 5: a tie; the first would have had a 2 */
        {2, 16, 64, {0.97, 0.03}, {28, 4}},                  /* 31.04, 0.96, but a quarter at least */
        {4, 2, 64, {0.9, 0.1, 0.1, 0.1}, {2, 2, 2, 2}},      /* no less than 2 */
        {4, 16, 20, {0.9, 0.1, 0.1, 0.1}, {20, 16, 14, 14}}, /* a tile has 20: 4 over 8/3 each, in twos */
        {4, 16, 21, {0.9, 0.1, 0.1, 0.1}, {20, 16, 14, 14}}, /* even numbers alone */
        {2, 16, 16, {0.9, 0.1}, {16, 16}},                   /* a tile has no more */
        {2, 8, 64, {1, 0}, {14, 2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t got[4];
        budget_apportion(cases[i].groups, cases[i].spread, cases[i].tile_topk, cases[i].most, got);
        for (int64_t g = 0; g < cases[i].groups; g++)
            ck_assert_msg(got[g] == cases[i].want[g], "case %zu: group %d has %d, wanted %d", i, (int)g,
                          (int)got[g], (int)cases[i].want[g]);
    }
}
END_TEST

START_TEST(drawn_shares_keep_sum_and_limits)
{
    for (uint64_t draw = 0; draw < 2000; draw++) {
        double spread[9];
        int64_t shares[9], sum = 0;
        const int64_t groups = 2 + (int64_t)(lh_random_uniform(1, draw, 0) * 8);
        const int64_t tile_topk = 2 + 2 * (int64_t)(lh_random_uniform(1, draw, 1) * 40);
        const int64_t most = tile_topk + (int64_t)(lh_random_uniform(1, draw, 2) * 6 * (double)tile_topk);
        for (int64_t g = 0; g < groups; g++)
            spread[g] = pow(lh_random_uniform(2, draw, (uint64_t)g), 4);
        budget_apportion(groups, spread, tile_topk, most, shares);
        for (int64_t g = 0; g < groups; g++) {
            ck_assert_int_eq(shares[g] % 2, 0);
            ck_assert_int_ge(shares[g], tile_topk >= 8 ? tile_topk / 4 - 1 : 2);
            ck_assert_int_le(shares[g], most < 4 * tile_topk ? most : 4 * tile_topk);
            sum += shares[g];
            for (int64_t other = 0; other < groups; other++)
                ck_assert(spread[g] <= spread[other] || shares[g] >= shares[other]);
        }
        ck_assert_int_eq(sum, groups * tile_topk);
    }
}
END_TEST

START_TEST(spread_is_the_share_of_scores_that_count)
{
    real equal[8], alone[8] = {0}, half[8] = {0}, none[8] = {0}, two[2] = {1, 2};
    for (int i = 0; i < 8; i++)
        equal[i] = 3;
    alone[5] = 2;
    for (int i = 0; i < 4; i++)
        half[2 * i] = 7;
    ck_assert_double_eq_tol(budget_spread(8, equal), 1, 1e-12);
    ck_assert_double_eq_tol(budget_spread(8, alone), 1 / 8.0, 1e-12);
    ck_assert_double_eq_tol(budget_spread(8, half), 1 / 2.0, 1e-12);
    ck_assert_double_eq(budget_spread(8, none), 1); /* nothing stands out */
    /* p = 1/5, 4/5: exp(entropy) = 5 / 4^(4/5) */
    ck_assert_double_eq_tol(budget_spread(2, two), 5 / pow(4, 0.8) / 2, 1e-12);
}
END_TEST

static settings small(const char *folder)
{
    settings s = small_run(folder);
    s.rate = 0.01;
    s.lighthouse_steps = STEPS;
    s.dense_steps = 0;
    strcpy(s.backend, "ref");
    return s;
}

/* Layer 0 of a pass with as many kv heads as heads: what it has of this head is what a plan of that head alone
 * computes with this tile budget. */
static void expect_group_alone(const pass *p, int64_t head, int64_t tile_topk)
{
    static real out[512 * 16];
    const lh_config whole = pass_config(p, LIGHTHOUSE);
    const lh_config config = {whole.batch,   1,        1, whole.tokens, whole.dim, whole.levels, whole.pool,
                              2 * tile_topk, tile_topk};
    const lh_options options = {.backend = "ref", .dtype = LH_F32};
    const store *attention = &p->layer[0].attention;
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_plan *plan;
    pass_trace(p, 0, trace);
    for (lh_tensor_id id = LH_Q; id <= LH_V; id++) {
        trace[id].data = (real *)trace[id].data + head * whole.dim;
        trace[id].shape[1] = 1;
    }
    trace[LH_INDEX].data = trace[LH_O_SEL].data = trace[LH_LSE].data = NULL;
    lh_tensor_describe(&config, LH_F32, LH_OUT, &trace[LH_OUT], NULL);
    trace[LH_OUT].data = out;
    ck_assert_int_eq(lh_plan_create(&config, &options, &plan, NULL), LH_OK);
    ck_assert_int_eq(lh_forward(plan, trace, NULL), LH_OK);
    lh_plan_destroy(plan);
    for (int64_t row = 0; row < p->rows; row++)
        ck_assert_mem_eq((real *)attention->data + row * attention->width + head * whole.dim,
                         out + row * whole.dim, (size_t)whole.dim * sizeof(real));
}

/* A peaked head beside a spread one, as weights of q and k that look at one coordinate of the stream or at all:
 * scores are made by a pass's own forward, measured and shared out. */
START_TEST(a_peaked_head_gets_less_than_a_spread_one)
{
    settings s = small("/nowhere");
    strcpy(s.budget, "entropy");
    s.kv_heads = 4;
    s.dense_layers[0] = '\0';
    const model_shape shape = settings_shape(&s);
    model m;
    pass p;
    budget b;
    bool dense[MAX_LAYERS] = {false};
    static uint8_t bytes[512];
    ck_assert_int_eq(model_create(&shape, 1, true, &m, NULL), LH_OK);
    ck_assert_int_eq(budget_create(&s, &b, NULL), LH_OK);
    pass_options o = settings_pass(&s, true, dense);
    o.group_tile_topk = b.tile_topk;
    /* Byte 7 is rare and alone in coordinate 0, which is all that head 1 reads; the others read what is common. */
    for (int64_t byte = 0; byte < BYTES; byte++)
        for (int64_t i = 0; i < s.width; i++)
            m.values[m.embed + byte * s.width + i] = (i == 0) == (byte == 7);
    for (int64_t l = 0; l < s.layers; l++) {
        const layer_weights w = model_layer(&m, m.values, l);
        for (int64_t i = 0; i < s.width; i++)
            for (int64_t column = 0; column < 2 * s.heads * s.dim; column++)
                w.qkv[i * 3 * s.heads * s.dim + column] = (i == 0) == (column / s.dim % s.heads == 1);
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = i % 100 == 50 ? 7 : 'a';
    ck_assert_int_eq(pass_create(&m, &o, &p, NULL), LH_OK);
    ck_assert_int_eq(pass_forward(&p, bytes, NULL), LH_OK);
    ck_assert_int_eq(budget_measure(&p, &b, NULL), LH_OK);
    budget_share(&s, &b);
    ck_assert_int_eq(pass_regroup(&p, NULL), LH_OK);
    ck_assert_double_lt(b.spread[1], 0.1);
    for (int64_t g = 0; g < 4; g++)
        ck_assert_int_eq(b.tile_topk[g], g == 1 ? 4 : 20);
    ck_assert_int_eq(pass_forward(&p, bytes, NULL), LH_OK);
    expect_group_alone(&p, 1, 4);
    expect_group_alone(&p, 2, 20);
    pass_destroy(&p);
    budget_destroy(&b);
    model_destroy(&m);
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

static lh_status keep_loss(void *user, const trainer *t, const step_report *r, lh_error *error)
{
    (void)t;
    (void)error;
    ((double *)user)[r->step - 1] = r->loss;
    return LH_OK;
}

static const char *folder;

static void setup(void)
{
    folder = small_run_folder();
}

static void teardown(void)
{
    small_run_remove(folder);
}

static void train_in(const settings *s, const char *name, double losses[STEPS], json_t **audit)
{
    static trainer t;
    lh_error error = {LH_OK, ""};
    char run[300];
    snprintf(run, sizeof run, "%.200s/%s", folder, name);
    ck_assert_msg(trainer_open(s, run, &(run_options){.start = START_NEW}, &t, &error) == LH_OK, "%s",
                  error.text);
    ck_assert_msg(trainer_run(&t, keep_loss, losses, &error) == LH_OK, "%s", error.text);
    ck_assert_int_eq(audit_make(run, s, &t.recipe, &t.text, NULL, NULL, audit, &error), LH_OK);
    trainer_close(&t);
}

/* ref does for a group what it does for its heads among others, to the bit; a port may share its work out
 * differently. */
START_TEST(plans_by_group_compute_what_one_plan_does)
{
    for (int i = 0; lh_backend_name(i); i++) {
        int devices;
        char run[32];
        double even[STEPS], grouped[STEPS];
        json_t *audit;
        settings s = small(folder);
        snprintf(s.backend, sizeof s.backend, "%s", lh_backend_name(i));
        if (lh_device_count(s.backend, &devices, NULL) != LH_OK)
            continue;
        snprintf(run, sizeof run, "even-%d", i);
        train_in(&s, run, even, &audit);
        ck_assert_ptr_null(json_object_get(audit, "budget"));
        json_decref(audit);
        strcpy(s.budget, "entropy");
        s.budget_every = STEPS + 1;
        snprintf(run, sizeof run, "grouped-%d", i);
        train_in(&s, run, grouped, &audit);
        const json_t *to_even = json_object_get(json_object_get(audit, "budget"), "attention_flops_to_even");
        ck_assert_double_eq(json_real_value(to_even), 1);
        json_decref(audit);
        for (int step = 0; step < STEPS; step++)
            ck_assert_msg(fabs(grouped[step] - even[step]) <= (i == 0      ? 0
                                                               : step == 0 ? 1e-6
                                                                           : 1e-3),
                          "%s: loss %.9f at step %d by group, %.9f by one plan", s.backend, grouped[step],
                          step + 1, even[step]);
    }
}
END_TEST

/* A journal written by hand: two steps even, then two at m = 8 and 24 in layer 1; layer 0 is dense. */
#define LAYERS "\"attention\":[0.1,0.1],\"outside\":[0.1,0.1],\"rest\":0.1}\n"
START_TEST(the_audit_counts_flops_by_the_budgets_of_each_step)
{
    static const char log[] =
        "{\"kind\":\"stage\",\"step\":0,\"stage\":\"lighthouse\",\"activations\":1,\"plans\":10,\"weights\":1}\n"
        "{\"kind\":\"budget\",\"step\":0,\"tile_topk\":[[],[16,16]],\"spread\":[[],[0,0]],\"plans\":10,"
        "\"seconds\":0}\n"
        "{\"kind\":\"step\",\"step\":1,\"stage\":\"lighthouse\",\"loss\":1,\"norm\":1,\"rate\":1,\"tokens\":512,\"seconds\":1," LAYERS
        "{\"kind\":\"step\",\"step\":2,\"stage\":\"lighthouse\",\"loss\":1,\"norm\":1,\"rate\":1,\"tokens\":512,\"seconds\":1," LAYERS
        "{\"kind\":\"budget\",\"step\":2,\"tile_topk\":[[],[8,24]],\"spread\":[[],[0.2,0.6]],\"plans\":30,"
        "\"seconds\":0.5}\n"
        "{\"kind\":\"step\",\"step\":3,\"stage\":\"lighthouse\",\"loss\":1,\"norm\":1,\"rate\":1,\"tokens\":512,\"seconds\":1," LAYERS
        "{\"kind\":\"step\",\"step\":4,\"stage\":\"lighthouse\",\"loss\":1,\"norm\":1,\"rate\":1,\"tokens\":512,\"seconds\":1," LAYERS;
    settings s = small(folder);
    recipe r;
    json_t *audit;
    const corpus text = {.size = 0};
    s.layers = 2;
    strcpy(s.budget, "entropy");
    recipe_start(&s, &r);
    write_bytes(scratch_path(folder, "log.jsonl"), log, sizeof log - 1);
    lh_error error = {LH_OK, ""};
    ck_assert_msg(audit_make(folder, &s, &r, &text, NULL, NULL, &audit, &error) == LH_OK, "%s", error.text);
    ck_assert_ptr_nonnull(
        json_object_get(audit, "made")); /* no product was computed: their library has no version yet */
    /* S = 256/4 + 2 * 2 * (2 tiles * m): 192 for 16, 128 for 8, 256 for 24. */
    const double uneven = (128.0 * 128 + 256.0 * 256) / (2 * 192.0 * 192);
    const json_t *began = json_array_get(json_object_get(audit, "stages"), 0);
    const json_t *layer = json_array_get(json_object_get(began, "layers"), 1);
    const double flops = json_number_value(json_object_get(layer, "attention_flops"));
    ck_assert_double_eq_tol(flops / (3.5 * 2 * 192 * 192 * 16 * 4 * 2), 2 + 2 * uneven, 1e-12);
    const json_t *last = json_object_get(audit, "budget");
    ck_assert_double_eq_tol(json_number_value(json_object_get(last, "attention_flops_to_even")),
                            (1 + uneven) / 2, 1e-12);
    ck_assert_double_eq(json_number_value(json_object_get(last, "seconds")), 0.5);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(began, "memory"), "plans")), 30);
    const json_t *groups = json_array_get(json_object_get(last, "tile_topk"), 1);
    ck_assert_int_eq(json_integer_value(json_array_get(groups, 1)), 24);
    json_decref(audit);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_budget");
    TCase *shares = suite_case(suite, "shares");
    tcase_add_test(shares, shares_worked_out_by_hand);
    tcase_add_test(shares, drawn_shares_keep_sum_and_limits);
    tcase_add_test(shares, spread_is_the_share_of_scores_that_count);
    tcase_add_test(shares, a_peaked_head_gets_less_than_a_spread_one);
    TCase *runs = suite_case(suite, "runs");
    tcase_add_checked_fixture(runs, setup, teardown);
    tcase_add_test(runs, plans_by_group_compute_what_one_plan_does);
    tcase_add_test(runs, the_audit_counts_flops_by_the_budgets_of_each_step);
    return suite_run(suite);
}
