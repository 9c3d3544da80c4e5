/*
 * pull_cpu.cl: scatter.cl and unpool.cl for devices whose work-items are threads: the same sums in the same order. The rows that a
 * token hears, or is held by, are listed before their columns are added, so that levels without one cost nothing a column.
 */

/* The entries, one a level, that hold a token, or end with it at the latest. They count up from token to token as an odometer does,
 * without a division. ended: 1 for the latter, who are counted from 1 on, and 0 is none. */
struct walk {
    int levels, ended;
    index_t pool;
    index_t offset[MOST_LEVELS], entry[MOST_LEVELS], child[MOST_LEVELS];
};

static void walk_from(struct walk *walk, index_t token, int ended, const struct shape *s)
{
    index_t entry = token + ended, offset = -ended, size = s->tokens;
    walk->levels = s->levels;
    walk->ended = ended;
    walk->pool = s->pool;
    for (int l = 0; l < s->levels; l++) {
        walk->offset[l] = offset;
        walk->entry[l] = entry;
        walk->child[l] = entry % walk->pool;
        entry /= walk->pool;
        offset += size;
        size /= walk->pool;
    }
}

static void walk_on(struct walk *walk)
{
    int l = 0;
    do {
        walk->entry[l]++;
        if (++walk->child[l] < walk->pool)
            return;
        walk->child[l] = 0;
    } while (++l < walk->levels);
}

/* Where rows begin that are added up, and what each is divided by; its reciprocal where that gives the same bits. */
struct rows {
    int count;
    bool times;
    long from[MOST_LEVELS];
    float width[MOST_LEVELS];
};

/* Adds a head's rows at the walk's entries to the list, as far as they are selected. slot: of the head; from, step: where its
 * selected rows begin, and from one to the next; pool: 1 for rows that are not divided */
static void list_rows(struct rows *rows, const global index_t *slot, const struct walk *walk, long from,
                      long step, index_t pool)
{
    float width = 1;
    for (int l = 0; l < walk->levels; l++) {
        const index_t entry = walk->entry[l],
                      place = entry >= walk->ended ? slot[walk->offset[l] + entry] : -1;
        if (place >= 0) {
            rows->from[rows->count] = from + place * step;
            rows->width[rows->count++] = rows->times ? 1 / width : width;
        }
        width *= pool;
    }
}

/* Adds VEC columns of the listed rows, of which `left` remain. */
static vfloat add_rows(vfloat sum, const struct rows *rows, const global store_t *x, int c, int left)
{
    for (int i = 0; i < rows->count; i++) {
        const vfloat row = load_columns(x, rows->from[i] + c, left);
        sum += rows->times ? row * rows->width[i] : row / rows->width[i];
    }
    return sum;
}

/* Stores a vector, of floats past the caches where the compiler knows how: a line need not be read to be written, and no stage reads
 * a layer's outputs again. Others see it when the work-group has ended, for which drivers use a locked instruction. Half a line
 * at a time, as of half types or on AVX2, loses. */
static void stream_vector(vfloat x, global store_t *p, long i)
{
#if defined STORE_F32 && VEC == 16 && defined __has_builtin
#if __has_builtin(__builtin_nontemporal_store)
    if ((i & (VEC - 1)) == 0) {
        __builtin_nontemporal_store(x, (global vfloat *)(p + i));
        return;
    }
#endif
#endif
    store_vector(x, p, i);
}

/* to[:] = the sum of the listed rows */
static void store_rows(const struct rows *rows, const global store_t *x, global store_t *to, long at, int dim)
{
    int c = 0;
    for (; c + VEC <= dim; c += VEC)
        stream_vector(add_rows(0, rows, x, c, VEC), to, at + c);
    if (c < dim)
        store_columns(add_rows(0, rows, x, c, dim - c), to, at + c, dim - c);
}

/* o_sel [B,H,S,d] -> out [B,H,N,d], coverage [B,H,N] */
kernel void scatter_pull(const global index_t *slot, const global store_t *o_sel, long4 o_sel_at,
                         global store_t *out, long4 out_at, global int *coverage, long4 coverage_at,
                         uint blocks, const struct shape s)
{
    const int heads = s.heads, head = s.first + head_of(blocks);
    const global index_t *head_slot = slot + (long)head_of(blocks) * s.entries;
    const long from = row_at(o_sel_at, head, heads, 0);
    const index_t first = (index_t)s.begin + pulled_row(blocks, 1, 0);
    struct walk walk;
    struct rows rows;
    rows.times = true;
    walk_from(&walk, first, 1, &s);
    for (index_t token = first; token < min(first + RUN, (index_t)s.end); token++) {
        rows.count = 0;
        list_rows(&rows, head_slot, &walk, from, o_sel_at.w, 1);
        coverage[row_at(coverage_at, head, heads, token)] = rows.count;
        store_rows(&rows, o_sel, out, row_at(out_at, head, heads, token), s.dim);
        walk_on(&walk);
    }
}

/* dsel [B,H,S,d] -> dx [B,F,N,d], F = H for q and G for k, v */
kernel void unpool_pull(const global index_t *slot, const global store_t *dsel, long4 dsel_at,
                        global store_t *dx, long4 dx_at, int to_heads, uint blocks, const struct shape s)
{
    const int dim = s.dim, group = s.heads / to_heads;
    const int head = head_of(blocks); /* of dx, from the chunk's first */
    const global index_t *head_slot = slot + (long)head * group * s.entries;
    const long from = row_at(dsel_at, s.first + head * group, s.heads, 0); /* a group is of one batch */
    const index_t first = (index_t)s.begin + pulled_row(blocks, 1, 0);
    struct walk walk;
    struct rows rows;
    rows.times = (s.pool & (s.pool - 1)) == 0;
    walk_from(&walk, first, 0, &s);
    for (index_t token = first; token < min(first + RUN, (index_t)s.end); token++) {
        const long to = row_at(dx_at, s.first / group + head, to_heads, token);
        if (group * s.levels <= MOST_LEVELS) {
            rows.count = 0;
            for (int member = 0; member < group; member++)
                list_rows(&rows, head_slot + member * s.entries, &walk, from + member * dsel_at.z, dsel_at.w,
                          s.pool);
            store_rows(&rows, dsel, dx, to, dim);
        } else {
            for (int c = 0; c < dim; c += VEC) {
                vfloat sum = 0;
                for (int member = 0; member < group; member++) {
                    rows.count = 0;
                    list_rows(&rows, head_slot + member * s.entries, &walk, from + member * dsel_at.z,
                              dsel_at.w, s.pool);
                    sum = add_rows(sum, &rows, dsel, c, dim - c);
                }
                store_columns(sum, dx, to + c, dim - c);
            }
        }
        walk_on(&walk);
    }
}
