/* The faults themselves: each must change what its stage writes somewhere, and leave what it reads alone. */
#include <stdio.h>
#include <string.h>

#include "core/random.h"
#include "scalar/run.h"
#include "tests/suite.h"
#include "check/faults.h"

/* Between them these let every fault act: tiles, three levels, groups, odd p, ties. */
static const struct {
    lh_config config;
    bool ties;
    double gain; /* of q and k */
} draws[] = {
    {{2, 2, 2, 48, 3, 3, 2, 8, 4}, false, 1}, {{2, 4, 2, 48, 3, 3, 2, 8, 4}, false, 1},
    {{1, 2, 1, 54, 5, 3, 3, 4, 2}, false, 1}, {{2, 2, 2, 64, 4, 4, 2, 4, 4}, false, 1},
    {{1, 1, 1, 48, 2, 3, 2, 8, 4}, true, 1},  {{1, 1, 1, 32, 4, 2, 2, 8, 8}, false, 40},
};
enum {
    DRAWS = sizeof draws / sizeof *draws
};

static lh_tensor honest[DRAWS][LH_TENSOR_COUNT], faulty[DRAWS][LH_TENSOR_COUNT];

static void draw(int i)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    lh_error error;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor *t = &honest[i][id];
        ck_assert_int_eq(lh_tensor_describe(&draws[i].config, LH_F64, (lh_tensor_id)id, t, &error), LH_OK);
        const size_t bytes = (size_t)lh_tensor_elements(t) * lh_dtype_size(t->dtype);
        faulty[i][id] = *t;
        ck_assert_int_eq(lh_alloc(&t->data, bytes, "honest", &error), LH_OK);
        ck_assert_int_eq(lh_alloc(&faulty[i][id].data, bytes, "faulty", &error), LH_OK);
    }
    for (int x = 0; x < 4; x++) {
        lh_tensor *t = &honest[i][inputs[x]];
        const double gain = x < 2 ? draws[i].gain : 1;
        for (int64_t e = 0; e < lh_tensor_elements(t); e++) {
            const double value = lh_random_gaussian(7, (uint64_t)(16 * i + x), (uint64_t)e);
            ((double *)t->data)[e] = draws[i].ties ? (double)(value > 0) : gain * value;
        }
    }
    ck_assert_int_eq(lh_ref_run(64, &draws[i].config, LH_REF_ALL, honest[i], NULL, &error), LH_OK);
}

static void setup(void)
{
    for (int i = 0; i < DRAWS; i++)
        draw(i);
}

static void teardown(void)
{
    for (int i = 0; i < DRAWS; i++) {
        for (int id = 0; id < LH_TENSOR_COUNT; id++) {
            lh_free(honest[i][id].data);
            lh_free(faulty[i][id].data);
        }
    }
    ck_assert_int_eq(lh_alloc_live(), 0);
}

static bool same(const lh_tensor *a, const lh_tensor *b)
{
    return memcmp(a->data, b->data, (size_t)lh_tensor_elements(a) * lh_dtype_size(a->dtype)) == 0;
}

/* True when the fault could act on the draw and wrote something else than the reference. */
static bool acts(const lh_fault *fault, int i)
{
    lh_error error;
    lh_layout layout;
    ck_assert_int_eq(lh_config_check(&draws[i].config, &layout, &error), LH_OK);
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        memcpy(faulty[i][id].data, honest[i][id].data,
               (size_t)lh_tensor_elements(&honest[i][id]) * lh_dtype_size(honest[i][id].dtype));
    const lh_status status = fault->run(fault, &draws[i].config, &layout, faulty[i], &error);
    ck_assert_msg(status == LH_OK || status == LH_UNSUPPORTED, "%s: %s", fault->name, error.text);
    bool differs = false;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        bool written = false;
        for (const lh_tensor_id *w = lh_stage_writes(fault->stage); *w != LH_TENSOR_COUNT; w++)
            written = written || (int)*w == id;
        const bool equal = same(&honest[i][id], &faulty[i][id]);
        ck_assert_msg(written || equal, "%s writes %s", fault->name, lh_tensor_name((lh_tensor_id)id));
        differs = differs || !equal;
    }
    return status == LH_OK && differs;
}

START_TEST(every_fault_shows)
{
    const lh_fault *fault;
    for (int i = 0; (fault = lh_fault_at(i)); i++) {
        bool shows = false;
        for (int d = 0; d < DRAWS && !shows; d++)
            shows = acts(fault, d);
        ck_assert_msg(shows, "%s changes nothing on any draw", fault->name);
    }
}
END_TEST

START_TEST(names_and_families)
{
    const lh_fault *fault;
    bool seen[31] = {false};
    for (int i = 0; (fault = lh_fault_at(i)); i++) {
        ck_assert_ptr_eq(lh_fault_by_name(fault->name), fault); /* so names are unique */
        ck_assert(fault->family >= 1 && fault->family <= 30);
        seen[fault->family] = true;
    }
    for (int family = 1; family <= 30; family++)
        ck_assert_msg(seen[family], "no fault of family %d", family);
    ck_assert_ptr_null(lh_fault_by_name("no-such-fault"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("faults");
    TCase *tcase = suite_case(suite, "faults");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, every_fault_shows);
    tcase_add_test(tcase, names_and_families);
    return suite_run(suite);
}
