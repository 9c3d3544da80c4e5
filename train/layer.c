/* One decoder layer, forward and backward: shapes in model.h, what is kept in pass.h. */
#include "train/layer.h"

#include "train/attention.h"
#include "train/views.h"

/* qkv = rotary(norm(x) Wqkv) */
static void before_attention(pass *p, int64_t layer)
{
    const lh_arithmetic *on = p->m->on;
    const model_shape *s = &p->m->shape;
    const layer_weights w = model_layer(p->m, pass_weights(p), layer);
    const layer_store *l = pass_layer(p, layer);
    for (int64_t row = 0; row < p->rows; row += pass_rows(p, row)) {
        const int64_t rows = pass_rows(p, row);
        const real *x = store_read(on, &l->x, row, rows, p->scratch.x);
        real *normed = p->scratch.normed;
        real *qkv = store_write(&l->qkv, row, p->scratch.qkv);
        on->norm_forward(on, rows, s->width, x, w.norm_in, normed);
        on->product(on, false, false, rows, l->qkv.width, s->width, normed, s->width, w.qkv, l->qkv.width, 0,
                    qkv, l->qkv.width);
        on->rotary(on, rows, l->qkv.width, s->heads + s->kv_heads, s->dim, row, p->options.tokens, p->cosines,
                   p->sines, false, qkv);
        store_keep(on, &l->qkv, row, rows, qkv);
    }
}

/* mid = x + attention Wout;  gate_up = norm(mid) Wgate_up;  next = mid + swiglu(gate_up) Wdown */
static void after_attention(pass *p, int64_t layer)
{
    const lh_arithmetic *on = p->m->on;
    const model_shape *s = &p->m->shape;
    const layer_weights w = model_layer(p->m, pass_weights(p), layer);
    const layer_store *l = pass_layer(p, layer);
    const store *next_store = &pass_layer(p, layer + 1)->x;
    const int64_t heads = l->attention.width, gate_up_width = l->gate_up.width;
    for (int64_t row = 0; row < p->rows; row += pass_rows(p, row)) {
        const int64_t rows = pass_rows(p, row);
        const size_t stream = (size_t)(rows * s->width) * sizeof(real);
        const real *attention = store_read(on, &l->attention, row, rows, p->scratch.attention);
        const real *x = store_read(on, &l->x, row, rows, p->scratch.x);
        real *mid = store_write(&l->mid, row, p->scratch.mid);
        on->copy(on, mid, x, stream);
        on->product(on, false, false, rows, s->width, heads, attention, heads, w.out, s->width, 1, mid,
                    s->width);
        store_keep(on, &l->mid, row, rows, mid);

        real *gate_up = store_write(&l->gate_up, row, p->scratch.gate_up);
        on->norm_forward(on, rows, s->width, mid, w.norm_mid, p->scratch.normed);
        on->product(on, false, false, rows, gate_up_width, s->width, p->scratch.normed, s->width, w.gate_up,
                    gate_up_width, 0, gate_up, gate_up_width);
        store_keep(on, &l->gate_up, row, rows, gate_up);

        real *next = store_write(next_store, row, p->scratch.x);
        on->swiglu_forward(on, rows, s->hidden, gate_up, p->scratch.product);
        on->copy(on, next, mid, stream);
        on->product(on, false, false, rows, s->width, s->hidden, p->scratch.product, s->hidden, w.down,
                    s->width, 1, next, s->width);
        store_keep(on, next_store, row, rows, next);
    }
}

lh_status layer_forward(pass *p, int64_t layer, lh_error *error)
{
    before_attention(p, layer);
    pass_lap(p, &p->clock[layer].outside);
    const lh_status status = pass_attend(p, layer, false, error);
    if (status != LH_OK)
        return status;
    pass_lap(p, &p->clock[layer].attention);
    after_attention(p, layer);
    pass_lap(p, &p->clock[layer].outside);
    return LH_OK;
}

