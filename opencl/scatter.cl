/*
 * scatter.cl: the way back to the tokens as a pull, fine to coarse, no atomics (SPEC 3.7); on CPUs pull_cpu.cl.
 *
 * Position j hears entry i of level l when i = floor((j+1)/p^l) - 1 exists and is selected. slot [heads,P] is
 * an entry's place in the sub-sequence or -1. -D LANES: work-items that share a row.
 */

/* Whether row i of a run may hear another entry than row 0, of a level of this width: a row hears the entry that ended last,
 * so a run's last row is the first to hear the next. */
#define HEARS_ANOTHER(i, width) ((i) == 0 || (i) == AHEAD - 1 || (width) % AHEAD != 0)

BODY void pull_heard(bool whole, const global index_t *slot, const global store_t *o_sel, long4 o_sel_at,
                     global store_t *out, long4 out_at, global int *coverage, long4 coverage_at, uint blocks,
                     struct shape s)
{
    const index_t tokens = s.tokens, end = s.end, pool = POOL_OF(s);
    const int levels = LEVELS_OF(s), dim = s.dim, heads = s.heads;
    const int head = s.first + head_of(blocks), lane = get_local_id(0) % LANES;
    const global index_t *head_slot = slot + (long)head_of(blocks) * s.entries;
    const long from = row_at(o_sel_at, head, heads, 0), to = row_at(out_at, head, heads, 0);
    for (int run = 0; run < PULLED; run += AHEAD) {
        const index_t first = (index_t)s.begin + pulled_row(blocks, LANES, run);
        index_t place[AHEAD][MOST_LEVELS];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const index_t j = first + i;
            uindex_t reach = j < end ? j + 1 : 0;
            index_t offset = 0, size = tokens;
            long width = 1;
            int heard = 0;
            UNROLL_LEVELS
            for (int l = 0; l < levels; l++) {
                if (HEARS_ANOTHER(i, width))
                    place[i][l] = reach > 0 ? head_slot[offset + reach - 1] : -1;
                else
                    place[i][l] = place[0][l];
                heard += place[i][l] >= 0;
                reach /= pool;
                offset += size;
                size /= pool;
                width *= pool;
            }
            if (lane == 0 && j < end)
                coverage[row_at(coverage_at, head, heads, j)] = heard;
        }
        for (int c = lane * VEC; c < dim; c += LANES * VEC) {
            vfloat sum[AHEAD];
            long width = 1;
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                sum[i] = 0;
            UNROLL_LEVELS
            for (int l = 0; l < levels; l++) {
                vfloat row = 0;
#pragma unroll
                for (int i = 0; i < AHEAD; i++) {
                    if (place[i][l] < 0)
                        continue;
                    if (HEARS_ANOTHER(i, width))
                        row = load_of(whole, o_sel, from + rows_on(whole, place[i][l], o_sel_at.w) + c,
                                      dim - c);
                    sum[i] += row;
                }
                width *= pool;
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                if (first + i < end)
                    store_of(whole, sum[i], out, to + rows_on(whole, first + i, out_at.w) + c, dim - c);
            }
        }
    }
}

/* o_sel [B,H,S,d] -> out [B,H,N,d], coverage [B,H,N] */
kernel void scatter_pull(const global index_t *slot, const global store_t *o_sel, long4 o_sel_at,
                         global store_t *out, long4 out_at, global int *coverage, long4 coverage_at,
                         uint blocks, const struct shape s)
{
    if (has_whole_rows(o_sel_at, s.dim) && has_whole_rows(out_at, s.dim))
        pull_heard(true, slot, o_sel, o_sel_at, out, out_at, coverage, coverage_at, blocks, s);
    else
        pull_heard(false, slot, o_sel, o_sel_at, out, out_at, coverage, coverage_at, blocks, s);
}
