/* Checkpoints: writing, opening and loading. */
#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"

static const char format[] = "lighthouse-train-1";
enum {
    GROUPS = 3,
    NAME_SIZE = 48,
    MAX_META = 64
};
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

static void fill_metadata(struct metadata *meta, const settings *s, const recipe *r)
{
    snprintf(add_metadata(meta, "format"), SETTING_TEXT, "%s", format);
    snprintf(add_metadata(meta, "stage"), SETTING_TEXT, "%s", phase_name(r->phase));
    snprintf(add_metadata(meta, "step"), SETTING_TEXT, "%" PRId64, r->step);
    for (int i = 0; i < setting_count; i++)
        setting_print(s, &setting_table[i], add_metadata(meta, setting_table[i].name));
}

lh_status checkpoint_write(const char *path, const settings *s, const recipe *r, const model *m,
                           const adam *a, const budget *b, lh_error *error)
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
        room->meta.count = 0;
        fill_metadata(&room->meta, s, r);
        for (int i = 0; i < weights; i++) {
            const parameter *p = &m->parameters[i % m->count];
            entry_name(i / m->count, p, room->names[i]);
            entries[i] = (lh_file_entry){room->names[i], matrix(p, arrays[i / m->count])};
        }
        entries[weights] = (lh_file_entry){"monitor", monitor_tensor(&r->monitor)};
        if (b->spread)
            entries[weights + 1] = (lh_file_entry){spread_name, budget_tensor(b)};
        status = lh_file_write(path, entries, count, room->meta.entry, room->meta.count, error);
    }
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

static lh_status read_metadata(checkpoint *c, lh_error *error)
{
    const char *found = lh_file_metadata(c->file, "format");
    if (!found || strcmp(found, format) != 0)
        return lh_fail(error, LH_FORMAT, "format is %s, wanted %s", found ? found : "missing", format);
    settings_default(&c->settings);
    lh_status status = LH_OK;
    for (int i = 0; i < setting_count && status == LH_OK; i++) {
        const char *value = lh_file_metadata(c->file, setting_table[i].name);
        if (value)
            status = setting_parse(&c->settings, &setting_table[i], value, error);
        else if (setting_table[i].shape)
            status = lh_fail(error, LH_FORMAT, "%s is missing, wanted a setting", setting_table[i].name);
    }
    if (status == LH_OK)
        status = phase_parse(lh_file_metadata(c->file, "stage"), &c->recipe.phase, error);
    if (status != LH_OK)
        return status;
    found = lh_file_metadata(c->file, "step");
    char *end = NULL;
    c->recipe.step = found ? strtoll(found, &end, 10) : -1;
    if (c->recipe.step < 0 || *end)
        return lh_fail(error, LH_FORMAT, "step is %s, wanted a count", found ? found : "missing");
    const lh_tensor to = monitor_tensor(&c->recipe.monitor);
    return load(c, "monitor", &to, error);
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

lh_status checkpoint_fits(const checkpoint *c, const settings *s, lh_error *error)
{
    for (int i = 0; i < setting_count; i++) {
        char have[SETTING_TEXT], want[SETTING_TEXT];
        setting_print(&c->settings, &setting_table[i], have);
        setting_print(s, &setting_table[i], want);
        if (setting_table[i].shape && strcmp(have, want) != 0)
            return lh_fail(error, LH_INVALID, "%s is %s in the checkpoint, wanted %s", setting_table[i].name,
                           have, want);
    }
    return LH_OK;
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
