/* Writing safetensors: the header first, then the data, then the name, so that a reader never sees a part. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "core/backend.h"
#include "core/convert.h"
#include "core/replace.h"
#include "core/safetensors.h"

static lh_status no_json_memory(lh_error *error)
{
    return lh_fail(error, LH_NO_MEMORY, "JSON of the safetensors header: memory could not be had");
}

/* A JSON string, which must be UTF-8. */
static lh_status make_string(const char *text, const char *what, json_t **string, lh_error *error)
{
    json_error_t reason = {0};
    *string = json_pack_ex(&reason, 0, "s", text);
    if (*string)
        return LH_OK;
    if (json_error_code(&reason) != json_error_invalid_utf8 &&
        json_error_code(&reason) != json_error_null_value)
        return no_json_memory(error);
    return lh_fail(error, LH_INVALID, "%s is %s, wanted a string in UTF-8", what,
                   text ? "not UTF-8" : "NULL");
}

/* object[key] = value, taking value over also on error. */
static lh_status set(json_t *object, const char *key, json_t *value, lh_error *error)
{
    json_t *name = NULL;
    lh_status status = value ? make_string(key, "a name in the header", &name, error) : no_json_memory(error);
    json_decref(name);
    if (status == LH_OK && json_object_get(object, key))
        status = lh_fail(error, LH_INVALID, "%.64s is there twice, wanted each name once", key);
    if (status != LH_OK)
        json_decref(value);
    else if (json_object_set_new(object, key, value) != 0)
        status = no_json_memory(error);
    return status;
}

static lh_status set_string(json_t *object, const char *key, const char *text, lh_error *error)
{
    json_t *value;
    const lh_status status = make_string(text, key ? key : "a value", &value, error);
    return status == LH_OK ? set(object, key, value, error) : status;
}

