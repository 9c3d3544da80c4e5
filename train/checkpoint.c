/* Checkpoints: writing, opening and loading. */
#include "train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base.h"
#include "train/folder.h"
#include "train/seal.h"

static const char format[] = "lighthouse-train-2";
enum {
    GROUPS = 3,
    NAME_SIZE = 48,
    MAX_META = 64
};
static const char seal_key[] = "sha256";
static const char spread_name[] = "budget.spread";
static const char *const prefixes[GROUPS] = {"", "adam_m.", "adam_v."};

static void entry_name(int group, const parameter *p, char name[NAME_SIZE])
{
    snprintf(name, NAME_SIZE, "%s%s", prefixes[group], p->name);
}

static lh_tensor matrix(const parameter *p, real *values)
{
    return (lh_tensor){values + p->offset, REAL_DTYPE, 2, {p->shape[0], p->shape[1]}, {p->shape[1], 1}};
}

static lh_tensor monitor_tensor(const monitor *m)
{
    return (lh_tensor){(void *)m, LH_F64, 1, {MONITOR_DOUBLES}, {1}};
}

struct metadata {
    lh_file_meta entry[MAX_META];
    char text[MAX_META][SETTING_TEXT];
    int count;
};

static char *add_metadata(struct metadata *meta, const char *key)
{
    meta->entry[meta->count] = (lh_file_meta){key, meta->text[meta->count]};
    return meta->text[meta->count++];
}

/* Keys of the metadata in their order, the seal's not among them. */
static int metadata_keys(const char *keys[MAX_META])
{
    static const char *const own[] = {"format", "stage", "step", "text-sha256", "text-bytes", "text-train"};
    int n = 0;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        keys[n++] = own[i];
    for (int i = 0; i < setting_count; i++)
        keys[n++] = setting_table[i].name;
    return n;
}

static void fill_metadata(struct metadata *meta, const settings *s, const recipe *r, const corpus *t)
{
    const char *keys[MAX_META];
    const int count = metadata_keys(keys);
    meta->count = 0;
    snprintf(add_metadata(meta, "format"), SETTING_TEXT, "%s", format);
    snprintf(add_metadata(meta, "stage"), SETTING_TEXT, "%s", phase_name(r->phase));
    snprintf(add_metadata(meta, "step"), SETTING_TEXT, "%" PRId64, r->step);
    snprintf(add_metadata(meta, "text-sha256"), SETTING_TEXT, "%s", t->sha256);
    snprintf(add_metadata(meta, "text-bytes"), SETTING_TEXT, "%" PRId64, t->size);
    snprintf(add_metadata(meta, "text-train"), SETTING_TEXT, "%" PRId64, t->train);
    for (int i = 0; meta->count < count; i++)
        setting_print(s, &setting_table[i], add_metadata(meta, keys[meta->count]));
}

lh_status checkpoint_write(const char *path, const settings *s, const recipe *r, const corpus *t,
                           const model *m, const adam *a, const budget *b, lh_error *error)
{
    real *const arrays[GROUPS] = {m->values, a->m, a->v};
    const int weights = GROUPS * m->count, count = weights + 1 + (b->spread != NULL);
    struct room {
        struct metadata meta;
        char names[][NAME_SIZE];
    } * room;
    lh_file_entry *entries = NULL;
    lh_status status =
        lh_alloc((void **)&room, sizeof *room + (size_t)count * NAME_SIZE, "checkpoint names", error);
    if (status != LH_OK)
        return status;
    status = lh_alloc((void **)&entries, (size_t)count * sizeof *entries, "checkpoint entries", error);
    if (status == LH_OK) {
        fill_metadata(&room->meta, s, r, t);
        for (int i = 0; i < weights; i++) {
            const parameter *p = &m->parameters[i % m->count];
            entry_name(i / m->count, p, room->names[i]);
            entries[i] = (lh_file_entry){room->names[i], matrix(p, arrays[i / m->count])};
        }
        entries[weights] = (lh_file_entry){"monitor", monitor_tensor(&r->monitor)};
        if (b->spread)
            entries[weights + 1] = (lh_file_entry){spread_name, budget_tensor(b)};
        char seal[65];
        status = seal_hash(room->meta.entry, room->meta.count, entries, count, seal, error);
        snprintf(add_metadata(&room->meta, seal_key), SETTING_TEXT, "%s", seal);
    }
    if (status == LH_OK)
        status = lh_file_write(path, entries, count, room->meta.entry, room->meta.count, error);
    lh_free(entries);
    lh_free(room);
    return status;
}

