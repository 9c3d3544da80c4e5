/* Which rows are judged. */
#include "check/sample_walk.h"
#include "core/random.h"

/* Which rows of [0,n) are judged: the first, the last 64, and some drawn. */
int64_t sample_draw(const struct walk *w, uint64_t stream, int64_t n, int64_t *rows)
{
    int64_t count = 0;
    if (n <= w->sample->rows + SAMPLE_LAST + 1) {
        for (int64_t i = 0; i < n; i++)
            rows[count++] = i;
        return count;
    }
    rows[count++] = 0;
    for (int64_t i = 0; i < w->sample->rows; i++)
        rows[count++] = (int64_t)(lh_random_uniform(w->sample->seed, stream, (uint64_t)i) * (double)n);
    for (int64_t i = n - SAMPLE_LAST; i < n; i++)
        rows[count++] = i;
    return count;
}
