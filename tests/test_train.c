/* What a training run is made of: settings, passkey tasks, the optimiser, the recipe. */
#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/suite.h"
#include "train/adam.h"
#include "train/evaluate.h"
#include "train/kernels.h"

static settings two_stage(int64_t lighthouse, int64_t dense)
{
    settings s;
    settings_default(&s);
    s.lighthouse_steps = lighthouse;
    s.dense_steps = dense;
    return s;
}

START_TEST(defaults_pass_and_print_as_they_parse)
{
    settings s, again;
    char printed[SETTING_TEXT];
    settings_default(&s);
    ck_assert_int_eq(settings_check(&s, NULL), LH_OK);
    memset(&again, 0, sizeof again);
    for (int i = 0; i < setting_count; i++) {
        setting_print(&s, &setting_table[i], printed);
        ck_assert_int_eq(setting_parse(&again, &setting_table[i], printed, NULL), LH_OK);
    }
    ck_assert_mem_eq(&s, &again, sizeof s);
}
END_TEST

START_TEST(bad_settings_are_named)
{
    settings s;
    lh_error error;
    const struct {
        const char *name, *value, *line;
    } bad[] = {
        {"width", "abc", "width is abc, wanted an integer"},
        {"width", "2.5", "width is 2.5, wanted an integer"},
        {"width", "", "width is , wanted an integer"},
        {"rate", "-1", "rate is -1, wanted a number"},
        {"rate", "nan", "rate is nan, wanted a number"},
        {"tied", "maybe", "tied is maybe, wanted yes or no"},
        {"budget-every", "0", "budget-every is 0, wanted an integer from 1"},
        {"layers", "0", "layers is 0, wanted an integer from 1"},
    };
    settings_default(&s);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_status(setting_parse(&s, setting_find(bad[i].name), bad[i].value, &error), LH_INVALID, &error,
                      bad[i].line);
    const struct {
        const char *name, *value, *line;
    } together[] = {
        {"context", "16386", "tokens is 16386, wanted a multiple of pool^(levels-1) = 2^2"},
        {"dim", "63", "dim is 63, wanted an even number"},
        {"micro-batch", "2", "micro-batch is 2, wanted a divisor of batch 1"},
        {"dense-layers", "0,6", "dense-layers is 0,6, wanted numbers from -6 to 5"},
        {"dense-layers", "0;1", "dense-layers is 0;1, wanted numbers"},
        {"dtype", "f16", "dtype is f16, wanted f32 or bf16"},
        {"budget", "odd", "budget is odd, wanted even or entropy"},
        {"kv-heads", "3", "kv_heads is 3, wanted a divisor of heads 4"},
    };
    for (size_t i = 0; i < sizeof together / sizeof *together; i++) {
        settings_default(&s);
        ck_assert_int_eq(setting_parse(&s, setting_find(together[i].name), together[i].value, NULL), LH_OK);
        expect_status(settings_check(&s, &error), LH_INVALID, &error, together[i].line);
    }
    settings_default(&s);
    strcpy(s.budget, "entropy");
    s.kv_heads = 1;
    expect_status(settings_check(&s, &error), LH_INVALID, &error,
                  "kv-heads is 1, wanted at least 2 with budget entropy");
}
END_TEST

START_TEST(files_of_settings_name_their_bad_line)
{
    settings s;
    lh_error error;
    const char *folder = scratch_folder();
    const char *path = scratch_path(folder, "a.ini");
    const char good[] = "[model]\nwidth = 64\n; remark\n[data]\ntext = /some where\n";
    const char unknown[] = "[model]\nwidth = 64\nwdth = 3\n";
    const char misplaced[] = "[data]\nwidth = 64\n";
    settings_default(&s);
    write_bytes(path, good, sizeof good - 1);
    ck_assert_int_eq(settings_read(&s, path, &error), LH_OK);
    ck_assert_int_eq(s.width, 64);
    ck_assert_str_eq(s.text, "/some where");
    write_bytes(path, unknown, sizeof unknown - 1);
    expect_status(settings_read(&s, path, &error), LH_INVALID, &error, "a.ini:3: [model] wdth is no setting");
    write_bytes(path, misplaced, sizeof misplaced - 1);
    expect_status(settings_read(&s, path, &error), LH_INVALID, &error, "a.ini:2: [data] width is no setting");
    expect_status(settings_read(&s, "/nowhere.ini", &error), LH_IO, &error, "/nowhere.ini cannot be opened");
    expect_status(settings_read(&s, "/proc/self/mem", &error), LH_IO, &error,
                  "/proc/self/mem cannot be read");
    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0);
    expect_status(settings_read(&s, path, &error), LH_FORMAT, &error, "wanted settings, at most 1048576");
    remove_folder(folder);
}
END_TEST

