/* Windows, positions and numbers: what every part of an explanation asks for. */
#include <inttypes.h>
#include <math.h>

#include "explain/explain.h"

explain_window explain_tokens(const explain *e, int64_t entry)
{
    const int level = explain_level(e, entry);
    const int64_t size = e->layout.window[level];
    return (explain_window){(entry - e->layout.level_offset[level]) * size, size};
}

explain_window explain_positions(const explain *e, int64_t entry)
{
    explain_window w = explain_tokens(e, entry);
    w.first += w.size - 1;
    if (w.first + w.size > e->config.tokens)
        w.size = e->config.tokens - w.first;
    return w;
}

int64_t explain_above(const explain *e, int level, int64_t token)
{
    return e->layout.level_offset[level] + token / e->layout.window[level];
}

int64_t explain_received(const explain *e, int level, int64_t token)
{
    const int64_t i = (token + 1) / e->layout.window[level] - 1;
    const int64_t entry = e->layout.level_offset[level] + i;
    return i < 0 || e->slot[entry] < 0 ? -1 : entry;
}

int64_t explain_tile(const explain *e, int64_t entry)
{
    return explain_tokens(e, entry).first / (e->config.tokens / e->layout.tiles);
}

bool explain_is_parent(const explain *e, int64_t entry)
{
    return e->role[entry] == EXPLAIN_QUERY_PARENT || e->role[entry] == EXPLAIN_KEY_PARENT;
}

const char *explain_range(explain_window window, char *text)
{
    if (window.size == 1)
        snprintf(text, 48, "%" PRId64, window.first);
    else
        snprintf(text, 48, "%" PRId64 "-%" PRId64, window.first, window.first + window.size - 1);
    return text;
}

double explain_size(const explain *e, lh_tensor_id id, int64_t row)
{
    const int64_t d = e->config.dim;
    const double *x = e->value[id] + row * d;
    if (d == 1)
        return x[0];
    double sum = 0;
    for (int64_t c = 0; c < d; c++)
        sum += x[c] * x[c];
    return sqrt(sum);
}

const char *explain_number(double value, char *text)
{
    const double size = fabs(value);
    if (size != 0 && (size < 0.001 || size >= 99999.5))
        snprintf(text, 32, "%.0e", value);
    else
        snprintf(text, 32, "%.*f", size < 9.9995 ? 3 : size < 99.995 ? 2 : size < 999.95 ? 1 : 0, value);
    char *point = text;
    while (*point && *point != '.')
        point++;
    if (*point == '.') { /* 1.000 is 1, 0.250 is 0.25 */
        char *end = point;
        while (*end && *end != 'e')
            end++;
        if (!*end) {
            while (end > point && (end[-1] == '0' || end[-1] == '.')) {
                end--;
                *end = '\0';
                if (end == point)
                    break;
            }
        }
    }
    return text;
}
