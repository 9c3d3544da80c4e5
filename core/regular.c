/* Opening regular files. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base.h"
#include "core/regular.h"

lh_status lh_open_regular(const char *path, const char *wanted, int *descriptor, int64_t *size,
                          lh_error *error)
{
    struct stat about;
    lh_status status = LH_OK;
    *descriptor = -1;
    if (!*path)
        return lh_fail(error, LH_IO, "path is empty, wanted %s", wanted);
    /* O_NONBLOCK: opening a FIFO that nobody writes to must not hang. */
    *descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*descriptor < 0)
        return lh_fail(error, LH_IO, "%.300s cannot be opened: %s", path, strerror(errno));
    if (fstat(*descriptor, &about) != 0)
        status = lh_fail(error, LH_IO, "%.300s cannot be examined: %s", path, strerror(errno));
    else if (!S_ISREG(about.st_mode))
        status = lh_fail(error, LH_IO, "%.300s is not a regular file, wanted %s", path, wanted);
    if (status != LH_OK) {
        close(*descriptor);
        *descriptor = -1;
    } else if (size) {
        *size = (int64_t)about.st_size;
    }
    return status;
}

lh_status lh_stream_regular(const char *path, const char *wanted, int64_t most, FILE **file, lh_error *error)
{
    int descriptor;
    int64_t size = 0;
    *file = NULL;
    const lh_status status = lh_open_regular(path, wanted, &descriptor, &size, error);
    if (status != LH_OK)
        return status;
    if (size > most) {
        close(descriptor);
        return lh_fail(error, LH_FORMAT, "%.300s has %" PRId64 " bytes, wanted %s, at most %" PRId64, path,
                       size, wanted, most);
    }
    *file = fdopen(descriptor, "r");
    if (*file)
        return LH_OK;
    close(descriptor);
    return lh_fail(error, LH_NO_MEMORY, "%.300s: memory to read it could not be had", path);
}
