/* Reading text from files and folders. */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base.h"
#include "core/hash.h"
#include "train/folder.h"
#include "train/text.h"

struct text_file {
    char hash[65];
    dev_t device;
    ino_t inode;
    const uint8_t *bytes;
    int64_t size;
};

enum {
    FIRST_BLOCK = 1 << 20, /* bytes of memory for texts, each block twice the last, */
    BLOCK_DOUBLINGS = 6    /* up to 64 MiB, or what a single text needs */
};

struct text_block {
    uint8_t *bytes;
    int64_t used, size;
};

struct reader {
    struct text_block *block;
    int64_t blocks, block_capacity;
    struct text_file *file;
    int64_t files, file_capacity, passed;
};

/* Room for `wanted` elements in *array, which has `used` of *capacity. */
static lh_status grow(void **array, size_t element, int64_t used, int64_t wanted, int64_t *capacity,
                      lh_error *error)
{
    void *bigger;
    if (wanted <= *capacity)
        return LH_OK;
    const lh_status status = lh_alloc(&bigger, 2 * (size_t)wanted * element, "text", error);
    if (status != LH_OK)
        return status;
    if (used > 0)
        memcpy(bigger, *array, (size_t)used * element);
    lh_free(*array);
    *array = bigger;
    *capacity = 2 * wanted;
    return LH_OK;
}

/* Room for `size` bytes in one piece, in the last block. */
static lh_status reserve(struct reader *r, int64_t size, lh_error *error)
{
    const struct text_block *last = r->blocks > 0 ? &r->block[r->blocks - 1] : NULL;
    if (last && last->size - last->used >= size)
        return LH_OK;
    lh_status status =
        grow((void **)&r->block, sizeof *r->block, r->blocks, r->blocks + 1, &r->block_capacity, error);
    if (status != LH_OK)
        return status;
    struct text_block *block = &r->block[r->blocks];
    const int64_t usual = (int64_t)FIRST_BLOCK << (r->blocks < BLOCK_DOUBLINGS ? r->blocks : BLOCK_DOUBLINGS);
    *block = (struct text_block){.size = size > usual ? size : usual};
    status = lh_alloc((void **)&block->bytes, (size_t)block->size, "text", error);
    r->blocks += status == LH_OK;
    return status;
}

/* As many bytes as the file had when it was opened, or fewer when it shrinks; LH_FORMAT at a NUL byte. */
static lh_status read_bytes(uint8_t *bytes, int64_t *read_so_far, int descriptor, int64_t size,
                            const char *path, lh_error *error)
{
    lh_status status = LH_OK;
    *read_so_far = 0;
    while (status == LH_OK && size > 0) {
        const size_t piece = size < 1 << 20 ? (size_t)size : 1 << 20;
        uint8_t *to = bytes + *read_so_far;
        const ssize_t n = read(descriptor, to, piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = lh_fail(error, LH_IO, "%.300s: cannot be read: %s", path, strerror(errno));
        else if (n > 0 && memchr(to, 0, (size_t)n))
            status = lh_fail(error, LH_FORMAT, "text %.300s has a NUL byte, wanted text", path);
        if (n <= 0)
            break;
        *read_so_far += n;
        size -= n;
    }
    return status;
}

/* Appends a file; LH_IO and LH_FORMAT leave the text as it was. */
static lh_status append_file(struct reader *r, const char *path, lh_error *error)
{
    struct stat about;
    int64_t size = 0;
    const int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &about) != 0) {
        const int reason = errno;
        if (descriptor >= 0)
            close(descriptor);
        return lh_fail(error, LH_IO, "%.300s: cannot be opened: %s", path, strerror(reason));
    }
    lh_status status = S_ISREG(about.st_mode)
                           ? reserve(r, about.st_size, error)
                           : lh_fail(error, LH_INVALID, "text %.300s is neither a file nor a folder", path);
    struct text_block *block = status == LH_OK ? &r->block[r->blocks - 1] : NULL;
    if (block)
        status = read_bytes(block->bytes + block->used, &size, descriptor, about.st_size, path, error);
    close(descriptor);
    if (status == LH_OK)
        status = grow((void **)&r->file, sizeof *r->file, r->files, r->files + 1, &r->file_capacity, error);
    if (status != LH_OK)
        return status;
    struct text_file *file = &r->file[r->files++];
    *file = (struct text_file){
        .device = about.st_dev, .inode = about.st_ino, .bytes = block->bytes + block->used, .size = size};
    lh_sha256_hex(file->bytes, (size_t)size, file->hash);
    block->used += size;
    return LH_OK;
}

