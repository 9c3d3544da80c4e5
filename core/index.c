/*
 * Index tensors [B,H,S] from outside: is this the post-order of SPEC 3.4?
 *
 * A leaf stands at its window's start and a parent right after everything inside its window, so one cursor
 * over the tokens decides: an entry whose window starts at the cursor is a leaf and moves it to the window's
 * end; one whose window ends there is a parent, if it is coarser than what stood before it.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/backend.h"

/* What could stand where `cursor` tokens are behind and an entry of level `before`: a leaf while tokens are left, a
 * parent while levels are. */
static const char *wanted_at(const lh_config *config, int64_t cursor, int before, char text[128])
{
    const bool leaf = cursor < config->tokens, parent = before + 1 < config->levels;
    int n = snprintf(text, 128, leaf || parent ? "" : "nothing behind the last token");
    if (leaf)
        n += snprintf(text + n, 128 - (size_t)n, "a leaf from token %" PRId64 "%s", cursor,
                      parent ? " or " : "");
    if (parent)
        snprintf(text + n, 128 - (size_t)n, "a parent above level %d that ends before token %" PRId64, before,
                 cursor);
    return text;
}

/* The S entries of one head, `at` the first of them among the tensor's elements. */
static lh_status check_head(const lh_config *config, const lh_layout *layout, const lh_tensor *index,
                            int64_t at, lh_error *error)
{
    const int64_t b = at / layout->selected / config->heads, h = at / layout->selected % config->heads;
    int64_t cursor = 0;
    int before = -1; /* level of the entry before */
    char wanted[128];
    for (int64_t s = 0; s < layout->selected; s++) {
        const int64_t entry = lh_index_at(index, at + s);
        if (entry < 0 || entry >= layout->entries)
            return lh_fail(error, LH_INVALID,
                           "index[%" PRId64 ",%" PRId64 ",%" PRId64 "] is %" PRId64
                           ", wanted a pyramid entry, 0 to %" PRId64,
                           b, h, s, entry, layout->entries - 1);
        const int level = lh_level_of(layout, (int)config->levels, entry);
        const int64_t start = (entry - layout->level_offset[level]) * layout->window[level];
        const int64_t end = start + layout->window[level];
        if (start == cursor)
            cursor = end;
        else if (before < 0)
            return lh_fail(error, LH_INVALID,
                           "index[%" PRId64 ",%" PRId64 ",0] is %" PRId64 " (level %d, tokens %" PRId64
                           " to %" PRId64 "), wanted a leaf from token 0",
                           b, h, entry, level, start, end - 1);
        else if (end != cursor || level <= before)
            return lh_fail(error, LH_INVALID,
                           "index[%" PRId64 ",%" PRId64 ",%" PRId64 "] is %" PRId64
                           " (level %d, tokens %" PRId64 " to %" PRId64 "), wanted %s",
                           b, h, s, entry, level, start, end - 1, wanted_at(config, cursor, before, wanted));
        before = level;
    }
    if (cursor != config->tokens)
        return lh_fail(error, LH_INVALID,
                       "index[%" PRId64 ",%" PRId64 ",:] has leaves over tokens 0 to %" PRId64
                       ", wanted 0 to %" PRId64,
                       b, h, cursor - 1, config->tokens - 1);
    return LH_OK;
}

lh_status lh_index_check(const lh_config *config, const lh_layout *layout, const lh_tensor *index,
                         lh_error *error)
{
    const int64_t elements = config->batch * config->heads * layout->selected;
    lh_status status = LH_OK;
    for (int64_t at = 0; at < elements && status == LH_OK; at += layout->selected)
        status = check_head(config, layout, index, at, error);
    return status;
}
