/* Memory of a pass: everything that happens before the first step. */
#include "train/pass.h"

#include <string.h>

#include "core/arena.h"
#include "core/base.h"
#include "train/attention.h"
#include "train/kernels.h"
#include "train/views.h"

static store take_store(lh_arena *a, const pass *p, int64_t width)
{
    void *data = lh_arena_take(a, (size_t)(p->rows * width), lh_dtype_size(pass_dtype(p)));
    return (store){data, width, p->options.bf16};
}

static void *take_tensor(lh_arena *a, const pass *p, enum attention_kind kind, lh_tensor_id id)
{
    const lh_config config = pass_config(p, kind);
    lh_tensor t = {.dtype = LH_F32};
    lh_tensor_describe(&config, pass_dtype(p), id, &t, NULL);
    return lh_arena_take(a, (size_t)(lh_tensor_elements(&t)), lh_dtype_size(t.dtype));
}

static layer_store take_layer(lh_arena *a, const pass *p, enum attention_kind kind)
{
    const model_shape *s = &p->m->shape;
    layer_store l = {
        .x = take_store(a, p, s->width),
        .qkv = take_store(a, p, (s->heads + 2 * s->kv_heads) * s->dim),
        .attention = take_store(a, p, s->heads * s->dim),
        .mid = take_store(a, p, s->width),
        .gate_up = take_store(a, p, 2 * s->hidden),
    };
    if (!p->options.training)
        return l; /* the plan keeps index, o_sel and lse as long as they are needed */
    if (kind == LIGHTHOUSE)
        l.index = take_tensor(a, p, kind, LH_INDEX);
    l.o_sel = take_tensor(a, p, kind, LH_O_SEL);
    l.lse = take_tensor(a, p, kind, LH_LSE);
    return l;
}

static block take_block(lh_arena *a, const pass *p)
{
    const model_shape *s = &p->m->shape;
    const int64_t qkv = (s->heads + 2 * s->kv_heads) * s->dim;
    const int64_t widths[] = {s->width,      s->width,  s->width, qkv, s->heads * s->dim,
                              2 * s->hidden, s->hidden, s->width, qkv, s->heads * s->dim,
                              2 * s->hidden, s->hidden, BYTES};
    real *piece[sizeof widths / sizeof *widths];
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        piece[i] = lh_arena_take(a, (size_t)(p->block * widths[i]), sizeof(real));
    block b = {piece[0], piece[1], piece[2], piece[3],  piece[4],  piece[5],  piece[6],
               piece[7], piece[8], piece[9], piece[10], piece[11], piece[12], NULL};
    const lh_arithmetic *on = p->m->on;
    const int64_t groups = (p->block + on->block - 1) / on->block * on->norm_groups;
    b.partial = lh_arena_take(a, (size_t)(groups * s->width), sizeof(real));
    return b;
}

/* Sets every pointer of the pass into the arena; with no base, counts the bytes. */
static void lay_out(pass *p, lh_arena *a)
{
    const model_shape *s = &p->m->shape;
    const bool training = p->options.training;
    const int64_t kept = training ? s->layers : 1;
    for (int64_t l = 0; l < kept; l++) {
        const layer_store layer = take_layer(a, p, pass_kind(&p->options, l));
        if (a->base)
            p->layer[l] = layer;
    }
    if (training) {
        const store last = take_store(a, p, s->width);
        if (a->base)
            p->layer[s->layers].x = last;
        p->d_qkv = take_store(a, p, (s->heads + 2 * s->kv_heads) * s->dim);
        p->d_attention = take_store(a, p, s->heads * s->dim);
        p->dx = lh_arena_take(a, (size_t)(p->rows * s->width), sizeof(real));
    }
    if (p->options.bf16)
        p->weights = lh_arena_take(a, (size_t)(p->m->size), sizeof(real));
    const int64_t angles = p->options.tokens * pass_ranks(p) * (s->dim / 2);
    p->cosines = lh_arena_take(a, (size_t)angles, sizeof(real));
    p->sines = lh_arena_take(a, (size_t)angles, sizeof(real));
    p->bytes = lh_arena_take(a, (size_t)p->rows, 1);
    p->targets = lh_arena_take(a, (size_t)p->rows, 1);
    p->row_losses = lh_arena_take(a, (size_t)(p->rows), sizeof(double));
    p->scratch = take_block(a, p);
}

