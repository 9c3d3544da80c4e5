/*
 * unpool.cl: pool and gather backward in one, as a pull (SPEC 4).
 *
 * dsel [B,H,S,d] -> dx [B,F,N,d], F = H for q and G for k, v: token j sums dsel[slot(l, j/p^l)] / p^l over the
 * levels whose entry is selected, and over the query heads of its group, in head order. slot [heads,P] is of the
 * query heads. -D LANES: work-items that share a row.
 */

/* Where the entries that hold tokens run ... run + AHEAD - 1 of the work-item are in a head's sub-sequence, or -1. */
static void find_places(index_t place[AHEAD][MOST_LEVELS], const global index_t *head_slot, uint blocks,
                        int run, struct shape s)
{
    const index_t tokens = s.tokens, end = s.end, pool = POOL_OF(s);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        const index_t j = (index_t)s.begin + row_of(blocks, LANES, run + i);
        index_t entry = j, offset = 0, size = tokens;
        UNROLL_LEVELS
        for (int l = 0; l < LEVELS_OF(s); l++) {
            place[i][l] = j < end ? head_slot[offset + entry] : -1;
            entry /= pool;
            offset += size;
            size /= pool;
        }
    }
}

kernel void unpool_pull(const global index_t *slot, const global store_t *dsel, long4 dsel_at,
                        global store_t *dx, long4 dx_at, int to_heads, uint blocks, const struct shape s)
{
    const index_t end = s.end, pool = POOL_OF(s);
    const int levels = LEVELS_OF(s), dim = s.dim, heads = s.heads;
    const int group = heads / to_heads, head = head_of(blocks); /* of dx, from the chunk's first */
    for (int run = 0; run < RUN; run += AHEAD) {
        index_t place[AHEAD][MOST_LEVELS];
        for (int c = get_local_id(0) % LANES * VEC; c < dim; c += LANES * VEC) {
            vfloat sum[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                sum[i] = 0;
            for (int member = 0; member < group; member++) {
                const int query_head = head * group + member;
                const long from = row_at(dsel_at, s.first + query_head, heads, 0) + c;
                if (group > 1 || c < LANES * VEC)
                    find_places(place, slot + (long)query_head * s.entries, blocks, run, s);
#pragma unroll
                for (int i = 0; i < AHEAD; i++) {
                    float width = 1;
                    UNROLL_LEVELS
                    for (int l = 0; l < levels; l++) {
                        if (place[i][l] >= 0)
                            sum[i] += load_columns(dsel, from + place[i][l] * dsel_at.w, dim - c) / width;
                        width *= pool;
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const index_t j = (index_t)s.begin + row_of(blocks, LANES, run + i);
                if (j < end)
                    store_columns(sum[i], dx, row_at(dx_at, s.first / group + head, to_heads, j) + c,
                                  dim - c);
            }
        }
    }
}
