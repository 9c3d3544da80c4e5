/* Who moves when one token changes: the layer as it is meant, and with one rule broken at a time. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "explain/broken.h"
#include "explain/explain.h"

enum {
    NO_SHIFT = 1,
    NO_MASK = 2,
    PRE_ORDER = 4, /* a parent where its window begins */
    FREE = 8,      /* the index is chosen anew */
};

static const struct {
    unsigned rules;
    const char *name;
} variants[EXPLAIN_VARIANTS] = {
    {0, "as it is meant"},           {NO_SHIFT, "without the shift"}, {NO_MASK, "without the mask"},
    {PRE_ORDER, "parents in front"}, {FREE, "index chosen anew"},
};

/* One run: inputs, everything between, out. */
struct run {
    double *x[3], *pyramid[3], *score[2], *sel[3], *o_sel, *lse, *row, *out;
    int64_t *index, *slot;
    int32_t *coverage;
    struct ref_candidate *candidates;
    void *memory;
};

static lh_status run_create(const explain *e, struct run *r, lh_error *error)
{
    const size_t nd = (size_t)(e->config.tokens * e->config.dim),
                 pd = (size_t)(e->layout.entries * e->config.dim);
    const size_t P = (size_t)e->layout.entries, S = (size_t)e->layout.selected,
                 sd = S * (size_t)e->config.dim;
    double **const parts[] = {&r->x[0],       &r->x[1],       &r->x[2],     &r->out,      &r->pyramid[0],
                              &r->pyramid[1], &r->pyramid[2], &r->score[0], &r->score[1], &r->sel[0],
                              &r->sel[1],     &r->sel[2],     &r->o_sel,    &r->lse,      &r->row};
    const size_t sizes[] = {nd, nd, nd, nd, pd, pd, pd, P, P, sd, sd, sd, sd, S, S};
    size_t total = 0;
    for (int i = 0; i < 15; i++)
        total += sizes[i];
    total += S + P + (size_t)e->config.tokens;
    const lh_status status =
        lh_alloc(&r->memory, total * 8 + S * sizeof(struct ref_candidate), "probe", error);
    if (status != LH_OK)
        return status;
    double *at = r->memory;
    for (int i = 0; i < 15; at += sizes[i++])
        *parts[i] = at;
    r->index = (void *)at;
    r->slot = r->index + S;
    r->candidates = (void *)(r->slot + P);
    r->coverage = (void *)(r->candidates + S);
    return LH_OK;
}

/* Place in the order where a parent stands at its window's start, before all that it holds. */
static int compare_starts(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return x[0] != y[0] ? (x[0] > y[0]) - (x[0] < y[0]) : (x[1] < y[1]) - (x[1] > y[1]);
}

static void parents_in_front(const explain *e, int64_t *index)
{
    int64_t rows[2 * EXPLAIN_MAX_TOKENS][3]; /* start, level, entry */
    for (int64_t s = 0; s < e->layout.selected; s++) {
        rows[s][0] = explain_tokens(e, e->index[s]).first;
        rows[s][1] = explain_level(e, e->index[s]);
        rows[s][2] = e->index[s];
    }
    qsort(rows, (size_t)e->layout.selected, sizeof *rows, compare_starts);
    for (int64_t s = 0; s < e->layout.selected; s++)
        index[s] = rows[s][2];
}

