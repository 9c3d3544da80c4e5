/* plan.c: see plan.h. */
#include <stdio.h>

#include "tests/plan.h"

const lh_config config = {2, 4, 2, 48, 8, 3, 2, 8, 4};
const char *backend;
lh_dtype dtype;

struct layer work;
lh_plan *plan;
lh_error error;

Suite *plan_suite(const char *name, int argc, char **argv)
{
    static char title[64]; /* the suite keeps no copy of its own */
    backend = backend_under_test(argc, argv);
    dtype = dtype_under_test(backend);
    snprintf(title, sizeof title, "%s %s", name, backend);
    return suite_create(title);
}

lh_options options(void)
{
    return (lh_options){.backend = backend, .dtype = dtype, .backward = true, .stages = true, .finite = true};
}

void make_plan(const lh_options *wanted)
{
    const lh_status status = lh_plan_create(&config, wanted, &plan, &error);
    expect_status(status, LH_OK, &error, "");
}

static void setup(void)
{
    const lh_options o = options();
    make_plan(&o);
    layer_create(&work, &config, dtype, 11);
}

static void teardown(void)
{
    lh_plan_destroy(plan);
    layer_free(&work);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

TCase *plan_case(Suite *suite, const char *name)
{
    TCase *made = suite_case(suite, name);
    tcase_add_checked_fixture(made, setup, teardown);
    return made;
}

bool may_be_strided(lh_tensor_id id)
{
    return id == LH_Q || id == LH_K || id == LH_V || id == LH_OUT || id == LH_DOUT || id >= LH_DQ;
}
