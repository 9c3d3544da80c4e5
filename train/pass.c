/* Shapes, memory and attention plans of a pass: everything that happens before the first step. */
#include "train/pass.h"

#include <string.h>

#include "core/backend.h"
#include "train/store.h"

lh_config pass_config(const pass *p, enum attention_kind kind)
{
    const model_shape *s = &p->m->shape;
    const pass_options *o = &p->options;
    return (lh_config){
        .batch = o->batch,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .tokens = o->tokens,
        .dim = s->dim,
        .levels = kind == DENSE ? 1 : o->levels,
        .pool = kind == DENSE ? 2 : o->pool,
        .topk = o->topk,
        .tile_topk = o->tile_topk,
    };
}

lh_dtype pass_dtype(const pass *p)
{
    return p->options.bf16 ? LH_BF16 : REAL_DTYPE;
}

static enum attention_kind kind_of(const pass_options *o, int64_t layer)
{
    return !o->dense || o->dense[layer] || o->levels == 1 ? DENSE : LIGHTHOUSE;
}

/* Hands out pieces of one block of memory, or, without a base, only counts them. */
struct arena {
    char *base;
    size_t used;
};

static void *take(struct arena *a, int64_t elements, size_t size)
{
    void *piece = a->base ? a->base + a->used : NULL;
    a->used += ((size_t)elements * size + 63) / 64 * 64;
    return piece;
}

static store take_store(struct arena *a, const pass *p, int64_t width)
{
    void *data = take(a, p->rows * width, lh_dtype_size(pass_dtype(p)));
    return (store){data, width, p->options.bf16};
}

static void *take_tensor(struct arena *a, const pass *p, enum attention_kind kind, lh_tensor_id id)
{
    const lh_config config = pass_config(p, kind);
    lh_tensor t = {.dtype = LH_F32};
    lh_tensor_describe(&config, pass_dtype(p), id, &t, NULL);
    return take(a, lh_tensor_elements(&t), lh_dtype_size(t.dtype));
}

static layer_store take_layer(struct arena *a, const pass *p, enum attention_kind kind)
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

static block take_block(struct arena *a, const model_shape *s)
{
    const int64_t qkv = (s->heads + 2 * s->kv_heads) * s->dim;
    const int64_t widths[] = {s->width,      s->width,  s->width, qkv, s->heads * s->dim,
                              2 * s->hidden, s->hidden, s->width, qkv, s->heads * s->dim,
                              2 * s->hidden, s->hidden, BYTES};
    real *piece[sizeof widths / sizeof *widths];
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        piece[i] = take(a, BLOCK * widths[i], sizeof(real));
    block b = {piece[0], piece[1], piece[2], piece[3],  piece[4],  piece[5],  piece[6],
               piece[7], piece[8], piece[9], piece[10], piece[11], piece[12], NULL};
    b.partial = take(a, NORM_GROUPS * s->width, sizeof(real));
    return b;
}

/* Sets every pointer of the pass into the arena; with no base, counts the bytes. */
static void lay_out(pass *p, struct arena *a)
{
    const model_shape *s = &p->m->shape;
    const bool training = p->options.training;
    const int64_t kept = training ? s->layers : 1;
    for (int64_t l = 0; l < kept; l++) {
        const layer_store layer = take_layer(a, p, kind_of(&p->options, l));
        if (a->base)
            p->layer[l] = layer;
    }
    if (training) {
        const store last = take_store(a, p, s->width);
        if (a->base)
            p->layer[s->layers].x = last;
        p->d_qkv = take_store(a, p, (s->heads + 2 * s->kv_heads) * s->dim);
        p->d_attention = take_store(a, p, s->heads * s->dim);
        p->dx = take(a, p->rows * s->width, sizeof(real));
    }
    if (p->options.bf16)
        p->weights = take(a, p->m->size, sizeof(real));
    p->cosines = take(a, p->options.tokens * (s->dim / 2), sizeof(real));
    p->sines = take(a, p->options.tokens * (s->dim / 2), sizeof(real));
    p->losses = take(a, p->rows, sizeof(double));
    p->scratch = take_block(a, s);
}

lh_options pass_plan_options(const pass *p)
{
    return (lh_options){
        .backend = p->options.backend,
        .device = p->options.device,
        .dtype = pass_dtype(p),
        .backward = p->options.training,
        .threads = p->options.threads,
    };
}

static lh_status make_plan(const pass *p, enum attention_kind kind, lh_plan **plan, lh_error *error)
{
    const lh_config config = pass_config(p, kind);
    lh_options options = pass_plan_options(p);
    options.index_given = p->options.index_given && kind == LIGHTHOUSE;
    return lh_plan_create(&config, &options, plan, error);
}

static lh_status make_plans(pass *p, lh_error *error)
{
    lh_status status = LH_OK;
    bool grouped = false;
    for (int64_t l = 0; l < p->m->shape.layers && status == LH_OK; l++) {
        p->kind[l] = kind_of(&p->options, l);
        lh_plan **plan = &p->plan[p->kind[l]];
        if (p->kind[l] == LIGHTHOUSE && p->options.group_tile_topk)
            grouped = true;
        else if (!*plan)
            status = make_plan(p, p->kind[l], plan, error);
    }
    return status == LH_OK && grouped ? groups_create(p, error) : status;
}

