/*
 * order.cl: where each selected entry stands in the strict post-order of SPEC 3.4, without sorting, and the
 * way back from an entry to its slot.
 *
 * parents [heads,T,L-1,m] -> index [B,H,S]. Before entry i of level l come, at each level j, the selected
 * entries that lie wholly before it, and inside it when it is a parent. The selected entries of level j are the
 * coarsest ones or the children of level j+1's parents, which are sorted, so each count is one binary search.
 */

/* Parents among `count` that are smaller than x. */
static index_t count_below(const global index_t *parents, index_t count, index_t x)
{
    index_t low = 0, high = count;
    while (low < high) {
        const index_t middle = low + (high - low) / 2;
        if (parents[middle] < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Candidates of a level that are smaller than x; `above` are the parents that they are children of. */
static index_t children_below(const global index_t *above, index_t count, index_t pool, index_t x)
{
    const index_t parent = x / pool;
    const index_t below = count_below(above, count, parent);
    const bool inside = below < count && above[below] == parent;
    return below * pool + (inside ? x % pool : 0);
}

/* One work-item an entry: the j-th candidate of a tile, coarsest level first. */
kernel void order_entries(const global index_t *parents, global index_t *index, long4 index_at,
                          const struct shape s)
{
    const index_t selected = s.selected, tiles = s.tiles, tile_coarse = s.tile_coarse,
                  tile_topk = s.tile_topk, pool = POOL_OF(s);
    const int levels = LEVELS_OF(s);
    const long id = get_global_id(0);
    if (id >= s.here * s.selected)
        return;
    const long head = id / selected;
    const index_t tile_selected = selected / tiles;
    const index_t tile = id % selected / tile_selected;
    const index_t j = id % selected % tile_selected;
    parents += (head * tiles + tile) * (levels - 1) * tile_topk;

    const index_t family = tile_topk * pool; /* candidates of a level below the coarsest */
    int level = levels - 1;
    index_t entry = tile * tile_coarse + j;
    if (j >= tile_coarse) {
        level -= 1 + (j - tile_coarse) / family;
        const index_t place = (j - tile_coarse) % family;
        entry = parents[(long)level * tile_topk + place / pool] * pool + place % pool;
    }

    index_t before = tile * tile_selected;
    index_t x = entry; /* ancestors first, then the entry's own descendants */
    for (int l = level; l < levels; l++, x /= pool) {
        before += l == levels - 1 ? x - tile * tile_coarse
                                  : children_below(parents + (long)l * tile_topk, tile_topk, pool, x);
    }
    bool parent = false;
    if (level > 0) {
        const global index_t *own = parents + (long)(level - 1) * tile_topk;
        const index_t below = count_below(own, tile_topk, entry);
        parent = below < tile_topk && own[below] == entry;
    }
    x = parent ? entry + 1 : entry;
    for (int l = level - 1; l >= 0; l--) {
        x *= pool;
        before += children_below(parents + (long)l * tile_topk, tile_topk, pool, x);
    }

    index_t offset = 0, size = s.tokens;
    for (int l = 0; l < level; l++) {
        offset += size;
        size /= pool;
    }
    index[row_at(index_at, s.first + head, s.heads, before)] = offset + entry;
}

/* index [B,H,S] = 0, 1, ... S-1: one level, nothing to choose. */
kernel void order_tokens(global index_t *index, long4 index_at, const struct shape s)
{
    const long id = get_global_id(0);
    if (id < s.here * s.tokens)
        index[row_at(index_at, s.first + id / s.tokens, s.heads, id % s.tokens)] = id % s.tokens;
}

/* slot [heads,P] = -1, several a work-item. */
kernel void clear_slots(global index_t *slot, const struct shape s)
{
    for (long i = get_global_id(0); i < s.here * s.entries; i += get_global_size(0))
        slot[i] = -1;
}

/* slot [heads,P], cleared before: slot[index[s]] = s. */
kernel void find_slots(const global index_t *index, long4 index_at, global index_t *slot, uint blocks,
                       const struct shape s)
{
    const int head = head_of(blocks);
    const long from = row_at(index_at, s.first + head, s.heads, 0);
    for (int run = 0; run < RUN; run++) {
        const index_t i = row_of(blocks, 1, run);
        if (i >= s.selected)
            return;
        const index_t entry = index[from + i * index_at.w];
        if (entry >= 0 && entry < s.entries)
            slot[head * s.entries + entry] = i;
    }
}
