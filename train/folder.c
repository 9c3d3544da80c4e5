/* A run's folder: paths, lock, leftovers. */
#include "train/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base.h"

lh_status folder_path(const char *folder, const char *name, char path[PATH_SIZE], lh_error *error)
{
    const int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
    if (length >= 0 && length < PATH_SIZE)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "%.200s... has %zu characters, wanted a folder of at most %zu", folder,
                   strlen(folder), PATH_SIZE - 2 - strlen(name));
}

/* The folders above `path`, and itself. */
static lh_status make(char *path, lh_error *error)
{
    struct stat about;
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const int made = mkdir(path, 0777);
        const int reason = errno;
        *slash = '/';
        if (made != 0 && reason != EEXIST)
            return lh_fail(error, LH_IO, "%.300s: cannot be made: %s", path, strerror(reason));
    }
    if (mkdir(path, 0777) != 0 && (errno != EEXIST || stat(path, &about) != 0 || !S_ISDIR(about.st_mode)))
        return lh_fail(error, LH_IO, "%.300s: cannot be made: %s", path, strerror(errno));
    return LH_OK;
}

/* Whose lock it is, as he wrote into it. */
static lh_status in_use(const char *folder, int lock, lh_error *error)
{
    char owner[128] = "another process";
    const ssize_t n = pread(lock, owner, sizeof owner - 1, 0);
    if (n > 0)
        owner[n] = '\0';
    owner[strcspn(owner, "\n")] = '\0';
    return lh_fail(error, LH_INVALID, "%.300s is in use by %s, wanted a folder of its own", folder, owner);
}

lh_status folder_lock(const char *folder, int *lock, lh_error *error)
{
    char path[PATH_SIZE], host[64] = "";
    struct stat about;
    *lock = -1;
    lh_status status = folder_path(folder, LOCK_NAME, path, error);
    if (status != LH_OK)
        return status;
    path[strlen(path) - strlen("/" LOCK_NAME)] = '\0';
    status = make(path, error);
    if (status == LH_OK)
        status = folder_path(folder, LOCK_NAME, path, error);
    if (status != LH_OK)
        return status;
    const int descriptor = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (descriptor < 0)
        return lh_fail(error, LH_IO, "%.300s: cannot be written: %s", path, strerror(errno));
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode))
        status = lh_fail(error, LH_IO, "%.300s is not a regular file, wanted one or none", path);
    else if (flock(descriptor, LOCK_EX | LOCK_NB) != 0)
        status = errno == EWOULDBLOCK
                     ? in_use(folder, descriptor, error)
                     : lh_fail(error, LH_IO, "%.300s: cannot be locked: %s", path, strerror(errno));
    if (status != LH_OK) {
        close(descriptor);
        return status;
    }
    gethostname(host, sizeof host - 1);
    if (ftruncate(descriptor, 0) == 0)
        dprintf(descriptor, "process %ld on %s\n", (long)getpid(), host);
    *lock = descriptor;
    return LH_OK;
}

lh_status folder_tidy(const char *folder, lh_error *error)
{
    static const char leftover[] = ".lighthouse-";
    DIR *open = opendir(folder);
    if (!open)
        return lh_fail(error, LH_IO, "%.300s: cannot be read: %s", folder, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(open));) {
        if (strncmp(entry->d_name, leftover, sizeof leftover - 1) == 0)
            unlinkat(dirfd(open), entry->d_name, 0);
    }
    closedir(open);
    return LH_OK;
}
