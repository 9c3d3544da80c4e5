/* One layer over ranks, from whole tensors to whole tensors. */
#include <stdio.h>
#include <string.h>

#include "cli/ranks.h"
#include "dist/dist.h"

struct job {
    const cli_ranks *ranks;
    cli_layer *layer;
};

/* This rank's rows of a whole tensor; data NULL stays so. */
static lh_tensor rows_of(const lh_tensor *whole, const lh_exchange *exchange)
{
    lh_tensor part = *whole;
    if (!whole->data)
        return part;
    part.shape[2] /= exchange->ranks;
    part.data = (char *)whole->data +
                exchange->rank * part.shape[2] * whole->stride[2] * (int64_t)lh_dtype_size(whole->dtype);
    return part;
}

/* What may not be strided is a tensor of its own. */
static const lh_tensor_id apart[] = {LH_INDEX, LH_LSE};

static lh_status make_apart(const cli_layer *layer, const lh_config *part, const lh_exchange *exchange,
                            lh_tensor trace[LH_TENSOR_COUNT], void *owned[2], lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < 2 && status == LH_OK; i++) {
        lh_tensor *t = &trace[apart[i]];
        const lh_tensor *whole = &layer->trace[apart[i]];
        if (!whole->data)
            continue;
        status = lh_tensor_describe(part, layer->options.dtype, apart[i], t, error);
        if (status == LH_OK)
            status = lh_alloc(&owned[i], (size_t)lh_tensor_elements(t) * lh_dtype_size(t->dtype),
                              lh_tensor_name(apart[i]), error);
        t->data = owned[i];
        if (status == LH_OK && apart[i] == LH_INDEX && layer->options.index_given)
            lh_dist_index_to_part(&layer->config, exchange->rank, exchange->ranks, whole, t);
    }
    return status;
}

/* This rank's rows of lse and index into the whole ones. */
static lh_status join(const cli_layer *layer, const lh_exchange *exchange, const lh_tensor *trace,
                      lh_error *error)
{
    if (trace[LH_INDEX].data && !layer->options.index_given)
        lh_dist_index_to_whole(&layer->config, exchange->rank, exchange->ranks, &trace[LH_INDEX],
                               &layer->trace[LH_INDEX]);
    if (!trace[LH_LSE].data)
        return LH_OK;
    const lh_tensor lse = rows_of(&layer->trace[LH_LSE], exchange);
    return lh_tensor_convert(&lse, &trace[LH_LSE], error);
}

/* Every process's rows of the results to the first one, into the same places. */
static lh_status collect(const cli_layer *layer, const lh_exchange *exchange, lh_error *error)
{
    static const lh_tensor_id results[] = {LH_OUT, LH_LSE, LH_INDEX, LH_DQ, LH_DK, LH_DV};
    lh_status status = LH_OK;
    for (size_t i = 0; i < sizeof results / sizeof *results && status == LH_OK; i++) {
        const lh_tensor *t = &layer->trace[results[i]];
        if (!t->data || (results[i] == LH_INDEX && layer->options.index_given))
            continue;
        for (int r = 1; r < exchange->ranks && status == LH_OK; r++) {
            lh_block one;
            struct dist_move move = {.sends = &one, .receives = &one};
            const int64_t rows = t->shape[2] / exchange->ranks, heads = t->shape[0] * t->shape[1];
            if (exchange->rank == 0)
                dist_receive(&move, r, t, 0, heads, r * rows, rows);
            else if (exchange->rank == r)
                dist_send(&move, 0, t, 0, heads, r * rows, rows);
            status = exchange->begin(exchange->context, move.sends, move.send_count, move.receives,
                                     move.receive_count, &move.request, error);
            if (status == LH_OK)
                status = exchange->finish(exchange->context, move.request, error);
        }
    }
    return status;
}

static void report(const lh_dist_plan *plan, const char *what, double since)
{
    lh_dist_profile p;
    char sent[32], held[32];
    lh_dist_get_profile(plan, &p);
    fprintf(
        stderr,
        "%-16s %10.3f s; so far on rank 0: local %.3f s, attention %.3f s, exchanges %.3f s, sent %s; plan %s\n",
        what, lh_seconds() - since, p.local, p.attend, p.exchange, cli_bytes((double)p.bytes, sent),
        cli_bytes((double)lh_dist_workspace(plan), held));
}

static lh_status run_rank(const lh_exchange *exchange, void *context, lh_error *error)
{
    const struct job *job = context;
    const cli_layer *layer = job->layer;
    lh_tensor trace[LH_TENSOR_COUNT];
    void *owned[2] = {NULL, NULL};
    lh_dist_plan *plan = NULL;
    lh_status status =
        lh_dist_create(&layer->config, &layer->options, job->ranks->layout, exchange, &plan, error);
    if (status != LH_OK)
        return status;
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        trace[id] = rows_of(&layer->trace[id], exchange);
    status = make_apart(layer, lh_dist_config(plan), exchange, trace, owned, error);
    status = dist_agree(exchange, status, plan->cards, error);
    const bool says = layer->verbose && exchange->rank == 0;
    double since = lh_seconds();
    if (status == LH_OK)
        status = lh_dist_forward(plan, trace, error);
    if (status == LH_OK && says)
        report(plan, "forward", since);
    since = lh_seconds();
    if (status == LH_OK && layer->options.backward)
        status = lh_dist_backward(plan, trace, error);
    if (status == LH_OK && layer->options.backward && says)
        report(plan, "backward", since);
    if (status == LH_OK)
        status = join(layer, exchange, trace, error);
    if (status == LH_OK && job->ranks->apart)
        status = collect(layer, exchange, error);
    for (int i = 0; i < 2; i++)
        lh_free(owned[i]);
    lh_dist_destroy(plan);
    return status;
}

lh_status cli_ranks_layer(const cli_ranks *ranks, cli_layer *layer, lh_error *error)
{
    struct job job = {ranks, layer};
    return cli_ranks_run(ranks, run_rank, &job, error);
}