lh_status pass_create(const model *m, const pass_options *options, pass *p, lh_error *error)
{
    product_prepare();
    memset(p, 0, sizeof *p);
    p->m = m;
    p->options = *options;
    p->rows = options->batch * options->tokens;
    const size_t layers = (size_t)m->shape.layers;
    lh_status status = lh_alloc((void **)&p->kind, layers * sizeof *p->kind, "attention kinds", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&p->layer, (layers + 1) * sizeof *p->layer, "layer table", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&p->clock, (layers + 1) * sizeof *p->clock, "layer clocks", error);
    if (status == LH_OK)
        status = make_plans(p, error);
    struct arena counted = {NULL, 0};
    if (status == LH_OK) {
        lay_out(p, &counted);
        status = lh_alloc(&p->arena, counted.used, "activations", error);
    }
    if (status != LH_OK) {
        pass_destroy(p);
        return status;
    }
    memset(p->layer, 0, (layers + 1) * sizeof *p->layer);
    memset(p->clock, 0, (layers + 1) * sizeof *p->clock);
    p->arena_bytes = counted.used;
    lay_out(p, &(struct arena){p->arena, 0});
    rotary_table(options->tokens, m->shape.dim, m->shape.rotary_base, p->cosines, p->sines);
    p->options.dense = NULL; /* the caller's; p->kind has it now */
    return LH_OK;
}

void pass_destroy(pass *p)
{
    for (int i = 0; i < ATTENTION_KINDS; i++)
        lh_plan_destroy(p->plan[i]);
    groups_destroy(p);
    lh_free(p->kind);
    lh_free(p->layer);
    lh_free(p->clock);
    lh_free(p->arena);
    memset(p, 0, sizeof *p);
}

lh_status pass_memory(const model_shape *shape, const pass_options *options, size_t *bytes, lh_error *error)
{
    const model m = {.shape = *shape, .size = model_parameters(shape)};
    pass p = {.m = &m, .options = *options, .rows = options->batch * options->tokens};
    const lh_config config = pass_config(&p, options->levels == 1 ? DENSE : LIGHTHOUSE);
    const lh_status status = lh_config_check(&config, NULL, error);
    if (status != LH_OK)
        return status;
    struct arena counted = {NULL, 0};
    lay_out(&p, &counted);
    *bytes = counted.used;
    return LH_OK;
}

void pass_views(const pass *p, const store *qkv, lh_tensor *q, lh_tensor *k, lh_tensor *v)
{
    const model_shape *s = &p->m->shape;
    const lh_dtype dtype = pass_dtype(p);
    lh_tensor *views[] = {q, k, v};
    const int64_t heads[] = {s->heads, s->kv_heads, s->kv_heads};
    char *at = qkv->data;
    for (int i = 0; i < 3; i++) {
        *views[i] = (lh_tensor){
            .data = at,
            .dtype = dtype,
            .rank = 4,
            .shape = {p->options.batch, heads[i], p->options.tokens, s->dim},
            .stride = {p->options.tokens * qkv->width, s->dim, qkv->width, 1},
        };
        at += (size_t)(heads[i] * s->dim) * lh_dtype_size(dtype);
    }
}

static lh_tensor out_view(const pass *p, const store *attention)
{
    lh_tensor view, unused[2];
    pass_views(p, attention, &view, &unused[0], &unused[1]);
    return view;
}

void pass_trace(const pass *p, int64_t layer, lh_tensor trace[LH_TENSOR_COUNT])
{
    const layer_store *l = pass_layer(p, layer);
    const lh_config config = pass_config(p, p->kind[layer]);
    memset(trace, 0, LH_TENSOR_COUNT * sizeof *trace);
    pass_views(p, &l->qkv, &trace[LH_Q], &trace[LH_K], &trace[LH_V]);
    trace[LH_OUT] = out_view(p, &l->attention);
    if (p->options.training) {
        pass_views(p, &p->d_qkv, &trace[LH_DQ], &trace[LH_DK], &trace[LH_DV]);
        trace[LH_DOUT] = out_view(p, &p->d_attention);
    }
    const struct {
        lh_tensor_id id;
        void *data;
    } kept[] = {{LH_INDEX, l->index}, {LH_O_SEL, l->o_sel}, {LH_LSE, l->lse}};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        lh_tensor_describe(&config, pass_dtype(p), kept[i].id, &trace[kept[i].id], NULL);
        trace[kept[i].id].data = kept[i].data;
    }
}

lh_status pass_attend(const pass *p, int64_t layer, bool backward, lh_error *error)
{
    if (p->kind[layer] == LIGHTHOUSE && p->options.group_tile_topk)
        return groups_attend(p, layer, backward, error);
    lh_tensor trace[LH_TENSOR_COUNT];
    pass_trace(p, layer, trace);
    lh_plan *plan = p->plan[p->kind[layer]];
    return backward ? lh_backward(plan, trace, error) : lh_forward(plan, trace, error);
}

lh_status pass_probe_dense(pass *p, int64_t layer, double *seconds, lh_error *error)
{
    lh_plan *plan;
    lh_status status = make_plan(p, DENSE, &plan, error);
    if (status != LH_OK)
        return status;
    lh_tensor trace[LH_TENSOR_COUNT];
    pass_trace(p, layer, trace);
    trace[LH_INDEX].data = trace[LH_O_SEL].data = trace[LH_LSE].data = NULL;
    trace[LH_OUT] = trace[LH_DOUT];
    const double start = lh_seconds();
    status = lh_forward(plan, trace, error);
    if (status == LH_OK)
        status = lh_backward(plan, trace, error);
    *seconds = lh_seconds() - start;
    lh_plan_destroy(plan);
    return status;
}

size_t pass_plan_bytes(const pass *p)
{
    size_t bytes = 0;
    for (int i = 0; i < ATTENTION_KINDS; i++)
        bytes += p->plan[i] ? lh_plan_workspace(p->plan[i]) : 0;
    for (int64_t i = 0; i < p->group_plans; i++)
        bytes += p->group_plan[i] ? lh_plan_workspace(p->group_plan[i]) : 0;
    return bytes;
}
