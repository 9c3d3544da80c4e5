/* Pool, score and select: the pyramid over the token axis, coarse above fine. */
#include <inttypes.h>
#include <string.h>

#include "explain/explain.h"

static const char *const classes[] = {"absent", "leaf", "query", "key"};
static const char letters[] = {' ', ' ', 'Q', 'K'};

static void two_numbers(const explain *e, explain_step step, int64_t entry, double centre, double y,
                        FILE *svg)
{
    char q[32], k[32];
    const bool pool = step == EXPLAIN_POOL;
    explain_number(pool ? explain_size(e, LH_Q_PYR, entry) : e->value[LH_SCORE_Q][entry], q);
    explain_number(pool ? explain_size(e, LH_K_PYR, entry) : e->value[LH_SCORE_K][entry], k);
    svg_text(svg, centre, y + 31, "small", "q %s", q);
    svg_text(svg, centre, y + 44, "small", "k %s", k);
    if (pool)
        svg_text(svg, centre, y + 57, "small", "v %s", explain_number(explain_size(e, LH_V_PYR, entry), q));
}

static void draw_entry(const explain *e, explain_step step, int64_t entry, double x, double y, double width,
                       double height, FILE *svg)
{
    const explain_role role = e->role[entry];
    const bool chosen = step == EXPLAIN_SELECT;
    svg_box(svg, x + 2, y, width - 4, height, chosen ? classes[role] : "leaf");
    const double centre = x + width / 2;
    if (width < 24) { /* no room for numbers: letters alone */
        if (chosen && explain_is_parent(e, entry))
            svg_text(svg, centre, y + height / 2 + 4, "small", "%c", letters[role]);
        return;
    }
    svg_text(svg, centre, y + 15, chosen && role == EXPLAIN_ABSENT ? "faint" : "", "%" PRId64, entry);
    if (step != EXPLAIN_SELECT) {
        if (width >= 44)
            two_numbers(e, step, entry, centre, y, svg);
        return;
    }
    if (explain_is_parent(e, entry)) {
        char number[32];
        const bool query = role == EXPLAIN_QUERY_PARENT;
        explain_number(e->value[query ? LH_SCORE_Q : LH_SCORE_K][entry], number);
        if (width >= 104)
            svg_text(svg, centre, y + 31, width >= 130 ? "" : "small", "%c: by %s, %s", letters[role],
                     query ? "query" : "key", number);
        else
            svg_text(svg, centre, y + 31, "", "%c", letters[role]);
    } else if (role == EXPLAIN_LEAF && width >= 44) {
        svg_text(svg, centre, y + 31, "small", "leaf");
    }
}

static double legend(FILE *svg, double y)
{
    static const struct {
        const char *class, *words;
    } kinds[] = {{"query", "Q opened by its query score"},
                 {"key", "K opened by its key score"},
                 {"leaf", "a leaf, kept closed"},
                 {"absent", "never a candidate"}};
    double x = EXPLAIN_LEFT;
    for (int i = 0; i < 4; i++) {
        svg_box(svg, x, y, 22, 14, kinds[i].class);
        svg_text(svg, x + 28, y + 12, "left small", "%s", kinds[i].words);
        x += 46 + 6.0 * (double)strlen(kinds[i].words);
    }
    return y + 24;
}

double explain_draw_pyramid(const explain *e, explain_step step, FILE *svg, double y)
{
    static const char *const titles[] = {"1. Pool: the mean of every window",
                                         "2. Score: the strongest token of every window",
                                         "3. Select: which windows are opened"};
    const double column = explain_column(e), height = step == EXPLAIN_POOL    ? 64
                                                      : step == EXPLAIN_SCORE ? 51
                                                                              : 40;
    svg_text(svg, 12, y + 20, "title", "%s", titles[step]);
    y += 32;
    if (step == EXPLAIN_SELECT)
        y = legend(svg, y) + 4;
    else if (e->config.dim > 1 && step == EXPLAIN_POOL)
        svg_text(svg, EXPLAIN_LEFT, y + 10, "note small", "numbers are norms of the means, d = %" PRId64,
                 e->config.dim),
            y += 18;
    for (int level = (int)e->config.levels - 1; level >= 0; level--) {
        const double width = column * (double)e->layout.window[level];
        svg_text(svg, EXPLAIN_LEFT - 12, y + height / 2 + 4, "right", "level %d", level);
        for (int64_t i = 0; i < e->layout.level_size[level]; i++)
            draw_entry(e, step, e->layout.level_offset[level] + i, EXPLAIN_LEFT + width * (double)i, y, width,
                       height, svg);
        y += height + 8;
    }
    for (int64_t tile = 1; step == EXPLAIN_SELECT && tile < e->layout.tiles; tile++) {
        const double x = EXPLAIN_LEFT + column * (double)(e->config.tokens / e->layout.tiles * tile);
        svg_line(svg, x, y - (height + 8) * (double)e->config.levels, x, y, "link");
    }
    return svg_tokens(e, svg, y - 2);
}
