/* Files that are read are never written, and no two results go to one file: by device and inode, whatever their names. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

enum {
    FILES = 64
};

static struct {
    dev_t device;
    ino_t inode;
} inputs[FILES];
static int input_count;

void cli_input(const char *path)
{
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode) || input_count == FILES)
        return; /* reading it will tell what is wrong */
    inputs[input_count].device = about.st_dev;
    inputs[input_count++].inode = about.st_ino;
}

lh_status cli_check_read(const char *path, lh_error *error)
{
    struct stat about;
    for (int i = 0; i < input_count && stat(path, &about) == 0; i++) {
        if (inputs[i].device == about.st_dev && inputs[i].inode == about.st_ino)
            return lh_fail(error, LH_INVALID, "output is %.300s, which is read, wanted another file", path);
    }
    return LH_OK;
}

/* An output that need not be there yet: its folder and its name in it, and the file itself where it is there. */
static struct output {
    struct stat folder, file;
    bool there;
    char name[256];
} outputs[8];
static int output_count;

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Refuses an output that an earlier one is already, and remembers it. */
static lh_status check_twice(const char *path, const char *parent, lh_error *error)
{
    struct output now = {.there = stat(path, &now.file) == 0};
    const char *slash = strrchr(path, '/');
    snprintf(now.name, sizeof now.name, "%s", slash ? slash + 1 : path);
    if (stat(parent, &now.folder) != 0)
        return LH_OK; /* creating it will tell what is wrong */
    for (int i = 0; i < output_count; i++) {
        const struct output *before = &outputs[i];
        if ((same(&before->folder, &now.folder) && strcmp(before->name, now.name) == 0) ||
            (before->there && now.there && same(&before->file, &now.file)))
            return lh_fail(error, LH_INVALID, "output is %.300s twice, wanted a file for each", path);
    }
    if (output_count < (int)(sizeof outputs / sizeof *outputs))
        outputs[output_count++] = now;
    return LH_OK;
}

lh_status cli_check_output(const char *path, lh_error *error)
{
    struct stat about;
    char folder[4096];
    if (!*path)
        return lh_fail(error, LH_INVALID, "output path is empty, wanted a file");
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode))
        return lh_fail(error, LH_IO, "%.300s is not a regular file, wanted one or none", path);
    if (stat(path, &about) != 0 && lstat(path, &about) == 0)
        return lh_fail(error, LH_IO, "%.300s is a link to nothing, wanted a regular file or none", path);
    const lh_status status = cli_check_read(path, error);
    if (status != LH_OK)
        return status;
    if ((size_t)snprintf(folder, sizeof folder, "%s", path) >= sizeof folder)
        return lh_fail(error, LH_INVALID, "output path has %zu characters, wanted fewer than %zu",
                       strlen(path), sizeof folder);
    const char *parent = dirname(folder);
    if (access(parent, W_OK | X_OK) != 0)
        return lh_fail(error, LH_IO, "%.200s: folder %.200s cannot be written: %s", path, parent,
                       strerror(errno));
    return check_twice(path, parent, error);
}
