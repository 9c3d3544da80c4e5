/*
 * Reading safetensors. Bytes are read into memory of our own rather than mapped: a file that shrinks while it
 * is used is then an error in a line, not a SIGBUS. jansson's allocation functions are left alone, since
 * json_set_alloc_funcs is process-wide and the host program may be using jansson too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "core/backend.h"
#include "core/convert.h"
#include "core/regular.h"
#include "core/safetensors.h"

struct lh_file {
    json_t *header; /* owns the names and the metadata */
    int count;
    const char **names;
    lh_tensor *tensors;
    unsigned char *data;
    /* Of lh_file_open alone: where the bytes stay. */
    int descriptor; /* else -1 */
    int64_t size, *begin;
    char *path;
};

/* Where the bytes come from: a descriptor, or memory when it is -1. */
struct source {
    int descriptor;
    const unsigned char *bytes;
    int64_t size;
    const char *name; /* for errors */
};

/* Bytes [begin,end) of the data hold tensor i. */
struct slot {
    int64_t begin, end;
    int tensor;
};

#if defined __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
static lh_status
malformed(const struct source *source, lh_error *error, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return lh_fail(error, LH_FORMAT, "%.100s: %s", source->name, text);
}

static lh_status fetch(const struct source *source, int64_t offset, void *to, int64_t n, lh_error *error)
{
    if (source->descriptor < 0) {
        if (n > 0)
            memcpy(to, source->bytes + offset, (size_t)n);
        return LH_OK;
    }
    for (int64_t done = 0; done < n;) {
        const ssize_t got =
            pread(source->descriptor, (unsigned char *)to + done, (size_t)(n - done), (off_t)(offset + done));
        if (got < 0 && errno != EINTR)
            return lh_fail(error, LH_IO, "%.300s cannot be read: %s", source->name, strerror(errno));
        if (got == 0)
            return malformed(source, error,
                             "ends at byte %" PRId64 " now, wanted the %" PRId64 " it had when opened",
                             offset + done, source->size);
        done += got > 0 ? got : 0;
    }
    return LH_OK;
}

/* Parses the header into file->header; *data_start is where the data begins. */
static lh_status read_header(lh_file *file, const struct source *source, int64_t *data_start, lh_error *error)
{
    unsigned char prefix[8];
    if (source->size < (int64_t)sizeof prefix)
        return malformed(source, error,
                         "file is %" PRId64 " bytes, wanted at least 8 for the header's length",
                         source->size);
    lh_status status = fetch(source, 0, prefix, sizeof prefix, error);
    if (status != LH_OK)
        return status;
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | prefix[i];
    if (length > LH_FILE_MAX_HEADER)
        return malformed(source, error,
                         "header length is %" PRIu64 ", wanted at most %d: is this safetensors?", length,
                         LH_FILE_MAX_HEADER);
    if ((int64_t)length > source->size - 8)
        return malformed(source, error,
                         "header length is %" PRIu64 ", wanted at most the %" PRId64 " bytes that follow",
                         length, source->size - 8);
    char *text;
    status = lh_alloc((void **)&text, (size_t)length + 1, "safetensors header", error);
    if (status != LH_OK)
        return status;
    status = fetch(source, 8, text, (int64_t)length, error);
    if (status == LH_OK && (length == 0 || text[0] != '{')) {
        status = malformed(source, error, "header starts with %s, wanted a JSON object",
                           length == 0 ? "nothing" : "another character than {");
    } else if (status == LH_OK) {
        json_error_t reason = {0}; /* jansson leaves the code unset when memory runs out */
        file->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &reason);
        if (!file->header && json_error_code(&reason) == json_error_unknown)
            status = lh_fail(error, LH_NO_MEMORY, "JSON of the safetensors header: memory could not be had");
        else if (!file->header)
            status = malformed(source, error, "header is not valid JSON at byte %d: %s", reason.position,
                               reason.text);
    }
    lh_free(text);
    *data_start = 8 + (int64_t)length;
    return status;
}

static lh_status check_metadata(const struct source *source, const json_t *metadata, lh_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return malformed(source, error, "__metadata__ is not an object, wanted strings by name");
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return malformed(source, error, "__metadata__ %.64s is not a string, wanted a string", key);
    }
    return LH_OK;
}

/* A dtype that is none of ours is LH_DTYPE_COUNT: such a tensor may lie in a file as long as nobody reads it. */
static lh_status read_dtype(const struct source *source, const char *name, const json_t *entry,
                            lh_dtype *dtype, lh_error *error)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    if (!text)
        return malformed(source, error, "tensor %.64s has dtype that is not a string, wanted a string", name);
    int known = 0;
    while (known < LH_DTYPE_COUNT && strcmp(text, lh_dtype_name((lh_dtype)known)) != 0)
        known++;
    *dtype = (lh_dtype)known;
    return LH_OK;
}

