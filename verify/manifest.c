/*
 * data/manifest.json: for every case its configuration, seed, reason, the faults it exposes, and the SHA-256 of
 * every tensor of the reference's binary64 trace; for every upstream file that of the file's own tensors; and
 * the invalid cases with their errors. Same program, same bytes, on every machine.
 */

#include "core/hash.h"
#include "core/json.h"
#include "verify/verify.h"

static json_t *config_json(const lh_config *c)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "batch", (json_int_t)c->batch, "heads",
                     (json_int_t)c->heads, "kv_heads", (json_int_t)c->kv_heads, "tokens",
                     (json_int_t)c->tokens, "dim", (json_int_t)c->dim, "levels", (json_int_t)c->levels,
                     "pool", (json_int_t)c->pool, "topk", (json_int_t)c->topk, "tile_topk",
                     (json_int_t)c->tile_topk);
}

static json_t *hash_json(const lh_tensor *t)
{
    char hash[65];
    lh_tensor_sha256(t, hash);
    return json_string(hash);
}

/* "1 2 24" as [1, 2, 24]. */
static json_t *faults_json(const char *text)
{
    json_t *list = json_array();
    for (char *end; *text; text = end) {
        list = lh_json_append(list, json_integer(strtol(text, &end, 10)));
        end += *end == ' ';
    }
    return list;
}

static lh_status add_file(const verify_case *c, json_t **entry, lh_error *error)
{
    lh_file *file = NULL;
    char path[64];
    const lh_status status = verify_upstream_open(c->id, &file, error);
    if (status != LH_OK)
        return status;
    json_t *tensors = json_object();
    for (int i = 0; i < lh_file_count(file); i++)
        tensors = lh_json_set(tensors, lh_file_name(file, i), hash_json(lh_file_tensor(file, i)));
    snprintf(path, sizeof path, "upstream/%s.safetensors", c->id);
    const char *source = lh_file_metadata(file, "source");
    *entry = lh_json_set(*entry, "source", json_string(source ? source : "unknown"));
    *entry = lh_json_set(*entry, "file", json_pack("{s:s, s:o}", "path", path, "tensors", tensors));
    lh_file_free(file);
    return LH_OK;
}

static lh_status add_trace(const verify_case *c, json_t **entry, lh_error *error)
{
    verify_trace t = {0};
    json_t *tensors = json_object();
    const lh_status status = verify_case_trace(c, LH_F64, &t, error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++)
        tensors = lh_json_set(tensors, lh_tensor_name((lh_tensor_id)id), hash_json(&t.tensor[id]));
    *entry = lh_json_set(*entry, "trace", tensors);
    verify_free(&t);
    return status;
}

static lh_status add_case(const verify_case *c, json_t **list, lh_error *error)
{
    json_t *entry = json_pack("{s:s, s:s, s:o, s:s, s:o, s:I}", "id", c->id, "why", c->why, "exposes",
                              faults_json(c->exposes), "pattern", verify_pattern_name(c->pattern), "config",
                              config_json(&c->config), "seed", (json_int_t)c->seed);
    lh_status status = LH_OK;
    if (c->pattern == VERIFY_FILE)
        status = add_file(c, &entry, error);
    else
        entry =
            lh_json_set(entry, "source",
                        json_string(c->pattern == VERIFY_HAND ? "worked out by hand" : "drawn by counter"));
    if (status == LH_OK)
        status = add_trace(c, &entry, error);
    *list = lh_json_append(*list, entry);
    return status;
}

lh_status verify_write_manifest(const char *path, lh_error *error)
{
    const verify_case *c;
    const verify_invalid *bad;
    json_t *cases = json_array(), *invalid = json_array();
    lh_status status = LH_OK;
    for (int i = 0; (c = verify_case_at(i)) && status == LH_OK; i++)
        status = add_case(c, &cases, error);
    for (int i = 0; (bad = verify_invalid_at(i)); i++)
        invalid =
            lh_json_append(invalid, json_pack("{s:s, s:s, s:o, s:s}", "id", bad->id, "why", bad->why,
                                              "config", config_json(&bad->config), "error", bad->error));
    json_t *all = json_pack("{s:i, s:o, s:o}", "version", 1, "cases", cases, "invalid", invalid);
    if (status == LH_OK)
        return lh_json_write(path, all, error);
    json_decref(all);
    return status;
}
