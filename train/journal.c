/* The JSONL log of a run. */
#include "train/journal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/backend.h"

lh_status journal_read(const char *path, json_t **lines, lh_error *error)
{
    FILE *file = fopen(path, "r");
    *lines = json_array();
    if (!file || !*lines) {
        const int reason = errno;
        json_decref(*lines);
        if (file)
            fclose(file);
        return lh_fail(error, LH_IO, "%s: cannot be read: %s", path, strerror(reason));
    }
    json_t *line;
    while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)))
        json_array_append_new(*lines, line);
    fclose(file);
    return LH_OK;
}

lh_status journal_write(journal *j, json_t *line, lh_error *error)
{
    const bool written = line && json_dumpf(line, j->file, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 &&
                         fputc('\n', j->file) != EOF && fflush(j->file) == 0;
    const int reason = errno;
    json_decref(line);
    return written ? LH_OK : lh_fail(error, LH_IO, "%s: cannot be written: %s", j->path, strerror(reason));
}

/* Rewrites the lines of an earlier run that are not past `step`. */
static lh_status keep_until(journal *j, const char *path, int64_t step, lh_error *error)
{
    json_t *lines, *line;
    size_t i;
    lh_status status = journal_read(path, &lines, NULL);
    if (status != LH_OK)
        return LH_OK; /* no earlier log: nothing to keep */
    json_array_foreach(lines, i, line)
    {
        if (status == LH_OK && json_integer_value(json_object_get(line, "step")) <= step)
            status = journal_write(j, json_incref(line), error);
    }
    json_decref(lines);
    return status;
}

lh_status journal_open(const char *path, int64_t step, journal *j, lh_error *error)
{
    snprintf(j->path, sizeof j->path, "%s.new", path);
    j->file = fopen(j->path, "w");
    if (!j->file)
        return lh_fail(error, LH_IO, "%s: cannot be written: %s", j->path, strerror(errno));
    lh_status status = step > 0 ? keep_until(j, path, step, error) : LH_OK;
    if (status == LH_OK && rename(j->path, path) != 0)
        status = lh_fail(error, LH_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (status != LH_OK) {
        unlink(j->path);
        journal_close(j);
        return status;
    }
    snprintf(j->path, sizeof j->path, "%s", path);
    return LH_OK;
}

void journal_close(journal *j)
{
    if (j->file)
        fclose(j->file);
    j->file = NULL;
}