/* What laptop.ini says of itself. */
START_TEST(the_file_for_laptops_has_the_defaults)
{
    settings s, defaults;
    lh_error error = {LH_OK, ""};
    char path[4096];
    ck_assert_ptr_nonnull(getenv("TRAIN_FOLDER"));
    snprintf(path, sizeof path, "%s/laptop.ini", getenv("TRAIN_FOLDER"));
    settings_default(&defaults);
    settings_default(&s);
    ck_assert_msg(settings_read(&s, path, &error) == LH_OK, "%s", error.text);
    for (int i = 0; i < setting_count; i++) {
        char wanted[SETTING_TEXT], found[SETTING_TEXT];
        setting_print(&defaults, &setting_table[i], wanted);
        setting_print(&s, &setting_table[i], found);
        ck_assert_msg(strcmp(wanted, found) == 0, "%s is %s in the file, %s by default",
                      setting_table[i].name, found, wanted);
    }
}
END_TEST

/* The reference only where there is nothing else, and never one that must copy there and back. */
START_TEST(the_backend_is_chosen_by_what_it_can_do)
{
    settings s;
    lh_capabilities can;
    bool port = false;
    settings_default(&s);
    ck_assert_str_eq(s.backend, "auto");
    for (int i = 0; lh_backend_name(i); i++) {
        ck_assert_int_eq(lh_backend_query(lh_backend_name(i), &can, NULL), LH_OK);
        port = port || (!can.reference && !can.device_memory);
    }
    settings_choose_backend(&s);
    ck_assert_int_eq(lh_backend_query(s.backend, &can, NULL), LH_OK);
    ck_assert(!can.device_memory && can.reference == !port);
    strcpy(s.backend, "ref");
    settings_choose_backend(&s);
    ck_assert_str_eq(s.backend, "ref");
}
END_TEST

START_TEST(dense_layers_count_from_both_ends)
{
    settings s = two_stage(1, 1);
    bool dense[MAX_LAYERS];
    strcpy(s.dense_layers, "0,1,-2,-1");
    ck_assert_int_eq(settings_dense_layers(&s, dense, NULL), LH_OK);
    for (int l = 0; l < 6; l++)
        ck_assert_int_eq(dense[l], l < 2 || l > 3);
}
END_TEST

START_TEST(passkeys_hide_their_digit_where_they_say)
{
    uint8_t s[401];
    for (int depth = 0; depth <= 4; depth++) {
        char wanted[40];
        const int digit = depth + 3;
        snprintf(wanted, sizeof wanted, "The pass key is %d.", digit);
        passkey_make(400, depth / 4.0, digit, 9, s);
        ck_assert_int_eq(s[399], '0' + digit);
        s[399] = s[400] = '\0';
        const char *found = strstr((char *)s, wanted);
        ck_assert_ptr_nonnull(found);
        const double at = (double)(found - (char *)s) / (400 - 1 - 38 - 32);
        ck_assert_double_eq_tol(at, depth / 4.0, 0.02);
        ck_assert_str_eq((char *)s + 399 - 38, "What is the pass key? The pass key is ");
    }
    passkey_make(passkey_least, 1, 5, 0, s);
    ck_assert_int_eq(s[passkey_least - 1], '5');
}
END_TEST

