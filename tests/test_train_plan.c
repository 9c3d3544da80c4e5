/* The planner: its rows, its memory against what a pass takes, its advice. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/suite.h"
#include "train/audit.h"
#include "train/cost.h"

static settings paper(void)
{
    settings s;
    settings_default(&s);
    s.width = 1024;
    s.layers = 30;
    s.heads = s.kv_heads = 8;
    s.dim = 128;
    s.hidden = 1536;
    s.context = 98304;
    s.lighthouse_steps = 10000;
    s.dense_steps = 6000;
    strcpy(s.dense_layers, "0,1,-2,-1");
    strcpy(s.dtype, "bf16");
    return s;
}

static const cost_row *find(const cost_row *rows, int count, int64_t levels, int64_t pool, int64_t topk)
{
    for (int i = 0; i < count; i++)
        if (rows[i].levels == levels && rows[i].pool == pool && rows[i].topk == topk)
            return &rows[i];
    return NULL;
}

START_TEST(rows_are_valid_and_shorter_than_dense)
{
    const settings s = paper();
    cost_row rows[COST_ROWS];
    const int count = cost_rows(&s, rows);
    ck_assert_int_gt(count, 10);
    ck_assert_int_eq(rows[0].levels, 1);
    ck_assert_int_eq(rows[0].selected, s.context);
    for (int i = 1; i < count; i++) {
        const lh_config c = {1,          s.heads,        s.kv_heads,   s.context,
                             s.dim,      rows[i].levels, rows[i].pool, rows[i].topk,
                             s.tile_topk};
        lh_layout layout;
        ck_assert_int_eq(lh_config_check(&c, &layout, NULL), LH_OK);
        ck_assert_int_eq(layout.selected, rows[i].selected);
        ck_assert_int_lt(rows[i].selected, s.context);
        ck_assert_double_lt(rows[i].flops, rows[0].flops);
    }
    const cost_row *published = find(rows, count, 3, 4, 1536);
    ck_assert_ptr_nonnull(published);
    ck_assert_int_eq(published->selected, 18432);
}
END_TEST

/* 26 of 30 layers at S = 18,432: all terms by hand. */
START_TEST(flops_are_those_of_the_formula)
{
    const settings s = paper();
    cost_row rows[COST_ROWS];
    const int count = cost_rows(&s, rows);
    const double n = 98304, selected = 18432, width = 1024;
    const double attention = 3.5 * 2 * 1024 * (26 * selected * selected + 4 * n * n);
    const double layer = 2 * width * (4 * 1024 + 3 * 1536), head = 2 * 256 * width;
    const double want = attention + 3 * n * (30 * layer + head);
    ck_assert_double_eq_tol(find(rows, count, 3, 4, 1536)->flops / want, 1, 1e-12);
}
END_TEST

START_TEST(predicted_seconds_add_up)
{
    const settings s = paper();
    cost_row rows[COST_ROWS];
    cost_rows(&s, rows);
    /* Attention and products at one rate: a dense step is its FLOPs over it. */
    const device_rates flat = {"flat", 1e12, 1e12, 1e12, ""};
    ck_assert_double_eq_tol(cost_seconds(&s, &rows[0], &flat), rows[0].flops / 1e12,
                            1e-6 * rows[0].flops / 1e12);
    const double bytes = 26 * cost_bytes_around(&s, rows[1].selected);
    ck_assert_double_eq_tol(cost_seconds(&s, &rows[1], &flat), (rows[1].flops + bytes) / 1e12, 1e-3);
    ck_assert_double_eq_tol(
        cost_total_seconds(&s, &rows[1], &flat),
        10000 * cost_seconds(&s, &rows[1], &flat) + 6000 * cost_seconds(&s, &rows[0], &flat), 1);
}
END_TEST