/* Copies the tensor `name` of the file over `to`, which has the wanted type and shape. */
static lh_status load(const checkpoint *c, const char *name, const lh_tensor *to, lh_error *error)
{
    const lh_tensor *found = lh_file_find(c->file, name);
    if (!found)
        return lh_fail(error, LH_FORMAT, "checkpoint has no tensor %s", name);
    if (found->dtype != to->dtype || found->rank != to->rank ||
        memcmp(found->shape, to->shape, sizeof(int64_t) * (size_t)to->rank) != 0)
        return lh_fail(error, LH_FORMAT,
                       "checkpoint's %s is %s of rank %d and %" PRId64
                       " elements, wanted %s of rank %d and %" PRId64,
                       name, lh_dtype_name(found->dtype), found->rank, lh_tensor_elements(found),
                       lh_dtype_name(to->dtype), to->rank, lh_tensor_elements(to));
    memcpy(to->data, found->data, (size_t)lh_tensor_elements(to) * lh_dtype_size(to->dtype));
    return LH_OK;
}

static lh_status read_count(const checkpoint *c, const char *key, int64_t *count, lh_error *error)
{
    const char *found = lh_file_metadata(c->file, key);
    char *end = NULL;
    errno = 0;
    *count = found ? strtoll(found, &end, 10) : -1;
    if (errno == 0 && *count >= 0 && end != found && *end == '\0')
        return LH_OK;
    return lh_fail(error, LH_FORMAT, "%s is %.40s, wanted a count", key, found ? found : "missing");
}

static lh_status read_metadata(checkpoint *c, lh_error *error)
{
    const char *found = lh_file_metadata(c->file, "format");
    if (!found || strcmp(found, format) != 0)
        return lh_fail(error, LH_FORMAT, "format is %.40s, wanted %s", found ? found : "missing", format);
    const char *keys[MAX_META];
    lh_status status = seal_check(c->file, seal_key, keys, metadata_keys(keys), error);
    settings_default(&c->settings);
    for (int i = 0; i < setting_count && status == LH_OK; i++) {
        const char *value = lh_file_metadata(c->file, setting_table[i].name);
        if (value)
            status = setting_parse(&c->settings, &setting_table[i], value, error);
        else if (setting_table[i].binding == FOR_THE_MODEL)
            status = lh_fail(error, LH_FORMAT, "%s is missing, wanted a setting", setting_table[i].name);
    }
    if (status == LH_OK)
        status = phase_parse(lh_file_metadata(c->file, "stage"), &c->recipe.phase, error);
    if (status != LH_OK)
        return status;
    found = lh_file_metadata(c->file, "text-sha256");
    if (!found || strlen(found) != sizeof c->text_sha256 - 1)
        return lh_fail(error, LH_FORMAT, "text-sha256 is %.80s, wanted 64 hexadecimal digits",
                       found ? found : "missing");
    strcpy(c->text_sha256, found);
    status = read_count(c, "step", &c->recipe.step, error);
    if (status == LH_OK)
        status = read_count(c, "text-bytes", &c->text_bytes, error);
    if (status == LH_OK)
        status = read_count(c, "text-train", &c->text_train, error);
    if (status != LH_OK)
        return status;
    const lh_tensor to = monitor_tensor(&c->recipe.monitor);
    status = load(c, "monitor", &to, error);
    return status == LH_OK ? recipe_check(&c->recipe, error) : status;
}

lh_status checkpoint_open(const char *path, checkpoint *c, lh_error *error)
{
    memset(c, 0, sizeof *c);
    lh_status status = lh_file_read(path, &c->file, error);
    if (status != LH_OK)
        return status;
    lh_error inner = {LH_OK, ""};
    status = read_metadata(c, &inner);
    if (status != LH_OK) {
        lh_fail(error, status, "%s: %.300s", path, inner.text);
        checkpoint_close(c);
    }
    return status;
}

void checkpoint_close(checkpoint *c)
{
    lh_file_free(c->file);
    c->file = NULL;
}

lh_status checkpoint_fits(const checkpoint *c, const settings *s, enum binding binding, lh_error *error)
{
    for (int i = 0; i < setting_count; i++) {
        char have[SETTING_TEXT], want[SETTING_TEXT];
        setting_print(&c->settings, &setting_table[i], have);
        setting_print(s, &setting_table[i], want);
        if (setting_table[i].binding >= binding && strcmp(have, want) != 0)
            return lh_fail(error, LH_INVALID, "%s is %s in the checkpoint, wanted %s", setting_table[i].name,
                           have, want);
    }
    return LH_OK;
}