static void forward(const explain *e, unsigned rules, int64_t token, double change, struct run *r)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V};
    const lh_config *c = &e->config;
    const struct ref_shape shape = {1, 1, 1, c->tokens, c->dim, c->levels, c->pool, c->topk, c->tile_topk};
    for (int i = 0; i < 3; i++) {
        memcpy(r->x[i], e->value[inputs[i]], (size_t)(c->tokens * c->dim) * sizeof(double));
        for (int64_t j = 0; j < c->dim; j++)
            r->x[i][token * c->dim + j] += change;
        ref_pool(&shape, r->x[i], r->pyramid[i]);
        if (i < 2)
            ref_score(&shape, r->x[i], r->score[i]);
    }
    if (rules & FREE)
        ref_select(&shape, r->score[0], r->score[1], r->index, r->candidates);
    else if (rules & PRE_ORDER)
        parents_in_front(e, r->index);
    else
        memcpy(r->index, e->index, (size_t)e->layout.selected * sizeof(int64_t));
    for (int i = 0; i < 3; i++)
        ref_gather(&shape, r->pyramid[i], r->index, r->sel[i]);
    (rules & NO_MASK ? broken_attend : ref_attend)(&shape, r->sel[0], r->sel[1], r->sel[2], r->o_sel, r->lse,
                                                   r->row);
    ref_slots(&shape, r->index, r->slot);
    (rules & NO_SHIFT ? broken_scatter : ref_scatter)(&shape, r->o_sel, r->slot, r->out, r->coverage);
}

const char *explain_variant_name(int variant)
{
    return variants[variant].name;
}

lh_status explain_leak(explain *e, int64_t token, lh_error *error)
{
    struct run before = {0}, after = {0};
    const size_t row = (size_t)e->config.dim * sizeof(double);
    lh_status status = run_create(e, &before, error);
    if (status == LH_OK)
        status = run_create(e, &after, error);
    e->probed = token;
    for (int i = 0; i < EXPLAIN_VARIANTS && status == LH_OK; i++) {
        forward(e, variants[i].rules, token, 0, &before);
        forward(e, variants[i].rules, token, 1, &after);
        for (int64_t j = 0; j < e->config.tokens; j++)
            e->moved[i][j] = memcmp(before.out + j * e->config.dim, after.out + j * e->config.dim, row) != 0;
    }
    lh_free(before.memory);
    lh_free(after.memory);
    return status;
}

void explain_print_leak(const explain *e, FILE *to)
{
    fprintf(to,
            "1 is added to q, k and v of token %" PRId64
            ". Positions whose output moves in any bit: + at the token or "
            "behind it,\n! before it, where they must not.\n\n  %-20s",
            e->probed, "position");
    for (int64_t j = 0; j < e->config.tokens; j++)
        fprintf(to, " %2" PRId64, j);
    fprintf(to, "\n");
    for (int i = 0; i < EXPLAIN_VARIANTS; i++) {
        int64_t leaks = 0;
        fprintf(to, "  %-20s", variants[i].name);
        for (int64_t j = 0; j < e->config.tokens; j++) {
            const bool leak = e->moved[i][j] && j < e->probed;
            leaks += leak;
            fprintf(to, "  %c", leak ? '!' : e->moved[i][j] ? '+' : '.');
        }
        fprintf(to, "   %" PRId64 " before\n", leaks);
    }
    fprintf(
        to,
        "\nThe first four rows hold the index. The last does not: what it moves before the token is look-ahead in the "
        "choice.\n");
}

double explain_draw_leak(const explain *e, FILE *svg, double y)
{
    const double column = explain_column(e), row = 30, left = EXPLAIN_LEFT + 34;
    svg_text(svg, 12, y + 20, "title", "Who moves when token %" PRId64 " changes", e->probed);
    svg_text(
        svg, 12, y + 38, "note small",
        "+ filled: the output moves, at the token or behind it; ! thick: it moves before the token, a leak");
    y += 50;
    for (int64_t j = 0; j < e->config.tokens; j++)
        svg_text(svg, left + column * ((double)j + 0.5), y + 12, "small", "%" PRId64, j);
    y += 18;
    for (int i = 0; i < EXPLAIN_VARIANTS; i++, y += row) {
        svg_text(svg, left - 8, y + 18, "right small", "%s", variants[i].name);
        for (int64_t j = 0; j < e->config.tokens; j++) {
            const bool moved = e->moved[i][j], leak = moved && j < e->probed;
            const double x = left + column * (double)j;
            svg_box(svg, x + 2, y + 2, column - 4, row - 6, leak ? "key" : moved ? "write" : "absent");
            if (moved)
                svg_text(svg, x + column / 2, y + 18, "on", leak ? "!" : "+");
        }
    }
    return y;
}
