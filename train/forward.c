/* The whole decoder: embedding, layers, head and loss, forward and backward. */
#include "train/layer.h"
#include "train/views.h"

static void embed(pass *p)
{
    const lh_arithmetic *on = p->m->on;
    const int64_t width = p->m->shape.width;
    const real *table = pass_weights(p) + p->m->embed;
    const store *x = &pass_layer(p, 0)->x;
    for (int64_t row = 0; row < p->rows; row += pass_rows(p, row)) {
        const int64_t rows = pass_rows(p, row);
        real *to = store_write(x, row, p->scratch.x);
        on->embed(on, rows, width, p->bytes + row, table, to);
        store_keep(on, x, row, rows, to);
    }
}

static void embed_backward(pass *p)
{
    const lh_arithmetic *on = p->m->on;
    const int64_t width = p->m->shape.width;
    for (int64_t row = 0; row < p->rows; row += pass_rows(p, row))
        on->embed_backward(on, pass_rows(p, row), width, p->bytes + row, p->dx + row * width,
                           pass_gradients(p, row) + p->m->embed);
}

lh_status pass_forward(pass *p, const uint8_t *bytes, lh_error *error)
{
    const lh_arithmetic *on = p->m->on;
    p->laps = 0;
    pass_lap(p, NULL);
    on->put(on, p->bytes, bytes, (size_t)p->rows);
    if (p->options.bf16)
        on->round_bf16(on, p->m->size, p->m->values, p->weights);
    embed(p);
    pass_lap(p, &p->clock[p->m->shape.layers].outside);
    lh_status status = LH_OK;
    for (int64_t l = 0; l < p->m->shape.layers && status == LH_OK; l++)
        status = layer_forward(p, l, error);
    return status;
}

/* Logits of `rows` rows of the stream that leaves the model; leaves norm(x) in scratch. x: [rows, D] */
static void head_forward(pass *p, int64_t rows, const real *x, real *logits)
{
    const lh_arithmetic *on = p->m->on;
    const model *m = p->m;
    const int64_t width = m->shape.width;
    const real *weights = pass_weights(p);
    on->norm_forward(on, rows, width, x, weights + m->norm_out, p->scratch.normed);
    on->product(on, false, m->shape.tied, rows, BYTES, width, p->scratch.normed, width, weights + m->head,
                m->shape.tied ? width : BYTES, 0, logits, BYTES);
}

/* From d_logits in scratch: gradients of head and norm_out, and dx. */
static void head_backward(pass *p, int64_t rows, const real *x, real *dx, real *gradients)
{
    const lh_arithmetic *on = p->m->on;
    const model *m = p->m;
    const block *b = &p->scratch;
    const int64_t width = m->shape.width;
    const bool tied = m->shape.tied;
    const real *weights = pass_weights(p);
    if (tied)
        on->product(on, true, false, BYTES, width, rows, b->logits, BYTES, b->normed, width, 1,
                    gradients + m->head, width);
    else
        on->product(on, true, false, width, BYTES, rows, b->normed, width, b->logits, BYTES, 1,
                    gradients + m->head, BYTES);
    on->product(on, false, !tied, rows, width, BYTES, b->logits, BYTES, weights + m->head,
                tied ? width : BYTES, 0, b->d_normed, width);
    on->zero(on, dx, (size_t)(rows * width) * sizeof(real));
    on->norm_backward(on, rows, width, b->d_normed, x, weights + m->norm_out, dx, gradients + m->norm_out,
                      b->partial);
}

static void head_loss(pass *p, const uint8_t *targets, bool backward, double share)
{
    const lh_arithmetic *on = p->m->on;
    const int64_t width = p->m->shape.width;
    const real scale = (real)(share / (double)(p->rows * pass_ranks(p)));
    const store *last = &pass_layer(p, p->m->shape.layers)->x;
    on->put(on, p->targets, targets, (size_t)p->rows);
    for (int64_t row = 0; row < p->rows; row += pass_rows(p, row)) {
        const int64_t rows = pass_rows(p, row);
        const real *x = store_read(on, last, row, rows, p->scratch.x);
        head_forward(p, rows, x, p->scratch.logits);
        on->cross_entropy(on, rows, p->targets + row, scale, p->scratch.logits, p->row_losses + row);
        if (backward)
            head_backward(p, rows, x, p->dx + row * width, pass_gradients(p, row));
    }
}

/* Of the rows, in their order. */
static lh_status mean_loss(pass *p, double *loss, lh_error *error)
{
    const lh_arithmetic *on = p->m->on;
    const lh_status status =
        on->get(on, p->losses, p->row_losses, (size_t)p->rows * sizeof *p->losses, error);
    double sum = 0;
    for (int64_t row = 0; row < p->rows && status == LH_OK; row++)
        sum += p->losses[row];
    *loss = sum / (double)p->rows;
    return status;
}

lh_status pass_loss(pass *p, const uint8_t *targets, double *loss, lh_error *error)
{
    head_loss(p, targets, false, 1);
    return mean_loss(p, loss, error);
}

lh_status pass_backward(pass *p, const uint8_t *targets, double share, double *loss, lh_error *error)
{
    double *rest = &p->clock[p->m->shape.layers].outside;
    lh_status status = LH_OK;
    pass_lap(p, NULL);
    head_loss(p, targets, true, share);
    pass_lap(p, rest);
    for (int64_t l = p->m->shape.layers - 1; l >= 0 && status == LH_OK; l--)
        status = layer_backward(p, l, error);
    if (status != LH_OK)
        return status;
    embed_backward(p);
    pass_lap(p, rest);
    status = mean_loss(p, loss, error);
    if (status == LH_OK)
        pass_count_laps(p);
    return status;
}

lh_status pass_logits(pass *p, int64_t row, real *logits, lh_error *error)
{
    const lh_arithmetic *on = p->m->on;
    const store *last = &pass_layer(p, p->m->shape.layers)->x;
    head_forward(p, 1, store_read(on, last, row, 1, p->scratch.x), p->scratch.logits);
    return on->get(on, logits, p->scratch.logits, BYTES * sizeof *logits, error);
}
