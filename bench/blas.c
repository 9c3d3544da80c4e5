/* Finding OpenBLAS in the dynamic linker's path. */
#include "bench/blas.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <strings.h>

#include "core/base.h"

static const char library_name[] = "libopenblas.so.0";

blas_calls blas;

/* Kernels that know neither AVX2 nor FMA. */
static bool is_old(const char *core)
{
    static const char *const old[] = {
        "Prescott", "Katmai",     "Coppermine", "Northwood",   "Banias", "Atom",         "Core2",
        "Penryn",   "Dunnington", "Nehalem",    "Sandybridge", "Athlon", "Opteron",      "Barcelona",
        "Bobcat",   "Bulldozer",  "Piledriver", "Steamroller", "Nano",   "Opteron_SSE3", "Unknown"};
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
        if (strcasecmp(core, old[i]) == 0)
            return true;
    }
    return false;
}

const char *blas_newer(const char *core, bool avx2, bool avx512)
{
    return !is_old(core) || !avx2 ? NULL : avx512 ? "SkylakeX" : "Haswell";
}

static const char *newer_here(void)
{
#if defined __x86_64__
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return blas_newer(blas.core(), avx2, avx512);
#else
    return NULL;
#endif
}

static lh_status open_library(void **library, lh_error *error)
{
    const struct {
        const char *name;
        void *to;
    } wanted[] = {
        {"cblas_sgemm", &blas.sgemm},
        {"cblas_dgemm", &blas.dgemm},
        {"openblas_set_num_threads", &blas.set_threads},
        {"openblas_get_num_threads", &blas.get_threads},
        {"openblas_get_config", &blas.config},
        {"openblas_get_corename", &blas.core},
    };
    *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
    if (!*library) {
        const char *why = dlerror();
        blas = (blas_calls){.sgemm = NULL};
        return lh_fail(error, LH_UNSUPPORTED, "OpenBLAS is absent (Debian: libopenblas0-openmp): %.300s",
                       why ? why : library_name);
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(*library, wanted[i].name);
        if (!found) {
            dlclose(*library);
            blas = (blas_calls){.sgemm = NULL};
            return lh_fail(error, LH_UNSUPPORTED, "%s has no %s, wanted OpenBLAS", library_name,
                           wanted[i].name);
        }
        *(void **)wanted[i].to = found;
    }
    return LH_OK;
}

lh_status blas_load(lh_error *error)
{
    static const char asked[] = "OPENBLAS_CORETYPE";
    void *library;
    if (blas.config)
        return LH_OK;
    lh_status status = open_library(&library, error);
    const char *newer = status == LH_OK && !getenv(asked) ? newer_here() : NULL;
    if (!newer || setenv(asked, newer, 1) != 0)
        return status;
    /* It chooses while it is loaded, and reads its environment then alone. */
    dlclose(library);
    status = open_library(&library, error);
    unsetenv(asked);
    return status;
}

const char *blas_version(void)
{
    return blas.config ? blas.config() : NULL;
}

const char *blas_core(void)
{
    return blas.config ? blas.core() : "";
}
