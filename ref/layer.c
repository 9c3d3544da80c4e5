/*
 * Layer: the stages over batch and heads, and the whole forward and backward (SPEC 2, 4).
 *
 * Query head h reads key/value head h / (H/G). Every query head has its own index, so k_sel, v_sel and their
 * gradients are per query head; dk and dv add up over the query heads of a group, in head order.
 */
#include "ref.h"

/* Head i of the B*H query heads reads head kv(i) of the B*G key/value heads. */
static int64_t kv(const struct ref_shape *s, int64_t i)
{
    return i / s->heads * s->kv_heads + i % s->heads / (s->heads / s->kv_heads);
}

void ref_layer_pool(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t nd = s->tokens * s->dim, pd = ref_entries(s) * s->dim;
    for (int64_t i = 0; i < s->batch * s->heads; i++)
        ref_pool(s, t->q + i * nd, t->q_pyr + i * pd);
    for (int64_t g = 0; g < s->batch * s->kv_heads; g++) {
        ref_pool(s, t->k + g * nd, t->k_pyr + g * pd);
        ref_pool(s, t->v + g * nd, t->v_pyr + g * pd);
    }
}

void ref_layer_score(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t nd = s->tokens * s->dim, entries = ref_entries(s);
    for (int64_t i = 0; i < s->batch * s->heads; i++)
        ref_score(s, t->q + i * nd, t->score_q + i * entries);
    for (int64_t g = 0; g < s->batch * s->kv_heads; g++)
        ref_score(s, t->k + g * nd, t->score_k + g * entries);
}

void ref_layer_select(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t entries = ref_entries(s), selected = ref_selected(s);
    for (int64_t i = 0; i < s->batch * s->heads; i++)
        ref_select(s, t->score_q + i * entries, t->score_k + kv(s, i) * entries, t->index + i * selected,
                   t->scratch.candidates);
}

void ref_layer_gather(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t pd = ref_entries(s) * s->dim, selected = ref_selected(s), sd = selected * s->dim;
    for (int64_t i = 0; i < s->batch * s->heads; i++) {
        const int64_t *index = t->index + i * selected;
        ref_gather(s, t->q_pyr + i * pd, index, t->q_sel + i * sd);
        ref_gather(s, t->k_pyr + kv(s, i) * pd, index, t->k_sel + i * sd);
        ref_gather(s, t->v_pyr + kv(s, i) * pd, index, t->v_sel + i * sd);
    }
}

void ref_layer_attend(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t selected = ref_selected(s), sd = selected * s->dim;
    for (int64_t i = 0; i < s->batch * s->heads; i++)
        ref_attend(s, t->q_sel + i * sd, t->k_sel + i * sd, t->v_sel + i * sd, t->o_sel + i * sd,
                   t->lse + i * selected, t->scratch.row);
}

void ref_layer_scatter(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t nd = s->tokens * s->dim, selected = ref_selected(s);
    for (int64_t i = 0; i < s->batch * s->heads; i++) {
        ref_slots(s, t->index + i * selected, t->scratch.slot);
        ref_scatter(s, t->o_sel + i * selected * s->dim, t->scratch.slot, t->out + i * nd,
                    t->coverage ? t->coverage + i * s->tokens : 0);
    }
}

void ref_layer_scatter_backward(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t nd = s->tokens * s->dim, selected = ref_selected(s);
    for (int64_t i = 0; i < s->batch * s->heads; i++)
        ref_scatter_backward(s, t->dout + i * nd, t->index + i * selected, t->do_sel + i * selected * s->dim);
}

void ref_layer_attend_backward(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t selected = ref_selected(s), sd = selected * s->dim;
    for (int64_t i = 0; i < s->batch * s->heads; i++)
        ref_attend_backward(s, t->q_sel + i * sd, t->k_sel + i * sd, t->v_sel + i * sd, t->o_sel + i * sd,
                            t->lse + i * selected, t->do_sel + i * sd, t->dq_sel + i * sd, t->dk_sel + i * sd,
                            t->dv_sel + i * sd);
}

/* dx_sel: [S,d] of one query head  ->  adds its un-pooled value to dx: [N,d].  head: [N,d] scratch. */
static void add_unpooled(const struct ref_shape *s, const real *dx_sel, const struct ref_trace *t, real *dx)
{
    ref_unpool(s, dx_sel, t->scratch.slot, t->scratch.head);
    for (int64_t i = 0; i < s->tokens * s->dim; i++)
        dx[i] += t->scratch.head[i];
}

void ref_layer_unpool(const struct ref_shape *s, const struct ref_trace *t)
{
    const int64_t nd = s->tokens * s->dim, selected = ref_selected(s), sd = selected * s->dim;
    for (int64_t i = 0; i < s->batch * s->kv_heads * nd; i++)
        t->dk[i] = t->dv[i] = 0;
    for (int64_t i = 0; i < s->batch * s->heads; i++) {
        ref_slots(s, t->index + i * selected, t->scratch.slot);
        ref_unpool(s, t->dq_sel + i * sd, t->scratch.slot, t->dq + i * nd);
        add_unpooled(s, t->dk_sel + i * sd, t, t->dk + kv(s, i) * nd);
        add_unpooled(s, t->dv_sel + i * sd, t, t->dv + kv(s, i) * nd);
    }
}

void ref_forward(const struct ref_shape *s, const struct ref_trace *t)
{
    ref_layer_pool(s, t);
    ref_layer_score(s, t);
    ref_layer_select(s, t);
    ref_layer_gather(s, t);
    ref_layer_attend(s, t);
    ref_layer_scatter(s, t);
}

void ref_backward(const struct ref_shape *s, const struct ref_trace *t)
{
    ref_layer_scatter_backward(s, t);
    ref_layer_attend_backward(s, t);
    ref_layer_unpool(s, t);
}
