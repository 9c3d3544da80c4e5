/*
 * Score: how strong a window is (SPEC 3.2). No gradient flows through it.
 *
 *   score[i]             = sqrt(sum over c of x[i][c]^2)                        level 0
 *   score[offset(l) + i] = max over j < p^l of score[i p^l + j]                level l: not the pooled
 * vector's norm
 */
#include "ref.h"

/* x: [N,d]  ->  score: [P].  A maximum rounds nothing, so level l may be taken from level l-1. */
void ref_score(const struct ref_shape *s, const real *x, real *score)
{
    for (int64_t i = 0; i < s->tokens; i++) {
        real sum = 0;
        for (int64_t c = 0; c < s->dim; c++)
            sum += x[i * s->dim + c] * x[i * s->dim + c];
        score[i] = real_sqrt(sum);
    }
    for (int64_t l = 1; l < s->levels; l++) {
        const real *finer = score + ref_offset(s, l - 1);
        real *level = score + ref_offset(s, l);
        for (int64_t i = 0; i < s->tokens / ref_window(s, l); i++) {
            level[i] = finer[i * s->pool];
            for (int64_t j = 1; j < s->pool; j++)
                if (finer[i * s->pool + j] > level[i])
                    level[i] = finer[i * s->pool + j];
        }
    }
}
