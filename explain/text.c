/* The steps as text: a pyramid of cells over the token axis, lists of numbers where they are few. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "explain/explain.h"

enum {
    LEFT = 10,    /* characters before the token axis */
    ACROSS = 104, /* characters of a line */
};

static const char *const names[EXPLAIN_STEPS] = {"pool",   "score",   "select",  "order",
                                                 "attend", "scatter", "backward"};

const char *explain_step_name(explain_step step)
{
    return names[step];
}

static const char role_letter[] = {'.', '-', 'Q', 'K'};

/* Characters of one token's column. */
static int column(const explain *e)
{
    const int64_t width = (ACROSS - LEFT) / e->config.tokens;
    return width < 1 ? 1 : width > 6 ? 6 : (int)width;
}

static void heading(FILE *to, int number, const char *title, const char *where)
{
    fprintf(to, "\n%d. %s (%s)\n", number, title, where);
}

static int printable(unsigned char byte)
{
    return byte == ' ' ? '_' : isprint(byte) ? byte : '?';
}

static void print_axis(const explain *e, FILE *to)
{
    const int width = column(e);
    char number[32];
    fprintf(to, "%-*s", LEFT, "token");
    for (int64_t j = 0; j < e->config.tokens; j++) {
        const int step = width >= 3 ? 1 : 10;
        snprintf(number, sizeof number, "%" PRId64, j);
        if (j % step == 0)
            fprintf(to, "%-*s", (int)(width * (j + step <= e->config.tokens ? step : e->config.tokens - j)),
                    number);
    }
    fprintf(to, "\n");
    if (!e->has_text)
        return;
    fprintf(to, "%-*s", LEFT, "byte");
    for (int64_t j = 0; j < e->config.tokens; j++)
        fprintf(to, "%-*c", width, printable(e->text[j]));
    fprintf(to, "\n");
}

/* Text of one cell of the pyramid. */
typedef void cell(const explain *e, int64_t entry, char text[64]);

static void print_pyramid(const explain *e, cell *content, FILE *to)
{
    const int width = column(e);
    char text[64], line[EXPLAIN_MAX_TOKENS * 6 + 1];
    for (int level = (int)e->config.levels - 1; level >= 0; level--) {
        const int cells = width * (int)e->layout.window[level];
        fprintf(to, "level %-*d", LEFT - 6, level);
        for (int64_t i = 0; i < e->layout.level_size[level]; i++) {
            content(e, e->layout.level_offset[level] + i, text);
            if (cells < 4 ||
                (int)strlen(text) > cells - 2) { /* no room: how it was chosen, and the window's extent */
                memset(line, cells > 1 ? '_' : ' ', sizeof line);
                line[0] = role_letter[e->role[e->layout.level_offset[level] + i]];
                fprintf(to, "%.*s", cells > 1 ? cells - 1 : 1, line);
                if (cells > 1)
                    fputc(' ', to);
            } else {
                fprintf(to, "[%-*s]", cells - 2, text);
            }
        }
        fprintf(to, "\n");
    }
    print_axis(e, to);
}

static void entry_cell(const explain *e, int64_t entry, char text[64])
{
    (void)e;
    snprintf(text, 64, "%" PRId64, entry);
}

static void role_cell(const explain *e, int64_t entry, char text[64])
{
    static const char *const words[] = {"", " leaf", " parent by query", " parent by key"};
    static const char *const letters[] = {".", "-", "Q", "K"};
    const explain_role role = e->role[entry];
    const int cells = column(e) * (int)e->layout.window[explain_level(e, entry)];
    snprintf(text, 64, "%" PRId64 "%s", entry, words[role]);
    if ((int)strlen(text) > cells - 2)
        snprintf(text, 64, role == EXPLAIN_ABSENT ? "." : "%" PRId64 "%s", entry, letters[role]);
    if (role == EXPLAIN_ABSENT)
        snprintf(text, 64, ".");
}

