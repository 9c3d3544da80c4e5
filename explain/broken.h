/*
 * broken.h: two stages broken on purpose, to show what a rule is there for. On arrays as in ref/ref.h, of one head.
 */
#ifndef LH_EXPLAIN_BROKEN_H
#define LH_EXPLAIN_BROKEN_H

#include "ref/ref.h"

/* ref_attend without its mask: every slot attends to every slot (SPEC 8, fault 18). */
void broken_attend(const struct ref_shape *s, const real *q_sel, const real *k_sel, const real *v_sel,
                   real *o_sel, real *lse, real *row);

/* ref_scatter without its shift: a position receives the windows that it lies in, tokens behind it included
 * (SPEC 8, fault 1). */
void broken_scatter(const struct ref_shape *s, const real *o_sel, const int64_t *slot, real *out,
                    int32_t *coverage);

#endif
