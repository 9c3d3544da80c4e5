/*
 * Attend: ordinary causal softmax attention over the S selected rows (SPEC 3.6, 4).
 *
 *   logit[s][s'] = (q_sel[s] . k_sel[s']) scale       scale = 1 / sqrt(d),  s' <= s
 *   forward    e[s'] = exp(logit[s][s'] - max),   o_sel[s] = (sum of e[s'] v_sel[s']) / (sum of e[s'])
 *              lse[s] = max + log(sum of e[s'])
 *   backward   P[s][s'] = exp(logit[s][s'] - lse[s]),   D[s] = do_sel[s] . o_sel[s]
 *              dS = P (do_sel[s] . v_sel[s'] - D[s])
 *              dq_sel[s]  = scale (sum over s' of dS[s][s'] k_sel[s'])
 *              dk_sel[s'] = scale (sum over s of dS[s][s'] q_sel[s])
 *              dv_sel[s'] = sum over s of P[s][s'] do_sel[s]
 */
#include "ref.h"

/* a . b, both [d] */
static real dot(const real *a, const real *b, int64_t d)
{
    real sum = 0;
    for (int64_t c = 0; c < d; c++)
        sum += a[c] * b[c];
    return sum;
}

/* y += a x, both [d] */
static void add_scaled(real *y, real a, const real *x, int64_t d)
{
    for (int64_t c = 0; c < d; c++)
        y[c] += a * x[c];
}

/* q_sel, k_sel, v_sel: [S,d]  ->  o_sel: [S,d], lse: [S].  row: [S] scratch, the logits of one query. */
void ref_attend(const struct ref_shape *s, const real *q_sel, const real *k_sel, const real *v_sel,
                real *o_sel, real *lse, real *row)
{
    const int64_t d = s->dim, selected = ref_selected(s);
    const real scale = 1 / real_sqrt((real)d);
    for (int64_t i = 0; i < selected; i++) {
        real *o = o_sel + i * d;
        real max = 0, sum = 0;
        for (int64_t j = 0; j <= i; j++) {
            row[j] = dot(q_sel + i * d, k_sel + j * d, d) * scale;
            if (j == 0 || row[j] > max)
                max = row[j];
        }
        for (int64_t c = 0; c < d; c++)
            o[c] = 0;
        for (int64_t j = 0; j <= i; j++) {
            const real e = ref_exp(row[j] - max);
            sum += e;
            add_scaled(o, e, v_sel + j * d, d);
        }
        for (int64_t c = 0; c < d; c++)
            o[c] /= sum;
        lse[i] = max + ref_log(sum);
    }
}

/* q_sel, k_sel, v_sel, o_sel, do_sel: [S,d], lse: [S]  ->  dq_sel, dk_sel, dv_sel: [S,d] */
void ref_attend_backward(const struct ref_shape *s, const real *q_sel, const real *k_sel, const real *v_sel,
                         const real *o_sel, const real *lse, const real *do_sel, real *dq_sel, real *dk_sel,
                         real *dv_sel)
{
    const int64_t d = s->dim, selected = ref_selected(s);
    const real scale = 1 / real_sqrt((real)d);
    for (int64_t i = 0; i < selected * d; i++)
        dq_sel[i] = dk_sel[i] = dv_sel[i] = 0;
    for (int64_t i = 0; i < selected; i++) {
        const real *q = q_sel + i * d, *go = do_sel + i * d;
        const real D = dot(go, o_sel + i * d, d);
        for (int64_t j = 0; j <= i; j++) {
            const real *k = k_sel + j * d, *v = v_sel + j * d;
            const real P = ref_exp(dot(q, k, d) * scale - lse[i]);
            const real dS = P * (dot(go, v, d) - D);
            add_scaled(dq_sel + i * d, dS, k, d);
            add_scaled(dk_sel + j * d, dS, q, d);
            add_scaled(dv_sel + j * d, P, go, d);
        }
    }
    for (int64_t i = 0; i < selected * d; i++) {
        dq_sel[i] *= scale;
        dk_sel[i] *= scale;
    }
}
