/* scatter_backward.cl: the gradient of what a selected entry wrote (SPEC 4). -D LANES: work-items that share a row. */

/* dout [B,H,N,d] -> do_sel [B,H,S,d]: the sum over the positions that entry s wrote, for entries that wrote first in the
 * segment: as many positions as a window of the coarsest level has are in the buffer behind it. */
BODY void sum_written(bool whole, const global index_t *index, long4 index_at, const global store_t *dout,
                      long4 dout_at, global store_t *do_sel, long4 do_sel_at, uint blocks, struct shape s)
{
    const index_t selected = s.selected, tokens = s.tokens, pool = POOL_OF(s);
    const int dim = s.dim, heads = s.heads, head = s.first + head_of(blocks);
    const long from = row_at(dout_at, head, heads, 0);
    for (int run = 0; run < RUN; run++) {
        const index_t i = row_of(blocks, LANES, run);
        if (i >= selected)
            return;
        const index_t entry =
            clamp(index[row_at(index_at, head, heads, i)], (index_t)0, (index_t)s.entries - 1);
        index_t width;
        const index_t number = find_window(entry, tokens, pool, &width);
        const index_t begin = number * width + width - 1;
        const index_t end = begin < tokens - width ? begin + width : tokens;
        if (begin < s.begin || begin >= s.end)
            continue;
        const long to = row_at(do_sel_at, head, heads, i);
        store_sum(whole, dout, from + begin * dout_at.w, dout_at.w, end - begin, false, do_sel, to, dim);
    }
}

kernel void scatter_backward(const global index_t *index, long4 index_at, const global store_t *dout,
                             long4 dout_at, global store_t *do_sel, long4 do_sel_at, uint blocks,
                             const struct shape s)
{
    if (has_whole_rows(dout_at, s.dim) && has_whole_rows(do_sel_at, s.dim))
        sum_written(true, index, index_at, dout, dout_at, do_sel, do_sel_at, blocks, s);
    else
        sum_written(false, index, index_at, dout, dout_at, do_sel, do_sel_at, blocks, s);
}
