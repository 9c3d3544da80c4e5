/* A caller whose language writes 7,82: the library's reports and errors have points. 77 where no such locale can be made. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/base.h"
#include "core/convert.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const lh_config config = {1, 2, 1, 48, 8, 3, 2, 8, 4};
static lh_error error;

/* A locale with a decimal comma in `folder`; false where there is no localedef. */
static bool make_locale(const char *folder)
{
    static const char source[] =
        "LC_NUMERIC\ndecimal_point \",\"\nthousands_sep \".\"\ngrouping 3;3\nEND LC_NUMERIC\n";
    char command[512];
    snprintf(
        command, sizeof command,
        "cd %s && printf '%%s' '%s' >source && localedef -c -i source ./comma >/dev/null 2>&1; test -d comma",
        folder, source);
    return system(command) == 0 && setenv("LOCPATH", folder, 1) == 0 && setlocale(LC_NUMERIC, "comma") &&
           setlocale(LC_NUMERIC, "C");
}

static void expect_comma(void)
{
    char seven[8];
    snprintf(seven, sizeof seven, "%.2f", 7.25);
    ck_assert_str_eq(seven, "7,25");
}

static void compute(struct layer *layer)
{
    const lh_options options = {.dtype = LH_F64, .backward = true, .stages = true};
    lh_plan *plan;
    layer_create(layer, &config, LH_F64, 3);
    expect_status(lh_plan_create(&config, &options, &plan, &error), LH_OK, &error, "");
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        expect_status(lh_run_stage(plan, (lh_stage)stage, layer->trace, &error), LH_OK, &error, "");
    lh_plan_destroy(plan);
}

START_TEST(decimal_comma)
{
    struct layer layer;
    char *plain, *comma;
    compute(&layer);
    lh_store(layer.trace[LH_OUT].data, LH_F64, 5, 7.25);
    ck_assert_int_eq(lh_check(&config, layer.trace, &plain, &error), LH_MISMATCH);
    ck_assert_ptr_nonnull(setlocale(LC_NUMERIC, "comma"));
    expect_comma();
    ck_assert_int_eq(lh_check(&config, layer.trace, &comma, &error), LH_MISMATCH);
    expect_comma(); /* the caller's is back */
    ck_assert_str_eq(comma, plain);
    ck_assert_ptr_nonnull(strstr(plain, "7.25"));
    lh_text_free(plain);
    lh_text_free(comma);
    layer_free(&layer);
}
END_TEST

/* One place writes every error of the library. */
START_TEST(error_with_a_fraction)
{
    ck_assert_ptr_nonnull(setlocale(LC_NUMERIC, "comma"));
    expect_comma();
    ck_assert_int_eq(lh_fail(&error, LH_FORMAT, "has %g and %.2f", 1234.5, 7.82), LH_FORMAT);
    ck_assert_str_eq(error.text, "has 1234.5 and 7.82");
    expect_comma();
}
END_TEST

int main(void)
{
    char folder[] = "/tmp/lighthouse-test-XXXXXX", command[64];
    int status = 77;
    if (mkdtemp(folder) && make_locale(folder)) {
        Suite *suite = suite_create("language");
        tcase_add_test(suite_case(suite, "language"), decimal_comma);
        tcase_add_test(suite_case(suite, "errors"), error_with_a_fraction);
        status = suite_run(suite);
    } else {
        printf("SKIP: no locale with a decimal comma can be made (localedef)\n");
    }
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) == 0 ? status : 1;
}
