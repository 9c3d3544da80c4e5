/* Drawing curves as SVG. */
#include "train/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/replace.h"
#include "core/text.h"
#include "train/plot_data.h"

enum {
    WIDTH = 1080,
    HEIGHT = 360,
    PANELS = 3,
    TOP = 54,
    BOTTOM = 44,
    LEFT = 58,
    RIGHT = 14
};

static const char head[] =
    "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
    "font-family=\"sans-serif\" font-size=\"12\">\n"
    "<style>\n"
    ".paper{fill:#fff}.ink{fill:#1f2328}.axis{stroke:#1f2328}.grid{stroke:#d8dee4}.mark{stroke:#59636e}\n"
    ".c0{stroke:#0060ad}.c1{stroke:#c2410c}.c2{stroke:#15803d}.c3{stroke:#7e22ce}\n"
    "path,line,circle{fill:none;stroke-width:1}path{stroke-width:1.6;stroke-linejoin:round}\n"
    "@media (prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}.axis{stroke:#e6edf3}"
    ".grid{stroke:#30363d}.mark{stroke:#9198a1}\n"
    ".c0{stroke:#58a6ff}.c1{stroke:#ff9b5e}.c2{stroke:#56d364}.c3{stroke:#d2a8ff}}\n"
    "</style>\n<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n";

struct panel {
    const char *title, *x_label;
    bool over_time, speed;
    double x[2], y[2]; /* ranges */
};

struct picture {
    const plot_run *runs;
    plot_curve *curve;
    int count;
};

static double x_of(const struct panel *p, const plot_point *at)
{
    return p->over_time ? at->minutes : at->tokens;
}

static double y_of(const struct panel *p, const plot_point *at)
{
    return p->speed ? at->speed : at->loss;
}

static double left_of(int panel)
{
    return LEFT + panel * ((double)WIDTH / PANELS);
}

static double place_x(const struct panel *p, int panel, double x)
{
    const double width = (double)WIDTH / PANELS - LEFT - RIGHT;
    return left_of(panel) + width * (x - p->x[0]) / (p->x[1] - p->x[0]);
}

static double place_y(const struct panel *p, double y)
{
    return HEIGHT - BOTTOM - (double)(HEIGHT - TOP - BOTTOM) * (y - p->y[0]) / (p->y[1] - p->y[0]);
}

