/* Reading a run's log, a typed line at a time. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/regular.h"
#include "train/journal.h"

enum {
    LONGEST = 1 << 24 /* bytes of a line */
};
static const double most = 1e15;

/* What a field must be, and where it goes. */
enum field_type {
    REAL,     /* finite */
    SECONDS,  /* finite, 0 or more */
    COUNT,    /* an integer from 0 to `most` */
    LAYER,    /* an integer from 0 to MAX_LAYERS - 1 */
    PHASE,    /* the name of one */
    BY_LAYER, /* at most MAX_LAYERS times SECONDS */
    BY_GROUP, /* at most MAX_LAYERS arrays of numbers */
    WORDS,    /* a string */
    FIELD_TYPES
};
static const char *const wishes[FIELD_TYPES] = {
    "a number",
    "seconds",
    "a count",
    "a layer's number",
    "lighthouse or dense",
    "an array of seconds, one a layer",
    "an array of arrays of numbers",
    "a string",
};

struct field {
    unsigned kinds; /* bit 1 << entry_kind for each that has it */
    const char *name;
    enum field_type type;
    size_t offset; /* in journal_entry */
};

#define IN(kind) (1u << ENTRY_##kind)
#define FIELD(kinds, name, type)                                                                             \
    {                                                                                                        \
        kinds, #name, type, offsetof(journal_entry, name)                                                    \
    }
static const struct field fields[] = {
    {IN(PHASE) | IN(STEP), "stage", PHASE, offsetof(journal_entry, phase)},
    FIELD(IN(PHASE), activations, COUNT),
    FIELD(IN(PHASE) | IN(BUDGET), plans, COUNT),
    FIELD(IN(PHASE), weights, COUNT),
    FIELD(IN(STEP) | IN(HELD_OUT), loss, REAL),
    FIELD(IN(STEP), norm, REAL),
    FIELD(IN(STEP), rate, REAL),
    FIELD(IN(STEP), tokens, COUNT),
    FIELD(IN(STEP) | IN(PROBE) | IN(BUDGET) | IN(HELD_OUT), seconds, SECONDS),
    FIELD(IN(STEP), attention, BY_LAYER),
    FIELD(IN(STEP), outside, BY_LAYER),
    FIELD(IN(STEP), rest, SECONDS),
    FIELD(IN(PROBE), layer, LAYER),
    FIELD(IN(BUDGET), tile_topk, BY_GROUP),
    FIELD(IN(BUDGET), spread, BY_GROUP),
    FIELD(IN(CHANGE), setting, WORDS),
    FIELD(IN(CHANGE), from, WORDS),
    FIELD(IN(CHANGE), to, WORDS),
};
static const char *const kinds[ENTRY_KINDS] = {"stage", "step", "probe", "budget", "held-out", "change"};

static bool read_count(const json_t *value, int64_t least_over, int64_t *to)
{
    const double found = json_number_value(value);
    if (!json_is_number(value) || !(found >= 0 && found < (double)least_over) || found != floor(found))
        return false;
    *to = (int64_t)found;
    return true;
}

static bool read_real(const json_t *value, double least, double *to)
{
    *to = json_number_value(value);
    return json_is_number(value) && isfinite(*to) && *to >= least;
}

static bool read_by_layer(const json_t *value, int64_t *layers, double *to)
{
    const size_t n = json_array_size(value);
    if (!json_is_array(value) || n > MAX_LAYERS || (*layers > 0 && (int64_t)n != *layers))
        return false;
    *layers = (int64_t)n;
    for (size_t i = 0; i < n; i++) {
        if (!read_real(json_array_get(value, i), 0, &to[i]))
            return false;
    }
    return true;
}

static bool read_by_group(json_t *value, json_t **to)
{
    size_t l, g;
    json_t *layer, *group;
    *to = value;
    if (!json_is_array(value) || json_array_size(value) > MAX_LAYERS)
        return false;
    json_array_foreach(value, l, layer)
    {
        if (!json_is_array(layer))
            return false;
        json_array_foreach(layer, g, group)
        {
            double number;
            if (!read_real(group, 0, &number) || number > most)
                return false;
        }
    }
    return true;
}