/* object[key] = [values...] */
static lh_status set_integers(json_t *object, const char *key, const int64_t *values, int count,
                              lh_error *error)
{
    json_t *array = json_array();
    for (int i = 0; i < count && array; i++) {
        if (json_array_append_new(array, json_integer(values[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return set(object, key, array, error);
}

static lh_status add_entry(json_t *header, const lh_file_entry *entry, int64_t begin, int64_t end,
                           lh_error *error)
{
    json_t *object = json_object();
    if (!object)
        return no_json_memory(error);
    lh_status status = set_string(object, "dtype", lh_dtype_name(entry->tensor.dtype), error);
    if (status == LH_OK)
        status = set_integers(object, "shape", entry->tensor.shape, entry->tensor.rank, error);
    if (status == LH_OK)
        status = set_integers(object, "data_offsets", (int64_t[]){begin, end}, 2, error);
    if (status == LH_OK)
        return set(header, entry->name, object, error);
    json_decref(object);
    return status;
}

/* Widest elements first, so that every tensor is aligned for whoever maps the file; then in the order given.
 */
static void sort_entries(const lh_file_entry *entries, int count, int *order)
{
    int at = 0;
    for (size_t size = 8; size >= 2; size /= 2) {
        for (int i = 0; i < count; i++) {
            if (lh_dtype_size(entries[i].tensor.dtype) == size)
                order[at++] = i;
        }
    }
}

static int64_t bytes_of(const lh_tensor *tensor)
{
    return lh_tensor_elements(tensor) * (int64_t)lh_dtype_size(tensor->dtype);
}

static lh_status fill_header(json_t *header, const lh_file_entry *entries, const int *order, int count,
                             const lh_file_meta *meta, int metas, lh_error *error)
{
    lh_status status = LH_OK;
    if (metas > 0) {
        json_t *metadata = json_object();
        status = set(header, "__metadata__", metadata, error);
        for (int i = 0; i < metas && status == LH_OK; i++)
            status = set_string(metadata, meta[i].key, meta[i].value, error);
    }
    int64_t offset = 0;
    for (int i = 0; i < count && status == LH_OK; i++) {
        const lh_file_entry *entry = &entries[order[i]];
        const int64_t bytes = bytes_of(&entry->tensor);
        if (bytes > INT64_MAX - offset)
            return lh_fail(error, LH_INVALID, "tensor %.64s ends past 2^63 bytes, wanted a smaller file",
                           entry->name);
        status = add_entry(header, entry, offset, offset + bytes, error);
        offset += bytes;
    }
    return status;
}

/* The header's bytes with its length in front, padded with spaces to a multiple of 8. */
static lh_status make_header(const lh_file_entry *entries, const int *order, int count,
                             const lh_file_meta *meta, int metas, unsigned char **bytes, size_t *size,
                             lh_error *error)
{
    const size_t flags = JSON_COMPACT;
    *bytes = NULL;
    json_t *header = json_object();
    if (!header)
        return no_json_memory(error);
    lh_status status = fill_header(header, entries, order, count, meta, metas, error);
    const size_t length = status == LH_OK ? json_dumpb(header, NULL, 0, flags) : 0;
    const size_t padded = (length + 7) / 8 * 8;
    if (status == LH_OK && length == 0)
        status = no_json_memory(error);
    if (status == LH_OK && padded > LH_FILE_MAX_HEADER)
        status =
            lh_fail(error, LH_INVALID, "header length is %zu, wanted at most %d", padded, LH_FILE_MAX_HEADER);
    if (status == LH_OK)
        status = lh_alloc((void **)bytes, 8 + padded, "safetensors header", error);
    if (status == LH_OK) {
        memset(*bytes + 8, ' ', padded);
        for (int i = 0; i < 8; i++)
            (*bytes)[i] = (unsigned char)((uint64_t)padded >> (8 * i));
        if (json_dumpb(header, (char *)*bytes + 8, padded, flags) != length)
            status = no_json_memory(error);
        *size = 8 + padded;
    }
    json_decref(header);
    return status;
}

static bool big_endian(void)
{
    uint16_t one = 1;
    lh_little_endian(&one, 1, sizeof one);
    return one != 1;
}

static lh_status write_tensor(int descriptor, const lh_tensor *tensor, const char *path, lh_error *error)
{
    const size_t bytes = (size_t)bytes_of(tensor);
    if (lh_tensor_contiguous(tensor) && !big_endian())
        return lh_write_all(descriptor, tensor->data, bytes, path, error);
    lh_tensor packed = *tensor;
    lh_tensor_pack(&packed);
    lh_status status = lh_alloc(&packed.data, bytes, "contiguous copy of a tensor", error);
    if (status == LH_OK)
        status = lh_tensor_convert(&packed, tensor, error);
    if (status == LH_OK) {
        lh_little_endian(packed.data, lh_tensor_elements(tensor), lh_dtype_size(tensor->dtype));
        status = lh_write_all(descriptor, packed.data, bytes, path, error);
    }
    lh_free(packed.data);
    return status;
}

static lh_status check_arguments(const lh_file_entry *entries, int count, lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < count && status == LH_OK; i++) {
        if (!entries[i].name)
            status = lh_fail(error, LH_INVALID, "name of tensor %d is NULL, wanted a string", i);
        else if (strcmp(entries[i].name, "__metadata__") == 0)
            status = lh_fail(error, LH_INVALID, "name of tensor %d is __metadata__, wanted another", i);
        else
            status = lh_tensor_check(&entries[i].tensor, entries[i].name, error);
    }
    return status;
}

/* What goes into the file, in order. */
struct contents {
    const unsigned char *header;
    size_t header_size;
    const lh_file_entry *entries;
    const int *order;
    int count;
};

static lh_status write_contents(int descriptor, const char *path, const void *context, lh_error *error)
{
    const struct contents *c = context;
    lh_status status = lh_write_all(descriptor, c->header, c->header_size, path, error);
    for (int i = 0; i < c->count && status == LH_OK; i++)
        status = write_tensor(descriptor, &c->entries[c->order[i]].tensor, path, error);
    return status;
}

lh_status lh_file_write(const char *path, const lh_file_entry *entries, int count, const lh_file_meta *meta,
                        int metas, lh_error *error)
{
    int *order = NULL;
    unsigned char *header = NULL;
    size_t header_size = 0;
    lh_status status = check_arguments(entries, count, error);
    if (status == LH_OK)
        status = lh_alloc((void **)&order, (size_t)count * sizeof *order, "tensor order", error);
    if (status == LH_OK) {
        sort_entries(entries, count, order);
        status = make_header(entries, order, count, meta, metas, &header, &header_size, error);
    }
    if (status == LH_OK) {
        const struct contents contents = {header, header_size, entries, order, count};
        status = lh_replace_file(path, write_contents, &contents, error);
    }
    lh_free(header);
    lh_free(order);
    return status;
}

void lh_config_metadata(const lh_config *config, char text[LH_CONFIG_METAS][24], lh_file_meta *meta)
{
    const struct {
        const char *key;
        int64_t value;
    } members[LH_CONFIG_METAS] = {
        {"levels", config->levels}, {"pool", config->pool},           {"kv_heads", config->kv_heads},
        {"topk", config->topk},     {"tile_topk", config->tile_topk},
    };
    for (int i = 0; i < LH_CONFIG_METAS; i++) {
        snprintf(text[i], sizeof text[i], "%" PRId64, members[i].value);
        meta[i] = (lh_file_meta){members[i].key, text[i]};
    }
}