/* 1, 2 or 5 times a power of ten, so that about five steps of it go into the range. */
static double tick_step(const double range[2])
{
    const double rough = (range[1] - range[0]) / 5, power = pow(10, floor(log10(rough)));
    const double digit = rough / power;
    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

static void include(double range[2], double value)
{
    range[0] = fmin(range[0], value);
    range[1] = fmax(range[1], value);
}

static void find_ranges(const struct picture *picture, struct panel *p)
{
    p->x[0] = 0;
    p->x[1] = 0;
    p->y[0] = p->speed ? 0 : INFINITY;
    p->y[1] = p->speed ? 0 : -INFINITY;
    for (int run = 0; run < picture->count; run++) {
        const plot_curve *c = &picture->curve[run];
        for (int i = 0; i < c->points; i++) {
            include(p->x, x_of(p, &c->point[i]));
            include(p->y, y_of(p, &c->point[i]));
        }
        for (int i = 0; i < c->held_outs && !p->speed; i++)
            include(p->y, c->held_out[i].loss);
    }
    if (!(p->x[1] > p->x[0]))
        p->x[1] = p->x[0] + 1;
    if (!isfinite(p->y[0]))
        p->y[0] = 0;
    if (!(p->y[1] > p->y[0]))
        p->y[1] = p->y[0] + 1;
    const double margin = 0.04 * (p->y[1] - p->y[0]);
    p->y[0] -= p->speed ? 0 : margin;
    p->y[1] += margin;
}

static void draw_axes(FILE *to, const struct panel *p, int panel)
{
    const double left = left_of(panel), right = place_x(p, panel, p->x[1]);
    const double bottom = HEIGHT - BOTTOM;
    const double step_x = tick_step(p->x), step_y = tick_step(p->y);
    for (double y = ceil(p->y[0] / step_y) * step_y; y <= p->y[1]; y += step_y)
        fprintf(to,
                "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=\"ink\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n",
                left, place_y(p, y), right, place_y(p, y), left - 6, place_y(p, y) + 4,
                fabs(y) < 1e-9 * step_y ? 0 : y);
    for (double x = 0; x <= p->x[1]; x += step_x)
        fprintf(to,
                "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=\"ink\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.6g</text>\n",
                place_x(p, panel, x), TOP, place_x(p, panel, x), bottom, place_x(p, panel, x), bottom + 16,
                x);
    fprintf(to,
            "<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
            "<line class=\"axis\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
            left, bottom, right, bottom, left, TOP, left, bottom);
    fprintf(to,
            "<text class=\"ink\" x=\"%.1f\" y=\"%d\">%s</text>"
            "<text class=\"ink\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
            left, TOP - 10, p->title, (left + right) / 2, bottom + 34, p->x_label);
}

/* The switch, named once a panel. */
static void draw_switch(FILE *to, const struct panel *p, int panel, const plot_curve *c, int colour,
                        bool name)
{
    const double x = place_x(p, panel, x_of(p, &c->at_switch));
    fprintf(to,
            "<line class=\"c%d\" stroke-dasharray=\"4 3\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n",
            colour, x, TOP, x, HEIGHT - BOTTOM);
    const bool right = x - left_of(panel) < 110; /* no room before the line */
    if (name)
        fprintf(to,
                "<text class=\"ink\" font-size=\"11\" x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">switch to dense"
                "</text>\n",
                right ? x + 4 : x - 4, TOP + 11, right ? "start" : "end");
}

static void draw_curve(FILE *to, const struct panel *p, int panel, const plot_curve *c, int colour)
{
    fprintf(to, "<path class=\"c%d\" d=\"", colour);
    for (int i = 0; i < c->points; i++)
        fprintf(to, "%c%.1f %.1f", i == 0 ? 'M' : 'L', place_x(p, panel, x_of(p, &c->point[i])),
                place_y(p, y_of(p, &c->point[i])));
    fprintf(to, "\"/>\n");
    for (int i = 0; i < c->held_outs && !p->speed; i++)
        fprintf(to, "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", colour,
                place_x(p, panel, x_of(p, &c->held_out[i])), place_y(p, c->held_out[i].loss));
}

static bool is_first_of_its_title(const struct picture *picture, int run)
{
    for (int i = 0; i < run; i++) {
        if (strcmp(picture->runs[i].title, picture->runs[run].title) == 0)
            return false;
    }
    return true;
}

static void draw_key(FILE *to, const struct picture *picture)
{
    double x = LEFT;
    bool held_out = false;
    for (int run = 0; run < picture->count; run++) {
        held_out = held_out || picture->curve[run].held_outs > 0;
        if (!is_first_of_its_title(picture, run))
            continue;
        fprintf(to,
                "<path class=\"c%d\" d=\"M%.0f 18h24\"/><text class=\"ink\" x=\"%.0f\" y=\"22\">%s</text>\n",
                picture->runs[run].colour, x, x + 30, picture->runs[run].title);
        x += 50 + 7 * (double)strlen(picture->runs[run].title);
    }
    if (held_out)
        fprintf(
            to,
            "<circle class=\"mark\" cx=\"%.0f\" cy=\"18\" r=\"3\"/><text class=\"ink\" x=\"%.0f\" y=\"22\">"
            "held-out loss, dense attention</text>\n",
            x + 6, x + 16);
}

static void draw(FILE *to, const struct picture *picture)
{
    struct panel panels[PANELS] = {
        {.title = "training loss, nats a byte, mean over about 25 steps", .x_label = "million tokens"},
        {.title = "the same over time", .x_label = "minutes of training", .over_time = true},
        {.title = "tokens a second, mean over about 25 steps", .x_label = "million tokens", .speed = true},
    };
    fprintf(to, head, WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT);
    draw_key(to, picture);
    for (int i = 0; i < PANELS; i++) {
        bool named = false;
        find_ranges(picture, &panels[i]);
        draw_axes(to, &panels[i], i);
        for (int run = 0; run < picture->count; run++) {
            const plot_curve *c = &picture->curve[run];
            if (c->switched)
                draw_switch(to, &panels[i], i, c, picture->runs[run].colour, !named);
            named = named || c->switched;
            draw_curve(to, &panels[i], i, c, picture->runs[run].colour);
        }
    }
    fprintf(to, "</svg>\n");
}

lh_status plot_write(const plot_run *runs, int count, const char *path, lh_error *error)
{
    struct picture picture = {.runs = runs, .count = count};
    char *text = NULL;
    size_t size = 0;
    lh_status status =
        lh_alloc((void **)&picture.curve, (size_t)count * sizeof *picture.curve, "curves", error);
    for (int i = 0; i < count && status == LH_OK; i++)
        status = plot_read(runs[i].folder, &picture.curve[i], error);
    lh_text made;
    if (status == LH_OK)
        status = lh_text_open(&made, "picture", error);
    if (status == LH_OK) {
        draw(made.stream, &picture);
        status = lh_text_close(&made, &text, &size, error);
    }
    if (status == LH_OK)
        status = lh_replace_text(path, text, size, error);
    free(text);
    lh_free(picture.curve);
    return status;
}