static void size_up(pass *p, const model *m, const pass_options *options)
{
    memset(p, 0, sizeof *p);
    p->m = m;
    p->options = *options;
    p->rows = options->batch * options->tokens;
    const int64_t most = m->on->host ? host_rows() : m->on->block;
    p->block = p->rows < most ? p->rows : most;
}

static lh_status take_tables(pass *p, lh_error *error)
{
    const size_t layers = (size_t)p->m->shape.layers;
    const struct {
        void **table;
        size_t bytes;
        const char *what;
    } tables[] = {
        {(void **)&p->kind, layers * sizeof *p->kind, "attention kinds"},
        {(void **)&p->layer, (layers + 1) * sizeof *p->layer, "layer table"},
        {(void **)&p->clock, (layers + 1) * sizeof *p->clock, "layer clocks"},
        {(void **)&p->lap, (6 * layers + 6) * sizeof *p->lap, "laps"},
        {(void **)&p->losses, (size_t)p->rows * sizeof *p->losses, "losses"},
    };
    lh_status status = LH_OK;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && status == LH_OK; i++) {
        status = lh_alloc(tables[i].table, tables[i].bytes, tables[i].what, error);
        if (status == LH_OK)
            memset(*tables[i].table, 0, tables[i].bytes);
    }
    return status;
}

/* Angles of all ranks' tokens, and where this rank's begin. */
static lh_status put_angles(pass *p, lh_error *error)
{
    const lh_arithmetic *on = p->m->on;
    const int64_t tokens = p->options.tokens * pass_ranks(p), half = p->m->shape.dim / 2;
    const size_t bytes = (size_t)(tokens * half) * sizeof(real);
    real *angles;
    const lh_status status = lh_alloc((void **)&angles, 2 * bytes, "rotary angles", error);
    if (status != LH_OK)
        return status;
    rotary_table(tokens, p->m->shape.dim, p->m->shape.rotary_base, angles, angles + tokens * half);
    on->put(on, p->cosines, angles, bytes);
    on->put(on, p->sines, angles + tokens * half, bytes);
    lh_free(angles);
    if (p->options.exchange) {
        const int64_t before = p->options.exchange->rank * p->options.tokens * half;
        p->cosines += before;
        p->sines += before;
    }
    return LH_OK;
}

lh_status pass_create(const model *m, const pass_options *options, pass *p, lh_error *error)
{
    const lh_arithmetic *on = m->on;
    lh_arena counted = {NULL, 0};
    size_up(p, m, options);
    lh_status status = on->host ? product_prepare(error) : LH_OK;
    if (status == LH_OK)
        status = take_tables(p, error);
    if (status == LH_OK)
        status = attention_create(p, error);
    if (status == LH_OK) {
        lay_out(p, &counted);
        status = on->take(on, counted.used, "activations", &p->arena, error);
    }
    if (status == LH_OK) {
        p->arena_bytes = counted.used;
        lay_out(p, &(lh_arena){p->arena, 0});
        status = put_angles(p, error);
    }
    if (status != LH_OK) {
        pass_destroy(p);
        return status;
    }
    p->options.dense = NULL; /* the caller's; p->kind has it now */
    return LH_OK;
}

void pass_destroy(pass *p)
{
    if (!p->m)
        return; /* never made */
    const lh_arithmetic *on = p->m->on;
    attention_destroy(p);
    for (int64_t i = 0; p->lap && i < 6 * p->m->shape.layers + 6; i++)
        on->unmark(on, &p->lap[i].end);
    lh_free(p->kind);
    lh_free(p->layer);
    lh_free(p->clock);
    lh_free(p->lap);
    lh_free(p->losses);
    on->give(on, p->arena);
    memset(p, 0, sizeof *p);
}

lh_status pass_memory(const model_shape *shape, const pass_options *options, size_t *bytes, lh_error *error)
{
    const model m = {.shape = *shape, .size = model_parameters(shape), .on = &host_arithmetic};
    pass p;
    size_up(&p, &m, options);
    const lh_config config = pass_config(&p, options->levels == 1 ? DENSE : LIGHTHOUSE);
    const lh_status status = lh_config_check(&config, NULL, error);
    if (status != LH_OK)
        return status;
    lh_arena counted = {NULL, 0};
    lay_out(&p, &counted);
    *bytes = counted.used;
    return LH_OK;
}
