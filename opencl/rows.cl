/*
 * rows.cl: tensors [B,heads,rows,...] in buffers, and how the stages around attention share out their rows.
 *
 * -D GROUP: work-items of a work-group, RUN: rows in sequence per work-item, PULLED: of a pull, AHEAD: how many of those a
 * GPU's looks up before it reads the first, so that loads overlap; divides PULLED. Such a run starts at a multiple of AHEAD:
 * where AHEAD divides an entry's width, one entry holds all of it.
 */

/*
 * Where a tensor lies in its buffer, in elements: .x the offset of element 0 (negative for a buffer that holds a
 * later part only), .y .z .w the strides of batch, head and row. `head` counts over batches: b*heads + h.
 */
static long row_at(long4 at, int head, int heads, long row)
{
    const uint batch = (uint)head / (uint)heads;
    return at.x + batch * at.y + ((uint)head - batch * (uint)heads) * at.z + row * at.w;
}

/* A work-group belongs to one head, `blocks` work-groups share a head, and `lanes` neighbouring work-items a row. */
static int head_of(uint blocks)
{
    return (uint)get_group_id(0) / blocks;
}

static index_t row_of(uint blocks, int lanes, int run)
{
    const uint block = (uint)get_group_id(0) % blocks;
    return ((index_t)block * RUN + run) * (GROUP / lanes) + get_local_id(0) / lanes;
}

/* Of a pull a work-item's rows are neighbours, which mostly hear, or are held by, the same coarse entries. */
static index_t pulled_row(uint blocks, int lanes, int run)
{
    const uint block = (uint)get_group_id(0) % blocks;
    return ((index_t)block * (GROUP / lanes) + get_local_id(0) / lanes) * PULLED + run;
}

/* The sum of a vector's elements. */
static float sum_lanes(vfloat x)
{
#if VEC == 1
    return x;
#else
#if VEC == 16
    const float8 a = x.lo + x.hi;
#endif
#if VEC == 16
    const float4 b = a.lo + a.hi;
#elif VEC == 8
    const float4 b = x.lo + x.hi;
#else
    const float4 b = x;
#endif
    return (b.x + b.y) + (b.z + b.w);
#endif
}

/* to[:] = the sum of `count` rows of x, of which element `from` is the first of the first and the next rows are `step` on, or their
 * mean. -D SPAN: vectors that a work-item has of a row before it turns to the next: CPUs read rows from end to end. */
BODY void store_sum(bool whole, const global store_t *x, long from, long step, index_t count, bool mean,
                    global store_t *to, long at, int dim)
{
    int c = get_local_id(0) % LANES * VEC;
#if SPAN > 1
    for (; c + SPAN * VEC <= dim; c += SPAN * VEC) {
        vfloat sum[SPAN];
        UNROLL
        for (int v = 0; v < SPAN; v++)
            sum[v] = load_vector(x, from + c + v * VEC);
        for (index_t n = 1; n < count; n++) {
            UNROLL
            for (int v = 0; v < SPAN; v++)
                sum[v] += load_vector(x, from + n * step + c + v * VEC);
        }
        UNROLL
        for (int v = 0; v < SPAN; v++)
            store_vector(mean ? sum[v] / (float)count : sum[v], to, at + c + v * VEC);
    }
#endif
    for (; c < dim; c += LANES * VEC) {
        vfloat sum = load_of(whole, x, from + c, dim - c);
        for (index_t n = 1; n < count; n++)
            sum += load_of(whole, x, from + rows_on(whole, n, step) + c, dim - c);
        store_of(whole, mean ? sum / (float)count : sum, to, at + c, dim - c);
    }
}

/* delta[s] = sum_c do_sel[s][c] * o_sel[s][c], float32 [heads,S] */
kernel void row_products(const global store_t *o_sel, const global store_t *do_sel, global float *delta,
                         const struct shape s)
{
    const long row = get_global_id(0);
    if (row >= s.here * s.selected)
        return;
    const long from = (s.sel_first * s.selected + row) * s.dim;
    vfloat sum = 0;
    for (int c = 0; c < s.dim; c += VEC)
        sum = fma(load_columns(o_sel, from + c, s.dim - c), load_columns(do_sel, from + c, s.dim - c), sum);
    delta[row] = sum_lanes(sum);
}