lh_status checkpoint_same_text(const checkpoint *c, const char *path, const corpus *t, lh_error *error)
{
    if (strcmp(c->text_sha256, t->sha256) == 0 && c->text_bytes == t->size && c->text_train == t->train)
        return LH_OK;
    if (strcmp(c->text_sha256, t->sha256) == 0)
        return lh_fail(error, LH_INVALID,
                       "text %.150s is held out from byte %" PRId64 " on, wanted from byte %" PRId64
                       ", as the run has it (held-out, context)",
                       path, t->train, c->text_train);
    return lh_fail(error, LH_INVALID,
                   "text %.150s has %" PRId64 " bytes, SHA-256 %.16s..., wanted the %" PRId64
                   " bytes, %.16s..., that the run began with",
                   path, t->size, t->sha256, c->text_bytes, c->text_sha256);
}

/* Spreads are at most 1, and 0 where none was measured. */
static lh_status load_spread(const checkpoint *c, const budget *b, lh_error *error)
{
    const lh_tensor to = budget_tensor(b);
    const lh_status status = load(c, spread_name, &to, error);
    for (int64_t i = 0; i < b->layers * b->groups && status == LH_OK; i++) {
        if (!(b->spread[i] >= 0 && b->spread[i] <= 1))
            return lh_fail(error, LH_FORMAT, "checkpoint's %s has %g, wanted 0 to 1", spread_name,
                           b->spread[i]);
    }
    return status;
}

lh_status checkpoint_load(const checkpoint *c, const model *m, const adam *a, const budget *b,
                          lh_error *error)
{
    real *const arrays[GROUPS] = {m->values, a ? a->m : NULL, a ? a->v : NULL};
    lh_status status = LH_OK;
    for (int group = 0; group < (a ? GROUPS : 1); group++)
        for (int i = 0; i < m->count && status == LH_OK; i++) {
            char name[NAME_SIZE];
            entry_name(group, &m->parameters[i], name);
            const lh_tensor to = matrix(&m->parameters[i], arrays[group]);
            status = load(c, name, &to, error);
        }
    if (status == LH_OK && b && b->spread && strcmp(c->settings.budget, "entropy") == 0)
        status = load_spread(c, b, error);
    return status;
}

/* LH_FORMAT of a damaged checkpoint, with the one before it offered where that is whole. */
static void offer_before(const char *folder, lh_error *error)
{
    char path[PATH_SIZE];
    checkpoint c;
    lh_error damage = *error;
    if (folder_path(folder, BEFORE_NAME, path, NULL) != LH_OK || checkpoint_open(path, &c, NULL) != LH_OK)
        return;
    lh_fail(error, damage.status,
            "%.350s; " BEFORE_NAME " is whole, of step %" PRId64 ": --before goes on from it", damage.text,
            c.recipe.step);
    checkpoint_close(&c);
}

lh_status checkpoint_open_last(const char *folder, bool before, checkpoint *c, lh_error *error)
{
    char path[PATH_SIZE];
    lh_error inner = {LH_OK, ""};
    lh_status status = folder_path(folder, before ? BEFORE_NAME : CHECKPOINT_NAME, path, &inner);
    if (status == LH_OK)
        status = checkpoint_open(path, c, &inner);
    if (status == LH_FORMAT && !before)
        offer_before(folder, &inner);
    if (status != LH_OK && error)
        *error = inner;
    return status;
}

lh_status checkpoint_restore(const char *folder, lh_error *error)
{
    char path[PATH_SIZE], from[PATH_SIZE];
    lh_status status = folder_path(folder, CHECKPOINT_NAME, path, error);
    if (status == LH_OK)
        status = folder_path(folder, BEFORE_NAME, from, error);
    if (status == LH_OK && rename(from, path) != 0)
        status = lh_fail(error, LH_IO, "%.300s: cannot be replaced: %s", path, strerror(errno));
    return status;
}

void checkpoint_keep(const char *folder)
{
    char path[PATH_SIZE], before[PATH_SIZE], link_path[PATH_SIZE];
    if (folder_path(folder, CHECKPOINT_NAME, path, NULL) != LH_OK ||
        folder_path(folder, BEFORE_NAME, before, NULL) != LH_OK ||
        folder_path(folder, ".lighthouse-before", link_path, NULL) != LH_OK)
        return;
    unlink(link_path);
    if (link(path, link_path) == 0 && rename(link_path, before) != 0)
        unlink(link_path);
}
