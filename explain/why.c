/* Why an entry was selected or not, opened or not, and by how much. */
#include <inttypes.h>

#include "explain/explain.h"

/* The candidate of `entry`'s level and tile that has place `rank`, by query or among the rest by key. */
static int64_t at_rank(const explain *e, int64_t entry, const int64_t *ranks, int64_t rank)
{
    const int level = explain_level(e, entry);
    for (int64_t i = e->layout.level_offset[level]; i < e->layout.level_offset[level + 1]; i++)
        if (e->slot[i] >= 0 && explain_tile(e, i) == explain_tile(e, entry) && ranks[i] == rank)
            return i;
    return -1;
}

static int64_t candidates(const explain *e, int64_t entry)
{
    const int level = explain_level(e, entry);
    int64_t count = 0;
    for (int64_t i = e->layout.level_offset[level]; i < e->layout.level_offset[level + 1]; i++)
        count += e->slot[i] >= 0 && explain_tile(e, i) == explain_tile(e, entry);
    return count;
}

static int64_t parent_of(const explain *e, int64_t entry)
{
    const int level = explain_level(e, entry);
    return e->layout.level_offset[level + 1] + (entry - e->layout.level_offset[level]) / e->config.pool;
}

/* The token of an entry's window whose score the window carries: the first that has it. */
static int64_t strongest(const explain *e, int64_t entry, lh_tensor_id score)
{
    const explain_window w = explain_tokens(e, entry);
    int64_t token = w.first;
    while (token + 1 < w.first + w.size && e->value[score][token] != e->value[score][entry])
        token++;
    return token;
}

static void print_contest(const explain *e, int64_t entry, bool by_key, FILE *to)
{
    const lh_tensor_id score = by_key ? LH_SCORE_K : LH_SCORE_Q;
    const int64_t *ranks = by_key ? e->key_rank : e->query_rank, half = e->config.tile_topk / 2;
    const int64_t last = at_rank(e, entry, ranks, half), all = candidates(e, entry) - (by_key ? half : 0);
    char own[32], other[32];
    fprintf(to,
            "  By %s its score is %s (token %" PRId64 "'s): place %" PRId64 " of %" PRId64 "%s, and %" PRId64
            " %s opened.",
            by_key ? "key" : "query", explain_number(e->value[score][entry], own), strongest(e, entry, score),
            ranks[entry], all, by_key ? " that are left" : "", half, half == 1 ? "is" : "are");
    if (ranks[entry] > half) {
        fprintf(to, " The last of those, %" PRId64 ", has %s.", last,
                explain_number(e->value[score][last], other));
        if (e->value[score][last] == e->value[score][entry])
            fprintf(to, " A tie: the lower entry goes first.");
        fprintf(to, "\n  It would have been opened with a %s of norm over %s among its tokens.",
                by_key ? "key" : "query", other);
    }
    fprintf(to, "\n");
}

static const char *role_words(explain_role role)
{
    switch (role) {
    case EXPLAIN_QUERY_PARENT:
        return "opened, by its query score";
    case EXPLAIN_KEY_PARENT:
        return "opened, by its key score";
    case EXPLAIN_LEAF:
        return "not opened";
    default:
        return "never a candidate";
    }
}

static void print_candidacy(const explain *e, int64_t entry, FILE *to)
{
    const int level = explain_level(e, entry);
    if (level == e->config.levels - 1) {
        fprintf(to, "  It is one of the coarsest level, all of which are candidates.\n");
        return;
    }
    int64_t above = parent_of(e, entry);
    if (explain_is_parent(e, above)) {
        fprintf(to, "  The window above it, %" PRId64 ", was %s: so its children are candidates.\n", above,
                role_words(e->role[above]));
        return;
    }
    while (e->slot[above] < 0)
        above = parent_of(e, above);
    fprintf(to, "  The window above it, %" PRId64 " of level %d, was %s, and stands for all that it holds:\n",
            above, explain_level(e, above), role_words(e->role[above]));
    print_contest(e, above, false, to);
    print_contest(e, above, true, to);
}

void explain_why(const explain *e, int64_t entry, FILE *to)
{
    const int level = explain_level(e, entry);
    char range[48];
    fprintf(to, "Entry %" PRId64 ": level %d, token%s %s. ", entry, level,
            e->layout.window[level] > 1 ? "s" : "", explain_range(explain_tokens(e, entry), range));
    if (e->role[entry] == EXPLAIN_ABSENT) {
        fprintf(to, "Not selected: never a candidate.\n");
        print_candidacy(e, entry, to);
        return;
    }
    fprintf(to, "Selected, slot %" PRId64 "; %s.\n", e->slot[entry],
            level == 0 ? "a token has nothing to open, every candidate is a leaf"
                       : role_words(e->role[entry]));
    if (e->config.levels == 1) {
        fprintf(to, "  L = 1: every token is selected.\n");
        return;
    }
    print_candidacy(e, entry, to);
    if (level > 0) {
        print_contest(e, entry, false, to);
        if (e->role[entry] != EXPLAIN_QUERY_PARENT)
            print_contest(e, entry, true, to);
    }
    fprintf(
        to, "  %s\n",
        explain_is_parent(e, entry)
            ? "As a parent it stands behind all that its window holds, and its children are there as well."
            : "As a leaf it stands where its window begins, for all of it.");
}