static void print_values(const explain *e, lh_tensor_id id, int64_t rows, const char *name, FILE *to)
{
    char number[32];
    fprintf(to, "  %-10s", name);
    for (int64_t i = 0; i < rows; i++)
        fprintf(to, " %s", explain_number(explain_size(e, id, i), number));
    fprintf(to, "\n");
}

static void print_level_values(const explain *e, lh_tensor_id id, bool vector, const char *name, FILE *to)
{
    char number[32];
    for (int level = 0; level < e->config.levels; level++) {
        fprintf(to, "  %s level %d:", name, level);
        for (int64_t i = e->layout.level_offset[level]; i < e->layout.level_offset[level + 1]; i++)
            fprintf(to, " %s", explain_number(vector ? explain_size(e, id, i) : e->value[id][i], number));
        fprintf(to, "\n");
    }
}

static void print_pool(const explain *e, FILE *to)
{
    heading(to, 1, "Pool: every window's mean", "SPEC 3.1, ref/pool.c");
    fprintf(to,
            "Entries are numbered level by level, fine to coarse; entry i of level l holds %" PRId64
            "^l tokens.\n\n",
            e->config.pool);
    print_pyramid(e, entry_cell, to);
    fprintf(to, e->config.dim == 1 ? "\n" : "\nNorms of the means, d = %" PRId64 ":\n", e->config.dim);
    print_level_values(e, LH_Q_PYR, true, "q_pyr", to);
    print_level_values(e, LH_K_PYR, true, "k_pyr", to);
    print_level_values(e, LH_V_PYR, true, "v_pyr", to);
}

static void print_score(const explain *e, FILE *to)
{
    heading(to, 2, "Score: the strongest token of every window", "SPEC 3.2, ref/score.c");
    fprintf(
        to,
        "Level 0 is the norm of the token's own query and key; above it the largest score below counts.\n\n");
    print_level_values(e, LH_SCORE_Q, false, "score_q", to);
    print_level_values(e, LH_SCORE_K, false, "score_k", to);
}

static void print_choice(const explain *e, int level, int64_t tile, FILE *to)
{
    char number[32];
    static const struct {
        explain_role role;
        const char *words;
        lh_tensor_id score;
    } kinds[] = {
        {EXPLAIN_QUERY_PARENT, "by query", LH_SCORE_Q},
        {EXPLAIN_KEY_PARENT, "then by key", LH_SCORE_K},
        {EXPLAIN_LEAF, "leaves", LH_TENSOR_COUNT},
    };
    fprintf(to, "  level %d", level);
    if (e->layout.tiles > 1)
        fprintf(to, ", tile %" PRId64, tile);
    for (int kind = 0; kind < 3; kind++) {
        fprintf(to, "%s %s", kind ? ";" : ":", kinds[kind].words);
        for (int64_t i = e->layout.level_offset[level]; i < e->layout.level_offset[level + 1]; i++) {
            if (e->role[i] != kinds[kind].role || explain_tile(e, i) != tile)
                continue;
            fprintf(to, " %" PRId64, i);
            if (kinds[kind].score != LH_TENSOR_COUNT)
                fprintf(to, " (%s)", explain_number(e->value[kinds[kind].score][i], number));
        }
    }
    fprintf(to, "\n");
}

static void print_select(const explain *e, FILE *to)
{
    heading(to, 3, "Select: which windows are opened", "SPEC 3.3, ref/select.c");
    if (e->config.levels == 1) {
        fprintf(to, "L = 1: nothing to choose; every token is selected.\n");
        return;
    }
    fprintf(to,
            "From the coarsest level down, in every tile: the %" PRId64
            " candidates strongest by query, then of the\n"
            "rest the %" PRId64
            " strongest by key, are opened. Q opened by query, K by key, - a leaf, . never a "
            "candidate.\n\n",
            e->config.tile_topk / 2, e->config.tile_topk / 2);
    print_pyramid(e, role_cell, to);
    fprintf(to, "\n");
    for (int level = (int)e->config.levels - 1; level > 0; level--)
        for (int64_t tile = 0; tile < e->layout.tiles; tile++)
            print_choice(e, level, tile, to);
}

