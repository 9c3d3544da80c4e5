/*
 * Every allocation fails once: a status each time, nothing leaked, nothing left half-written. The library's own
 * allocations fail through lh_alloc_fail_at; those of jansson, in the reading and writing of files, through its
 * allocation hooks, which a program may set and the library itself does not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "core/safetensors.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const lh_config config = {1, 2, 1, 48, 8, 3, 2, 8, 4};
static const char *backend;
static lh_dtype dtype;

/* The n-th jansson allocation from now on fails, and all after it: memory that has run out stays out. */
static int64_t json_fail_at, json_live;
static bool json_failed;

static void *json_allocate(size_t bytes)
{
    json_failed = json_failed || (json_fail_at > 0 && --json_fail_at == 0);
    if (json_failed)
        return NULL;
    json_live++;
    return malloc(bytes);
}

static void json_release(void *memory)
{
    json_live -= memory != NULL;
    free(memory);
}

static lh_status use_plan(const struct layer *work, bool stages, lh_error *error)
{
    const lh_options options = {
        .backend = backend, .dtype = dtype, .backward = true, .stages = stages, .finite = true};
    lh_plan *plan;
    lh_status status = lh_plan_create(&config, &options, &plan, error);
    ck_assert((status == LH_OK) == (plan != NULL));
    if (status == LH_OK)
        status = lh_forward(plan, work->trace, error);
    if (status == LH_OK)
        status = lh_backward(plan, work->trace, error);
    for (int stage = 0; stage < LH_STAGE_COUNT && stages && status == LH_OK; stage++)
        status = lh_run_stage(plan, (lh_stage)stage, work->trace, error);
    lh_plan_destroy(plan);
    return status;
}

START_TEST(plan)
{
    struct layer work;
    int64_t n = 1;
    layer_create(&work, &config, dtype, 1);
    ck_assert_int_eq(use_plan(&work, _i, NULL), LH_OK); /* what a runtime sets up once stays */
    const int64_t live = lh_alloc_live();
    for (;; n++) {
        lh_error error;
        lh_alloc_fail_at(n);
        const lh_status status = use_plan(&work, _i, &error);
        const bool failed = lh_alloc_fail_at(0) == 0;
        ck_assert_int_eq(lh_alloc_live(), live);
        if (!failed) {
            expect_status(status, LH_OK, &error, "");
            break;
        }
        expect_status(status, LH_NO_MEMORY, &error, "bytes could not be had");
        lh_alloc_fail_at(n);
        ck_assert_int_eq(use_plan(&work, _i, NULL), LH_NO_MEMORY); /* without a place for the error */
        lh_alloc_fail_at(0);
    }
    ck_assert_int_gt(n, 2);
    printf("%s: %d allocations failed one at a time\n", backend, (int)n - 1);
    layer_free(&work);
}
END_TEST

