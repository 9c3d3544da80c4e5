/* The story of one token: where it is kept, whom it hears from and how much, who hears it. */
#include <inttypes.h>
#include <stdlib.h>

#include "explain/explain.h"

/* Share of slot `slot` in what `token` receives: the weights of the entries it receives, summed. */
static double share(const explain *e, int64_t token, int64_t slot)
{
    double sum = 0;
    for (int level = 0; level < e->config.levels; level++) {
        const int64_t entry = explain_received(e, level, token);
        if (entry >= 0 && e->slot[entry] >= slot)
            sum += e->weights[e->slot[entry] * e->layout.selected + slot];
    }
    return sum;
}

static void print_kept(const explain *e, int64_t token, FILE *to)
{
    static const char *const words[] = {"not selected", "selected, a leaf", "opened by its query score",
                                        "opened by its key score"};
    char q[32], k[32], range[48];
    fprintf(to, "Token %" PRId64, token);
    if (e->has_text)
        fprintf(to, " ('%c')", e->text[token] >= 32 && e->text[token] < 127 ? e->text[token] : '?');
    fprintf(to, ": score_q %s, score_k %s. It lies in\n", explain_number(e->value[LH_SCORE_Q][token], q),
            explain_number(e->value[LH_SCORE_K][token], k));
    for (int level = (int)e->config.levels - 1; level >= 0; level--) {
        const int64_t entry = explain_above(e, level, token);
        fprintf(to, "  entry %" PRId64 ", level %d, token%s %s: %s\n", entry, level,
                e->layout.window[level] > 1 ? "s" : "", explain_range(explain_tokens(e, entry), range),
                words[e->role[entry]]);
    }
}

static void print_received(const explain *e, int64_t token, FILE *to)
{
    char range[48];
    fprintf(to,
            "\nPosition %" PRId64 " receives %" PRId32
            " %s: from each level the last window that ends by then, if it was selected.\n",
            token, e->coverage[token], e->coverage[token] == 1 ? "entry" : "entries");
    for (int level = 0; level < e->config.levels; level++) {
        const int64_t i = (token + 1) / e->layout.window[level] - 1;
        const int64_t entry = e->layout.level_offset[level] + i;
        if (i < 0)
            fprintf(to, "  level %d: none ends by then\n", level);
        else
            fprintf(to, "  level %d: entry %" PRId64 ", token%s %s: %s\n", level, entry,
                    e->layout.window[level] > 1 ? "s" : "", explain_range(explain_tokens(e, entry), range),
                    e->slot[entry] < 0 ? "was not selected" : "received");
    }
}

/* The slots it hears from, strongest first. */
static void print_heard(const explain *e, int64_t token, FILE *to)
{
    enum {
        SHOWN = 12
    };
    char range[48];
    double before = 1e300;
    int64_t shown = 0, heard = 0, last = -1;
    if (e->coverage[token] == 0) {
        fprintf(to, "\nIt hears from nobody: its output is exactly zero.\n");
        return;
    }
    for (int64_t s = 0; s < e->layout.selected; s++) {
        if (share(e, token, s) > 0) {
            heard++;
            const explain_window w = explain_tokens(e, e->index[s]);
            last = w.first + w.size - 1 > last ? w.first + w.size - 1 : last;
        }
    }
    fprintf(to,
            "\nThrough them it hears from %" PRId64 " slots, no token after %" PRId64
            " among them. The weights of %" PRId32 " received %s\nadd up to %" PRId32
            ", for they are summed and not averaged:\n",
            heard, last, e->coverage[token], e->coverage[token] == 1 ? "entry" : "entries",
            e->coverage[token]);
    while (shown < SHOWN) {
        double best = 0;
        for (int64_t s = 0; s < e->layout.selected; s++) {
            const double w = share(e, token, s);
            if (w < before && w > best)
                best = w;
        }
        if (best <= 0)
            break;
        for (int64_t s = 0; s < e->layout.selected && shown < SHOWN; s++) {
            if (share(e, token, s) != best)
                continue;
            const explain_window w = explain_tokens(e, e->index[s]);
            fprintf(to, "  %6.3f  slot %" PRId64 ", entry %" PRId64 ", token%s %s%s\n", best, s, e->index[s],
                    w.size > 1 ? "s" : "", explain_range(w, range),
                    w.size == 1                         ? ""
                    : explain_is_parent(e, e->index[s]) ? " as a summary, and its children by themselves"
                                                        : " only as a mean: the window stayed closed");
            shown++;
        }
        before = best;
    }
    if (heard > shown)
        fprintf(to, "  and %" PRId64 " more\n", heard - shown);
}

static void print_hearers(const explain *e, int64_t token, FILE *to)
{
    int64_t first = -1, count = 0;
    double most = 0;
    int64_t loudest = -1;
    for (int64_t j = 0; j < e->config.tokens; j++) {
        double sum = 0;
        for (int level = 0; level < e->config.levels; level++) {
            const int64_t entry = explain_above(e, level, token);
            if (e->slot[entry] >= 0)
                sum += share(e, j, e->slot[entry]) / (double)e->layout.window[level];
        }
        if (sum > 0) {
            first = first < 0 ? j : first;
            count++;
            if (sum > most) {
                most = sum;
                loudest = j;
            }
        }
    }
    fprintf(to, "\n");
    if (count == 0)
        fprintf(to, "Nobody hears it.\n");
    else
        fprintf(to,
                "%" PRId64 " positions hear it, %" PRId64 " the first of them and %" PRId64
                " the loudest: %.3f of its value is in out[%" PRId64 "].\n",
                count, first, loudest, most, loudest);
}

void explain_token(const explain *e, int64_t token, FILE *to)
{
    print_kept(e, token, to);
    print_received(e, token, to);
    print_heard(e, token, to);
    print_hearers(e, token, to);
}