static void print_order(const explain *e, FILE *to)
{
    char range[48];
    const int width = column(e) > 3 ? 3 : column(e);
    heading(to, 4, "Order: a parent behind all that it holds", "SPEC 3.4, ref/select.c");
    fprintf(to,
            "The sub-sequence of S = %" PRId64 " entries; = marks the tokens of each, * the last of them.\n\n"
            "  slot entry tokens  \n",
            e->layout.selected);
    for (int64_t s = 0; s < e->layout.selected; s++) {
        const explain_window w = explain_tokens(e, e->index[s]);
        fprintf(to, "  %4" PRId64 " %5" PRId64 " %-7s %c ", s, e->index[s], explain_range(w, range),
                role_letter[e->role[e->index[s]]]);
        for (int64_t j = 0; j < w.first + w.size; j++)
            for (int c = 0; c < width; c++)
                fputc(j < w.first ? ' ' : j == w.first + w.size - 1 && c == width - 1 ? '*' : '=', to);
        fprintf(to, "\n");
    }
}

static void print_attend(const explain *e, FILE *to)
{
    const int64_t S = e->layout.selected;
    char number[32], range[48];
    heading(to, 5, "Attend: ordinary causal attention over the sub-sequence", "SPEC 3.6, ref/attend.c");
    if (S <= 24) {
        fprintf(to,
                "Weights in percent, a row a slot; a slot never looks to its right (x).\n\n  slot entry ");
        for (int64_t t = 0; t < S; t++)
            fprintf(to, "%4" PRId64, t);
        fprintf(to, "   o_sel     lse\n");
    } else {
        fprintf(to, "Each slot's largest weights.\n\n");
    }
    for (int64_t s = 0; s < S; s++) {
        fprintf(to, "  %4" PRId64 " %5" PRId64 " ", s, e->index[s]);
        if (S <= 24) {
            for (int64_t t = 0; t < S; t++) {
                if (t <= s)
                    fprintf(to, "%4.0f", 100 * e->weights[s * S + t]);
                else
                    fprintf(to, "   x");
            }
        } else {
            double below = 2;
            for (int n = 0; n < 4 && n <= s; n++) {
                int64_t best = -1;
                for (int64_t t = 0; t <= s; t++) {
                    const double w = e->weights[s * S + t];
                    if (w < below && (best < 0 || w > e->weights[s * S + best]))
                        best = t;
                }
                if (best < 0)
                    break;
                below = e->weights[s * S + best];
                fprintf(to, " %2.0f%% of %" PRId64 " (%s)", 100 * below, e->index[best],
                        explain_range(explain_tokens(e, e->index[best]), range));
            }
        }
        fprintf(to, "   %-8s", explain_number(explain_size(e, LH_O_SEL, s), number));
        fprintf(to, "  %s\n", explain_number(e->value[LH_LSE][s], number));
    }
}

