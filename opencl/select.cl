/*
 * select.cl: the parents of each level, per tile, exactly and in SPEC 3.3's order (score descending, then
 * index ascending), without sorting.
 *
 * score_q [B,H,P], score_k [B,G,P] -> parents [heads,T,L-1,m]: row l-1 holds the m parents of level l,
 * ascending. One work-group a tile. Candidates are in ascending order at every level (the children of
 * ascending parents), so candidate j beats candidate j' when its key is larger, or equal and j < j'. The last
 * candidate that is taken is found by radix selection, 8 bits a pass, first over keys, then over positions
 * among those that tie. Local memory: bins [256], picked [2], counts [GROUP].
 * -D GROUP: work-group size.
 */

/* A work-group of one waits for nobody. */
#if GROUP > 1
#define GROUP_BARRIER(flags) barrier(flags)
#else
#define GROUP_BARRIER(flags)
#endif

/* Ascending as the scores are; -0 ties with +0, NaN loses to every number. */
static uint order_key(float score)
{
    if (isnan(score))
        return 0;
    const uint bits = as_uint(score == 0 ? 0.0f : score);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

struct cut {
    uint key;      /* every candidate with a larger key is taken, */
    index_t place; /* and those with this key up to this position */
};

static bool is_taken(struct cut cut, uint key, index_t place)
{
    return key > cut.key || (key == cut.key && place <= cut.place);
}

struct tile {
    const global float *score_q, *score_k; /* of this level */
    global index_t *above;                 /* the level above's parents; candidates are their children */
    index_t count, base, pool;             /* candidates; the first of them at the coarsest level */
    bool coarsest;
};

static index_t candidate(const struct tile *t, index_t place)
{
    return t->coarsest ? t->base + place : t->above[place / t->pool] * t->pool + place % t->pool;
}

/* Key of a candidate, by query score, or by key score with -1 for those that `queries` took. */
static long key_at(const struct tile *t, bool by_key, struct cut queries, index_t place)
{
    const index_t i = candidate(t, place);
    const uint q = order_key(t->score_q[i]);
    if (!by_key)
        return q;
    return is_taken(queries, q, place) ? -1 : (long)order_key(t->score_k[i]);
}

/*
 * The digit of the wanted candidate, which is the rank-th (from 0) in the order of the bins, descending or
 * ascending, in picked[0], and in picked[1] its rank among those that share the digit. One work-item's job.
 */
static void pick_digit(const local uint *bins, bool descending, long rank, local long *picked)
{
    int i = 0;
    while (i < 255 && rank >= (long)bins[descending ? 255 - i : i]) {
        rank -= bins[descending ? 255 - i : i];
        i++;
    }
    picked[0] = descending ? 255 - i : i;
    picked[1] = rank;
}

static void clear_bins(local uint *bins)
{
    GROUP_BARRIER(CLK_LOCAL_MEM_FENCE); /* the digit before was read */
    for (int i = get_local_id(0); i < 256; i += GROUP)
        bins[i] = 0;
    GROUP_BARRIER(CLK_LOCAL_MEM_FENCE);
}

/* The cut that takes exactly `wanted` candidates: digits of 8 bits, the key's from the top, then the position's
 * among those that tie. */
static struct cut find_cut(const struct tile *t, bool by_key, struct cut queries, index_t wanted,
                           local uint *bins, local long *picked)
{
    long key_found = 0, place_found = 0, rank = wanted - 1;
    int place_digits = 1;
    while (place_digits < (int)sizeof(index_t) && (long)(t->count - 1) >> 8 * place_digits != 0)
        place_digits++;
    for (int digit = 3 + place_digits; digit >= 0; digit--) {
        const bool of_key = digit >= place_digits;
        const int shift = 8 * (of_key ? digit - place_digits : digit);
        clear_bins(bins);
        for (index_t place = get_local_id(0); place < t->count; place += GROUP) {
            const long key = key_at(t, by_key, queries, place);
            const long value = of_key ? key : place, found = of_key ? key_found : place_found;
            if (key >= 0 && (of_key || key == key_found) && value >> (shift + 8) == found >> (shift + 8))
                atomic_inc(&bins[value >> shift & 255]);
        }
        GROUP_BARRIER(CLK_LOCAL_MEM_FENCE);
        if (get_local_id(0) == 0)
            pick_digit(bins, of_key, rank, picked);
        GROUP_BARRIER(CLK_LOCAL_MEM_FENCE);
        rank = picked[1];
        if (of_key)
            key_found |= picked[0] << shift;
        else
            place_found |= picked[0] << shift;
    }
    const struct cut cut = {key_found, place_found};
    return cut;
}

/* How many of the candidates from `begin` to `end` are taken; they go to `parents` unless that is NULL. */
static index_t take(const struct tile *t, struct cut queries, struct cut keys, index_t begin, index_t end,
                    global index_t *parents)
{
    index_t taken = 0;
    for (index_t place = begin; place < end; place++) {
        const index_t i = candidate(t, place);
        if (is_taken(queries, order_key(t->score_q[i]), place) ||
            is_taken(keys, order_key(t->score_k[i]), place)) {
            if (parents)
                parents[taken] = i;
            taken++;
        }
    }
    return taken;
}

/* Writes the taken candidates, ascending: each work-item has a run of them and counts those before it. */
static void write_parents(const struct tile *t, struct cut queries, struct cut keys, global index_t *parents,
                          local index_t *counts)
{
    const int item = get_local_id(0);
    const index_t run = (t->count + GROUP - 1) / GROUP;
    const index_t begin = min(item * run, t->count), end = min(begin + run, t->count);
    counts[item] = take(t, queries, keys, begin, end, 0);
    GROUP_BARRIER(CLK_LOCAL_MEM_FENCE);
    index_t before = 0;
    for (int i = 0; i < item; i++)
        before += counts[i];
    take(t, queries, keys, begin, end, parents + before);
    GROUP_BARRIER(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
}

kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
select_parents(const global float *score_q, long4 score_q_at, const global float *score_k, long4 score_k_at,
               global index_t *parents, local uint *bins, local long *picked, local index_t *counts,
               const struct shape s)
{
    const index_t pool = POOL_OF(s), tile_topk = s.tile_topk, tiles = s.tiles;
    const int levels = LEVELS_OF(s), head = s.first + get_group_id(0) / tiles;
    const index_t number = get_group_id(0) % tiles;
    parents += (long)get_group_id(0) * (levels - 1) * tile_topk;
    index_t size = s.coarse, offset = 0, level_size = s.tokens;
    for (int l = 1; l < levels; l++) {
        offset += level_size;
        level_size /= pool;
    }
    struct tile t = {.base = number * s.tile_coarse, .count = s.tile_coarse, .pool = pool, .coarsest = true};
    for (int l = levels - 1; l >= 1; l--) {
        t.score_q = score_q + row_at(score_q_at, head, s.heads, offset);
        t.score_k = score_k + row_at(score_k_at, head / (s.heads / s.kv_heads), s.kv_heads, offset);
        t.above = parents + (long)l * tile_topk;
        const struct cut none = {0, 0};
        const struct cut queries = find_cut(&t, false, none, tile_topk / 2, bins, picked);
        const struct cut keys = find_cut(&t, true, queries, tile_topk / 2, bins, picked);
        write_parents(&t, queries, keys, parents + (long)(l - 1) * tile_topk, counts);
        size *= pool; /* of level l - 1 */
        offset -= size;
        t.count = tile_topk * pool;
        t.coarsest = false;
    }
}
