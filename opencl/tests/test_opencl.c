/* The OpenCL backend: every stage and the whole layer against ref, on shapes that leave tiles, panels and
 * vectors ragged; the same bits again; and a cache of programs that is not trusted. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/convert.h"
#include "opencl/opencl.h"
#include "tests/layer.h"
#include "tests/suite.h"
#include "tests/twin.h"

/* B H G N d L p k m */
static const lh_config configs[] = {
    {1, 2, 1, 24, 3, 3, 2, 2, 2},       {1, 2, 1, 24, 8, 3, 2, 2, 2},      {2, 2, 2, 48, 3, 3, 2, 8, 4},
    {1, 4, 2, 96, 8, 3, 2, 8, 4},       {1, 2, 1, 64, 1, 1, 2, 2, 2},      {1, 1, 1, 1, 5, 1, 2, 2, 2},
    {2, 3, 1, 162, 17, 4, 3, 6, 2},     {1, 2, 2, 2048, 64, 3, 4, 64, 16}, {1, 6, 2, 700, 33, 2, 5, 28, 14},
    {1, 1, 1, 1024, 128, 4, 2, 32, 32}, {1, 1, 1, 300, 160, 1, 2, 2, 2},   {1, 2, 1, 4096, 16, 6, 2, 64, 64},
    {1, 1, 1, 40, 4100, 1, 2, 2, 2},    {1, 32, 1, 48, 3, 2, 2, 4, 4},
};
enum {
    CONFIGS = sizeof configs / sizeof *configs
};
static const lh_dtype dtypes[] = {LH_F32, LH_F16, LH_BF16};

static lh_error error;

static lh_plan *make_plan(const char *backend, const lh_config *config, lh_dtype dtype)
{
    const lh_options options = {.backend = backend, .dtype = dtype, .backward = true, .stages = true};
    lh_plan *plan;
    expect_status(lh_plan_create(config, &options, &plan, &error), LH_OK, &error, "");
    return plan;
}

static void run_port(struct layer *layer, lh_dtype dtype, int stage)
{
    lh_plan *plan = make_plan("opencl", &layer->config, dtype);
    if (stage < LH_STAGE_COUNT) {
        expect_status(lh_run_stage(plan, (lh_stage)stage, layer->trace, &error), LH_OK, &error, "");
    } else {
        expect_status(lh_forward(plan, layer->trace, &error), LH_OK, &error, "");
        expect_status(lh_backward(plan, layer->trace, &error), LH_OK, &error, "");
    }
    lh_plan_destroy(plan);
}

/* A whole layer twice: the same bits. */
static void port(const struct twin *t, int stage, const lh_tensor_id *ids)
{
    struct layer got = t->got, again;
    run_port(&got, t->dtype, stage);
    twin_expect(t, ids);
    if (stage < LH_STAGE_COUNT)
        return;
    layer_create(&again, &got.config, t->dtype, 17);
    run_port(&again, t->dtype, stage);
    for (; *ids != LH_TENSOR_COUNT; ids++)
        ck_assert_msg(memcmp(got.trace[*ids].data, again.trace[*ids].data, layer_bytes(&got.trace[*ids])) ==
                          0,
                      "%s has other bits the second time", lh_tensor_name(*ids));
    layer_free(&again);
}

