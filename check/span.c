/* The tokens under a pyramid entry, which all files of faults need. */
#include "core/backend.h"
#include "check/faults.h"

struct lh_span lh_span_of(const lh_config *config, const lh_layout *layout, int64_t entry)
{
    const int level = lh_level_of(layout, (int)config->levels, entry);
    const int64_t window = layout->window[level];
    return (struct lh_span){level, window, (entry - layout->level_offset[level]) * window};
}