/* A plan that exists allocates nothing more. */
START_TEST(execution)
{
    const lh_options options = {
        .backend = backend, .dtype = dtype, .backward = true, .stages = true, .finite = true};
    struct layer work;
    lh_plan *made;
    lh_error error;
    layer_create(&work, &config, dtype, 1);
    expect_status(lh_plan_create(&config, &options, &made, &error), LH_OK, &error, "");
    lh_alloc_fail_at(1);
    expect_status(lh_forward(made, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(made, work.trace, &error), LH_OK, &error, "");
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        expect_status(lh_run_stage(made, (lh_stage)stage, work.trace, &error), LH_OK, &error, "");
    ck_assert_int_eq(lh_alloc_fail_at(0), 1);
    lh_plan_destroy(made);
    ck_assert_int_eq(lh_alloc_live(), 0);
    layer_free(&work);
}
END_TEST

/* ---- files -------------------------------------------------------------------------------------- */

static double numbers[12];
static const lh_file_entry entries[] = {
    {"q", {numbers, LH_F64, 2, {3, 2}, {4, 1}}}, /* strided: packed on the way */
    {"index", {numbers, LH_I32, 1, {5}, {1}}},
};
static const lh_file_meta metadata[] = {{"levels", "3"}, {"pool", "2"}};

static lh_status use_file(const char *path, bool write, lh_error *error)
{
    if (write)
        return lh_file_write(path, entries, 2, metadata, 2, error);
    lh_file *file;
    const lh_status status = lh_file_read(path, &file, error);
    ck_assert((status == LH_OK) == (file != NULL));
    lh_file_free(file);
    return status;
}

static void arm(bool json, int64_t n)
{
    if (json)
        json_fail_at = n;
    else
        lh_alloc_fail_at(n);
}

/* Whether the armed failure happened. */
static bool disarm(bool json)
{
    const bool failed = json ? json_failed : lh_alloc_fail_at(0) == 0;
    json_fail_at = json_failed = 0;
    return failed;
}

/* _i & 1: write or read; _i & 2: jansson's allocations or ours. */
START_TEST(file)
{
    const bool write = _i & 1, json = _i & 2;
    const char *folder = scratch_folder(), *path = scratch_path(folder, "x.safetensors");
    lh_error error;
    int64_t n = 1;
    json_set_alloc_funcs(json_allocate, json_release);
    expect_status(use_file(path, true, &error), LH_OK, &error, "");
    if (write)
        write_bytes(path, "old", 3);
    for (;; n++) {
        char old[8];
        arm(json, n);
        const lh_status status = use_file(path, write, &error);
        const bool failed = disarm(json);
        ck_assert_int_eq(lh_alloc_live(), 0);
        ck_assert_int_eq(json_live, 0);
        ck_assert_int_eq(folder_entries(folder), 1);
        if (!failed) {
            expect_status(status, LH_OK, &error, "");
            break;
        }
        if (json && !write && status == LH_FORMAT) /* jansson's parser calls some of them syntax errors */
            expect_status(status, LH_FORMAT, &error, "header is not valid JSON");
        else
            expect_status(status, LH_NO_MEMORY, &error, "could not be had");
        if (write) {
            ck_assert_uint_eq(read_bytes(path, old, sizeof old), 3);
            ck_assert_mem_eq(old, "old", 3);
        }
    }
    ck_assert_int_gt(n, json ? 20 : 4);
    printf("%s, %s: %d allocations failed one at a time\n", write ? "write" : "read",
           json ? "jansson" : "own", (int)n - 1);
    remove_folder(folder);
}
END_TEST

START_TEST(counters)
{
    void *a, *b;
    lh_error error;
    const size_t held = lh_alloc_bytes();
    expect_status(lh_alloc(&a, 1000, "a", &error), LH_OK, &error, "");
    expect_status(lh_alloc(&b, 0, "b", &error), LH_OK, &error, "");
    ck_assert_uint_eq((uintptr_t)a % 64, 0);
    ck_assert_int_eq(lh_alloc_live(), 2);
    ck_assert_uint_eq(lh_alloc_bytes(), held + 1000);
    lh_free(a);
    lh_free(b);
    lh_free(NULL);
    ck_assert_int_eq(lh_alloc_live(), 0);
    ck_assert_uint_eq(lh_alloc_bytes(), held);
    ck_assert_uint_ge(lh_alloc_peak(), held + 1000);
    expect_status(lh_alloc(&a, SIZE_MAX, "much", &error), LH_NO_MEMORY, &error,
                  "much: 18446744073709551615 bytes could not be had");
    expect_status(lh_alloc(&a, SIZE_MAX - 64, "much", &error), LH_NO_MEMORY, &error,
                  "bytes could not be had");
    ck_assert_ptr_null(a);
    lh_alloc_fail_at(2);
    expect_status(lh_alloc(&a, 8, "a", &error), LH_OK, &error, "");
    expect_status(lh_alloc(&b, 8, "b", &error), LH_NO_MEMORY, &error, "b: 8 bytes could not be had");
    expect_status(lh_alloc(&b, 8, "b", &error), LH_OK, &error, "");
    lh_free(a);
    lh_free(b);
}
END_TEST

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    dtype = dtype_under_test(backend);
    snprintf(name, sizeof name, "memory %s", backend);
    Suite *suite = suite_create(name);
    TCase *plans = suite_case(suite, "plans");
    tcase_add_loop_test(plans, plan, 0, 2);
    tcase_add_test(plans, execution);
    if (strcmp(backend, "ref") == 0) {
        TCase *files = suite_case(suite, "files");
        tcase_add_loop_test(files, file, 0, 4);
        tcase_add_test(suite_case(suite, "counters"), counters);
    }
    return suite_run(suite);
}
