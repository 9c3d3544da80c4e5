/* The same figures for other programs. */
#include "bench/bench.h"
#include "core/json.h"

static json_t *pass_json(const bench_point *point, bench_pass pass)
{
    const bench_request *request = &point->request;
    const bench_time *time = &point->pass[pass];
    json_t *stages = json_object();
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        if (time->stage[stage] <= 0)
            continue;
        const double bytes =
            bench_stage_bytes(&request->config, &point->layout, request->dtype, (lh_stage)stage);
        stages = lh_json_set(stages, lh_stage_name((lh_stage)stage),
                             json_pack("{s:f, s:f}", "seconds", time->stage[stage], "bytes", bytes));
    }
    json_t *object =
        json_pack("{s:i, s:f, s:f, s:f, s:f, s:o}", "runs", time->runs, "min_seconds", time->least,
                  "median_seconds", time->median, "transfer_seconds", time->transfer, "operations",
                  bench_operations(&request->config, &point->layout, pass), "stages", stages);
    if (time->turns == 0)
        return object;
    return lh_json_set(object, "product_share",
                       json_pack("{s:f, s:f, s:f, s:i}", "median", time->share, "low", time->low, "high",
                                 time->high, "turns", time->turns));
}

/* `object` with the members of `more`, which is released; NULL as of lh_json_set. */
static json_t *updated(json_t *object, json_t *more)
{
    if (json_object_update_new(object, more) == 0)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *point_json(const bench_point *point)
{
    const bench_request *request = &point->request;
    const lh_config *c = &request->config;
    json_t *object = json_pack(
        "{s:s, s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "backend", request->backend, "device",
        request->device, "attention", request->dense ? "dense" : "lighthouse", "dtype",
        lh_dtype_name(request->dtype), "batch", (json_int_t)c->batch, "heads", (json_int_t)c->heads,
        "kv_heads", (json_int_t)c->kv_heads, "tokens", (json_int_t)c->tokens, "dim", (json_int_t)c->dim,
        "levels", (json_int_t)c->levels, "selected", (json_int_t)point->layout.selected);
    if (!request->dense)
        object = updated(object, json_pack("{s:I, s:I, s:I}", "pool", (json_int_t)c->pool, "topk",
                                           (json_int_t)c->topk, "tile_topk", (json_int_t)c->tile_topk));
    object = lh_json_set(object, "timed_heads", json_integer(point->timed_heads));
    if (point->timed_heads == 0) {
        return lh_json_set(object, "expected_seconds", json_real(point->expected));
    }
    return updated(object, json_pack("{s:I, s:I, s:I, s:o, s:o}", "tensor_bytes", (json_int_t)point->tensors,
                                     "workspace_bytes", (json_int_t)point->workspace, "peak_bytes",
                                     (json_int_t)point->peak, "forward", pass_json(point, BENCH_FORWARD),
                                     "backward", pass_json(point, BENCH_BACKWARD)));
}

static json_t *machine_json(const bench_machine *machine)
{
    return json_pack("{s:s, s:i, s:f, s:f}", "processor", machine->processor, "threads", machine->threads,
                     "sgemm_flops_per_second", machine->product_flops, "copy_bytes_per_second",
                     machine->copy_bytes);
}

static json_t *devices_json(const bench_result *result)
{
    json_t *devices = json_array();
    for (int i = 0; i < result->device_count; i++) {
        const bench_machine *m = &result->devices[i];
        if (m->backend)
            devices =
                lh_json_append(devices, json_pack("{s:s, s:i, s:s, s:s, s:f, s:f}", "backend", m->backend,
                                                  "device", m->device, "name", m->processor, "product",
                                                  m->product, "product_flops_per_second", m->product_flops,
                                                  "copy_bytes_per_second", m->copy_bytes));
    }
    return devices;
}

lh_status bench_write_json(const char *path, const bench_result *result, lh_error *error)
{
    json_t *points = json_array();
    for (int i = 0; i < result->count; i++)
        points = lh_json_append(points, point_json(&result->points[i]));
    json_t *root = json_pack("{s:s, s:o, s:o, s:o, s:o}", "lighthouse", lh_version(), "machine",
                             machine_json(&result->machine), "machine_after", machine_json(&result->after),
                             "devices", devices_json(result), "points", points);
    return lh_json_write(path, root, error);
}
