/* A pass as attention sees it: configurations, options, and views into its stores. */
#include "train/views.h"

#include <string.h>

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

enum attention_kind pass_kind(const pass_options *o, int64_t layer)
{
    return !o->dense || o->dense[layer] || o->levels == 1 ? DENSE : LIGHTHOUSE;
}

lh_options pass_plan_options(const pass *p)
{
    return (lh_options){
        .backend = p->options.backend,
        .device = p->options.device,
        .dtype = pass_dtype(p),
        .backward = p->options.training,
        .threads = p->options.threads,
        .memory = p->m->on->host ? LH_HOST : LH_ON_DEVICE,
        .stream = p->m->on->stream,
    };
}

void pass_count_laps(pass *p)
{
    for (int64_t i = 1; i < p->laps; i++) {
        if (p->lap[i].account)
            *p->lap[i].account += p->m->on->between(p->m->on, &p->lap[i - 1].end, &p->lap[i].end);
    }
    p->laps = 0;
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