/* Reads dx = d(next), leaves dx = d(mid) and d_attention; adds to the gradients of norm_mid, gate_up, down, out. */
static void after_attention_backward(pass *p, int64_t layer)
{
    const lh_arithmetic *on = p->m->on;
    const model_shape *s = &p->m->shape;
    const block *b = &p->scratch;
    const layer_weights w = model_layer(p->m, pass_weights(p), layer);
    const layer_store *l = pass_layer(p, layer);
    const int64_t heads = l->attention.width, gate_up_width = l->gate_up.width;
    for (int64_t row = 0; row < p->rows; row += pass_rows(p, row)) {
        const int64_t rows = pass_rows(p, row);
        const layer_weights dw = model_layer(p->m, pass_gradients(p, row), layer);
        real *dx = p->dx + row * s->width;
        const real *gate_up = store_read(on, &l->gate_up, row, rows, b->gate_up);
        on->swiglu_forward(on, rows, s->hidden, gate_up, b->product);
        on->product(on, true, false, s->hidden, s->width, rows, b->product, s->hidden, dx, s->width, 1,
                    dw.down, s->width);
        on->product(on, false, true, rows, s->hidden, s->width, dx, s->width, w.down, s->width, 0,
                    b->d_product, s->hidden);
        on->swiglu_backward(on, rows, s->hidden, b->d_product, gate_up, b->d_gate_up);

        const real *mid = store_read(on, &l->mid, row, rows, b->mid);
        on->norm_forward(on, rows, s->width, mid, w.norm_mid, b->normed);
        on->product(on, true, false, s->width, gate_up_width, rows, b->normed, s->width, b->d_gate_up,
                    gate_up_width, 1, dw.gate_up, gate_up_width);
        on->product(on, false, true, rows, s->width, gate_up_width, b->d_gate_up, gate_up_width, w.gate_up,
                    gate_up_width, 0, b->d_normed, s->width);
        on->norm_backward(on, rows, s->width, b->d_normed, mid, w.norm_mid, dx, dw.norm_mid, b->partial);

        const real *attention = store_read(on, &l->attention, row, rows, b->attention);
        real *d_attention = store_write(&p->d_attention, row, b->d_attention);
        on->product(on, true, false, heads, s->width, rows, attention, heads, dx, s->width, 1, dw.out,
                    s->width);
        on->product(on, false, true, rows, heads, s->width, dx, s->width, w.out, s->width, 0, d_attention,
                    heads);
        store_keep(on, &p->d_attention, row, rows, d_attention);
    }
}

/* Reads d_qkv, adds to dx; adds to the gradients of norm_in and qkv. */
static void before_attention_backward(pass *p, int64_t layer)
{
    const lh_arithmetic *on = p->m->on;
    const model_shape *s = &p->m->shape;
    const block *b = &p->scratch;
    const layer_weights w = model_layer(p->m, pass_weights(p), layer);
    const layer_store *l = pass_layer(p, layer);
    const int64_t qkv = l->qkv.width;
    for (int64_t row = 0; row < p->rows; row += pass_rows(p, row)) {
        const int64_t rows = pass_rows(p, row);
        const layer_weights dw = model_layer(p->m, pass_gradients(p, row), layer);
        real *d_qkv = store_read(on, &p->d_qkv, row, rows, b->d_qkv);
        on->rotary(on, rows, qkv, s->heads + s->kv_heads, s->dim, row, p->options.tokens, p->cosines,
                   p->sines, true, d_qkv);
        const real *x = store_read(on, &l->x, row, rows, b->x);
        on->norm_forward(on, rows, s->width, x, w.norm_in, b->normed);
        on->product(on, true, false, s->width, qkv, rows, b->normed, s->width, d_qkv, qkv, 1, dw.qkv, qkv);
        on->product(on, false, true, rows, s->width, qkv, d_qkv, qkv, w.qkv, qkv, 0, b->d_normed, s->width);
        on->norm_backward(on, rows, s->width, b->d_normed, x, w.norm_in, p->dx + row * s->width, dw.norm_in,
                          b->partial);
    }
}

lh_status layer_backward(pass *p, int64_t layer, lh_error *error)
{
    after_attention_backward(p, layer);
    pass_lap(p, &p->clock[layer].outside);
    const lh_status status = pass_attend(p, layer, true, error);
    if (status != LH_OK)
        return status;
    pass_lap(p, &p->clock[layer].attention);
    before_attention_backward(p, layer);
    pass_lap(p, &p->clock[layer].outside);
    return LH_OK;
}
