/*
 * Select: which pyramid entries make up the sub-sequence, and in which order (SPEC 3.3, 3.4).
 *
 * Per tile, candidates C start as the tile's coarsest entries. At each level l = L-1 ... 1
 *   A  = the m/2 of C with the largest query score,
 *   A' = the m/2 of C \ A with the largest key score,
 * A and A' are parents, the rest of C are leaves, and the next C is the p children of every parent. At level
 * 0 all of C are leaves. Parents and leaves alike are selected.
 *
 * Order of choice: score descending, then entry ascending; NaN after every number, so the order is total
 * whatever the scores are. Order of the result: strict post-order, by the integer key
 *   leaf (2 i p^l, 0)     parent (2 ((i+1) p^l - 1) + 1, l)
 * that is, a leaf stands where its window starts and a parent behind all that its window holds.
 */
#include "ref.h"

typedef int order(const struct ref_candidate *a, const struct ref_candidate *b);

/* True when a is to be chosen before b. */
static int stronger(const struct ref_candidate *a, const struct ref_candidate *b)
{
    const int a_number = a->score == a->score, b_number = b->score == b->score;
    if (a_number != b_number)
        return a_number;
    if (a_number && a->score != b->score)
        return a->score > b->score;
    return a->entry < b->entry;
}

/* True when a stands behind b in the sub-sequence. */
static int behind(const struct ref_candidate *a, const struct ref_candidate *b)
{
    if (a->major != b->major)
        return a->major > b->major;
    return a->minor > b->minor;
}

/* Lets heap[i] sink below everything that comes first; heap: [n]. */
static void sink(struct ref_candidate *heap, int64_t n, int64_t i, order *first)
{
    const struct ref_candidate moved = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && first(&heap[child + 1], &heap[child]))
            child++;
        if (!first(&heap[child], &moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* Moves the `count` first of heap: [n] to its end, the very first last. */
static void move_first_to_end(struct ref_candidate *heap, int64_t n, int64_t count, order *first)
{
    for (int64_t i = n / 2 - 1; i >= 0; i--)
        sink(heap, n, i, first);
    for (int64_t last = n - 1; last >= n - count; last--) {
        const struct ref_candidate top = heap[0];
        heap[0] = heap[last];
        heap[last] = top;
        sink(heap, last, 0, first);
    }
}

static struct ref_candidate leaf(const struct ref_shape *s, int64_t level, int64_t i)
{
    return (struct ref_candidate){.entry = ref_offset(s, level) + i, .major = 2 * i * ref_window(s, level)};
}

/* Turns the leaf candidate of this level into a parent. */
static void make_parent(const struct ref_shape *s, int64_t level, struct ref_candidate *candidate)
{
    const int64_t i = candidate->entry - ref_offset(s, level);
    candidate->major = 2 * ((i + 1) * ref_window(s, level) - 1) + 1;
    candidate->minor = level;
}

/*
 * One tile: candidates first ... first+count of the coarsest level -> chosen; returns how many those are. The buffer
 * after the two choices at level l, everything left of the parents being final:
 *
 *   | leaves of coarser levels, their parents | leaves of l       | A'  | A   | children of A' and A: the next C |
 *   chosen                                    c                   ^ parents   children
 *                                             |<-- count - m -->|<--- m --->|<------------ m p ------------->|
 */
static int64_t select_tile(const struct ref_shape *s, const real *score_q, const real *score_k, int64_t first,
                           int64_t count, struct ref_candidate *chosen)
{
    const int64_t half = s->tile_topk / 2;
    struct ref_candidate *c = chosen; /* the candidates of this level: c[0] ... c[count-1] */
    for (int64_t i = 0; i < count; i++)
        c[i] = leaf(s, s->levels - 1, first + i);
    for (int64_t l = s->levels - 1; l > 0; l--) {
        for (int64_t i = 0; i < count; i++)
            c[i].score = score_q[c[i].entry];
        move_first_to_end(c, count, half, stronger);
        for (int64_t i = 0; i < count - half; i++)
            c[i].score = score_k[c[i].entry];
        move_first_to_end(c, count - half, half, stronger);

        struct ref_candidate *parents = c + count - 2 * half, *children = c + count;
        for (int64_t i = 0; i < 2 * half; i++) {
            const int64_t at = parents[i].entry - ref_offset(s, l);
            for (int64_t j = 0; j < s->pool; j++)
                children[i * s->pool + j] = leaf(s, l - 1, at * s->pool + j);
            make_parent(s, l, &parents[i]);
        }
        c = children;
        count = 2 * half * s->pool;
    }
    return c + count - chosen;
}

/* score_q, score_k: [P]  ->  index: [S].  L = 1 has no levels to choose from: index is the identity. */
void ref_select(const struct ref_shape *s, const real *score_q, const real *score_k, int64_t *index,
                struct ref_candidate *scratch)
{
    const int64_t tiles = s->levels == 1 ? 1 : s->topk / s->tile_topk;
    const int64_t coarse = s->tokens / ref_window(s, s->levels - 1) / tiles;
    int64_t selected = 0;
    for (int64_t t = 0; t < tiles; t++)
        selected += select_tile(s, score_q, score_k, t * coarse, coarse, scratch + selected);
    move_first_to_end(scratch, selected, selected, behind);
    for (int64_t i = 0; i < selected; i++)
        index[i] = scratch[i].entry;
}
