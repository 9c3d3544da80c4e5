/*
 * unpool.cl: pool and gather backward in one, as a pull (SPEC 4); on CPUs pull_cpu.cl.
 *
 * dsel [B,H,S,d] -> dx [B,F,N,d], F = H for q and G for k, v: token j sums dsel[slot(l, j/p^l)] / p^l over the
 * levels whose entry is selected, and over the query heads of its group, in head order. slot [heads,P] is of the
 * query heads. -D LANES: work-items that share a row.
 */

/* Whether token i of a run may be held by another entry than token 0, of a level of this width. */
#define HELD_BY_ANOTHER(i, width) ((i) == 0 || (width) % AHEAD != 0)

/* Where the entries that hold tokens first ... first + AHEAD - 1 are in a head's sub-sequence, or -1. */
static void find_places(index_t place[AHEAD][MOST_LEVELS], const global index_t *head_slot, index_t first,
                        struct shape s)
{
    const index_t tokens = s.tokens, end = s.end, pool = POOL_OF(s);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        uindex_t entry = first + i;
        index_t offset = 0, size = tokens;
        long width = 1;
        UNROLL_LEVELS
        for (int l = 0; l < LEVELS_OF(s); l++) {
            if (HELD_BY_ANOTHER(i, width))
                place[i][l] = first + i < end ? head_slot[offset + entry] : -1;
            else
                place[i][l] = place[0][l];
            entry /= pool;
            offset += size;
            size /= pool;
            width *= pool;
        }
    }
}

BODY void pull_held(bool whole, const global index_t *slot, const global store_t *dsel, long4 dsel_at,
                    global store_t *dx, long4 dx_at, int to_heads, uint blocks, struct shape s)
{
    const index_t end = s.end, pool = POOL_OF(s);
    const int levels = LEVELS_OF(s), dim = s.dim, heads = s.heads;
    const int group = heads / to_heads, head = head_of(blocks); /* of dx, from the chunk's first */
    const long to = row_at(dx_at, s.first / group + head, to_heads, 0);
    for (int run = 0; run < PULLED; run += AHEAD) {
        const index_t first = (index_t)s.begin + pulled_row(blocks, LANES, run);
        index_t place[AHEAD][MOST_LEVELS];
        for (int c = get_local_id(0) % LANES * VEC; c < dim; c += LANES * VEC) {
            vfloat sum[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                sum[i] = 0;
            for (int member = 0; member < group; member++) {
                const int query_head = head * group + member;
                const long from = row_at(dsel_at, s.first + query_head, heads, 0) + c;
                long width = 1;
                if (group > 1 || c < LANES * VEC)
                    find_places(place, slot + (long)query_head * s.entries, first, s);
                UNROLL_LEVELS
                for (int l = 0; l < levels; l++) {
                    vfloat row = 0;
#pragma unroll
                    for (int i = 0; i < AHEAD; i++) {
                        if (place[i][l] < 0)
                            continue;
                        if (HELD_BY_ANOTHER(i, width))
                            row =
                                load_of(whole, dsel, from + rows_on(whole, place[i][l], dsel_at.w), dim - c) /
                                (float)width;
                        sum[i] += row;
                    }
                    width *= pool;
                }
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                if (first + i < end)
                    store_of(whole, sum[i], dx, to + rows_on(whole, first + i, dx_at.w) + c, dim - c);
            }
        }
    }
}

kernel void unpool_pull(const global index_t *slot, const global store_t *dsel, long4 dsel_at,
                        global store_t *dx, long4 dx_at, int to_heads, uint blocks, const struct shape s)
{
    if (has_whole_rows(dsel_at, s.dim) && has_whole_rows(dx_at, s.dim))
        pull_held(true, slot, dsel, dsel_at, dx, dx_at, to_heads, blocks, s);
    else
        pull_held(false, slot, dsel, dsel_at, dx, dx_at, to_heads, blocks, s);
}
