/* Export: the weights under transformers' names, and a folder that is there whole or not at all. */
#include "train/export.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/backend.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "train/folder.h"

enum {
    PARTS = 9,   /* tensors of a layer */
    OUTSIDE = 3, /* embed, norm_out, head */
    NAME = 96
};

static const char weights_name[] = "model.safetensors";

/* The tensors of the file as they are found, with room for what is transposed. */
struct sheet {
    const model *m;
    lh_file_entry *entries;
    char (*names)[NAME];
    real *room;
    int count;
};

/* [rows, columns], or a vector where rows is 0, as it stands */
static void put(struct sheet *sheet, int64_t layer, const char *part, const real *values, int64_t rows,
                int64_t columns)
{
    char *name = sheet->names[sheet->count];
    lh_file_entry *entry = &sheet->entries[sheet->count++];
    if (layer < 0)
        snprintf(name, NAME, "%s.weight", part);
    else
        snprintf(name, NAME, "model.layers.%" PRId64 ".%s.weight", layer, part);
    *entry = (lh_file_entry){name, {(void *)values, REAL_DTYPE, rows > 0 ? 2 : 1, {rows, columns}, {0}}};
    if (rows == 0)
        entry->tensor.shape[0] = columns;
    lh_tensor_pack(&entry->tensor);
}

/* Columns first ... first+n-1 of values: [width, step], as rows: [n, width] */
static void put_turned(struct sheet *sheet, int64_t layer, const char *part, const real *values,
                       int64_t width, int64_t step, int64_t first, int64_t n)
{
    for (int64_t row = 0; row < n; row++)
        for (int64_t column = 0; column < width; column++)
            sheet->room[row * width + column] = values[column * step + first + row];
    put(sheet, layer, part, sheet->room, n, width);
    sheet->room += n * width;
}

static void put_layer(struct sheet *sheet, int64_t layer)
{
    const model_shape *s = &sheet->m->shape;
    const layer_weights w = model_layer(sheet->m, sheet->m->values, layer);
    const int64_t q = s->heads * s->dim, k = s->kv_heads * s->dim, all = q + 2 * k;
    put(sheet, layer, "input_layernorm", w.norm_in, 0, s->width);
    put_turned(sheet, layer, "self_attn.q_proj", w.qkv, s->width, all, 0, q);
    put_turned(sheet, layer, "self_attn.k_proj", w.qkv, s->width, all, q, k);
    put_turned(sheet, layer, "self_attn.v_proj", w.qkv, s->width, all, q + k, k);
    put_turned(sheet, layer, "self_attn.o_proj", w.out, q, s->width, 0, s->width);
    put(sheet, layer, "post_attention_layernorm", w.norm_mid, 0, s->width);
    put_turned(sheet, layer, "mlp.gate_proj", w.gate_up, s->width, 2 * s->hidden, 0, s->hidden);
    put_turned(sheet, layer, "mlp.up_proj", w.gate_up, s->width, 2 * s->hidden, s->hidden, s->hidden);
    put_turned(sheet, layer, "mlp.down_proj", w.down, s->hidden, s->width, 0, s->width);
}

static lh_status write_weights(const model *m, const char *path, lh_error *error)
{
    const model_shape *s = &m->shape;
    const lh_file_meta format = {"format", "pt"};
    const size_t count = (size_t)(PARTS * s->layers + OUTSIDE);
    struct sheet sheet = {.m = m};
    real *room = NULL;
    lh_status status =
        lh_alloc((void **)&sheet.entries, count * sizeof *sheet.entries, "tensors of an export", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&sheet.names, count * sizeof *sheet.names, "names of tensors", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&room, (size_t)m->size * sizeof *room, "weights of an export", error);
    if (status == LH_OK) {
        sheet.room = room;
        put(&sheet, -1, "model.embed_tokens", m->values + m->embed, BYTES, s->width);
        for (int64_t layer = 0; layer < s->layers; layer++)
            put_layer(&sheet, layer);
        put(&sheet, -1, "model.norm", m->values + m->norm_out, 0, s->width);
        if (!s->tied)
            put_turned(&sheet, -1, "lm_head", m->values + m->head, s->width, BYTES, 0, BYTES);
        status = lh_file_write(path, sheet.entries, sheet.count, &format, 1, error);
    }
    lh_free(room);
    lh_free(sheet.names);
    lh_free(sheet.entries);
    return status;
}

static lh_status check_new(const char *folder, lh_error *error)
{
    struct stat about;
    if (lstat(folder, &about) != 0)
        return LH_OK; /* making it will tell what is wrong */
    DIR *open = S_ISDIR(about.st_mode) ? opendir(folder) : NULL;
    bool empty = open != NULL;
    for (const struct dirent *entry; empty && (entry = readdir(open));)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (open)
        closedir(open);
    return empty ? LH_OK
                 : lh_fail(error, LH_INVALID, "export goes to %.300s, wanted a folder that is not there yet",
                           folder);
}

static lh_status write_all(const settings *s, const model *m, const char *draft, lh_error *error)
{
    char path[PATH_SIZE];
    const struct {
        const char *name;
        json_t *document;
    } documents[] = {{"config.json", export_config(s)},
                     {"tokenizer.json", export_tokenizer()},
                     {"tokenizer_config.json", export_tokenizer_config(s)}};
    lh_status status = folder_path(draft, weights_name, path, error);
    if (status == LH_OK)
        status = write_weights(m, path, error);
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        if (status == LH_OK)
            status = folder_path(draft, documents[i].name, path, error);
        if (status == LH_OK)
            status = lh_json_write(path, documents[i].document, error);
        else
            json_decref(documents[i].document);
    }
    return status;
}

/* All that write_all may have begun. */
static void discard(const char *draft)
{
    DIR *open = opendir(draft);
    for (const struct dirent *entry; open && (entry = readdir(open));)
        unlinkat(dirfd(open), entry->d_name, 0);
    if (open)
        closedir(open);
    rmdir(draft);
}

lh_status export_llama(const settings *s, const model *m, const char *folder, lh_error *error)
{
    char draft[PATH_SIZE];
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    const int printed = snprintf(draft, sizeof draft, "%.*s.XXXXXX", (int)(length % PATH_SIZE), folder);
    lh_status status = check_new(folder, error);
    if (status != LH_OK)
        return status;
    if (length == 0 || length >= PATH_SIZE || printed >= PATH_SIZE)
        return lh_fail(error, LH_INVALID, "export goes to '%.300s', wanted the name of a new folder", folder);
    if (!mkdtemp(draft))
        return lh_fail(error, LH_IO, "%.300s: cannot be made: %s", folder, strerror(errno));
    const mode_t mask = umask(0);
    umask(mask);
    status = write_all(s, m, draft, error);
    if (status == LH_OK && (chmod(draft, 0777 & ~mask) != 0 || rename(draft, folder) != 0))
        status = lh_fail(error, LH_IO, "%.300s: cannot be made: %s", folder, strerror(errno));
    if (status != LH_OK)
        discard(draft);
    return status;
}
