/* Conformance vectors: a case with every tensor of the reference's trace, as a file anybody can read. */
#include <inttypes.h>
#include <stdio.h>

#include "scalar/run.h"
#include "verify/verify.h"

lh_status verify_case_trace(const verify_case *c, lh_dtype dtype, verify_trace *trace, lh_error *error)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    verify_trace given = {0};
    lh_status status = verify_inputs(c, &given, error);
    if (status == LH_OK)
        status = verify_make_all(trace, &c->config, dtype, VERIFY_PACKED, error);
    for (size_t i = 0; i < 4 && status == LH_OK; i++)
        status = lh_tensor_convert(&trace->tensor[inputs[i]], &given.tensor[inputs[i]], error);
    /* One at a time: each stage reads what the file will hold. */
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++)
        status = lh_ref_run(64, &c->config, LH_REF_STAGE(s), trace->tensor, NULL, error);
    verify_free(&given);
    return status;
}

lh_status verify_write_vector(const verify_case *c, lh_dtype dtype, const char *path, lh_error *error)
{
    verify_trace trace = {0};
    lh_file_entry entries[LH_TENSOR_COUNT];
    char text[LH_CONFIG_METAS][24], seed[24];
    lh_file_meta meta[LH_CONFIG_METAS + 6];
    lh_status status = verify_case_trace(c, dtype, &trace, error);
    if (status == LH_OK) {
        for (int id = 0; id < LH_TENSOR_COUNT; id++)
            entries[id] = (lh_file_entry){lh_tensor_name((lh_tensor_id)id), trace.tensor[id]};
        int metas = LH_CONFIG_METAS;
        lh_config_metadata(&c->config, text, meta);
        snprintf(seed, sizeof seed, "%" PRIu64, c->seed);
        meta[metas++] = (lh_file_meta){"id", c->id};
        meta[metas++] = (lh_file_meta){"seed", seed};
        meta[metas++] = (lh_file_meta){"pattern", verify_pattern_name(c->pattern)};
        meta[metas++] = (lh_file_meta){"exposes", c->exposes};
        meta[metas++] = (lh_file_meta){"why", c->why};
        meta[metas++] = (lh_file_meta){"lighthouse", lh_version()};
        status = lh_file_write(path, entries, LH_TENSOR_COUNT, meta, metas, error);
    }
    verify_free(&trace);
    return status;
}
