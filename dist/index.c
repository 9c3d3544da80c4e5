/* Entries of a rank's own pyramid, and what they are called in the whole one. */
#include "dist/dist.h"

static void put(const lh_tensor *index, int64_t i, int64_t value)
{
    if (index->dtype == LH_I64)
        ((int64_t *)index->data)[i] = value;
    else
        ((int32_t *)index->data)[i] = (int32_t)value;
}

/* Copies rank's rows between part [B,H,S/W] and whole [B,H,S], entries renamed; `to_whole` says which way. */
static void copy(const lh_config *config, const lh_layout *whole_layout, const lh_layout *part_layout,
                 int rank, const lh_tensor *part, const lh_tensor *whole, bool to_whole)
{
    const int64_t rows = part_layout->selected, sequences = config->batch * config->heads;
    const lh_layout *from = to_whole ? part_layout : whole_layout,
                    *to = to_whole ? whole_layout : part_layout;
    for (int64_t i = 0; i < sequences * rows; i++) {
        const int64_t there = i / rows * whole_layout->selected + rank * rows + i % rows;
        const int64_t entry = to_whole ? lh_index_at(part, i) : lh_index_at(whole, there);
        const int level = lh_level_of(from, (int)config->levels, entry);
        const int64_t shift = rank * part_layout->level_size[level];
        const int64_t renamed =
            entry - from->level_offset[level] + to->level_offset[level] + (to_whole ? shift : -shift);
        put(to_whole ? whole : part, to_whole ? there : i, renamed);
    }
}

void lh_dist_index_to_whole(const lh_config *config, int rank, int ranks, const lh_tensor *part,
                            const lh_tensor *whole)
{
    lh_config mine;
    lh_layout whole_layout, part_layout;
    if (lh_config_check(config, &whole_layout, NULL) == LH_OK &&
        lh_dist_part(config, ranks, &mine, NULL) == LH_OK &&
        lh_config_check(&mine, &part_layout, NULL) == LH_OK)
        copy(config, &whole_layout, &part_layout, rank, part, whole, true);
}

void lh_dist_index_to_part(const lh_config *config, int rank, int ranks, const lh_tensor *whole,
                           const lh_tensor *part)
{
    lh_config mine;
    lh_layout whole_layout, part_layout;
    if (lh_config_check(config, &whole_layout, NULL) == LH_OK &&
        lh_dist_part(config, ranks, &mine, NULL) == LH_OK &&
        lh_config_check(&mine, &part_layout, NULL) == LH_OK)
        copy(config, &whole_layout, &part_layout, rank, part, whole, false);
}
