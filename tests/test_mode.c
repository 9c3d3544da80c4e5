/*
 * The floating-point mode of the caller: none changes a bit of what is computed, in any of its threads, and each is
 * back when a call returns (SPEC 6).
 */
#define _GNU_SOURCE /* feenableexcept */
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "tests/layer.h"
#include "tests/suite.h"

#if defined __SSE__
#include <xmmintrin.h>
enum {
    FLUSH = 1 << 15,
    DENORMALS_ARE_ZERO = 1 << 6
};
#elif defined __aarch64__
enum {
    FLUSH = 1 << 24
};
#endif

static const lh_config config = {1, 2, 1, 48, 8, 3, 2, 8, 4};
static const char *backend;
static lh_dtype dtype;
static lh_error error;

static const struct {
    const char *name;
    int rounding;
    unsigned flags; /* of the control register */
    bool traps;
} modes[] = {
    {"upward", FE_UPWARD, 0, false},
    {"downward", FE_DOWNWARD, 0, false},
    {"toward zero", FE_TOWARDZERO, 0, false},
    {"traps", FE_TONEAREST, 0, true},
#if defined __SSE__
    {"flush to zero", FE_TONEAREST, FLUSH, false},
    {"denormals are zero", FE_TONEAREST, DENORMALS_ARE_ZERO, false},
    {"all at once", FE_UPWARD, FLUSH | DENORMALS_ARE_ZERO, true},
#elif defined __aarch64__
    {"flush to zero", FE_TONEAREST, FLUSH, false},
#endif
};
enum {
    MODES = sizeof modes / sizeof *modes
};

/* What of the control register a mode is; exceptions seen are not. */
static unsigned control(void)
{
#if defined __SSE__
    return _mm_getcsr() & ~0x3fu;
#elif defined __aarch64__
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return (unsigned)fpcr;
#else
    return (unsigned)fegetround();
#endif
}

static void set_mode(int mode)
{
    fesetround(modes[mode].rounding);
    if (modes[mode].traps)
        feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
#if defined __SSE__
    _mm_setcsr(_mm_getcsr() | modes[mode].flags);
#elif defined __aarch64__
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)(control() | modes[mode].flags)));
#endif
}

enum {
    THREADS = 3
};

/* The calling thread and the workers that the port will find. */
static void set_everywhere(int mode)
{
#pragma omp parallel num_threads(THREADS)
    set_mode(mode);
    set_mode(mode);
}

/* Whether all of them still have it; puts the default back. */
static bool kept_everywhere(unsigned wanted)
{
    int others = 0;
#pragma omp parallel num_threads(THREADS) reduction(+ : others)
    {
        others += control() != wanted;
        fesetenv(FE_DFL_ENV);
    }
    return others == 0;
}

/* Every third row is of subnormal numbers, so that what flushes to zero shows. */
static void create(struct layer *layer)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    layer_create(layer, &config, dtype, 3);
    for (int i = 0; i < 4; i++) {
        const lh_tensor *t = &layer->trace[inputs[i]];
        for (int64_t e = 0; e < lh_tensor_elements(t); e++) {
            if (e / config.dim % 3 == 0)
                lh_store(t->data, t->dtype, e, lh_load(t->data, t->dtype, e) * 1e-39);
        }
    }
}

static void run_all(struct layer *layer)
{
    const lh_options options = {.backend = backend,
                                .dtype = dtype,
                                .backward = true,
                                .stages = true,
                                .finite = true,
                                .threads = THREADS};
    lh_plan *plan;
    ck_assert_int_eq(lh_plan_create(&config, &options, &plan, &error), LH_OK);
    ck_assert_int_eq(lh_forward(plan, layer->trace, &error), LH_OK);
    ck_assert_int_eq(lh_backward(plan, layer->trace, &error), LH_OK);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        ck_assert_int_eq(lh_run_stage(plan, (lh_stage)stage, layer->trace, &error), LH_OK);
    lh_plan_destroy(plan);
}

