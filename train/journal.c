/* Writing the JSONL log of a run. */
#include "train/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/base.h"
#include "core/replace.h"

lh_status journal_write(journal *j, json_t *line, lh_error *error)
{
    if (!j->file) {
        json_decref(line);
        return LH_OK;
    }
    const bool written = line && json_dumpf(line, j->file, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 &&
                         fputc('\n', j->file) != EOF && fflush(j->file) == 0;
    const int reason = errno;
    json_decref(line);
    return written ? LH_OK : lh_fail(error, LH_IO, "%s: cannot be written: %s", j->path, strerror(reason));
}

/* The lines of an earlier run that are not past `step`, on their way to a new file. */
struct kept {
    const char *folder, *path;
    int64_t step;
    int descriptor;
};

static lh_status keep_line(void *user, const journal_entry *e, lh_error *error)
{
    const struct kept *k = user;
    /* What was changed by a resume from this very checkpoint is not in it. */
    const bool past = e->step > k->step || (e->kind == ENTRY_CHANGE && e->step == k->step);
    return past ? LH_OK : lh_write_all(k->descriptor, e->text, e->size, k->path, error);
}

static lh_status write_kept(int descriptor, const char *path, const void *context, lh_error *error)
{
    struct kept k = *(const struct kept *)context;
    k.descriptor = descriptor;
    return k.step > 0 && access(path, F_OK) == 0 ? journal_read(k.folder, keep_line, &k, error) : LH_OK;
}

lh_status journal_open(const char *folder, int64_t step, journal *j, lh_error *error)
{
    const struct kept k = {.folder = folder, .step = step, .path = j->path};
    lh_status status = folder_path(folder, JOURNAL_NAME, j->path, error);
    if (status == LH_OK)
        status = lh_replace_file(j->path, write_kept, &k, error);
    if (status != LH_OK)
        return status;
    const int descriptor = open(j->path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC);
    j->file = descriptor >= 0 ? fdopen(descriptor, "a") : NULL;
    if (j->file)
        return LH_OK;
    const int reason = errno;
    if (descriptor >= 0)
        close(descriptor);
    return lh_fail(error, LH_IO, "%s: cannot be written: %s", j->path, strerror(reason));
}

void journal_close(journal *j)
{
    if (j->file)
        fclose(j->file);
    j->file = NULL;
}
