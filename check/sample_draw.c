/* Which rows are judged. */
#include "check/sample_walk.h"
#include "core/random.h"

/* Which rows of [0,n) are judged: the first, the last 64, and some drawn. */
int64_t sample_room(const struct walk *w)
{
    return w->sample->rows + SAMPLE_LAST + 1 + SAMPLE_INFINITE;
}

void sample_draw_infinite(struct walk *w)
{
    static const lh_tensor_id ends[SAMPLE_INFINITE] = {LH_OUT, LH_DQ, LH_DK, LH_DV};
    for (int i = 0; i < SAMPLE_INFINITE; i++) {
        const bool of_group = lh_has_kv_heads(ends[i]);
        const int64_t heads = of_group ? w->config->kv_heads : w->config->heads;
        const int64_t row = w->infinite[ends[i]] / w->config->dim, head = row / w->config->tokens;
        const int64_t group = head % heads / (heads / w->config->kv_heads);
        if (w->infinite[ends[i]] >= 0 && head / heads == w->b && group == w->g)
            w->tokens[w->token_count++] = row % w->config->tokens;
    }
}

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
