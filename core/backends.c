/* The table of backends that were built. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/backend.h"
#include "core/mode.h"
#include "core/backends_built.h" /* made by meson: LH_BUILT_<name>(row) is the row, or NULL */

static const lh_known_backend known_backends[] = {
#define LH_BACKEND(name, folder, needs) {#name, needs, LH_BUILT_##name(&lh_backend_##name)},
#include "core/backends.def"
#undef LH_BACKEND
};
enum {
    KNOWN = sizeof known_backends / sizeof *known_backends
};

bool lh_backend_known(int i, lh_known_backend *known)
{
    if (i < 0 || i >= KNOWN)
        return false;
    *known = known_backends[i];
    return true;
}

/* The i-th that was built. */
static const lh_backend *row(int i)
{
    for (int at = 0; at < KNOWN; at++) {
        if (known_backends[at].row && i-- == 0)
            return known_backends[at].row;
    }
    return NULL;
}

const char *lh_backend_name(int i)
{
    const lh_backend *found = i >= 0 ? row(i) : NULL;
    return found ? found->name : NULL;
}

/* By name; NULL: the first, the reference. */
static lh_status find(const char *name, const lh_backend **found, lh_error *error)
{
    char built[256] = "";
    for (int i = 0; (*found = row(i)); i++) {
        const size_t used = strlen(built);
        if (!name || strcmp((*found)->name, name) == 0)
            return LH_OK;
        snprintf(built + used, sizeof built - used, "%s%s", i ? ", " : "", (*found)->name);
    }
    return lh_fail(error, LH_INVALID, "backend is %.40s, wanted one of those built here: %s", name, built);
}

/* Drivers start their threads when they are first asked, and threads inherit the mode. */
static lh_status count_devices(const lh_backend *backend, int *count, lh_error *error)
{
    lh_mode mode;
    lh_mode_begin(&mode);
    const lh_status status = backend->device_count(count, error);
    lh_mode_end(&mode);
    return status;
}

lh_status lh_backend_find(const char *name, int device, const lh_backend **found, lh_error *error)
{
    lh_status status = find(name, found, error);
    int count = 0;
    if (status == LH_OK)
        status = count_devices(*found, &count, error);
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
    if (!count)
        return lh_fail(error, LH_INVALID, "count is NULL, wanted where to put the number of devices");
    *count = 0;
    const lh_status status = find(backend, &found, error);
    return status == LH_OK ? count_devices(found, count, error) : status;
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
    lh_mode mode;
    if (!info)
        return lh_fail(error, LH_INVALID, "info is NULL, wanted where to put what the device is");
    lh_status status = lh_backend_find(backend, device, &found, error);
    lh_mode_begin(&mode);
    if (status == LH_OK)
        status = found->device_query(device, info, error);
    lh_mode_end(&mode);
    if (status == LH_OK && info->memory == 0)
        info->memory = host_memory();
    return status;
}

lh_status lh_backend_query(const char *backend, lh_capabilities *can, lh_error *error)
{
    const lh_backend *found;
    if (!can)
        return lh_fail(error, LH_INVALID, "can is NULL, wanted where to put what the backend can do");
    const lh_status status = find(backend, &found, error);
    if (status == LH_OK)
        *can = found->can;
    return status;
}