START_TEST(advice_follows_time_and_memory)
{
    const settings s = paper();
    cost_row rows[COST_ROWS];
    char advice[512];
    const int count = cost_rows(&s, rows);
    const device_rates *d = device_known(0);
    ck_assert_str_eq(d->name, "h200");
    const cost_row *three = find(rows, count, 3, 2, 1536), *stride = find(rows, count, 3, 4, 1536);
    const double slow = cost_total_seconds(&s, three, d), fast = cost_total_seconds(&s, stride, d);
    ck_assert_double_lt(fast, slow);
    ck_assert_ptr_eq(&rows[cost_choose(&s, rows, count, d, 0, 0, advice, sizeof advice)], three);
    ck_assert_ptr_nonnull(strstr(advice, "start at three levels"));
    ck_assert_ptr_eq(&rows[cost_choose(&s, rows, count, d, 1e15, slow + 1, advice, sizeof advice)], three);
    ck_assert_ptr_nonnull(strstr(advice, "Memory is to spare: a coarser level"));
    ck_assert_ptr_eq(&rows[cost_choose(&s, rows, count, d, 0, slow - 1, advice, sizeof advice)], stride);
    ck_assert_ptr_nonnull(strstr(advice, "raise the stride"));
    cost_choose(&s, rows, count, d, 1, 1, advice, sizeof advice);
    ck_assert_ptr_nonnull(strstr(advice, "Memory does not suffice"));
    ck_assert_ptr_nonnull(strstr(advice, "Even so the time runs over"));
    ck_assert_ptr_nonnull(strstr(advice, "Two levels would not help: they keep 30720 rows, not 18432."));
}
END_TEST

/* No prediction from S makes two levels the fastest, but a measured row may be: the advice follows the rows, in this order. */
START_TEST(two_levels_are_the_last_resort)
{
    const settings s = paper();
    const device_rates flat = {"flat", 1e12, 1e12, 1e12, ""};
    char advice[512];
    cost_row rows[] = {{1, 2, 0, 98304, 1, 1},
                       {3, 2, 1536, 30720, 1, 1},
                       {3, 4, 1536, 18432, 1, 1},
                       {2, 4, 1536, 12288, 1, 1}};
    const double stride = cost_total_seconds(&s, &rows[2], &flat),
                 two = cost_total_seconds(&s, &rows[3], &flat);
    ck_assert_double_lt(two, stride);
    ck_assert_int_eq(cost_choose(&s, rows, 4, &flat, 0, stride + 1, advice, sizeof advice), 2);
    ck_assert_ptr_null(strstr(advice, "wo levels"));
    ck_assert_int_eq(cost_choose(&s, rows, 4, &flat, 0, stride - 1, advice, sizeof advice), 3);
    ck_assert_ptr_nonnull(
        strstr(advice, "L = 2, p = 4, k = 1536: drop to two levels: time runs over with three."));
    ck_assert_ptr_null(strstr(advice, "Even so"));
    ck_assert_int_eq(cost_choose(&s, rows, 4, &flat, 0, two - 1, advice, sizeof advice), 3);
    ck_assert_ptr_nonnull(strstr(advice, "drop to two levels"));
    ck_assert_ptr_nonnull(strstr(advice, "Even so the time runs over"));
    ck_assert_ptr_null(strstr(advice, "would not help"));
}
END_TEST

START_TEST(memory_is_what_a_pass_takes)
{
    settings s;
    bool dense[MAX_LAYERS];
    settings_default(&s);
    s.context = 512;
    s.topk = 128;
    s.micro_batch = 2;
    strcpy(s.backend, "ref");
    strcpy(s.dense_layers, "0");
    const model_shape shape = settings_shape(&s);
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int lighthouse = 0; lighthouse < 2; lighthouse++) {
            model m;
            pass p;
            size_t predicted;
            strcpy(s.dtype, bf16 ? "bf16" : "f32");
            ck_assert_int_eq(settings_dense_layers(&s, dense, NULL), LH_OK);
            const pass_options o = settings_pass(&s, lighthouse, dense);
            ck_assert_int_eq(model_create(&shape, 1, true, &m, NULL), LH_OK);
            ck_assert_int_eq(pass_create(&m, &o, &p, NULL), LH_OK);
            ck_assert_int_eq(pass_memory(&shape, &o, &predicted, NULL), LH_OK);
            /* Padding between weights is not predicted. */
            ck_assert_double_eq_tol((double)predicted, (double)p.arena_bytes, 4096);
            pass_destroy(&p);
            model_destroy(&m);
        }
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

