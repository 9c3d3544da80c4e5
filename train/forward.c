/* The whole decoder: embedding, layers, head and loss, forward and backward. */
#include <string.h>

#include "core/base.h"
#include "train/layer.h"
#include "train/views.h"
#include "train/seconds.h"

static void embed(pass *p, const uint8_t *bytes)
{
    const int64_t width = p->m->shape.width;
    const real *table = pass_weights(p) + p->m->embed;
    const store *x = &pass_layer(p, 0)->x;
    for (int64_t row = 0; row < p->rows; row += BLOCK) {
        const int64_t rows = p->rows - row < BLOCK ? p->rows - row : BLOCK;
        real *to = store_write(x, row, p->scratch.x);
        for (int64_t r = 0; r < rows; r++)
            memcpy(to + r * width, table + bytes[row + r] * width, (size_t)width * sizeof(real));
        store_keep(x, row, rows, to);
    }
}

static void embed_backward(pass *p, const uint8_t *bytes)
{
    const int64_t width = p->m->shape.width;
    for (int64_t row = 0; row < p->rows; row++) {
        real *table = pass_gradients(p, row) + p->m->embed;
        for (int64_t i = 0; i < width; i++)
            table[bytes[row] * width + i] += p->dx[row * width + i];
    }
}

lh_status pass_forward(pass *p, const uint8_t *bytes, lh_error *error)
{
    const double start = lh_seconds();
    if (p->options.bf16)
        round_bf16(p->m->size, p->m->values, p->weights);
    embed(p, bytes);
    p->clock[p->m->shape.layers].outside += seconds_since(start);
    lh_status status = LH_OK;
    for (int64_t l = 0; l < p->m->shape.layers && status == LH_OK; l++)
        status = layer_forward(p, l, error);
    return status;
}

/* Logits of `rows` rows of the stream that leaves the model; leaves norm(x) in scratch. x: [rows, D] */
static void head_forward(pass *p, int64_t rows, const real *x, real *logits)
{
    const model *m = p->m;
    const int64_t width = m->shape.width;
    const real *weights = pass_weights(p);
    norm_forward(rows, width, x, weights + m->norm_out, p->scratch.normed);
    product(false, m->shape.tied, rows, BYTES, width, p->scratch.normed, width, weights + m->head,
            m->shape.tied ? width : BYTES, 0, logits, BYTES);
}

/* From d_logits in scratch: gradients of head and norm_out, and dx. */
static void head_backward(pass *p, int64_t rows, const real *x, real *dx, real *gradients)
{
    const model *m = p->m;
    const block *b = &p->scratch;
    const int64_t width = m->shape.width;
    const bool tied = m->shape.tied;
    const real *weights = pass_weights(p);
    if (tied)
        product(true, false, BYTES, width, rows, b->logits, BYTES, b->normed, width, 1, gradients + m->head,
                width);
    else
        product(true, false, width, BYTES, rows, b->normed, width, b->logits, BYTES, 1, gradients + m->head,
                BYTES);
    product(false, !tied, rows, width, BYTES, b->logits, BYTES, weights + m->head, tied ? width : BYTES, 0,
            b->d_normed, width);
    memset(dx, 0, (size_t)(rows * width) * sizeof(real));
    norm_backward(rows, width, b->d_normed, x, weights + m->norm_out, dx, gradients + m->norm_out,
                  b->partial);
}

static double head_loss(pass *p, const uint8_t *targets, bool backward, double share)
{
    const double start = lh_seconds();
    const int64_t width = p->m->shape.width;
    const store *last = &pass_layer(p, p->m->shape.layers)->x;
    for (int64_t row = 0; row < p->rows; row += BLOCK) {
        const int64_t rows = p->rows - row < BLOCK ? p->rows - row : BLOCK;
        const real *x = store_read(last, row, rows, p->scratch.x);
        head_forward(p, rows, x, p->scratch.logits);
        cross_entropy(rows, BYTES, targets + row, (real)(share / (double)(p->rows * pass_ranks(p))),
                      p->scratch.logits, p->losses + row);
        if (backward)
            head_backward(p, rows, x, p->dx + row * width, pass_gradients(p, row));
    }
    double sum = 0;
    for (int64_t row = 0; row < p->rows; row++)
        sum += p->losses[row];
    p->clock[p->m->shape.layers].outside += seconds_since(start);
    return sum / (double)p->rows;
}

double pass_loss(pass *p, const uint8_t *targets)
{
    return head_loss(p, targets, false, 1);
}

lh_status pass_backward(pass *p, const uint8_t *bytes, const uint8_t *targets, double share, double *loss,
                        lh_error *error)
{
    *loss = head_loss(p, targets, true, share);
    lh_status status = LH_OK;
    for (int64_t l = p->m->shape.layers - 1; l >= 0 && status == LH_OK; l--)
        status = layer_backward(p, l, error);
    const double start = lh_seconds();
    if (status == LH_OK)
        embed_backward(p, bytes);
    p->clock[p->m->shape.layers].outside += seconds_since(start);
    return status;
}

void pass_logits(pass *p, int64_t row, real *logits)
{
    const store *last = &pass_layer(p, p->m->shape.layers)->x;
    head_forward(p, 1, store_read(last, row, 1, p->scratch.x), logits);
}
