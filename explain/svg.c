/* The pictures as one SVG document: style, axis, title; light and dark, and readable without colour. */
#include <stdlib.h>

#include "core/replace.h"
#include "core/text.h"
#include "explain/explain.h"

/* What a kind means is said by letters, line widths and dashes; colour only repeats it. */
static const char style[] =
    "<style>"
    ".lh{--paper:#fff;--ink:#1c2126;--faint:#6b747e;--leaf:#eceff2;--query:#cfe2fb;--query-line:#0a4fa3;--key:#fbdcc4;"
    "--key-line:#9a3d00;--write:#4d8fdc;--good:#2f6f44;font:13px 'DejaVu Sans',system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){.lh{--paper:#14171a;--ink:#e8ebee;--faint:#98a2ad;--leaf:#2a2f35;--query:#173a66;"
    "--query-line:#8fc0ff;--key:#57300f;--key-line:#ffb47c;--write:#3f78bd;--good:#7fd09a}}"
    ".paper{fill:var(--paper)}.lh text{fill:var(--ink);text-anchor:middle}.lh .left{text-anchor:start}"
    ".lh .right{text-anchor:end}.lh .title{text-anchor:start;font-size:17px;font-weight:bold}"
    ".lh .note,.lh .faint{fill:var(--faint)}.lh .note{text-anchor:start}.lh .small{font-size:10.5px}"
    ".leaf{fill:var(--leaf);stroke:var(--ink)}.query{fill:var(--query);stroke:var(--query-line);stroke-width:2.6}"
    ".key{fill:var(--key);stroke:var(--key-line);stroke-width:2.6;stroke-dasharray:9 3}"
    ".absent{fill:none;stroke:var(--faint);stroke-dasharray:2 4}.write{fill:var(--write);stroke:var(--ink)}"
    ".window{fill:none;stroke:var(--ink);stroke-width:1.2}.axis{stroke:var(--faint);stroke-width:1}"
    ".grid{stroke:var(--faint);stroke-width:.5;stroke-dasharray:1 4}.weight{fill:var(--write)}"
    ".return{stroke:var(--write);stroke-width:3}.bar-q{fill:var(--query-line)}.bar-k{fill:var(--key-line)}.bar-v{fill:var(--faint)}"
    ".lh .on{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}.link{stroke:var(--ink);fill:none}.masked{fill:url(#masked)}.empty{fill:none;stroke:var(--ink);stroke-dasharray:3 2}"
    "#masked path{stroke:var(--faint);stroke-width:1}"
    "</style>\n<defs><pattern id=\"masked\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">"
    "<path d=\"M0 6L6 0\"/></pattern></defs>\n";

static explain_draw *const draw[EXPLAIN_STEPS] = {
    explain_draw_pyramid, explain_draw_pyramid, explain_draw_pyramid, explain_draw_order,
    explain_draw_attend,  explain_draw_scatter, explain_draw_backward};

static double width_of(const explain *e)
{
    const double axis = EXPLAIN_LEFT + explain_column(e) * (double)e->config.tokens + 70;
    return axis > 860 ? axis : 860;
}

/* The steps one under the other; *y is where they end. */
static lh_status draw_body(const explain *e, unsigned steps, double *y, char **body, lh_error *error)
{
    lh_text svg;
    const lh_status status = lh_text_open(&svg, "picture", error);
    if (status != LH_OK)
        return status;
    for (int step = 0; step < EXPLAIN_STEPS; step++)
        if (steps >> step & 1)
            *y = draw[step](e, (explain_step)step, svg.stream, *y) + 18;
    if (steps >> EXPLAIN_STEPS & 1)
        *y = explain_draw_leak(e, svg.stream, *y) + 18;
    return lh_text_close(&svg, body, NULL, error);
}

lh_status explain_write_svg(const explain *e, unsigned steps, const char *path, lh_error *error)
{
    char *body = NULL, *whole = NULL;
    size_t size = 0;
    double y = 8;
    lh_text file;
    lh_status status = draw_body(e, steps, &y, &body, error);
    if (status == LH_OK)
        status = lh_text_open(&file, "picture", error);
    if (status == LH_OK) {
        fprintf(
            file.stream,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
            "class=\"lh\" role=\"img\">\n<title>Lighthouse Attention, step by step: ",
            width_of(e), y, width_of(e), y);
        svg_escape(file.stream, e->source);
        fprintf(file.stream,
                "</title>\n%s<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n%s</svg>\n", style,
                body);
        status = lh_text_close(&file, &whole, &size, error);
    }
    if (status == LH_OK)
        status = lh_replace_text(path, whole, size, error);
    free(body);
    free(whole);
    return status;
}
