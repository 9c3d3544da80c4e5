/* Order and attend: the sub-sequence as a ladder of windows, and its causal weights as a matrix. */
#include <inttypes.h>
#include <math.h>

#include "explain/explain.h"

static const char *const classes[] = {"absent", "leaf", "query", "key"};
static const char letters[] = {' ', ' ', 'Q', 'K'};

double explain_draw_order(const explain *e, explain_step step, FILE *svg, double y)
{
    (void)step;
    const double column = explain_column(e), row = 20;
    svg_text(svg, 12, y + 20, "title", "4. Order: a parent behind all that it holds");
    svg_text(svg, 12, y + 38, "note small",
             "a row a slot, top to bottom; the knob is the token after which the entry may be heard");
    y = svg_tokens(e, svg, y + 46);
    svg_text(svg, 38, y - 8, "right small", "slot");
    svg_text(svg, 70, y - 8, "right small", "entry");
    for (int64_t s = 0; s < e->layout.selected; s++, y += row) {
        const int64_t entry = e->index[s];
        const explain_window w = explain_tokens(e, entry);
        const double x = EXPLAIN_LEFT + column * (double)w.first, width = column * (double)w.size;
        svg_text(svg, 38, y + 14, "right", "%" PRId64, s);
        svg_text(svg, 70, y + 14, "right", "%" PRId64, entry);
        svg_line(svg, EXPLAIN_LEFT, y + row - 1, EXPLAIN_LEFT + column * (double)e->config.tokens,
                 y + row - 1, "grid");
        svg_box(svg, x + 2, y + 2, width - 4, row - 6, classes[e->role[entry]]);
        if (explain_is_parent(e, entry))
            svg_text(svg, x + 14, y + 14, "small", "%c", letters[e->role[entry]]);
        fprintf(svg, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"4\" class=\"write\"/>\n", x + width - column / 2,
                y + row / 2 - 1);
    }
    return y;
}

/* A cell's square grows with the weight, so that nothing hangs on its colour. */
static void draw_weight(const explain *e, int64_t s, int64_t t, double x, double y, double cell, FILE *svg)
{
    const double weight = e->weights[s * e->layout.selected + t], side = (cell - 2) * sqrt(weight);
    svg_box(svg, x + (cell - side) / 2, y + (cell - side) / 2, side, side, "weight");
    if (cell >= 26 && weight >= 0.005)
        svg_text(svg, x + cell / 2, y + cell / 2 + 4, "small on", "%.0f", 100 * weight);
}

double explain_draw_attend(const explain *e, explain_step step, FILE *svg, double y)
{
    (void)step;
    const int64_t S = e->layout.selected;
    const double room = explain_column(e) * (double)e->config.tokens,
                 fit = (room > 560 ? room : 560) / (double)S;
    const double cell = fit > 34 ? 34 : fit;
    char q[32], k[32];
    svg_text(svg, 12, y + 20, "title", "5. Attend: causal attention over the sub-sequence");
    svg_text(
        svg, 12, y + 38, "note small",
        "row: who listens; column: who speaks; area and number: the weight in percent; hatched: masked, for s' > s");
    y += 62;
    for (int64_t t = 0; t < S; t++)
        if (cell >= 20)
            svg_text(svg, EXPLAIN_LEFT + cell * ((double)t + 0.5), y - 6, "small", "%" PRId64, e->index[t]);
    for (int64_t s = 0; s < S; s++) {
        const double top = y + cell * (double)s, right = EXPLAIN_LEFT + cell * (double)S;
        if (cell >= 12)
            svg_text(svg, EXPLAIN_LEFT - 8, top + cell / 2 + 4, "right small",
                     "slot %" PRId64 ", entry %" PRId64, s, e->index[s]);
        for (int64_t t = 0; t <= s; t++)
            draw_weight(e, s, t, EXPLAIN_LEFT + cell * (double)t, top, cell, svg);
        if (s + 1 < S)
            svg_box(svg, EXPLAIN_LEFT + cell * (double)(s + 1), top,
                    right - EXPLAIN_LEFT - cell * (double)(s + 1), cell, "masked");
        svg_line(svg, EXPLAIN_LEFT, top, right, top, "grid");
        if (e->config.dim == 1 && cell >= 12)
            svg_text(svg, right + 8, top + cell / 2 + 4, "left small", "o %s  lse %s",
                     explain_number(e->value[LH_O_SEL][s], q), explain_number(e->value[LH_LSE][s], k));
    }
    svg_box(svg, EXPLAIN_LEFT, y, cell * (double)S, cell * (double)S, "window");
    return y + cell * (double)S + 4;
}
