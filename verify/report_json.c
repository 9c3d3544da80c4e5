/* The report as JSON: { version, tensors, failures, cases: [{ id, why, exposes, tensors: [...] }] }. */

#include "core/json.h"
#include "verify/report.h"

bool verify_json_case(verify_report *report)
{
    const verify_case *c = report->subject;
    json_t *entry =
        json_pack("{s:s, s:s, s:s, s:[]}", "id", c->id, "why", c->why, "exposes", c->exposes, "tensors");
    return entry && json_array_append_new(report->json, entry) == 0;
}

bool verify_json_row(verify_report *report, const verify_row *row)
{
    const verify_result *r = &row->result;
    char where[96], command[256];
    json_t *entry = json_array_get(report->json, json_array_size(report->json) - 1);
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:o, s:o, s:o, s:o, s:o}", "backend", row->backend, "dtype",
        lh_dtype_name(row->dtype), "part", row->part, "tensor", lh_tensor_name(row->tensor), "verdict",
        verify_verdict_name(r->verdict), "passed", (int)verify_passed(r->verdict), "elements",
        (json_int_t)r->elements, "error", lh_json_number(r->error), "allowed", lh_json_number(r->allowed),
        "share", lh_json_number(r->share), "mean", lh_json_number(r->mean), "got", lh_json_number(r->got));
    json = lh_json_set(json, "wanted", lh_json_number(r->wanted));
    if (r->worst >= 0)
        json = lh_json_set(json, "worst", json_string(verify_position(row, where)));
    if (row->note[0])
        json = lh_json_set(json, "note", json_string(row->note));
    if (!verify_passed(r->verdict))
        json = lh_json_set(json, "command", json_string(verify_row_command(row, command)));
    return json_array_append_new(json_object_get(entry, "tensors"), json) == 0;
}

lh_status verify_report_write(const verify_report *report, const char *path, lh_error *error)
{
    json_t *all =
        json_pack("{s:s, s:I, s:I, s:O}", "version", lh_version(), "tensors", (json_int_t)report->tensors,
                  "failures", (json_int_t)report->failures, "cases", report->json);
    return lh_json_write(path, all, error);
}