/* The run's own folder, or one that another run lives in. */
static bool is_run(const FTSENT *entry, const struct stat *own)
{
    char path[PATH_SIZE];
    if (own->st_ino != 0 && entry->fts_statp->st_ino == own->st_ino &&
        entry->fts_statp->st_dev == own->st_dev)
        return true;
    return folder_path(entry->fts_accpath, LOCK_NAME, path, NULL) == LH_OK && access(path, F_OK) == 0;
}

static lh_status append_folder(struct reader *r, const char *path, const struct stat *own, lh_error *error)
{
    char *const roots[] = {(char *)path, NULL};
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    if (!tree)
        return lh_fail(error, LH_IO, "%.300s: cannot be walked: %s", path, strerror(errno));
    lh_status status = LH_OK;
    for (FTSENT *entry; status == LH_OK && (entry = fts_read(tree));) {
        switch (entry->fts_info) {
        case FTS_D:
            if (is_run(entry, own))
                fts_set(tree, entry, FTS_SKIP);
            break;
        case FTS_F:
            status = append_file(r, entry->fts_accpath, error);
            r->passed += status == LH_IO || status == LH_FORMAT;
            status = status == LH_IO || status == LH_FORMAT ? LH_OK : status;
            break;
        case FTS_DNR:
        case FTS_NS:
        case FTS_SLNONE:
            r->passed++;
            break;
        default:; /* folders left, loops of links, devices and pipes */
        }
    }
    fts_close(tree);
    return status;
}

static int by_hash(const void *left, const void *right)
{
    const struct text_file *a = left, *b = right;
    const int order = strcmp(a->hash, b->hash);
    if (order != 0)
        return order;
    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    return (a->inode > b->inode) - (a->inode < b->inode);
}

/* Brings the files into their order, each once, and hashes the whole. */
static lh_status arrange(struct reader *r, corpus *t, lh_error *error)
{
    uint8_t *bytes;
    char *hashes;
    int64_t size = 1; /* not none */
    for (int64_t i = 0; i < r->files; i++)
        size += r->file[i].size;
    lh_status status = lh_alloc((void **)&bytes, (size_t)size, "text", error);
    if (status == LH_OK) {
        status = lh_alloc((void **)&hashes, 65 * (size_t)r->files + 1, "hashes of text", error);
        if (status != LH_OK)
            lh_free(bytes);
    }
    if (status != LH_OK)
        return status;
    if (r->files > 0)
        qsort(r->file, (size_t)r->files, sizeof *r->file, by_hash);
    for (int64_t i = 0; i < r->files; i++) {
        const struct text_file *f = &r->file[i];
        if (i > 0 && by_hash(f - 1, f) == 0)
            continue; /* the same file, met twice through links */
        memcpy(bytes + t->size, f->bytes, (size_t)f->size);
        memcpy(hashes + 65 * t->files, f->hash, 64);
        hashes[65 * t->files++ + 64] = '\n';
        t->size += f->size;
    }
    if (t->files == 1)
        snprintf(t->sha256, sizeof t->sha256, "%.64s", hashes);
    else
        lh_sha256_hex(hashes, 65 * (size_t)t->files, t->sha256);
    lh_free(hashes);
    t->bytes = bytes;
    t->passed = r->passed;
    return LH_OK;
}

static lh_status read_path(struct reader *r, const char *path, const char *own, lh_error *error)
{
    struct stat about, run;
    if (path[0] == '\0')
        return lh_fail(error, LH_INVALID, "text is missing, wanted a file or folder");
    if (stat(path, &about) != 0)
        return lh_fail(error, LH_IO, "text %.300s: cannot be opened: %s", path, strerror(errno));
    if (!S_ISDIR(about.st_mode))
        return append_file(r, path, error);
    if (!own || stat(own, &run) != 0)
        run.st_ino = 0;
    return append_folder(r, path, &run, error);
}

lh_status text_read(const char *path, double held_out, const char *own, int64_t least, corpus *t,
                    lh_error *error)
{
    struct reader r = {.blocks = 0};
    memset(t, 0, sizeof *t);
    lh_status status = read_path(&r, path, own, error);
    if (status == LH_OK)
        status = arrange(&r, t, error);
    for (int64_t i = 0; i < r.blocks; i++)
        lh_free(r.block[i].bytes);
    lh_free(r.block);
    lh_free(r.file);
    if (status == LH_OK && t->size < 2 * least)
        status =
            lh_fail(error, LH_INVALID,
                    "text %.200s has %" PRId64 " bytes in %" PRId64 " files (%" PRId64
                    " passed over), wanted at least %" PRId64 ": a sequence to learn from and one held out",
                    path, t->size, t->files, t->passed, 2 * least);
    int64_t held = (int64_t)((double)t->size * held_out);
    held = held < least ? least : held > t->size - least ? t->size - least : held;
    t->train = t->size - held;
    if (status != LH_OK)
        text_free(t);
    return status;
}