/* Three steps of one parameter against the formula in double. */
START_TEST(adam_follows_its_formula)
{
    real values[16] = {0.5f}, gradients[16] = {0}, first[16] = {0}, second[16] = {0};
    parameter matrix = {.name = "w", .shape = {2, 1}, .deviation = 0.02};
    const model m = {.parameters = &matrix,
                     .count = 1,
                     .size = 16,
                     .values = values,
                     .gradients = gradients,
                     .on = &host_arithmetic};
    const adam a = {first, second, &host_arithmetic};
    const adam_options o = {0.9, 0.95, 0.1, 1};
    const double drawn[3][2] = {{0.3, 0.4}, {3, 4}, {-0.6, 0.8}}; /* the second is clipped to a fifth */
    double w = 0.5, m1 = 0, v1 = 0;
    for (int t = 1; t <= 3; t++) {
        gradients[0] = (real)drawn[t - 1][0];
        gradients[1] = (real)drawn[t - 1][1];
        double norm;
        ck_assert_int_eq(gradient_norm(&m, &norm, NULL), LH_OK);
        ck_assert_double_eq_tol(norm, t == 2 ? 5 : t == 1 ? 0.5 : 1, 1e-6);
        adam_step(&a, &m, &o, 0.01, norm, t);
        const double g = drawn[t - 1][0] / (t == 2 ? 5 : 1);
        m1 = 0.9 * m1 + 0.1 * g;
        v1 = 0.95 * v1 + 0.05 * g * g;
        w -= 0.01 * (m1 / (1 - pow(0.9, t)) / (sqrt(v1 / (1 - pow(0.95, t))) + 1e-8) + 0.1 * w);
        ck_assert_double_eq_tol((double)values[0], w, 1e-6);
        ck_assert(gradients[0] == 0 && gradients[1] == 0);
    }
}
END_TEST

START_TEST(stages_follow_each_other)
{
    const settings s = two_stage(3, 2);
    recipe r;
    lh_error error;
    const phase after[] = {PHASE_LIGHTHOUSE, PHASE_LIGHTHOUSE, PHASE_DENSE, PHASE_DENSE, PHASE_FINISHED};
    recipe_start(&s, &r);
    for (int i = 0; i < 5; i++) {
        const bool dense = r.phase != PHASE_LIGHTHOUSE;
        ck_assert_int_eq(recipe_wants_dense(&r, "evaluation", &error), dense ? LH_OK : LH_INVALID);
        expect_status(recipe_wants_finished(&r, "fine-tuning", &error), LH_INVALID, &error,
                      "wanted finished before fine-tuning");
        ck_assert_int_eq(recipe_step(&s, &r, 2, &error), LH_OK);
        ck_assert_int_eq(r.phase, after[i]);
    }
    ck_assert_int_eq(recipe_wants_finished(&r, "fine-tuning", &error), LH_OK);
    const settings dense_only = two_stage(0, 2);
    recipe_start(&dense_only, &r);
    ck_assert_int_eq(r.phase, PHASE_DENSE);
}
END_TEST

START_TEST(the_rate_warms_up_and_again_after_the_switch)
{
    settings s = two_stage(100, 100);
    recipe r;
    recipe_start(&s, &r);
    s.rate = 1;
    s.warmup = 10;
    ck_assert_double_eq_tol(recipe_rate(&s, &r), 0.1, 1e-12);
    r.step = 9;
    ck_assert_double_eq_tol(recipe_rate(&s, &r), 1, 1e-12);
    r.step = 100;
    r.phase = PHASE_DENSE;
    ck_assert_double_eq_tol(recipe_rate(&s, &r), 1, 1e-12);
    s.rewarm = 4;
    ck_assert_double_eq_tol(recipe_rate(&s, &r), 0.25, 1e-12);
    r.step = 103;
    ck_assert_double_eq_tol(recipe_rate(&s, &r), 1, 1e-12);
}
END_TEST

static double rate_at(const settings *s, int64_t step)
{
    const recipe r = {.phase = step < s->lighthouse_steps ? PHASE_LIGHTHOUSE : PHASE_DENSE, .step = step};
    return recipe_rate(s, &r);
}