START_TEST(stages)
{
    twin_stages(&configs[_i % CONFIGS], dtypes[_i / CONFIGS], port);
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

START_TEST(layers)
{
    twin_layer(&configs[_i % CONFIGS], dtypes[_i / CONFIGS], port);
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

/* Scores are norms rounded to nearest whatever the rows' size, the range in which squares can be taken left behind; and no
 * NaN wins a maximum over a number that came first. */
START_TEST(extreme_scores)
{
    static const double sizes[] = {1, 0x1p-130, 1e-25, 1e-19, 1e19, 1e25, 0x1p100, 1e-30};
    const lh_config config = {1, 1, 1, 64, 7, 2, 2, 2, 2};
    struct layer work;
    layer_create(&work, &config, LH_F32, 21);
    lh_plan *plan = make_plan("opencl", &config, LH_F32);
    float *q = work.trace[LH_Q].data;
    for (int i = 0; i < 64 * 7; i++)
        q[i] *= (float)sizes[i / 7 % 8];
    for (int i = 0; i < 7; i++)
        q[63 * 7 + i] = i == 3 ? NAN : 1;
    expect_status(lh_run_stage(plan, LH_SCORE, work.trace, &error), LH_OK, &error, "");
    const float *score = work.trace[LH_SCORE_Q].data;
    for (int row = 0; row < 63; row++) {
        double sum = 0;
        for (int i = 0; i < 7; i++)
            sum += (double)q[row * 7 + i] * (double)q[row * 7 + i];
        /* Of a sum of 7 squares, 7 roundings; of its root, half of them and one of its own. */
        const double wanted = sqrt(sum), allowed = wanted * 5 * 0x1p-24;
        if (row % 8 != 1) /* numbers below float32's normal ones may be zero on a device */
            ck_assert_msg(fabs(score[row] - wanted) <= allowed, "score[%d] is %a, wanted %a", row, score[row],
                          wanted);
    }
    ck_assert(isnan(score[63]));
    ck_assert_float_eq(score[64 + 31], score[62]);
    lh_plan_destroy(plan);
    layer_free(&work);
}
END_TEST

/* Roots that decide a selection are the nearest float, of d = 1 the number itself. */
START_TEST(exact_roots)
{
    const lh_config config = {1, 1, 1, 4096, 1, 1, 2, 2, 2};
    struct layer work;
    layer_create(&work, &config, LH_F32, 22);
    lh_plan *plan = make_plan("opencl", &config, LH_F32);
    const float *q = work.trace[LH_Q].data, *score = work.trace[LH_SCORE_Q].data;
    expect_status(lh_run_stage(plan, LH_SCORE, work.trace, &error), LH_OK, &error, "");
    for (int i = 0; i < 4096; i++) {
        const float square = q[i] * q[i];
        ck_assert_msg(score[i] == sqrtf(square), "score[%d] is %a, wanted %a", i, score[i], sqrtf(square));
    }
    lh_plan_destroy(plan);
    layer_free(&work);
}
END_TEST

/* Logits of 1e9 and of 1e35: finite rows that are the value of the largest key, and a finite backward. */
START_TEST(huge_logits)
{
    static const double sizes[] = {3e4, 1e17};
    const lh_config config = {1, 1, 1, 96, 16, 1, 2, 2, 2};
    const lh_tensor_id finite[] = {LH_O_SEL, LH_LSE, LH_OUT, LH_DQ, LH_DK, LH_DV};
    struct layer work, wanted;
    layer_create(&work, &config, LH_F32, 23);
    layer_create(&wanted, &config, LH_F32, 23);
    for (int id = LH_Q; id <= LH_K; id++)
        for (int64_t i = 0; i < 96 * 16; i++)
            ((float *)wanted.trace[id].data)[i] = ((float *)work.trace[id].data)[i] *= (float)sizes[_i];
    lh_plan *plan = make_plan("opencl", &config, LH_F32), *ref = make_plan("ref", &config, LH_F32);
    expect_status(lh_forward(ref, wanted.trace, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    const float *out = work.trace[LH_OUT].data, *key = wanted.trace[LH_OUT].data;
    for (int64_t i = 0; i < lh_tensor_elements(&work.trace[LH_OUT]); i++)
        ck_assert_msg(fabsf(out[i] - key[i]) <= 4e-6f, "out[%d] is %g, wanted %g", (int)i, out[i], key[i]);
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
    for (size_t t = 0; t < (_i == 0 ? sizeof finite / sizeof *finite : 3); t++)
        expect_status(lh_tensor_finite(&work.trace[finite[t]], lh_tensor_name(finite[t]), &error), LH_OK,
                      &error, "");
    lh_plan_destroy(ref);
    lh_plan_destroy(plan);
    layer_free(&wanted);
    layer_free(&work);
}
END_TEST

static unsigned char *cached(const char *key)
{
    unsigned char *binary;
    size_t size;
    ck_assert_int_eq(lh_cl_cache_read(key, &binary, &size, &error), LH_OK);
    return binary;
}

/* A damaged program in the cache is built anew; a whole one is read back. */
START_TEST(cache)
{
    const char *folder = scratch_folder();
    char key[65], path[600];
    unsigned char *binary, bytes[200];
    size_t size = 0;
    memset(key, 'a', 64);
    key[64] = '\0';
    setenv("XDG_CACHE_HOME", folder, 1);
    lh_cl_cache_write(key, (const unsigned char *)"a program", 9);
    snprintf(path, sizeof path, "%s/lighthouse/%s", folder, key);
    ck_assert_int_eq(lh_cl_cache_read(key, &binary, &size, &error), LH_OK);
    ck_assert_ptr_nonnull(binary);
    ck_assert_uint_eq(size, 9);
    ck_assert_mem_eq(binary, "a program", 9);
    lh_free(binary);
    const size_t whole = read_bytes(path, bytes, sizeof bytes);
    ck_assert_uint_eq(whole, 65 + 9);
    for (size_t cut = 0; cut < whole; cut++) { /* shortened anywhere, and any byte of it changed */
        write_bytes(path, bytes, cut);
        ck_assert_int_eq(lh_cl_cache_read(key, &binary, &size, &error), LH_OK);
        ck_assert_ptr_null(binary);
        if (cut == 64) /* the newline is not looked at */
            continue;
        bytes[cut] ^= 1;
        write_bytes(path, bytes, whole);
        ck_assert_int_eq(lh_cl_cache_read(key, &binary, &size, &error), LH_OK);
        ck_assert_ptr_null(binary);
        bytes[cut] ^= 1;
    }
    /* Whole, but not to be trusted: written by others, a link, a pipe, another program's, another user's folder. */
    char other[600], whole_folder[600];
    const size_t program = whole - 65;
    write_bytes(path, bytes, whole);
    ck_assert_ptr_nonnull(binary = cached(key));
    lh_free(binary);
    chmod(path, 0622);
    ck_assert_ptr_null(cached(key));
    chmod(path, 0600);
    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0); /* a hole, longer than any memory */
    ck_assert_ptr_null(cached(key));
    snprintf(other, sizeof other, "%s/lighthouse/%.63sb", folder, key);
    rename(path, other);
    ck_assert_int_eq(symlink(other, path), 0);
    ck_assert_ptr_null(cached(key));
    remove(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_ptr_null(cached(key)); /* and does not wait for it */
    remove(path);
    char other_key[65];
    snprintf(other_key, sizeof other_key, "%.63sb", key);
    ck_assert_ptr_null(cached(other_key));
    remove(other);
    snprintf(whole_folder, sizeof whole_folder, "%s/lighthouse", folder);
    lh_cl_cache_write(key, bytes + 65, program);
    ck_assert_ptr_nonnull(binary = cached(key));
    lh_free(binary);
    chmod(whole_folder, 0777);
    ck_assert_ptr_null(cached(key));
    lh_cl_cache_write(other_key, bytes + 65, program); /* nor is anything put there */
    ck_assert_int_ne(access(other, F_OK), 0);
    chmod(whole_folder, 0700);
    remove(path);
    snprintf(path, sizeof path, "%s/lighthouse", folder);
    remove(path);
    remove_folder(folder);
    unsetenv("XDG_CACHE_HOME");
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

static void expect_tiles(const char *path, const char *text, const struct lh_cl_device *device,
                         lh_status wanted)
{
    struct lh_cl_tuning before, after;
    lh_cl_tuning_of_class(device, &before);
    after = before;
    write_bytes(path, (const unsigned char *)text, strlen(text));
    ck_assert_int_eq(lh_cl_tuned_read(device, &after, &error), wanted);
    ck_assert_mem_eq(&before, &after, sizeof before);
    ck_assert_msg(wanted == LH_OK || strstr(error.text, path), "%s, wanted the file named", error.text);
}

/* Those that are there and may not be read, for want of a descriptor or of the right to, are not taken for none. */
static void expect_unreadable(const char *path, const struct lh_cl_device *device)
{
    struct lh_cl_tuning found;
    struct rlimit usual, none;
    lh_cl_tuning_of_class(device, &found);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &usual), 0);
    none = usual;
    none.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    const lh_status status = lh_cl_tuned_read(device, &found, &error);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
    expect_status(status, LH_IO, &error, "opencl.json cannot be opened: Too many open files");
    ck_assert_int_eq(chmod(path, 0), 0);
    if (geteuid() != 0)
        expect_status(lh_cl_tuned_read(device, &found, &error), LH_IO, &error, "Permission denied");
    ck_assert_int_eq(chmod(path, 0600), 0);
}

/* Measured tiles are found under their device's name and no other's; a file that cannot be used is named. */
START_TEST(tuned)
{
    const char *folder = scratch_folder();
    char path[LH_TUNED_PATH];
    cl_device_id id;
    struct lh_cl_device device, other;
    struct lh_cl_tuning tuning, found;
    setenv("XDG_CONFIG_HOME", folder, 1);
    ck_assert_int_eq(lh_cl_device_find(0, &id, &error), LH_OK);
    ck_assert_int_eq(lh_cl_device_describe(id, &device, &error), LH_OK);
    other = device;
    snprintf(other.name, sizeof other.name, "another device");
    for (int pass = 0; pass < 2; pass++) {
        struct lh_cl_tile tiles[LH_TILINGS];
        const int count = lh_cl_tuning_candidates(&device, pass == 1, tiles);
        ck_assert_int_gt(count, 4);
        for (int i = 0; i < count; i++) {
            lh_cl_tuning_of_class(&device, &tuning);
            *(pass == 1 ? &tuning.backward : &tuning.forward) = tiles[i];
            ck_assert_msg(lh_cl_tuning_fits(&tuning), "candidate %d of pass %d does not fit", i, pass);
        }
        if (pass == 0)
            tuning.forward = tiles[count - 1];
    }
    ck_assert_int_eq(lh_cl_tuned_write(&device, &tuning, path, &error), LH_OK);
    lh_cl_tuning_of_class(&device, &found);
    ck_assert_int_eq(lh_cl_tuned_read(&device, &found, &error), LH_OK);
    ck_assert_mem_eq(&found.forward, &tuning.forward, sizeof found.forward);
    ck_assert_mem_eq(&found.backward, &tuning.backward, sizeof found.backward);
    ck_assert_int_eq(lh_cl_tuned_write(&other, &tuning, path, &error), LH_OK); /* the first stays */
    lh_cl_tuning_of_class(&device, &found);
    ck_assert_int_eq(lh_cl_tuned_read(&device, &found, &error), LH_OK);
    ck_assert_mem_eq(&found.backward, &tuning.backward, sizeof found.backward);

    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0); /* a hole, longer than any memory */
    expect_status(lh_cl_tuned_read(&device, &found, &error), LH_FORMAT, &error, "remove it, at most 1048576");
    char text[600];
    expect_unreadable(path, &device);
    expect_tiles(path, "{\"another device\": {}}", &device, LH_OK);
    expect_tiles(path, "{", &device, LH_FORMAT);
    expect_tiles(path, "", &device, LH_FORMAT);
    snprintf(text, sizeof text, "{\"%s\": {\"forward\": [7, 7, 7, 7, 7], \"backward\": [7, 7, 7, 7, 7]}}",
             device.name);
    expect_tiles(path, text, &device, LH_FORMAT);
    snprintf(text, sizeof text, "{\"%s\": {\"forward\": [64, 64]}}", device.name);
    expect_tiles(path, text, &device, LH_FORMAT);
    lh_plan *plan = NULL;
    const lh_options options = {.backend = "opencl", .dtype = LH_F32};
    ck_assert_int_eq(lh_plan_create(&configs[0], &options, &plan, &error), LH_FORMAT);
    ck_assert_ptr_null(plan);
    remove(path);
    snprintf(path, sizeof path, "%s/lighthouse", folder);
    remove(path);
    remove_folder(folder);
    unsetenv("XDG_CONFIG_HOME");
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

/* However wide a head, a tile is one that kernels can be built for; one that fits no thread's stack is refused. */
START_TEST(wide_heads)
{
    cl_device_id id;
    struct lh_cl_device device;
    struct lh_cl_tuning tuning;
    ck_assert_int_eq(lh_cl_device_find(0, &id, &error), LH_OK);
    ck_assert_int_eq(lh_cl_device_describe(id, &device, &error), LH_OK);
    for (int64_t dim = 128; dim <= 1 << 13; dim += 128) {
        expect_status(lh_cl_tuning_find(&device, NULL, dim, &tuning, &error), LH_OK, &error, "");
        ck_assert_msg(lh_cl_tuning_fits(&tuning), "the tiles for d = %d do not fit", (int)dim);
    }
    if (tuning.cpu_body)
        expect_status(lh_cl_tuning_find(&device, NULL, 1 << 16, &tuning, &error), LH_UNSUPPORTED, &error,
                      "dim is 65536, rounded up to a program's width, wanted at most ");
}
END_TEST

/* What a kernel that does not build says: the device and the compiler's words. */
START_TEST(build_failure)
{
    const char *sources[] = {"kernel void broken(global int *x) { x[0] = no_such_name; }"};
    struct lh_cl_device device;
    cl_device_id id;
    cl_program program;
    cl_int code;
    expect_status(lh_cl_device_find(0, &id, &error), LH_OK, &error, "");
    expect_status(lh_cl_device_describe(id, &device, &error), LH_OK, &error, "");
    cl_context context = clCreateContext(NULL, 1, &id, NULL, NULL, &code);
    expect_status(lh_cl_program_build(context, &device, sources, 1, "-cl-std=CL1.2", &program, &error),
                  LH_DEVICE, &error, "no_such_name");
    ck_assert_ptr_nonnull(strstr(error.text, device.name));
    ck_assert_ptr_null(program);
    clReleaseContext(context);
    expect_status(lh_cl_device_find(1000, &id, &error), LH_NO_DEVICE, &error, "device is 1000, wanted 0 to");
}
END_TEST

int main(int argc, char **argv)
{
    (void)argc;
    char *arguments[] = {argv[0], (char[]){"opencl"}, NULL};
    backend_under_test(2, arguments);
    Suite *suite = suite_create("opencl");
    /* For oclgrind, which is slow. */
    TCase *small = suite_case(suite, "small");
    tcase_add_loop_test(small, stages, 0, 1);
    tcase_add_loop_test(small, layers, 0, 1);
    TCase *halves = suite_case(suite, "halves");
    tcase_add_loop_test(halves, layers, CONFIGS + 1, CONFIGS + 2);
    tcase_add_loop_test(halves, layers, 2 * CONFIGS + 1, 2 * CONFIGS + 2);
    TCase *against_ref = suite_case(suite, "against ref");
    tcase_add_loop_test(against_ref, stages, 1, 3 * CONFIGS);
    tcase_add_loop_test(against_ref, layers, 1, 3 * CONFIGS);
    TCase *rest = suite_case(suite, "rest");
    tcase_add_test(rest, extreme_scores);
    tcase_add_test(rest, exact_roots);
    tcase_add_loop_test(rest, huge_logits, 0, 2);
    tcase_add_test(rest, cache);
    tcase_add_test(rest, tuned);
    tcase_add_test(rest, wide_heads);
    tcase_add_test(rest, build_failure);
    return suite_run(suite);
}
