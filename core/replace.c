/* Files that are replaced whole: a temporary file in the same folder, synced, then renamed. */
#define _GNU_SOURCE /* O_TMPFILE */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
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

/* A file on its way to `target`. It has no name until it is whole, where the file system can (a process that is killed
 * leaves nothing then), else one beside the target; it is locked while it is written. */
struct draft {
    char *name; /* of lh_alloc; in the target's folder */
    size_t size;
    int folder; /* characters of the folder's path in name, with its slash */
    int descriptor;
    bool named;
};

static bool always_named;

void lh_replace_name_drafts(bool always)
{
    always_named = always;
}

/* The next name that a draft may have. */
static void next_name(struct draft *draft)
{
    static _Atomic unsigned serial;
    snprintf(draft->name + draft->folder, draft->size - (size_t)draft->folder, ".lighthouse-%ld-%u",
             (long)getpid(), atomic_fetch_add(&serial, 1));
}

/* ".lighthouse-PID-SERIAL" */
static bool is_draft_name(const char *name)
{
    static const char prefix[] = ".lighthouse-";
    size_t at = sizeof prefix - 1;
    if (strncmp(name, prefix, at) != 0)
        return false;
    for (int part = 0; part < 2; part++) {
        const size_t digits = strspn(name + at, "0123456789");
        at += digits;
        if (digits == 0 || name[at] != (part == 0 ? '-' : '\0'))
            return false;
        at += part == 0;
    }
    return true;
}

/* Drafts of processes that were killed: files of ours by such a name that nobody has locked. */
static void remove_leftovers(const char *folder)
{
    DIR *entries = opendir(folder);
    for (const struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        struct stat about;
        if (!is_draft_name(entry->d_name))
            continue;
        const int file =
            openat(dirfd(entries), entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (file < 0)
            continue;
        if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_uid == geteuid() &&
            flock(file, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(entries), entry->d_name, 0);
        close(file);
    }
    if (entries)
        closedir(entries);
}

/* The folder of the draft: "." where the target is in none. */
static void folder_of(const struct draft *draft, char *folder)
{
    snprintf(folder, draft->size, "%.*s", draft->folder > 0 ? draft->folder : 1,
             draft->folder > 0 ? draft->name : ".");
}

static int open_unnamed(const char *folder, mode_t mode)
{
#ifdef O_TMPFILE
    if (!always_named && access("/proc/self/fd", X_OK) == 0)
        return open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
#endif
    (void)folder;
    (void)mode;
    return -1;
}

/* A draft beside `target`, empty and locked. `mode` is subject to the umask. */
static lh_status create_draft(const char *target, mode_t mode, struct draft *draft, lh_error *error)
{
    const char *slash = strrchr(target, '/');
    char *folder;
    *draft = (struct draft){.folder = slash ? (int)(slash - target) + 1 : 0};
    draft->size = (size_t)draft->folder + 64;
    lh_status status = lh_alloc((void **)&draft->name, 2 * draft->size, "name of a temporary file", error);
    if (status != LH_OK)
        return status;
    folder = draft->name + draft->size;
    memcpy(draft->name, target, (size_t)draft->folder);
    folder_of(draft, folder);
    remove_leftovers(folder);
    draft->descriptor = open_unnamed(folder, mode);
    draft->named = draft->descriptor < 0;
    while (draft->descriptor < 0) {
        struct stat about;
        next_name(draft);
        draft->descriptor = open(draft->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (draft->descriptor < 0 && errno != EEXIST)
            break;
        /* Whoever tidies up may have taken it away before it was locked. */
        if (draft->descriptor >= 0 && flock(draft->descriptor, LOCK_EX | LOCK_NB) == 0 &&
            fstat(draft->descriptor, &about) == 0 && about.st_nlink == 0) {
            close(draft->descriptor);
            draft->descriptor = -1;
        }
    }
    if (draft->descriptor >= 0) {
        flock(draft->descriptor, LOCK_EX | LOCK_NB);
        return LH_OK;
    }
    status = lh_fail(error, LH_IO, "%.300s cannot be created: %s", target, strerror(errno));
    lh_free(draft->name);
    return status;
}

/* Gives a whole draft the target's name. */
static lh_status publish(struct draft *draft, const char *target, lh_error *error)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", draft->descriptor);
    while (!draft->named) {
        next_name(draft);
        draft->named = linkat(AT_FDCWD, self, AT_FDCWD, draft->name, AT_SYMLINK_FOLLOW) == 0;
        if (!draft->named && errno != EEXIST)
            return lh_fail(error, LH_IO, "%.300s cannot be created: %s", target, strerror(errno));
    }
    if (rename(draft->name, target) != 0)
        return lh_fail(error, LH_IO, "%.300s cannot be replaced: %s", target, strerror(errno));
    draft->named = false;
    return LH_OK;
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
    struct draft draft;
    lh_status status = create_draft(target, mode, &draft, error);
    if (status != LH_OK)
        return status;
    status = contents(draft.descriptor, target, context, error);
    if (status == LH_OK && fsync(draft.descriptor) != 0)
        status = lh_fail(error, LH_IO, "%.300s cannot be synced: %s", target, strerror(errno));
    if (status == LH_OK)
        status = publish(&draft, target, error);
    if (draft.named)
        unlink(draft.name);
    if (close(draft.descriptor) != 0 && status == LH_OK)
        status = lh_fail(error, LH_IO, "%.300s cannot be closed: %s", target, strerror(errno));
    if (status == LH_OK)
        status = sync_folder(target, draft.name, error);
    lh_free(draft.name);
    return status;
}

/* Where a file may be put: nothing there yet, or a regular file that we may write. */
static lh_status check_target(const char *target, mode_t *mode, lh_error *error)
{
    struct stat about;
    *mode = 0666;
    if (stat(target, &about) != 0 && lstat(target, &about) == 0)
        return lh_fail(error, LH_IO, "%.300s is a link to nothing, wanted a regular file or none", target);
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
    if (!resolved && errno == ENOMEM)
        return lh_fail(error, LH_NO_MEMORY, "%.300s: memory for its path could not be had", path);
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
