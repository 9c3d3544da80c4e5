/* The table of backends that were built. */
#include <string.h>
#include <unistd.h>

#include "core/backend.h"

static const lh_backend *const backends[] = {
    &lh_backend_ref,
#ifdef LH_WITH_OPENMP
    &lh_backend_openmp,
#endif
#ifdef LH_WITH_OPENCL
    &lh_backend_opencl,
#endif
#ifdef LH_WITH_CUDA
    &lh_backend_cuda,
#endif
};
enum {
    BACKENDS = sizeof backends / sizeof *backends
};

const char *lh_backend_name(int i)
{
    return i >= 0 && i < BACKENDS ? backends[i]->name : NULL;
}

static lh_status find(const char *name, const lh_backend **found, lh_error *error)
{
    if (!name)
        name = backends[0]->name;
    char built[64] = "";
    for (int i = 0; i < BACKENDS; i++) {
        if (strcmp(backends[i]->name, name) == 0) {
            *found = backends[i];
            return LH_OK;
        }
        strcat(built, i ? ", " : "");
        strcat(built, backends[i]->name);
    }
    return lh_fail(error, LH_INVALID, "backend is %.40s, wanted one of those built here: %s", name, built);
}

lh_status lh_backend_find(const char *name, int device, const lh_backend **found, lh_error *error)
{
    lh_status status = find(name, found, error);
    int count = 0;
    if (status == LH_OK)
        status = (*found)->device_count(&count, error);
    if (status != LH_OK)
        return status;
    if (device < 0 || device >= count)
        return lh_fail(error, LH_INVALID, "device is %d, wanted 0 to %d (backend %s)", device, count - 1,
                       (*found)->name);
    return LH_OK;
}

lh_status lh_device_count(const char *backend, int *count, lh_error *error)
{
    const lh_backend *found;
    *count = 0;
    const lh_status status = find(backend, &found, error);
    return status == LH_OK ? found->device_count(count, error) : status;
}

/* What the CPU backends work in. */
static uint64_t host_memory(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

lh_status lh_device_query(const char *backend, int device, lh_device_info *info, lh_error *error)
{
    const lh_backend *found;
    lh_status status = lh_backend_find(backend, device, &found, error);
    if (status == LH_OK)
        status = found->device_query(device, info, error);
    if (status == LH_OK && info->memory == 0)
        info->memory = host_memory();
    return status;
}