/* Fills `tensor` and `slot` from one entry of the header. */
static lh_status read_entry(const struct source *source, const char *name, const json_t *entry,
                            int64_t data_size, lh_tensor *tensor, struct slot *slot, lh_error *error)
{
    memset(tensor, 0, sizeof *tensor);
    if (!json_is_object(entry))
        return malformed(source, error, "tensor %.64s is not an object, wanted dtype, shape and data_offsets",
                         name);
    const lh_status status = read_dtype(source, name, entry, &tensor->dtype, error);
    if (status != LH_OK)
        return status;
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return malformed(source, error, "tensor %.64s has no array shape, wanted one", name);
    const int dimensions = (int)json_array_size(shape);
    if (dimensions > LH_MAX_RANK)
        tensor->dtype = LH_DTYPE_COUNT;
    const bool ours = tensor->dtype != LH_DTYPE_COUNT;
    tensor->rank = ours ? dimensions : 0;
    int64_t bytes = ours ? (int64_t)lh_dtype_size(tensor->dtype) : 1, bound = bytes;
    for (int d = 0; d < dimensions; d++) {
        const json_t *size = json_array_get(shape, (size_t)d);
        const int64_t n = (int64_t)json_integer_value(size);
        if (!json_is_integer(size))
            return malformed(source, error,
                             "tensor %.64s has a size in dimension %d that is not an integer, wanted one",
                             name, d);
        if (n < 0)
            return malformed(source, error,
                             "tensor %.64s has size %" PRId64 " in dimension %d, wanted at least 0", name, n,
                             d);
        if (n > 1 && bound > INT64_MAX / n)
            return malformed(source, error,
                             "tensor %.64s has size %" PRId64
                             " in dimension %d, wanted fewer than 2^63 bytes",
                             name, n, d);
        bound *= n > 1 ? n : 1;
        bytes *= n;
        if (ours)
            tensor->shape[d] = n;
    }
    lh_tensor_pack(tensor);
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !json_is_integer(json_array_get(offsets, 0)) || !json_is_integer(json_array_get(offsets, 1)))
        return malformed(source, error, "tensor %.64s has no pair data_offsets of integers, wanted one",
                         name);
    slot->begin = (int64_t)json_integer_value(json_array_get(offsets, 0));
    slot->end = (int64_t)json_integer_value(json_array_get(offsets, 1));
    if (slot->begin < 0 || slot->begin > slot->end || slot->end > data_size)
        return malformed(source, error,
                         "tensor %.64s has data_offsets %" PRId64 " to %" PRId64
                         ", wanted them rising, within the %" PRId64 " bytes of data that the file holds",
                         name, slot->begin, slot->end, data_size);
    if (ours && slot->end - slot->begin != bytes)
        return malformed(source, error,
                         "tensor %.64s has %" PRId64 " bytes of data, wanted %" PRId64
                         " for its dtype and shape",
                         name, slot->end - slot->begin, bytes);
    return LH_OK;
}

