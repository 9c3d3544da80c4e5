/* Scatter and the way back: windows, the positions that they write to, and what comes back along the same bars. */
#include <inttypes.h>
#include <math.h>

#include "explain/explain.h"

static const double row = 20;

/* An entry's window as an outline, its positions as a filled bar with an arrow head. */
static void draw_write(const explain *e, int64_t entry, double y, FILE *svg)
{
    const double column = explain_column(e);
    const explain_window w = explain_tokens(e, entry), p = explain_positions(e, entry);
    const double x = EXPLAIN_LEFT + column * (double)p.first, end = x + column * (double)p.size;
    svg_box(svg, x + 3, y + 5, end - x - 6, row - 12, "write");
    svg_box(svg, EXPLAIN_LEFT + column * (double)w.first + 1, y + 2, column * (double)w.size - 2, row - 6,
            "window");
    fprintf(svg, "<path class=\"write\" d=\"M%.2f %.2fl7 6l-7 6z\"/>\n", end - 7, y + 3);
}

static void draw_slot(const explain *e, int64_t s, double y, double height, FILE *svg)
{
    svg_text(svg, 38, y + 14, "right", "%" PRId64, s);
    svg_text(svg, 70, y + 14, "right", "%" PRId64, e->index[s]);
    svg_line(svg, EXPLAIN_LEFT, y + height - 1, EXPLAIN_LEFT + explain_column(e) * (double)e->config.tokens,
             y + height - 1, "grid");
}

/* The way of the gradient: from the positions written back into the window. */
static void draw_return(const explain *e, int64_t entry, double y, FILE *svg)
{
    const double column = explain_column(e);
    const explain_window p = explain_positions(e, entry);
    const double x = EXPLAIN_LEFT + column * (double)p.first + 4;
    svg_line(svg, x, y, x + column * (double)p.size - 8, y, "return");
    fprintf(svg, "<path class=\"write\" d=\"M%.2f %.2fl-9 4l9 4z\"/>\n", x, y - 4);
}

/* A row of numbers under the token axis. */
static double draw_numbers(const explain *e, const char *name, lh_tensor_id id, double y, FILE *svg)
{
    const double column = explain_column(e);
    char number[32];
    svg_text(svg, EXPLAIN_LEFT - 8, y + 14, "right small", "%s", name);
    for (int64_t j = 0; j < e->config.tokens; j++) {
        const double x = EXPLAIN_LEFT + column * ((double)j + 0.5);
        if (id == LH_COVERAGE && e->coverage[j] == 0) /* an empty position is a dashed frame: exactly zero */
            svg_box(svg, x - column / 2 + 2, y + 1, column - 4, row - 3, "empty");
        if (id == LH_COVERAGE)
            svg_text(svg, x, y + 14, "", "%" PRId32, e->coverage[j]);
        else if (column >= 34)
            svg_text(svg, x, y + 14, "small", "%s", explain_number(explain_size(e, id, j), number));
    }
    return y + row;
}

double explain_draw_scatter(const explain *e, explain_step step, FILE *svg, double y)
{
    (void)step;
    svg_text(svg, 12, y + 20, "title", "6. Scatter: where each entry is added");
    svg_text(
        svg, 12, y + 38, "note small",
        "outline: the entry's own tokens; filled arrow: the positions it is added to, from its last token on");
    y = svg_tokens(e, svg, y + 46);
    svg_text(svg, 38, y - 8, "right small", "slot");
    svg_text(svg, 70, y - 8, "right small", "entry");
    for (int64_t s = 0; s < e->layout.selected; s++, y += row) {
        draw_slot(e, s, y, row, svg);
        draw_write(e, e->index[s], y, svg);
    }
    y = draw_numbers(e, "coverage", LH_COVERAGE, y + 6, svg);
    if (explain_column(e) >= 34)
        y = draw_numbers(e, e->config.dim == 1 ? "out" : "|out|", LH_OUT, y, svg);
    return y;
}

static bool wrote(const explain *e, int64_t entry)
{
    const explain_window p = explain_positions(e, entry);
    return e->gradient < 0 || (p.first <= e->gradient && e->gradient < p.first + p.size);
}

double explain_draw_backward(const explain *e, explain_step step, FILE *svg, double y)
{
    (void)step;
    if (!e->backward)
        return y;
    const double column = explain_column(e), tall = 27,
                 end = EXPLAIN_LEFT + column * (double)e->config.tokens;
    static const lh_tensor_id ids[] = {LH_DQ_SEL, LH_DK_SEL, LH_DV_SEL};
    double largest = 0;
    char number[32];
    for (int64_t s = 0; s < e->layout.selected; s++)
        for (int i = 0; i < 3; i++)
            largest = fmax(largest, fabs(explain_size(e, ids[i], s)));
    if (e->gradient >= 0)
        svg_text(svg, 12, y + 20, "title",
                 "7. Backward: from the output of token %" PRId64 " to every q, k, v", e->gradient);
    else
        svg_text(svg, 12, y + 20, "title", "7. Backward: from dout to dq, dk, dv");
    svg_text(
        svg, 12, y + 38, "note small",
        "arrows: entries that wrote to the output, along which dout comes back; outlines: windows that receive; "
        "bars, top to bottom: |dq_sel|, |dk_sel|, |dv_sel|");
    y = draw_numbers(e, e->config.dim == 1 ? "dout" : "|dout|", LH_DOUT, svg_tokens(e, svg, y + 46), svg);
    svg_text(svg, 38, y + 6, "right small", "slot");
    svg_text(svg, 70, y + 6, "right small", "entry");
    y += 12;
    for (int64_t s = 0; s < e->layout.selected; s++, y += tall) {
        const explain_window w = explain_tokens(e, e->index[s]);
        draw_slot(e, s, y, tall, svg);
        if (wrote(e, e->index[s])) {
            draw_return(e, e->index[s], y + tall - 6, svg);
            svg_text(svg, end + 6, y + 14, "left small", "do %s",
                     explain_number(explain_size(e, LH_DO_SEL, s), number));
        }
        svg_box(svg, EXPLAIN_LEFT + column * (double)w.first + 1, y + 2, column * (double)w.size - 2, row - 6,
                "window");
        for (int i = 0; i < 3 && largest > 0; i++) {
            const double width = (column * (double)w.size - 8) * fabs(explain_size(e, ids[i], s)) / largest;
            svg_box(svg, EXPLAIN_LEFT + column * (double)w.first + 4, y + 3.4 + 3.8 * i, width, 3.2,
                    i == 0   ? "bar-q"
                    : i == 1 ? "bar-k"
                             : "bar-v");
        }
    }
    if (column >= 34) {
        y = draw_numbers(e, e->config.dim == 1 ? "dq" : "|dq|", LH_DQ, y + 6, svg);
        y = draw_numbers(e, e->config.dim == 1 ? "dk" : "|dk|", LH_DK, y, svg);
        y = draw_numbers(e, e->config.dim == 1 ? "dv" : "|dv|", LH_DV, y, svg);
    }
    return y;
}
