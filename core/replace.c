/* Files that are replaced whole: a temporary file in the same folder, synced, then renamed. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base.h"
#include "core/replace.h"

lh_status lh_write_all(int descriptor, const void *bytes, size_t size, const char *path, lh_error *error)
{
    for (size_t done = 0; done < size;) {
        const ssize_t put = write(descriptor, (const unsigned char *)bytes + done, size - done);
        if (put < 0 && errno != EINTR)
            return lh_fail(error, LH_IO, "%.300s cannot be written: %s", path, strerror(errno));
        done += put > 0 ? (size_t)put : 0;
    }
    return LH_OK;
}

/* Creates a new file beside `target`; *name is its name, to be freed. `mode` is subject to the umask. */
static lh_status create_temporary(const char *target, mode_t mode, char **name, int *descriptor,
                                  lh_error *error)
{
    static _Atomic unsigned serial;
    const char *slash = strrchr(target, '/');
    const int folder = slash ? (int)(slash - target) + 1 : 0;
    const size_t size = (size_t)folder + 64;
    const lh_status status = lh_alloc((void **)name, size, "name of a temporary file", error);
    if (status != LH_OK)
        return status;
    do {
        snprintf(*name, size, "%.*s.lighthouse-%ld-%u", folder, target, (long)getpid(),
                 atomic_fetch_add(&serial, 1));
        *descriptor = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    } while (*descriptor < 0 && errno == EEXIST);
    if (*descriptor >= 0)
        return LH_OK;
    lh_fail(error, LH_IO, "%.300s cannot be created: %s", target, strerror(errno));
    lh_free(*name);
    *name = NULL;
    return LH_IO;
}

/* Makes a rename in the folder of `target` last. Folders that cannot be opened or synced (some file systems)
 * are as durable as they get. */
static lh_status sync_folder(const char *target, char *scratch, lh_error *error)
{
    const char *slash = strrchr(target, '/');
    if (slash)
        snprintf(scratch, (size_t)(slash - target) + 2, "%s", target);
    const int folder = open(slash ? scratch : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return LH_OK;
    lh_status status = LH_OK;
    if (fsync(folder) != 0 && errno == EIO)
        status = lh_fail(error, LH_IO, "%.300s is written, but its folder cannot be synced: %s", target,
                         strerror(errno));
    close(folder);
    return status;
}

/* Writes everything beside `target` and renames it there. */
static lh_status replace(const char *target, mode_t mode, lh_contents_fn *contents, const void *context,
                         lh_error *error)
{
    char *name;
    int descriptor;
    lh_status status = create_temporary(target, mode, &name, &descriptor, error);
    if (status != LH_OK)
        return status;
    status = contents(descriptor, target, context, error);
    if (status == LH_OK && fsync(descriptor) != 0)
        status = lh_fail(error, LH_IO, "%.300s cannot be synced: %s", target, strerror(errno));
    if (close(descriptor) != 0 && status == LH_OK)
        status = lh_fail(error, LH_IO, "%.300s cannot be closed: %s", target, strerror(errno));
    if (status == LH_OK && rename(name, target) != 0)
        status = lh_fail(error, LH_IO, "%.300s cannot be replaced: %s", target, strerror(errno));
    if (status != LH_OK)
        unlink(name);
    else
        status = sync_folder(target, name, error);
    lh_free(name);
    return status;
}

/* Where a file may be put: nothing there yet, or a regular file that we may write. */
static lh_status check_target(const char *target, mode_t *mode, lh_error *error)
{
    struct stat about;
    *mode = 0666;
    if (stat(target, &about) != 0)
        return LH_OK; /* creating the temporary file will tell what is wrong, if anything is */
    if (!S_ISREG(about.st_mode))
        return lh_fail(error, LH_IO, "%.300s is not a regular file, wanted one or none", target);
    if (faccessat(AT_FDCWD, target, W_OK, AT_EACCESS) != 0)
        return lh_fail(error, LH_IO, "%.300s cannot be written: %s", target, strerror(errno));
    *mode = about.st_mode & 0777;
    return LH_OK;
}

lh_status lh_replace_file(const char *path, lh_contents_fn *contents, const void *context, lh_error *error)
{
    mode_t mode;
    char *resolved = realpath(path, NULL); /* a symbolic link stays one: what it points to is replaced */
    const char *target = resolved ? resolved : path;
    lh_status status = check_target(target, &mode, error);
    if (status == LH_OK)
        status = replace(target, mode, contents, context, error);
    free(resolved);
    return status;
}

struct text {
    const char *bytes;
    size_t size;
};

static lh_status write_text(int descriptor, const char *path, const void *context, lh_error *error)
{
    const struct text *text = context;
    return lh_write_all(descriptor, text->bytes, text->size, path, error);
}

lh_status lh_replace_text(const char *path, const char *text, size_t size, lh_error *error)
{
    return lh_replace_file(path, write_text, &(struct text){text, size}, error);
}
