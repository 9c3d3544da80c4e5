/*
 * Gather: the selected rows of a pyramid, and the map back (SPEC 3.5). Its backward is ref_unpool.
 *
 *   x_sel[s] = x_pyr[index[s]]          slot[index[s]] = s, and -1 for entries that were not selected
 */
#include "ref.h"

/* x_pyr: [P,d], index: [S]  ->  x_sel: [S,d] */
void ref_gather(const struct ref_shape *s, const real *x_pyr, const int64_t *index, real *x_sel)
{
    const int64_t selected = ref_selected(s);
    for (int64_t i = 0; i < selected; i++)
        for (int64_t c = 0; c < s->dim; c++)
            x_sel[i * s->dim + c] = x_pyr[index[i] * s->dim + c];
}

/* index: [S]  ->  slot: [P] */
void ref_slots(const struct ref_shape *s, const int64_t *index, int64_t *slot)
{
    const int64_t entries = ref_entries(s), selected = ref_selected(s);
    for (int64_t e = 0; e < entries; e++)
        slot[e] = -1;
    for (int64_t i = 0; i < selected; i++)
        slot[index[i]] = i;
}
