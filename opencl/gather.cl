/*
 * gather.cl: the rows of the selected entries (SPEC 3.5), out of a pyramid or pooled on the way.
 *
 * index [B,H,S], from [B,F,tokens,d] -> sel [B,H,S,d], where F is H or G and query head h reads head h/(H/F).
 * `tokens` is N, or P where `from` is a pyramid, whose rows are all means already. -D LANES: work-items that share a row, POOL.
 */

kernel void gather_rows(const global index_t *index, long4 index_at, const global store_t *from,
                           long4 from_at, global store_t *sel, long4 sel_at, int first, int heads,
                           int from_heads, uint blocks, index_t selected, index_t pyramid, index_t tokens,
                           int dim)
{
    const int head = first + head_of(blocks);
    const long rows = row_at(from_at, head / (heads / from_heads), from_heads, 0);
    for (int run = 0; run < RUN; run++) {
        const index_t s = row_of(blocks, LANES, run);
        if (s >= selected)
            return;
        const index_t entry = clamp(index[row_at(index_at, head, heads, s)], (index_t)0, pyramid - 1);
        index_t width;
        const index_t number = find_window(entry, tokens, POOL, &width);
        const long in = rows + (long)number * width * from_at.w, out = row_at(sel_at, head, heads, s);
        for (int c = get_local_id(0) % LANES * VEC; c < dim; c += LANES * VEC) {
            vfloat sum = load_columns(from, in + c, dim - c);
            for (index_t i = 1; i < width; i++)
                sum += load_columns(from, in + i * from_at.w + c, dim - c);
            store_columns(sum / (float)width, sel, out + c, dim - c);
        }
    }
}