/* Warm-up over the first 10 of 60 and 40 steps; half-way down at the middle of what is left. */
START_TEST(schedules_fall_over_the_run_or_over_each_stage)
{
    settings s = two_stage(60, 40);
    s.rate = 1;
    s.warmup = 10;
    s.final_rate = 0.2;
    s.cooldown = 0.5;
    const char *const falling[] = {"cosine", "linear"};
    for (int i = 0; i < 2; i++) {
        strcpy(s.schedule, falling[i]);
        s.anew = false;
        ck_assert_double_eq_tol(rate_at(&s, 4), 0.5, 1e-12);
        ck_assert_double_eq_tol(rate_at(&s, 10), 1, 1e-12);
        ck_assert_double_eq_tol(rate_at(&s, 55), 0.6, 1e-12); /* before the switch */
        ck_assert_double_lt(rate_at(&s, 60), rate_at(&s, 59));
        ck_assert_double_eq_tol(rate_at(&s, 100), 0.2, 1e-12);
        s.anew = true;
        ck_assert_double_eq_tol(rate_at(&s, 35), 0.6, 1e-12);
        ck_assert_double_eq_tol(rate_at(&s, 60), 1, 1e-12);
        ck_assert_double_eq_tol(rate_at(&s, 80), 0.6, 1e-12);
        ck_assert_double_eq_tol(rate_at(&s, 100), 0.2, 1e-12);
    }
    strcpy(s.schedule, "wsd");
    s.anew = false;
    ck_assert_double_eq_tol(rate_at(&s, 50), 1, 1e-12);
    ck_assert_double_eq_tol(rate_at(&s, 75), 0.6, 1e-12);
    ck_assert_double_eq_tol(rate_at(&s, 100), 0.2, 1e-12);
    s.anew = true;
    ck_assert_double_eq_tol(rate_at(&s, 30), 1, 1e-12);
    ck_assert_double_eq_tol(rate_at(&s, 45), 0.6, 1e-12);
    ck_assert_double_eq_tol(rate_at(&s, 80), 1, 1e-12);
    ck_assert_double_eq_tol(rate_at(&s, 90), 0.6, 1e-12);
    strcpy(s.schedule, "constant");
    ck_assert_double_eq_tol(rate_at(&s, 99), 1, 1e-12);
}
END_TEST

/* Loss 1.0 before the switch, 2.5 after it, falling by 0.01 a dense step until it is 0.8. */
START_TEST(the_monitor_sees_jump_and_recovery)
{
    const settings s = two_stage(100, 400);
    recipe r;
    char verdict[512];
    recipe_start(&s, &r);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(recipe_step(&s, &r, 1, NULL), LH_OK);
    for (int i = 0; i < 400; i++)
        ck_assert_int_eq(recipe_step(&s, &r, fmax(2.5 - 0.01 * i, 0.8), NULL), LH_OK);
    ck_assert_double_eq_tol(r.monitor.before_switch, 1, 1e-12);
    ck_assert_double_eq_tol(r.monitor.jump, 2.5, 1e-12);
    /* The mean of 25 losses ending at 2.5 - 0.01 i is 0.12 above the last: at most 1 from i = 162. */
    ck_assert_double_eq_tol(r.monitor.recovered_after, 163, 1.01);
    recipe_verdict(&s, &r, verdict, sizeof verdict);
    ck_assert_ptr_nonnull(strstr(verdict, "was back at it after 16"));
    ck_assert_ptr_nonnull(strstr(verdict, "has flattened"));
}
END_TEST

START_TEST(the_monitor_says_when_a_run_was_too_short)
{
    const settings s = two_stage(100, 60);
    recipe r;
    char verdict[512];
    recipe_start(&s, &r);
    for (int i = 0; i < 100; i++)
        recipe_step(&s, &r, 1, NULL);
    for (int i = 0; i < 60; i++)
        recipe_step(&s, &r, 2.5 - 0.01 * i, NULL);
    recipe_verdict(&s, &r, verdict, sizeof verdict);
    ck_assert_ptr_nonnull(strstr(verdict, "not recovered"));
    ck_assert_ptr_nonnull(strstr(verdict, "more dense steps would pay"));
}
END_TEST

START_TEST(divergence_stops_a_run)
{
    const settings s = two_stage(1000, 1000);
    recipe r;
    lh_error error;
    recipe_start(&s, &r);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(recipe_step(&s, &r, 1, &error), LH_OK);
    expect_status(recipe_step(&s, &r, NAN, &error), LH_MISMATCH, &error, "wanted a finite number");
    expect_status(recipe_step(&s, &r, INFINITY, &error), LH_MISMATCH, &error, "wanted a finite number");
    ck_assert_int_eq(r.step, 100);
    ck_assert_int_eq(recipe_step(&s, &r, 20, &error), LH_OK); /* one bad step is no divergence */
    int steps = 0;
    while (recipe_step(&s, &r, 5, &error) == LH_OK)
        ck_assert_int_lt(steps++, WINDOW);
    expect_status(error.status, LH_MISMATCH, &error, "wanted at most 1.000 + 2");
}
END_TEST

