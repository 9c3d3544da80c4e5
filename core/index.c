/*
 * Index tensors [B,H,S] from outside: is this the post-order of SPEC 3.4?
 *
 * A leaf stands at its window's start and a parent right after everything inside its window, so one cursor
 * over the tokens decides: an entry whose window starts at the cursor is a leaf and moves it to the window's
 * end; one whose window ends there is a parent, if it is coarser than what stood before it.
 */
#include <inttypes.h>

#include "core/backend.h"

/* The S entries of one head, `at` the first of them among the tensor's elements. */
static lh_status check_head(const lh_config *config, const lh_layout *layout, const lh_tensor *index,
                            int64_t at, lh_error *error)
{
    const int64_t b = at / layout->selected / config->heads, h = at / layout->selected % config->heads;
    int64_t cursor = 0;
    int before = -1; /* level of the entry before */
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
                           " (level %d, tokens %" PRId64 " to %" PRId64 "), wanted a leaf from token %" PRId64
                           " or a parent above level %d that ends before it",
                           b, h, s, entry, level, start, end - 1, cursor, before);
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
