/* What the checker found, as text for people and as JSON for programs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "check/check.h"
#include "core/json.h"
#include "verify/row.h"

static const verify_row *row_of(const check_report *report, lh_tensor_id id, bool end_to_end)
{
    for (int i = 0; i < report->row_count; i++) {
        const bool layer = strcmp(report->rows[i].part, "layer") == 0;
        if (report->rows[i].tensor == id && layer == end_to_end)
            return &report->rows[i];
    }
    return NULL;
}

static const char *cell(const verify_row *row, char text[32])
{
    if (!row)
        return "-";
    if (row->result.verdict == VERIFY_WITHIN)
        snprintf(text, 32, "within, %.0f %%", fmax(1, ceil(100 * row->result.share)));
    else
        snprintf(text, 32, "%s", verify_verdict_name(row->result.verdict));
    return text;
}

/* One line a tensor, in the order of computation. */
static void write_table(FILE *out, const check_report *report)
{
    fprintf(out, "   %-9s %-5s %-17s %-18s %s\n", "tensor", "dtype", "stage", "on its own inputs",
            "end to end");
    for (int s = 0; s < LH_STAGE_COUNT; s++) {
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)s); *id != LH_TENSOR_COUNT; id++) {
            const verify_row *alone = row_of(report, *id, false), *layer = row_of(report, *id, true);
            const verify_row *row = alone ? alone : layer;
            char first[32], second[32];
            if (!row)
                continue;
            const bool right = verify_passed(row->result.verdict);
            const bool marked = report->first_wrong >= 0 && report->rows[report->first_wrong].tensor == *id;
            fprintf(out, "%s %-9s %-5s %-17s %-18s %s\n",
                    marked  ? ">>"
                    : right ? "  "
                            : " >",
                    lh_tensor_name(*id), lh_dtype_name(row->dtype), lh_stage_name((lh_stage)s),
                    cell(alone, first), cell(layer, second));
        }
    }
}

/* What the table has no room for: the worst element of what is wrong, and notes. */
static void write_details(FILE *out, const check_report *report)
{
    for (int i = 0; i < report->row_count; i++) {
        const verify_row *row = &report->rows[i];
        char text[VERIFY_TEXT];
        const bool layer = strcmp(row->part, "layer") == 0;
        /* End to end nearly everything behind a fault is wrong: said once, in the table. */
        if (layer && row_of(report, row->tensor, false) && i != report->first_wrong)
            continue;
        if (!verify_passed(row->result.verdict) || row->note[0])
            fprintf(out, "%s, %s: %s\n", lh_tensor_name(row->tensor), layer ? "end to end" : row->part,
                    verify_row_text(row, text));
    }
}

static void write_explanations(FILE *out, const check_report *report)
{
    for (int i = 0; i < report->fault_count; i++) {
        const lh_fault *fault = report->faults[i];
        const bool again = i > 0 && report->explained[i] == report->explained[i - 1];
        if (!again)
            fprintf(out, "%s comes out as here when\n", lh_stage_name(report->explained[i]));
        fprintf(out, "  %s (breaks %s): %s\n", fault->name, fault->breaks, fault->fix);
    }
    if (report->fault_count == 0)
        fprintf(out, "none of the known bugs gives these numbers\n");
}

static void write_text(FILE *out, const check_report *report)
{
    const lh_config *c = &report->config;
    int wrong = 0;
    fprintf(out,
            "B=%" PRId64 " H=%" PRId64 " G=%" PRId64 " N=%" PRId64 " d=%" PRId64 " L=%" PRId64 " p=%" PRId64
            " k=%" PRId64 " m=%" PRId64 "\n",
            c->batch, c->heads, c->kv_heads, c->tokens, c->dim, c->levels, c->pool, c->topk, c->tile_topk);
    write_table(out, report);
    write_details(out, report);
    for (int i = 0; i < report->row_count; i++)
        wrong += !verify_passed(report->rows[i].result.verdict);
    if (wrong == 0) {
        fprintf(out, report->tf32
                         ? "all right for tf32: the products of attention are not of float32 operands\n"
                         : "all right\n");
        return;
    }
    const verify_row *first = &report->rows[report->first_wrong];
    fprintf(out, "first wrong: %s (%s)\n", lh_tensor_name(first->tensor),
            strcmp(first->part, "layer") == 0 ? "end to end" : first->part);
    write_explanations(out, report);
}

lh_status check_text(const check_report *report, char **text, lh_error *error)
{
    size_t size;
    *text = NULL;
    FILE *out = open_memstream(text, &size);
    if (out)
        write_text(out, report);
    if (out && fclose(out) == 0)
        return LH_OK;
    free(*text);
    *text = NULL;
    return lh_fail(error, LH_NO_MEMORY, "report: its text could not be had");
}

static json_t *position(const verify_row *row)
{
    json_t *at = json_array();
    int64_t rest = row->result.worst;
    for (int r = row->shape.rank - 1; r >= 0 && rest >= 0 && at; r--) {
        json_array_insert_new(at, 0, json_integer(rest % row->shape.shape[r]));
        rest /= row->shape.shape[r];
    }
    return at;
}

static json_t *row_json(const verify_row *row)
{
    const verify_result *r = &row->result;
    return json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:s}", "tensor", lh_tensor_name(row->tensor),
                     "part", row->part, "verdict", verify_verdict_name(r->verdict), "passed",
                     (int)verify_passed(r->verdict), "worst", position(row), "got", lh_json_number(r->got),
                     "wanted", lh_json_number(r->wanted), "share", lh_json_number(r->share), "note",
                     row->note);
}

static json_t *fault_json(const check_report *report, int i)
{
    const lh_fault *fault = report->faults[i];
    return json_pack("{s:s, s:s, s:s, s:s}", "name", fault->name, "stage",
                     lh_stage_name(report->explained[i]), "breaks", fault->breaks, "fix", fault->fix);
}

lh_status check_json(const check_report *report, char **text, lh_error *error)
{
    char *readable = NULL;
    const char *first =
        report->first_wrong < 0 ? "" : lh_tensor_name(report->rows[report->first_wrong].tensor);
    json_t *verdicts = json_array(), *faults = json_array();
    for (int i = 0; i < report->row_count; i++)
        json_array_append_new(verdicts, row_json(&report->rows[i]));
    for (int i = 0; i < report->fault_count; i++)
        json_array_append_new(faults, fault_json(report, i));
    *text = NULL;
    lh_status status = check_text(report, &readable, error);
    json_t *all = status == LH_OK ? json_pack("{s:s, s:b, s:s, s:O, s:O, s:s}", "version", lh_version(), "ok",
                                              report->first_wrong < 0, "first_wrong", first, "verdicts",
                                              verdicts, "faults", faults, "text", readable)
                                  : NULL;
    *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    json_decref(verdicts);
    json_decref(faults);
    free(readable);
    return *text ? LH_OK : lh_fail(error, LH_NO_MEMORY, "report: its JSON could not be had");
}
