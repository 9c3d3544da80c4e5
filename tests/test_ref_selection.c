/*
 * Selection in ref/: against a second way of choosing that only counts, and as a structure that holds whatever the
 * scores are: ties, NaN, a million tokens (SPEC 3.3, 3.4, 7).
 */
#include <stdlib.h>

#include "ref/ref.h"
#include "tests/sample.h"
#include "tests/suite.h"

static const struct ref_shape shapes[] = {
    {1, 1, 1, 48, 1, 3, 2, 8, 4},   {1, 1, 1, 108, 1, 4, 3, 4, 2}, {1, 1, 1, 96, 1, 2, 4, 8, 8},
    {1, 1, 1, 256, 1, 5, 2, 16, 4}, {1, 1, 1, 40, 1, 2, 5, 8, 2},  {1, 1, 1, 33, 1, 1, 2, 0, 0},
    {1, 1, 1, 64, 1, 2, 2, 32, 32}, /* every coarse entry a parent */
};
enum {
    SHAPES = sizeof shapes / sizeof *shapes
};

/* Every way in which scores may be drawn. */
enum scores {
    DISTINCT,
    TIED, /* three values */
    ALL_EQUAL,
    WITH_NAN,  /* a quarter of them */
    WITH_ENDS, /* infinities and zeros of both signs */
    SCORES,
};

static real draw_score(enum scores kind, uint64_t *state)
{
    const int64_t bits = sample_draw(state);
    switch (kind) {
    case TIED:
        return (real)(bits % 3);
    case ALL_EQUAL:
        return 1;
    case WITH_NAN:
        return bits % 4 == 0 ? (real)NAN : (real)(bits % 16);
    case WITH_ENDS:
        return bits % 4 == 0 ? (real)INFINITY : bits % 4 == 1 ? -(real)0 : (real)(bits % 8 / 4);
    default:
        return (real)bits;
    }
}

struct scored {
    struct sample layer;
    const struct ref_shape *shape;
};

static struct scored scored_new(const struct ref_shape *shape, enum scores kind)
{
    struct scored s = {.layer = sample_new(shape), .shape = shape};
    uint64_t state = 7;
    for (int64_t i = 0; i < ref_entries(shape); i++) {
        s.layer.trace.score_q[i] = draw_score(kind, &state);
        s.layer.trace.score_k[i] = draw_score(kind, &state);
    }
    const struct ref_trace *t = &s.layer.trace;
    ref_select(shape, t->score_q, t->score_k, t->index, t->scratch.candidates);
    return s;
}

static int64_t level_of(const struct ref_shape *s, int64_t entry)
{
    int64_t level = 0;
    while (entry >= ref_offset(s, level + 1))
        level++;
    return level;
}

/* True when `entry` is selected together with its children. */
static int is_parent(const struct ref_shape *s, const int64_t *slot, int64_t entry)
{
    const int64_t level = level_of(s, entry);
    return level > 0 && slot[ref_offset(s, level - 1) + (entry - ref_offset(s, level)) * s->pool] >= 0;
}

START_TEST(structure)
{
    const struct ref_shape *s = &shapes[_i % SHAPES];
    struct scored scored = scored_new(s, (enum scores)(_i / SHAPES));
    const struct ref_trace *t = &scored.layer.trace;
    const int64_t selected = ref_selected(s);
    int64_t covered = 0, before_major = -1, before_minor = 0;

    for (int64_t i = 0; i < selected; i++) {
        ck_assert_int_ge(t->index[i], 0);
        ck_assert_int_lt(t->index[i], ref_entries(s));
    }
    ref_slots(s, t->index, t->scratch.slot);
    for (int64_t i = 0; i < selected; i++) {
        ck_assert_int_eq(t->scratch.slot[t->index[i]], i); /* distinct */
        const int64_t level = level_of(s, t->index[i]), window = ref_window(s, level);
        const int64_t start = (t->index[i] - ref_offset(s, level)) * window;
        const int parent = is_parent(s, t->scratch.slot, t->index[i]);
        const int64_t major = parent ? 2 * (start + window - 1) + 1 : 2 * start, minor = parent ? level : 0;
        ck_assert(major > before_major || (major == before_major && minor > before_minor));
        before_major = major;
        before_minor = minor;
        if (!parent) { /* leaves partition [0,N) */
            ck_assert_int_eq(start, covered);
            covered += window;
        }
    }
    ck_assert_int_eq(covered, s->tokens);

    for (int64_t i = 0; i < s->tokens / ref_window(s, s->levels - 1); i++) /* no coarse entry is dropped */
        ck_assert_int_ge(t->scratch.slot[ref_offset(s, s->levels - 1) + i], 0);
    for (int64_t l = 1; l < s->levels; l++) { /* m parents a level and tile */
        const int64_t tiles = s->topk / s->tile_topk, size = s->tokens / ref_window(s, l) / tiles;
        for (int64_t tile = 0; tile < tiles; tile++) {
            int64_t parents = 0;
            for (int64_t i = tile * size; i < (tile + 1) * size; i++)
                parents += t->scratch.slot[ref_offset(s, l) + i] >= 0 &&
                           is_parent(s, t->scratch.slot, ref_offset(s, l) + i);
            ck_assert_int_eq(parents, s->tile_topk);
        }
    }
    sample_free(&scored.layer);
}
END_TEST