static bool read_field(json_t *value, const struct field *f, journal_entry *e)
{
    void *to = (char *)e + f->offset;
    switch (f->type) {
    case REAL:
        return read_real(value, -most, to);
    case SECONDS:
        return read_real(value, 0, to) && *(double *)to <= most;
    case COUNT:
        return read_count(value, (int64_t)most, to);
    case LAYER:
        return read_count(value, MAX_LAYERS, to);
    case PHASE:
        return phase_parse(json_string_value(value), to, NULL) == LH_OK && *(phase *)to != PHASE_FINISHED;
    case BY_LAYER:
        return read_by_layer(value, &e->layers, to);
    case BY_GROUP:
        return read_by_group(value, to);
    case WORDS:
        *(const char **)to = json_string_value(value);
        return json_is_string(value);
    default:
        return false;
    }
}

static lh_status read_fields(json_t *line, journal_entry *e, lh_error *error)
{
    const char *kind = json_string_value(json_object_get(line, "kind"));
    int at = 0;
    while (at < ENTRY_KINDS && (!kind || strcmp(kind, kinds[at]) != 0))
        at++;
    if (at == ENTRY_KINDS)
        return lh_fail(error, LH_FORMAT,
                       "kind is %.40s, wanted stage, step, probe, budget, held-out or change",
                       kind ? kind : "missing");
    e->kind = (entry_kind)at;
    if (!read_count(json_object_get(line, "step"), (int64_t)most, &e->step))
        return lh_fail(error, LH_FORMAT, "step is missing or out of bounds, wanted a count");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const struct field *f = &fields[i];
        if ((f->kinds & 1u << at) && !read_field(json_object_get(line, f->name), f, e))
            return lh_fail(error, LH_FORMAT, "%s of a %s is missing or out of bounds, wanted %s", f->name,
                           kind, wishes[f->type]);
    }
    return LH_OK;
}

static lh_status read_line(const char *text, size_t size, entry_fn *each, void *user, lh_error *error)
{
    journal_entry e = {.text = text, .size = size};
    json_error_t wrong;
    json_t *line = json_loadb(text, size, JSON_REJECT_DUPLICATES, &wrong);
    if (!line || !json_is_object(line)) {
        const bool memory = !line && json_error_code(&wrong) == json_error_out_of_memory;
        json_decref(line);
        return memory ? lh_fail(error, LH_NO_MEMORY, "memory for the line could not be had")
                      : lh_fail(error, LH_FORMAT, "wanted a JSON object");
    }
    lh_status status = read_fields(line, &e, error);
    if (status == LH_OK)
        status = each(user, &e, error);
    json_decref(line);
    return status;
}

/* A line with its end, or what is left of the file, in *text of *room bytes; 0 bytes at the end, LONGEST + 1 of a longer
 * one: a file without ends of lines is not to take the machine's memory. False when memory could not be had. */
static bool next_line(FILE *file, char **text, size_t *room, size_t *size)
{
    int c = 0;
    *size = 0;
    while (c != '\n' && *size <= LONGEST && (c = getc_unlocked(file)) != EOF) {
        if (*size == *room) {
            const size_t wanted = *room ? 2 * *room : 4096;
            char *more = realloc(*text, wanted);
            if (!more)
                return false;
            *text = more;
            *room = wanted;
        }
        (*text)[(*size)++] = (char)c;
    }
    return true;
}

lh_status journal_read(const char *folder, entry_fn *each, void *user, lh_error *error)
{
    char path[PATH_SIZE], *text = NULL;
    FILE *file;
    size_t room = 0, size;
    lh_status status = folder_path(folder, JOURNAL_NAME, path, error);
    if (status == LH_OK)
        status = lh_stream_regular(path, "the log of a run", INT64_MAX, &file, error);
    if (status != LH_OK)
        return status;
    for (int64_t number = 1; status == LH_OK; number++) {
        lh_error inner = {LH_OK, ""};
        if (!next_line(file, &text, &room, &size)) {
            status = lh_fail(error, LH_NO_MEMORY, "%.300s: memory for a line could not be had", path);
            break;
        }
        if (size <= LONGEST && (size == 0 || text[size - 1] != '\n'))
            break; /* the end, or half a line */
        status = size > LONGEST ? lh_fail(&inner, LH_FORMAT, "is longer than %d bytes", LONGEST)
                                : read_line(text, size, each, user, &inner);
        if (status != LH_OK)
            lh_fail(error, status, "%.200s:%" PRId64 ": %.200s", path, number, inner.text);
    }
    if (ferror(file) && status == LH_OK)
        status = lh_fail(error, LH_IO, "%.300s: cannot be read: %s", path, strerror(errno));
    free(text);
    fclose(file);
    return status;
}