static int by_position(const void *left, const void *right)
{
    const struct slot *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

/* The slots, in rising order, must cover the data exactly. */
static lh_status check_cover(const lh_file *file, const struct source *source, struct slot *slots,
                             int64_t data_size, lh_error *error)
{
    qsort(slots, (size_t)file->count, sizeof *slots, by_position);
    int64_t covered = 0;
    for (int i = 0; i < file->count; i++) {
        if (slots[i].begin != covered)
            return malformed(source, error,
                             "tensor %.64s starts at byte %" PRId64 " of the data, wanted %" PRId64 " (%s)",
                             file->names[slots[i].tensor], slots[i].begin, covered,
                             slots[i].begin < covered ? "it overlaps another" : "there is a gap");
        covered = slots[i].end;
    }
    if (covered != data_size)
        return malformed(source, error,
                         "data is %" PRId64 " bytes, wanted %" PRId64 ", where the last tensor ends",
                         data_size, covered);
    return LH_OK;
}

static bool ours(const lh_tensor *tensor)
{
    return tensor->dtype != LH_DTYPE_COUNT;
}

static lh_status load_data(lh_file *file, const struct source *source, int64_t data_start,
                           const struct slot *slots, lh_error *error)
{
    enum {
        ALIGNMENT = 64
    };
    size_t total = 0;
    for (int i = 0; i < file->count; i++)
        total += ours(&file->tensors[slots[i].tensor])
                     ? ((size_t)(slots[i].end - slots[i].begin) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
                     : 0;
    lh_status status = lh_alloc((void **)&file->data, total, "safetensors data", error);
    unsigned char *at = file->data;
    for (int i = 0; i < file->count && status == LH_OK; i++) {
        lh_tensor *tensor = &file->tensors[slots[i].tensor];
        const int64_t bytes = slots[i].end - slots[i].begin;
        if (!ours(tensor))
            continue;
        tensor->data = at;
        status = fetch(source, data_start + slots[i].begin, at, bytes, error);
        lh_little_endian(at, lh_tensor_elements(tensor), lh_dtype_size(tensor->dtype));
        at += ((size_t)bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return status;
}

static lh_status read_tensors(lh_file *file, const struct source *source, int64_t data_start,
                              struct slot *slots, lh_error *error)
{
    const int64_t data_size = source->size - data_start;
    const char *name;
    json_t *entry;
    lh_status status = LH_OK;
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            status = check_metadata(source, entry, error);
        } else {
            const int i = file->count++;
            file->names[i] = name;
            slots[i].tensor = i;
            status = read_entry(source, name, entry, data_size, &file->tensors[i], &slots[i], error);
        }
        if (status != LH_OK)
            return status;
    }
    for (int i = 0; file->begin && i < file->count; i++)
        file->begin[slots[i].tensor] = data_start + slots[i].begin;
    status = check_cover(file, source, slots, data_size, error);
    return status == LH_OK && !file->begin ? load_data(file, source, data_start, slots, error) : status;
}

static lh_status read_source(const struct source *source, bool stay, lh_file **out, lh_error *error)
{
    lh_file *file;
    struct slot *slots = NULL;
    int64_t data_start;
    lh_status status = lh_alloc((void **)&file, sizeof *file, "safetensors file", error);
    if (status != LH_OK)
        return status;
    memset(file, 0, sizeof *file);
    file->descriptor = -1;
    status = read_header(file, source, &data_start, error);
    const size_t most = json_object_size(file->header); /* 0 when the header was refused */
    if (status == LH_OK)
        status = lh_alloc((void **)&file->names, most * sizeof *file->names, "tensor names", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&file->tensors, most * sizeof *file->tensors, "tensor list", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&slots, most * sizeof *slots, "tensor offsets", error);
    if (status == LH_OK && stay)
        status = lh_alloc((void **)&file->begin, (most + 1) * sizeof *file->begin, "tensor offsets", error);
    if (status == LH_OK)
        status = read_tensors(file, source, data_start, slots, error);
    lh_free(slots);
    if (status == LH_OK)
        *out = file;
    else
        lh_file_free(file);
    return status;
}

static lh_status open_file(const char *path, bool stay, lh_file **file, lh_error *error)
{
    *file = NULL;
    struct source source = {.name = path};
    lh_status status = lh_open_regular(path, "a file of tensors", &source.descriptor, &source.size, error);
    if (status != LH_OK)
        return status;
    status = read_source(&source, stay, file, error);
    if (status == LH_OK && stay) {
        const size_t length = strlen(path) + 1;
        (*file)->descriptor = source.descriptor;
        (*file)->size = source.size;
        status = lh_alloc((void **)&(*file)->path, length, "path", error);
        if (status == LH_OK) {
            memcpy((*file)->path, path, length);
            return LH_OK;
        }
        lh_file_free(*file);
        *file = NULL;
        return status;
    }
    close(source.descriptor);
    return status;
}

lh_status lh_file_read(const char *path, lh_file **file, lh_error *error)
{
    return open_file(path, false, file, error);
}

lh_status lh_file_open(const char *path, lh_file **file, lh_error *error)
{
    return open_file(path, true, file, error);
}

lh_status lh_file_fetch(const lh_file *file, int i, int64_t first, int64_t count, void *to, lh_error *error)
{
    const size_t size = lh_dtype_size(file->tensors[i].dtype);
    const struct source source = {.descriptor = file->descriptor, .size = file->size, .name = file->path};
    const lh_status status =
        fetch(&source, file->begin[i] + first * (int64_t)size, to, count * (int64_t)size, error);
    if (status == LH_OK)
        lh_little_endian(to, count, size);
    return status;
}

lh_status lh_file_parse(const void *bytes, size_t size, const char *name, lh_file **file, lh_error *error)
{
    *file = NULL;
    return read_source(&(struct source){-1, bytes, (int64_t)size, name}, false, file, error);
}

void lh_file_free(lh_file *file)
{
    if (!file)
        return;
    json_decref(file->header);
    lh_free(file->names);
    lh_free(file->tensors);
    lh_free(file->data);
    lh_free(file->begin);
    lh_free(file->path);
    if (file->descriptor >= 0)
        close(file->descriptor);
    lh_free(file);
}

int lh_file_count(const lh_file *file)
{
    return file->count;
}

const char *lh_file_name(const lh_file *file, int i)
{
    return file->names[i];
}

const lh_tensor *lh_file_tensor(const lh_file *file, int i)
{
    return &file->tensors[i];
}

const lh_tensor *lh_file_find(const lh_file *file, const char *name)
{
    for (int i = 0; i < file->count; i++) {
        if (strcmp(file->names[i], name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

const char *lh_file_metadata(const lh_file *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

const char *lh_file_kind(const lh_file *file, const char *name, char text[LH_KIND_TEXT])
{
    const json_t *entry = json_object_get(file->header, name);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    int length = snprintf(text, LH_KIND_TEXT, "%.16s [", dtype ? dtype : "?");
    for (size_t d = 0; d < json_array_size(shape) && d < 8; d++)
        length += snprintf(text + length, LH_KIND_TEXT - (size_t)length, d ? ",%" PRId64 : "%" PRId64,
                           (int64_t)json_integer_value(json_array_get(shape, d)));
    snprintf(text + length, LH_KIND_TEXT - (size_t)length, json_array_size(shape) > 8 ? ",...]" : "]");
    return text;
}