enum mark {
    ABSENT,
    CANDIDATE,
    PARENT
};

/* Candidates of [from,to) that are to be chosen before `entry`; NaN comes last, equals by index. */
static int64_t count_before(const real *score, const enum mark *mark, int64_t from, int64_t to, int64_t entry)
{
    int64_t before = 0;
    for (int64_t other = from; other < to; other++) {
        if (mark[other] != CANDIDATE || other == entry)
            continue;
        const int other_nan = score[other] != score[other], nan = score[entry] != score[entry];
        const int stronger = other_nan || nan ? !other_nan && nan : score[other] > score[entry];
        const int equal = other_nan || nan ? other_nan && nan : score[other] == score[entry];
        before += stronger || (equal && other < entry);
    }
    return before;
}

/* Marks as PARENT the `half` first of [from,to). */
static void mark_first(const real *score, enum mark *mark, int64_t from, int64_t to, int64_t half,
                       char *chosen)
{
    for (int64_t e = from; e < to; e++)
        chosen[e - from] = mark[e] == CANDIDATE && count_before(score, mark, from, to, e) < half;
    for (int64_t e = from; e < to; e++)
        if (chosen[e - from])
            mark[e] = PARENT;
}

START_TEST(against_counting)
{
    const struct ref_shape *s = &shapes[_i % SHAPES];
    struct scored scored = scored_new(s, (enum scores)(_i / SHAPES));
    const struct ref_trace *t = &scored.layer.trace;
    const int64_t entries = ref_entries(s), coarse = ref_offset(s, s->levels - 1);
    enum mark *mark = calloc((size_t)entries, sizeof *mark);
    char *chosen = calloc((size_t)entries, 1);
    ck_assert(mark && chosen);
    for (int64_t e = coarse; e < entries; e++)
        mark[e] = CANDIDATE;
    for (int64_t l = s->levels - 1; l > 0; l--) {
        const int64_t tiles = s->topk / s->tile_topk, size = s->tokens / ref_window(s, l) / tiles;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t from = ref_offset(s, l) + tile * size, to = from + size;
            mark_first(t->score_q, mark, from, to, s->tile_topk / 2, chosen);
            mark_first(t->score_k, mark, from, to, s->tile_topk / 2, chosen);
        }
        for (int64_t i = 0; i < s->tokens / ref_window(s, l); i++)
            for (int64_t j = 0; mark[ref_offset(s, l) + i] == PARENT && j < s->pool; j++)
                mark[ref_offset(s, l - 1) + i * s->pool + j] = CANDIDATE;
    }
    ref_slots(s, t->index, t->scratch.slot);
    for (int64_t e = 0; e < entries; e++)
        ck_assert_int_eq(t->scratch.slot[e] >= 0, mark[e] != ABSENT);
    free(mark);
    free(chosen);
    sample_free(&scored.layer);
}
END_TEST

START_TEST(a_million_tokens)
{
    const struct ref_shape s = {1, 1, 1,    1 << 20, 1,
                                4, 4, 4096, 4096}; /* one tile: the longest sort there is */
    struct scored scored = scored_new(&s, TIED);
    const struct ref_trace *t = &scored.layer.trace;
    ref_slots(&s, t->index, t->scratch.slot);
    int64_t covered = 0;
    for (int64_t i = 0; i < ref_selected(&s); i++) {
        if (is_parent(&s, t->scratch.slot, t->index[i]))
            continue;
        const int64_t level = level_of(&s, t->index[i]);
        ck_assert_int_eq((t->index[i] - ref_offset(&s, level)) * ref_window(&s, level), covered);
        covered += ref_window(&s, level);
    }
    ck_assert_int_eq(covered, s.tokens);
    sample_free(&scored.layer);
}
END_TEST

/* Scores of pooled levels are maxima of the tokens' norms; norms by hand: 3-4-5, 5-12-13, 8-15-17, 0. */
START_TEST(scores)
{
    const struct ref_shape s = {1, 1, 1, 4, 2, 3, 2, 0, 0};
    static const real x[] = {3, -4, 5, 12, -8, 15, 0, 0};
    static const real wanted[] = {5, 13, 17, 0, 13, 17, 17};
    real score[7];
    ref_score(&s, x, score);
    for (int i = 0; i < 7; i++)
        ck_assert(score[i] == wanted[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ref selection");
    TCase *tcase = suite_case(suite, "selection");
    tcase_add_loop_test(tcase, structure, 0, SHAPES * SCORES);
    tcase_add_loop_test(tcase, against_counting, 0, SHAPES * SCORES);
    tcase_add_test(tcase, a_million_tokens);
    tcase_add_test(tcase, scores);
    return suite_run(suite);
}