static void expect_same(const struct layer *a, const struct layer *b, const char *mode)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        ck_assert_msg(memcmp(a->trace[id].data, b->trace[id].data, layer_bytes(&a->trace[id])) == 0,
                      "%s, mode %s: %s differs", backend, mode, lh_tensor_name((lh_tensor_id)id));
}

START_TEST(layers)
{
    struct layer plain, odd;
    create(&plain);
    create(&odd);
    run_all(&plain);
    set_everywhere(_i);
    const unsigned before = control();
    run_all(&odd);
    const bool kept = control() == before;
    ck_assert_msg(kept_everywhere(before) && kept, "mode %s is not what it was", modes[_i].name);
    expect_same(&plain, &odd, modes[_i].name);
    layer_free(&plain);
    layer_free(&odd);
}
END_TEST

/* The reference in its three widths, as verify and check run it. */
START_TEST(widths)
{
    static const int bits[] = {32, 64, 113};
    for (int i = 0; i < 3; i++) {
        struct layer plain, odd;
        create(&plain);
        create(&odd);
        ck_assert_int_eq(lh_ref_run(bits[i], &config, LH_REF_ALL, plain.trace, NULL, &error), LH_OK);
        set_mode(_i);
        const lh_status status = lh_ref_run(bits[i], &config, LH_REF_ALL, odd.trace, NULL, &error);
        fesetenv(FE_DFL_ENV);
        ck_assert_int_eq(status, LH_OK);
        expect_same(&plain, &odd, modes[_i].name);
        layer_free(&plain);
        layer_free(&odd);
    }
}
END_TEST

/* Conversions round to nearest, and keep subnormal numbers. */
START_TEST(conversions)
{
    double wide[] = {1 + 0x1.8p-24, -1 - 0x1.8p-24, 0x1p-140, 1e300, 0.1};
    float narrow[5], back[5];
    double again[5];
    lh_tensor from = {wide, LH_F64, 1, {5}, {1}}, to = {narrow, LH_F32, 1, {5}, {1}};
    lh_tensor other = {back, LH_F32, 1, {5}, {1}}, wider = {again, LH_F64, 1, {5}, {1}};
    ck_assert_int_eq(lh_tensor_convert(&to, &from, &error), LH_OK);
    set_mode(_i);
    const unsigned before = control();
    const lh_status status = lh_tensor_convert(&other, &from, &error);
    const lh_status widened = lh_tensor_convert(&wider, &other, &error);
    const unsigned after = control();
    fesetenv(FE_DFL_ENV);
    ck_assert_int_eq(status, LH_OK);
    ck_assert_int_eq(widened, LH_OK);
    ck_assert_uint_eq(after, before);
    ck_assert_mem_eq(narrow, back, sizeof narrow);
    ck_assert(again[2] == 0x1p-140 && again[4] == (double)0.1f);
}
END_TEST

/* A judgement is the same text. */
START_TEST(judgements)
{
    struct layer layer;
    char *plain, *odd;
    create(&layer);
    run_all(&layer);
    const lh_status first = lh_check(&config, layer.trace, &plain, &error);
    set_mode(_i);
    const lh_status second = lh_check(&config, layer.trace, &odd, &error);
    fesetenv(FE_DFL_ENV);
    ck_assert_int_eq(first, second);
    ck_assert_ptr_nonnull(plain);
    ck_assert_str_eq(plain, odd);
    lh_text_free(plain);
    lh_text_free(odd);
    layer_free(&layer);
}
END_TEST

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    dtype = dtype_under_test(backend);
    snprintf(name, sizeof name, "mode %s", backend);
    Suite *suite = suite_create(name);
    tcase_add_loop_test(suite_case(suite, "layers"), layers, 0, MODES);
    if (strcmp(backend, lh_backend_name(0)) == 0) {
        tcase_add_loop_test(suite_case(suite, "widths"), widths, 0, MODES);
        tcase_add_loop_test(suite_case(suite, "conversions"), conversions, 0, MODES);
        tcase_add_loop_test(suite_case(suite, "judgements"), judgements, 0, MODES);
    }
    return suite_run(suite);
}
