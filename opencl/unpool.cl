/*
 * unpool.cl: pool and gather backward in one, as a pull (SPEC 4).
 *
 * dsel [B,H,S,d] -> dx [B,F,N,d], F = H for q and G for k, v: token j sums dsel[slot(l, j/p^l)] / p^l over the
 * levels whose entry is selected, and over the query heads of its group, in head order. slot [heads,P] is of the
 * query heads. -D LANES: work-items that share a row, LEVELS, POOL.
 */
kernel void unpool_pull(const global index_t *slot, const global store_t *dsel, long4 dsel_at,
                        global store_t *dx, long4 dx_at, int first, int heads, int to_heads, uint blocks,
                        index_t tokens, index_t pyramid, int dim)
{
    const int group = heads / to_heads, head = head_of(blocks); /* of dx, from the chunk's first */
    for (int run = 0; run < RUN; run++) {
        const index_t j = row_of(blocks, LANES, run);
        if (j >= tokens)
            return;
        const long to = row_at(dx_at, first / group + head, to_heads, j);
        for (int c = get_local_id(0) % LANES * VEC; c < dim; c += LANES * VEC) {
            vfloat sum = 0;
            for (int member = 0; member < group; member++) {
                const int query_head = head * group + member;
                const global index_t *head_slot = slot + (long)query_head * pyramid;
                const long from = row_at(dsel_at, first + query_head, heads, 0) + c;
                index_t place[LEVELS], entry = j, offset = 0, size = tokens;
#pragma unroll
                for (int l = 0; l < LEVELS; l++) {
                    place[l] = head_slot[offset + entry];
                    entry /= POOL;
                    offset += size;
                    size /= POOL;
                }
                float width = 1;
#pragma unroll
                for (int l = 0; l < LEVELS; l++) {
                    if (place[l] >= 0)
                        sum += load_columns(dsel, from + place[l] * dsel_at.w, dim - c) / width;
                    width *= POOL;
                }
            }
            store_columns(sum, dx, to + c, dim - c);
        }
    }
}
