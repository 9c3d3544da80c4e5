/*
 * gather.cl: the rows of the selected entries (SPEC 3.5), out of a pyramid or pooled on the way.
 *
 * index [B,H,S], from [B,F,tokens,d] -> sel [B,H,S,d], where F is H or G and query head h reads head h/(H/F).
 * `tokens` is N, or P where `from` is a pyramid, whose rows are all means already. Entries whose rows are not of the segment
 * are passed over. -D LANES: work-items that share a row.
 */

BODY void gather(bool whole, const global index_t *index, long4 index_at, const global store_t *from,
                 long4 from_at, global store_t *sel, long4 sel_at, int from_heads, uint blocks,
                 long from_tokens, struct shape s)
{
    const index_t selected = s.selected, tokens = from_tokens, pool = POOL_OF(s);
    const int dim = s.dim, head = s.first + head_of(blocks);
    const long rows = row_at(from_at, head / (s.heads / from_heads), from_heads, 0);
    for (int run = 0; run < RUN; run++) {
        const index_t i = row_of(blocks, LANES, run);
        if (i >= selected)
            return;
        const index_t entry =
            clamp(index[row_at(index_at, head, s.heads, i)], (index_t)0, (index_t)s.entries - 1);
        index_t width;
        const index_t number = find_window(entry, tokens, pool, &width);
        if ((long)number * width < s.begin || (long)number * width >= s.end)
            continue;
        const long in = rows + (long)number * width * from_at.w, out = row_at(sel_at, head, s.heads, i);
        store_sum(whole, from, in, from_at.w, width, true, sel, out, dim);
    }
}

kernel void gather_rows(const global index_t *index, long4 index_at, const global store_t *from,
                        long4 from_at, global store_t *sel, long4 sel_at, int from_heads, uint blocks,
                        long from_tokens, const struct shape s)
{
    if (has_whole_rows(from_at, s.dim) && has_whole_rows(sel_at, s.dim))
        gather(true, index, index_at, from, from_at, sel, sel_at, from_heads, blocks, from_tokens, s);
    else
        gather(false, index, index_at, from, from_at, sel, sel_at, from_heads, blocks, from_tokens, s);
}
