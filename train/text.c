/* Reading text from files and folders, and drawing windows of it by counter. */
#include "train/text.h"

#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/random.h"

/* Streams of the counter-based generator; the weights use the low numbers (one a parameter). */
enum {
    STREAM_TEXT = 1 << 20,
    STREAM_KIND,
    STREAM_FILES
};

/* Two growing buffers: what is learnt from and what is held out. */
struct reader {
    uint8_t *part[2];
    int64_t size[2], capacity[2];
};

static lh_status append(struct reader *r, int part, const uint8_t *bytes, int64_t n, lh_error *error)
{
    if (r->size[part] + n > r->capacity[part]) {
        const int64_t capacity = 2 * (r->size[part] + n);
        void *bigger;
        const lh_status status = lh_alloc(&bigger, (size_t)capacity, "text", error);
        if (status != LH_OK)
            return status;
        if (r->size[part] > 0)
            memcpy(bigger, r->part[part], (size_t)r->size[part]);
        lh_free(r->part[part]);
        r->part[part] = bigger;
        r->capacity[part] = capacity;
    }
    if (n > 0)
        memcpy(r->part[part] + r->size[part], bytes, (size_t)n);
    r->size[part] += n;
    return LH_OK;
}

/* Appends a whole file to a part; one with a NUL byte leaves the part as it was. */
static lh_status append_file(struct reader *r, int part, const char *path, bool *is_text, lh_error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return lh_fail(error, LH_IO, "%s: cannot be opened: %s", path, strerror(errno));
    const int64_t before = r->size[part];
    lh_status status = LH_OK;
    uint8_t piece[65536];
    size_t n;
    *is_text = true;
    while (status == LH_OK && *is_text && (n = fread(piece, 1, sizeof piece, file)) > 0) {
        *is_text = !memchr(piece, 0, n);
        status = append(r, part, piece, (int64_t)n, error);
    }
    if (ferror(file) && status == LH_OK)
        status = lh_fail(error, LH_IO, "%s: cannot be read: %s", path, strerror(errno));
    fclose(file);
    if (!*is_text || status != LH_OK)
        r->size[part] = before;
    return status;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Files that cannot be read, or are no text, are passed over. */
static lh_status append_folder(struct reader *r, const char *path, double held_out, uint64_t seed,
                               lh_error *error)
{
    char *const roots[] = {(char *)path, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    if (!tree)
        return lh_fail(error, LH_IO, "%s: cannot be walked: %s", path, strerror(errno));
    lh_status status = LH_OK;
    uint64_t number = 0;
    for (FTSENT *entry; status == LH_OK && (entry = fts_read(tree));) {
        if (entry->fts_info != FTS_F)
            continue;
        bool is_text;
        const int part = lh_random_uniform(seed, STREAM_FILES, number++) < held_out;
        status = append_file(r, part, entry->fts_accpath, &is_text, error);
        if (status == LH_IO)
            status = LH_OK;
    }
    fts_close(tree);
    return status;
}

static bool is_folder(const char *path)
{
    char *const roots[] = {(char *)path, NULL};
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    FTSENT *entry = tree ? fts_read(tree) : NULL;
    const bool folder = entry && entry->fts_info == FTS_D;
    if (tree)
        fts_close(tree);
    return folder;
}

lh_status text_read(const char *path, double held_out, uint64_t seed, int64_t least, corpus *t,
                    lh_error *error)
{
    struct reader r = {{NULL, NULL}, {0, 0}, {0, 0}};
    const bool folder = is_folder(path);
    bool is_text = true;
    memset(t, 0, sizeof *t);
    lh_status status = path[0] == '\0'
                           ? lh_fail(error, LH_INVALID, "text is missing, wanted a file or folder")
                       : folder ? append_folder(&r, path, held_out, seed, error)
                                : append_file(&r, 0, path, &is_text, error);
    if (status == LH_OK && !is_text)
        status = lh_fail(error, LH_INVALID, "text %s has a NUL byte, wanted text", path);
    t->train = r.size[0];
    if (status == LH_OK && !folder)
        t->train -= (int64_t)((double)r.size[0] * held_out);
    if (status == LH_OK)
        status = append(&r, 0, r.part[1], r.size[1], error);
    t->bytes = r.part[0];
    t->size = r.size[0];
    lh_free(r.part[1]);
    const int64_t held = t->size - t->train;
    if (status == LH_OK && (t->train < least || held < least))
        status = lh_fail(error, LH_INVALID,
                         "text %s has %" PRId64 " bytes to learn from and %" PRId64
                         " held out, wanted at least %" PRId64 " of each (a sequence)",
                         path, t->train, held, least);
    if (status != LH_OK)
        text_free(t);
    return status;
}

void text_free(corpus *t)
{
    lh_free(t->bytes);
    memset(t, 0, sizeof *t);
}

void text_sample(const corpus *t, uint64_t seed, int64_t number, int64_t length, uint8_t *sequence)
{
    const double starts = (double)(t->train - length + 1);
    const int64_t start = (int64_t)(lh_random_uniform(seed, STREAM_TEXT, (uint64_t)number) * starts);
    memcpy(sequence, t->bytes + start, (size_t)length);
}

void text_held_out(const corpus *t, int64_t i, int64_t n, int64_t length, uint8_t *sequence)
{
    const double room = (double)(t->size - t->train - length);
    const int64_t start = n > 1 ? (int64_t)(room * (double)i / (double)(n - 1)) : 0;
    memcpy(sequence, t->bytes + t->train + start, (size_t)length);
}

void stream_sample(const corpus *t, uint64_t seed, double passkey, int64_t number, int64_t length,
                   uint8_t *sequence)
{
    if (lh_random_uniform(seed, STREAM_KIND, (uint64_t)number) < passkey)
        passkey_sample(seed, number, length, sequence);
    else
        text_sample(t, seed, number, length, sequence);
}
