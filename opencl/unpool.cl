/*
 * unpool.cl: pool and gather backward in one, as a pull (SPEC 4).
 *
 * dsel [B,H,S,d] -> dx [B,F,N,d], F = H for q and G for k, v: token j sums dsel[slot(l, j/p^l)] / p^l over the
 * levels whose entry is selected, and over the query heads of its group, in head order. slot [heads,P] is of the
 * query heads. -D LANES: work-items that share a row, RUN: rows in sequence per work-item.
 */
kernel void unpool_pull(const global index_t *slot, const global store_t *dsel, long4 dsel_at,
                        global store_t *dx, long4 dx_at, long first, long heads, long to_heads, long rows,
                        index_t tokens, index_t pyramid, int levels, index_t pool, int dim)
{
    const long group = heads / to_heads;
    for (int run = 0; run < RUN; run++) {
        const long row = get_global_id(0) / LANES * RUN + run;
        if (row >= rows)
            return;
        const long head = row / tokens; /* of dx, from the chunk's first */
        const index_t j = row % tokens;
        const long to = row_at(dx_at, first / group + head, to_heads, j);
        for (int c = get_global_id(0) % LANES * VEC; c < dim; c += LANES * VEC) {
            vfloat sum = 0;
            for (long member = 0; member < group; member++) {
                const long query_head = head * group + member;
                const global index_t *head_slot = slot + query_head * pyramid;
                const long from = row_at(dsel_at, first + query_head, heads, 0) + c;
                index_t entry = j, offset = 0, size = tokens, width = 1;
                for (int l = 0; l < levels; l++) {
                    const index_t s = head_slot[offset + entry];
                    if (s >= 0)
                        sum += load_columns(dsel, from + s * dsel_at.w, dim - c) / (float)width;
                    entry /= pool;
                    offset += size;
                    size /= pool;
                    width *= pool;
                }
            }
            store_columns(sum, dx, to + c, dim - c);
        }
    }
}