/* Of the hungrier stage that a run has; the row of the table that it is. */
START_TEST(a_runs_memory_is_its_hungrier_stages)
{
    settings s = paper();
    cost_row rows[COST_ROWS];
    s.levels = 3;
    s.pool = 4;
    s.topk = 1536;
    const double both = cost_memory(&s);
    ck_assert_double_eq(both, find(rows, cost_rows(&s, rows), 3, 4, 1536)->memory);
    s.lighthouse_steps = 0;
    const double dense = cost_memory(&s);
    s.lighthouse_steps = 1;
    s.dense_steps = 0;
    const double lighthouse = cost_memory(&s);
    ck_assert_double_eq(both, dense > lighthouse ? dense : lighthouse);
    ck_assert_double_ne(dense, lighthouse);
}
END_TEST

START_TEST(batches_that_fit_do_fit)
{
    const settings s = paper();
    const double memory = 139.0 * (1 << 30);
    int64_t before = cost_largest_batch(&s, s.context / 8, memory);
    ck_assert_int_gt(before, 0);
    for (int64_t context = s.context / 4; context <= 8 * s.context; context *= 2) {
        const int64_t now = cost_largest_batch(&s, context, memory);
        ck_assert_int_le(now, before);
        before = now;
    }
    ck_assert_int_eq(cost_largest_batch(&s, s.context, 1), 0);
}
END_TEST

/* Tiles of any size: what is measured is bounded on both sides. */
START_TEST(this_machine_has_rates)
{
    const int64_t tiles[] = {2, 128, 4096};
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        settings s;
        device_rates here;
        lh_error error = {LH_OK, ""};
        settings_default(&s);
        s.heads = s.kv_heads = 1;
        s.dim = 8;
        s.width = 16;
        s.hidden = 32;
        s.topk = s.tile_topk = tiles[i];
        ck_assert_msg(device_measure(&s, &here, &error) == LH_OK, "%s", error.text);
        ck_assert_double_gt(here.attention, 1e6);
        ck_assert_double_gt(here.products, 1e6);
        ck_assert(here.bytes > 1e3 && here.bytes < 1e13);
    }
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

START_TEST(nonsense_is_known)
{
    const device_rates fine = {"fine", 1e11, 1e11, 1e10, ""};
    device_rates r = fine;
    ck_assert_ptr_null(rates_nonsense(&r));
    r.bytes = 1e30;
    ck_assert_str_eq(rates_nonsense(&r), "around attention");
    r = fine;
    r.attention = -5;
    ck_assert_str_eq(rates_nonsense(&r), "attention");
    r = fine;
    r.products = (double)INFINITY;
    ck_assert_str_eq(rates_nonsense(&r), "the rest");
    r.products = (double)NAN;
    ck_assert_str_eq(rates_nonsense(&r), "the rest");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_plan");
    TCase *plans = suite_case(suite, "plans");
    tcase_add_test(plans, rows_are_valid_and_shorter_than_dense);
    tcase_add_test(plans, flops_are_those_of_the_formula);
    tcase_add_test(plans, predicted_seconds_add_up);
    tcase_add_test(plans, advice_follows_time_and_memory);
    tcase_add_test(plans, two_levels_are_the_last_resort);
    tcase_add_test(plans, memory_is_what_a_pass_takes);
    tcase_add_test(plans, a_runs_memory_is_its_hungrier_stages);
    tcase_add_test(plans, batches_that_fit_do_fit);
    tcase_add_test(plans, this_machine_has_rates);
    tcase_add_test(plans, nonsense_is_known);
    return suite_run(suite);
}
