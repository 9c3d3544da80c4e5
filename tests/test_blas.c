/*
 * OpenBLAS on a processor that it does not know: loaded again with kernels that the processor can run.
 *
 * The linker puts a dlopen of ours in the place of the real one: it has OpenBLAS take the processor for another, as it does of
 * itself on one that is newer than it.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bench/blas.h"
#include "tests/suite.h"

static const char *mistaken_for; /* at the next loading alone; NULL: OpenBLAS sees for itself */
static void *library;
static int loadings;

void *__real_dlopen(const char *name, int how);
void *__wrap_dlopen(const char *name, int how);
void *__wrap_dlopen(const char *name, int how)
{
    const char *as = mistaken_for;
    loadings++;
    mistaken_for = NULL;
    if (as)
        setenv("OPENBLAS_CORETYPE", as, 1);
    library = __real_dlopen(name, how);
    if (as)
        unsetenv("OPENBLAS_CORETYPE");
    return library;
}

/* As in a new process. */
static void forget(void)
{
    if (library)
        dlclose(library);
    library = NULL;
    blas = (blas_calls){.sgemm = NULL};
    loadings = 0;
}

static bool has_avx2(void)
{
#if defined __x86_64__
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

static void multiplies(void)
{
    const float a[4] = {1, 2, 3, 4}, b[4] = {5, 6, 7, 8}, want[4] = {19, 22, 43, 50};
    float c[4];
    blas.sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 2, 2, 2, 1, a, 2, b, 2, 0, c, 2);
    ck_assert_mem_eq(c, want, sizeof want);
}

START_TEST(old_kernels_are_replaced_on_newer_processors)
{
    ck_assert_str_eq(blas_newer("Prescott", true, true), "SkylakeX");
    ck_assert_str_eq(blas_newer("Prescott", true, false), "Haswell");
    ck_assert_str_eq(blas_newer("Nehalem", true, false), "Haswell");
    ck_assert_ptr_null(blas_newer("Prescott", false, false));
    ck_assert_ptr_null(blas_newer("Prescott", false, true));
    static const char *const fine[] = {"Haswell",        "Zen",        "SkylakeX", "Cooperlake",
                                       "SapphireRapids", "neoversen1", "POWER9",   ""};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        ck_assert_ptr_null(blas_newer(fine[i], true, true));
}
END_TEST

START_TEST(a_processor_that_is_not_known_gets_kernels_it_can_run)
{
    lh_error error = {LH_OK, ""};
    ck_assert_str_eq(blas_core(), "");
    unsetenv("OPENBLAS_CORETYPE");
    mistaken_for = "Prescott";
    ck_assert_msg(blas_load(&error) == LH_OK, "%s", error.text);
    ck_assert_int_eq(loadings, has_avx2() ? 2 : 1);
    ck_assert_msg(!has_avx2() || strcasecmp(blas_core(), "SkylakeX") == 0 ||
                      strcasecmp(blas_core(), "Haswell") == 0,
                  "kernels are for %s", blas_core());
    ck_assert_ptr_null(getenv("OPENBLAS_CORETYPE"));
    multiplies();
    forget();

    unsetenv("OPENBLAS_CORETYPE");
    ck_assert_int_eq(blas_load(&error), LH_OK);
    ck_assert_ptr_null(blas_newer(blas_core(), has_avx2(), false));
    multiplies();
    forget();

    if (!has_avx2())
        return; /* the names below are x86-64's */
    setenv("OPENBLAS_CORETYPE", "Nehalem", 1);
    ck_assert_int_eq(blas_load(&error), LH_OK);
    ck_assert_int_eq(loadings, 1);
    ck_assert_str_eq(blas_core(), "Nehalem");
    ck_assert_str_eq(getenv("OPENBLAS_CORETYPE"), "Nehalem");
    multiplies();
    forget();
    unsetenv("OPENBLAS_CORETYPE");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blas");
    TCase *loading = suite_case(suite, "loading");
    tcase_add_test(loading, old_kernels_are_replaced_on_newer_processors);
    tcase_add_test(loading, a_processor_that_is_not_known_gets_kernels_it_can_run);
    return suite_run(suite);
}