START_TEST(the_jump_at_the_switch_is_no_divergence)
{
    const settings s = two_stage(100, 100);
    recipe r;
    recipe_start(&s, &r);
    for (int i = 0; i < 100; i++)
        recipe_step(&s, &r, 1, NULL);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(recipe_step(&s, &r, 4, NULL), LH_OK);
}
END_TEST

/* Bytes are told one after the other, in their places. */
static void follow(void *user, uint8_t byte)
{
    const uint8_t **next = user;
    ck_assert_int_eq(*(*next)++, byte);
}

/* Bytes past the last one of the window must not matter, or generation would see its own padding. */
START_TEST(generation_goes_on_from_its_prompt)
{
    settings s = two_stage(0, 1);
    model m;
    uint8_t a[40] = "int main", b[20] = "int main";
    const uint8_t *next = a + 8;
    s.width = 16;
    s.layers = 2;
    s.heads = 2;
    s.kv_heads = 1;
    s.dim = 8;
    s.hidden = 24;
    s.context = 64;
    const model_shape shape = settings_shape(&s);
    ck_assert_int_eq(model_create(&shape, 1, false, &m, NULL), LH_OK);
    for (int64_t i = 0; i < m.size; i++)
        m.values[i] *= 20;
    ck_assert_int_eq(generate(&s, &m, 0.9, 8, 32, a, follow, &next, NULL), LH_OK);
    ck_assert_ptr_eq(next, a + sizeof a);
    ck_assert_int_eq(generate(&s, &m, 0.9, 8, 12, b, NULL, NULL, NULL), LH_OK);
    ck_assert_mem_eq(a, b, 20);
    s.context = 32; /* a window that slides */
    ck_assert_int_eq(generate(&s, &m, 0, 8, 32, a, NULL, NULL, NULL), LH_OK);
    model_destroy(&m);
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

#ifdef _OPENMP
START_TEST(a_pass_leaves_the_threads_alone)
{
    settings s = two_stage(0, 1);
    model m;
    pass p;
    s.context = 64;
    const model_shape shape = settings_shape(&s);
    ck_assert_int_eq(model_create(&shape, 1, false, &m, NULL), LH_OK);
    omp_set_num_threads(3);
    ck_assert_int_eq(dense_pass(&s, &m, 64, &p, NULL), LH_OK);
    ck_assert_int_eq(omp_get_max_threads(), 3);
    pass_destroy(&p);
    model_destroy(&m);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("train");
    TCase *parts = suite_case(suite, "settings");
    tcase_add_test(parts, defaults_pass_and_print_as_they_parse);
    tcase_add_test(parts, bad_settings_are_named);
    tcase_add_test(parts, files_of_settings_name_their_bad_line);
    tcase_add_test(parts, the_file_for_laptops_has_the_defaults);
    tcase_add_test(parts, the_backend_is_chosen_by_what_it_can_do);
    tcase_add_test(parts, dense_layers_count_from_both_ends);
    parts = suite_case(suite, "data");
    tcase_add_test(parts, passkeys_hide_their_digit_where_they_say);
    parts = suite_case(suite, "recipe");
    tcase_add_test(parts, adam_follows_its_formula);
    tcase_add_test(parts, stages_follow_each_other);
    tcase_add_test(parts, the_rate_warms_up_and_again_after_the_switch);
    tcase_add_test(parts, schedules_fall_over_the_run_or_over_each_stage);
    tcase_add_test(parts, the_monitor_sees_jump_and_recovery);
    tcase_add_test(parts, the_monitor_says_when_a_run_was_too_short);
    tcase_add_test(parts, divergence_stops_a_run);
    tcase_add_test(parts, the_jump_at_the_switch_is_no_divergence);
    parts = suite_case(suite, "model");
    tcase_add_test(parts, generation_goes_on_from_its_prompt);
#ifdef _OPENMP
    tcase_add_test(parts, a_pass_leaves_the_threads_alone);
#endif
    return suite_run(suite);
}
