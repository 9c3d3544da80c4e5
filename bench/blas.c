/* Finding OpenBLAS in the dynamic linker's path. */
#include "bench/blas.h"

#include <dlfcn.h>

#include "core/base.h"

static const char library_name[] = "libopenblas.so.0";

blas_calls blas;

lh_status blas_load(lh_error *error)
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
    };
    if (blas.config)
        return LH_OK;
    void *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        return lh_fail(error, LH_UNSUPPORTED, "OpenBLAS is absent (Debian: libopenblas0-openmp): %.300s",
                       why ? why : library_name);
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library, wanted[i].name);
        if (!found) {
            dlclose(library);
            blas = (blas_calls){.sgemm = NULL};
            return lh_fail(error, LH_UNSUPPORTED, "%s has no %s, wanted OpenBLAS", library_name,
                           wanted[i].name);
        }
        *(void **)wanted[i].to = found;
    }
    return LH_OK;
}

const char *blas_version(void)
{
    return blas.config ? blas.config() : NULL;
}