static void print_scatter(const explain *e, FILE *to)
{
    const int width = column(e) > 3 ? 3 : column(e);
    char range[48];
    heading(to, 6, "Scatter: where each entry writes", "SPEC 3.7, ref/scatter.c");
    fprintf(
        to,
        "= the entry's own tokens, > the positions it is added to: from its last token on (#), never before it.\n\n"
        "  slot entry tokens  \n");
    for (int64_t s = 0; s < e->layout.selected; s++) {
        const explain_window w = explain_tokens(e, e->index[s]),
                             to_positions = explain_positions(e, e->index[s]);
        fprintf(to, "  %4" PRId64 " %5" PRId64 " %-7s   ", s, e->index[s], explain_range(w, range));
        for (int64_t j = 0; j < to_positions.first + to_positions.size; j++)
            for (int c = 0; c < width; c++)
                fputc(j < w.first                 ? ' '
                      : j < w.first + w.size - 1  ? '='
                      : j == w.first + w.size - 1 ? '#'
                                                  : '>',
                      to);
        fprintf(to, "\n");
    }
    fprintf(to, "\n  coverage  ");
    for (int64_t j = 0; j < e->config.tokens; j++)
        fprintf(to, " %" PRId32, e->coverage[j]);
    fprintf(to, "\n");
    print_values(e, LH_OUT, e->config.tokens, e->config.dim == 1 ? "out" : "|out|", to);
    int64_t empty = 0; /* only a prefix can be (SPEC 3.7) */
    while (empty < e->config.tokens && e->coverage[empty] == 0)
        empty++;
    if (empty == 1)
        fprintf(
            to,
            "  Position 0 receives nothing and is exactly zero: the first coarse window stayed a leaf.\n");
    if (empty > 1)
        fprintf(to,
                "  Positions 0 to %" PRId64
                " receive nothing and are exactly zero: the first coarse window stayed a "
                "leaf.\n",
                empty - 1);
}

static void print_backward(const explain *e, FILE *to)
{
    const bool one = e->config.dim == 1;
    heading(to, 7, "Backward: the way back, the index held fixed", "SPEC 4, ref/scatter.c, attend.c, pool.c");
    if (!e->backward) {
        fprintf(to, "There is no dout; --gradient J follows the output of token J back.\n");
        return;
    }
    if (e->gradient >= 0) {
        fprintf(to,
                "dout is 1 at position %" PRId64 " and 0 elsewhere. Entries that wrote there:", e->gradient);
        for (int level = 0; level < e->config.levels; level++) {
            const int64_t entry = explain_received(e, level, e->gradient);
            if (entry >= 0)
                fprintf(to, " %" PRId64 " (slot %" PRId64 ")", entry, e->slot[entry]);
        }
        fprintf(
            to,
            ".\nFrom their slots the gradient reaches every slot before them, and from there all tokens of each window,\n"
            "1/p^l of it to every one.\n\n");
    }
    print_values(e, LH_DOUT, e->config.tokens, one ? "dout" : "|dout|", to);
    print_values(e, LH_DO_SEL, e->layout.selected, one ? "do_sel" : "|do_sel|", to);
    print_values(e, LH_DQ_SEL, e->layout.selected, one ? "dq_sel" : "|dq_sel|", to);
    print_values(e, LH_DK_SEL, e->layout.selected, one ? "dk_sel" : "|dk_sel|", to);
    print_values(e, LH_DV_SEL, e->layout.selected, one ? "dv_sel" : "|dv_sel|", to);
    print_values(e, LH_DQ, e->config.tokens, one ? "dq" : "|dq|", to);
    print_values(e, LH_DK, e->config.tokens, one ? "dk" : "|dk|", to);
    print_values(e, LH_DV, e->config.tokens, one ? "dv" : "|dv|", to);
}

void explain_print(const explain *e, explain_step step, FILE *to)
{
    static void (*const print[EXPLAIN_STEPS])(const explain *, FILE *) = {
        print_pool, print_score, print_select, print_order, print_attend, print_scatter, print_backward};
    print[step](e, to);
}

void explain_print_configuration(const explain *e, FILE *to)
{
    const lh_config *c = &e->config;
    fprintf(to, "%s\n", e->source);
    fprintf(to, "N %" PRId64 ", d %" PRId64 ", L %" PRId64, c->tokens, c->dim, c->levels);
    if (c->levels > 1)
        fprintf(to, ", p %" PRId64 ", k %" PRId64 ", m %" PRId64 " (%" PRId64 " %s)", c->pool, c->topk,
                c->tile_topk, e->layout.tiles, e->layout.tiles == 1 ? "tile" : "tiles");
    fprintf(to, ": P = %" PRId64 " pyramid entries, S = %" PRId64 " of them attended over\n",
            e->layout.entries, e->layout.selected);
}
