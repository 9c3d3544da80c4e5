/* Boxes, lines, words and the row of tokens that every picture is made of. */
#include <inttypes.h>
#include <stdarg.h>

#include "explain/explain.h"

void svg_box(FILE *svg, double x, double y, double width, double height, const char *class)
{
    fprintf(svg, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" class=\"%s\"/>\n", x, y, width,
            height, class);
}

void svg_line(FILE *svg, double x1, double y1, double x2, double y2, const char *class)
{
    fprintf(svg, "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" class=\"%s\"/>\n", x1, y1, x2, y2,
            class);
}

void svg_escape(FILE *svg, const char *text)
{
    for (; *text; text++) {
        if (*text == '<' || *text == '&' || *text == '>' || *text == '"')
            fprintf(svg, "&#%d;", *text);
        else
            fputc(*text >= 32 && *text < 127 ? *text : '?', svg);
    }
}

void svg_text(FILE *svg, double x, double y, const char *class, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(svg, "<text x=\"%.2f\" y=\"%.2f\" class=\"%s\">", x, y, class);
    svg_escape(svg, text);
    fprintf(svg, "</text>\n");
}

double explain_column(const explain *e)
{
    const double width = 1600.0 / (double)e->config.tokens;
    return width > 56 ? 56 : width < 14 ? 14 : width;
}

double svg_tokens(const explain *e, FILE *svg, double y)
{
    const double column = explain_column(e);
    const int step = column >= 20 ? 1 : 4;
    svg_text(svg, EXPLAIN_LEFT - 8, y + 14, "right small", "token");
    for (int64_t j = 0; j < e->config.tokens; j += step)
        svg_text(svg, EXPLAIN_LEFT + column * ((double)j + 0.5), y + 14, column >= 20 ? "" : "small",
                 "%" PRId64, j);
    if (!e->has_text)
        return y + 22;
    svg_text(svg, EXPLAIN_LEFT - 8, y + 31, "right small", "byte");
    for (int64_t j = 0; j < e->config.tokens; j++)
        svg_text(svg, EXPLAIN_LEFT + column * ((double)j + 0.5), y + 31, "", "%c",
                 e->text[j] == ' ' ? '_' : e->text[j]);
    return y + 39;
}
