/* What the checker found, as text for people and as JSON for programs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "check/check.h"
#include "core/json.h"
#include "core/text.h"
#include "verify/row.h"

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
            const verify_row *alone = check_row(report, *id, false), *layer = check_row(report, *id, true);
            const verify_row *row = alone ? alone : layer;
            char first[32], second[32];
            if (!row)
                continue;
            const bool right = !verify_failed(row->result.verdict);
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
        if (layer && check_row(report, row->tensor, false) && i != report->first_wrong &&
            verify_failed(row->result.verdict))
            continue;
        if (row->result.verdict == VERIFY_UNJUDGED)
            fprintf(out, "%s, not judged: %s\n", lh_tensor_name(row->tensor), row->note);
        else if (!verify_passed(row->result.verdict) || row->note[0])
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
    if (report->suggested)
        fprintf(out, "with --habit %s nothing would be wrong, if that is what the port does\n",
                report->suggested);
}

/* Where a fault may sit that shows first in a tensor whose inputs the dump lacks, and what would tell. */
static void write_suspects(FILE *out, const check_report *report)
{
    const lh_stage shown = check_stage_of(report->rows[report->first_wrong].tensor);
    if (!(report->suspects & ~(1u << shown)))
        return;
    fprintf(out, "the fault may sit in");
    for (int s = 0; s < LH_STAGE_COUNT; s++)
        fprintf(out, report->suspects >> s & 1 ? " %s" : "%.0s", lh_stage_name((lh_stage)s));
    fprintf(out, ": to tell, dump");
    for (const lh_tensor_id *id = lh_stage_reads(shown); *id != LH_TENSOR_COUNT; id++)
        fprintf(out, report->present >> *id & 1 ? "%.0s" : " %s", lh_tensor_name(*id));
    fprintf(out, "\n");
}

static void write_names(FILE *out, const char *label, unsigned ids)
{
    if (!ids)
        return;
    fprintf(out, "%s", label);
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        fprintf(out, ids >> id & 1 ? " %s" : "%.0s", lh_tensor_name((lh_tensor_id)id));
    fprintf(out, "\n");
}

static void write_unknown(FILE *out, const check_report *report)
{
    for (int i = 0; i < report->unknown_count; i++) {
        const struct check_unknown *unknown = &report->unknown[i];
        if (lh_tensor_by_name(unknown->name) != LH_TENSOR_COUNT)
            fprintf(out, "tensor '%s' has a dtype or rank that is not read here: not judged\n",
                    unknown->name);
        else if (unknown->guess)
            fprintf(out, "tensor '%s' is none of the trace's names: not judged; is it %s?\n", unknown->name,
                    unknown->guess);
        else
            fprintf(out, "tensor '%s' is none of the trace's names: not judged\n", unknown->name);
    }
}

/* What a draw of rows finds of a fault that is in one row of so many. */
static void write_sample(FILE *out, const check_report *report)
{
    const check_sample *s = &report->sampled;
    if (s->rows == 0)
        return;
    fprintf(out,
            "judged by rows: the first, the last %d and %" PRId64 " drawn (seed %" PRIu64
            ") of every tensor in %s; all scores, indices, and that all is finite\n",
            VERIFY_TILE, s->rows, s->seed, s->heads ? "some heads, first and last among them" : "every head");
    fprintf(
        out,
        "a fault in the last %d rows of a head is found; one in a hundredth of a head's rows with %.0f %%, "
        "in a thousandth with %.0f %%\n",
        VERIFY_TILE, 100 * (1 - pow(0.99, (double)s->rows)), 100 * (1 - pow(0.999, (double)s->rows)));
}

static void write_habits(FILE *out, const check_report *report)
{
    const char *name, *what;
    unsigned habit;
    for (int i = 0; (name = check_habit(i, &habit, &what)); i++) {
        if ((report->wish.habits & habit) == habit)
            fprintf(out, "habit %s: %s; allowances behind attention are wider for it\n", name, what);
    }
}

/* Fewer tokens than heads, which would fit the other way round: shapes that were read wrongly look so. */
static void write_layout(FILE *out, const check_report *report)
{
    lh_config turned = report->config;
    turned.tokens = report->config.heads;
    turned.heads = turned.kv_heads = report->config.tokens;
    if (report->verdict != CHECK_RIGHT && report->config.tokens < report->config.heads &&
        report->config.kv_heads == report->config.heads && lh_config_check(&turned, NULL, NULL) == LH_OK)
        fprintf(out,
                "q was read as %" PRId64 " heads of %" PRId64
                " tokens: if it lies as [B,N,H,d], --layout bnhd reads it so\n",
                report->config.heads, report->config.tokens);
}

static void write_verdict(FILE *out, const check_report *report)
{
    const unsigned missing = report->wish.required ? check_missing(report) : 0;
    const unsigned passed_over = report->present & check_computed() & ~report->judged;
    write_names(out, "judged:", report->judged);
    write_names(out, "not judged, though in the dump:", passed_over);
    write_names(out, "required and not judged:", missing);
    if (report->verdict == CHECK_RIGHT)
        fprintf(out, "%s%s\n", passed_over ? "what was required is right" : "all right",
                report->wish.habits ? ", with the habits given" : "");
    else if (report->judged == 0)
        fprintf(out, "nothing was judged: wanted at least one computed tensor, as out, lse or index\n");
    else if (report->verdict == CHECK_NOT_JUDGED)
        fprintf(out, "not all was judged, what was is right; --require NAMES asks for those alone\n");
    else
        fprintf(out, "%s\n", check_verdict_name(report->verdict));
}

static void write_text(FILE *out, const check_report *report)
{
    const lh_config *c = &report->config;
    fprintf(out,
            "B=%" PRId64 " H=%" PRId64 " G=%" PRId64 " N=%" PRId64 " d=%" PRId64 " L=%" PRId64 " p=%" PRId64
            " k=%" PRId64 " m=%" PRId64 "\n",
            c->batch, c->heads, c->kv_heads, c->tokens, c->dim, c->levels, c->pool, c->topk, c->tile_topk);
    write_layout(out, report);
    write_unknown(out, report);
    write_sample(out, report);
    write_habits(out, report);
    write_table(out, report);
    write_details(out, report);
    if (report->first_wrong >= 0) {
        const verify_row *first = &report->rows[report->first_wrong];
        fprintf(out, "first wrong: %s (%s)\n", lh_tensor_name(first->tensor),
                strcmp(first->part, "layer") == 0 ? "end to end" : first->part);
        write_suspects(out, report);
        write_explanations(out, report);
    }
    write_verdict(out, report);
}

lh_status check_text(const check_report *report, char **text, lh_error *error)
{
    lh_text made;
    *text = NULL;
    const lh_status status = lh_text_open(&made, "report", error);
    if (status != LH_OK)
        return status;
    write_text(made.stream, report);
    return lh_text_close(&made, text, NULL, error);
}

static json_t *position(const verify_row *row)
{
    json_t *at = json_array();
    int64_t rest = row->result.worst;
    for (int r = row->shape.rank - 1; r >= 0 && rest >= 0 && at; r--) {
        if (json_array_insert_new(at, 0, json_integer(rest % row->shape.shape[r])) != 0) {
            json_decref(at);
            return NULL;
        }
        rest /= row->shape.shape[r];
    }
    return at;
}

static json_t *row_json(const verify_row *row)
{
    const verify_result *r = &row->result;
    return json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:s}", "tensor", lh_tensor_name(row->tensor),
                     "part", row->part, "verdict", verify_verdict_name(r->verdict), "passed",
                     (int)!verify_failed(r->verdict), "worst", position(row), "got", lh_json_number(r->got),
                     "wanted", lh_json_number(r->wanted), "share", lh_json_number(r->share), "note",
                     row->note);
}

static json_t *fault_json(const check_report *report, int i)
{
    const lh_fault *fault = report->faults[i];
    return json_pack("{s:s, s:s, s:s, s:s}", "name", fault->name, "stage",
                     lh_stage_name(report->explained[i]), "breaks", fault->breaks, "fix", fault->fix);
}

static json_t *names_json(unsigned ids)
{
    json_t *names = json_array();
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        if (ids >> id & 1)
            names = lh_json_append(names, json_string(lh_tensor_name((lh_tensor_id)id)));
    }
    return names;
}

static json_t *unknown_json(const check_report *report)
{
    json_t *all = json_array();
    for (int i = 0; i < report->unknown_count; i++)
        all = lh_json_append(all, json_pack("{s:s, s:s?}", "name", report->unknown[i].name, "guess",
                                            report->unknown[i].guess));
    return all;
}

lh_status check_json(const check_report *report, char **text, lh_error *error)
{
    char *readable = NULL;
    const char *first =
        report->first_wrong < 0 ? "" : lh_tensor_name(report->rows[report->first_wrong].tensor);
    json_t *verdicts = json_array(), *faults = json_array();
    for (int i = 0; i < report->row_count; i++)
        verdicts = lh_json_append(verdicts, row_json(&report->rows[i]));
    for (int i = 0; i < report->fault_count; i++)
        faults = lh_json_append(faults, fault_json(report, i));
    *text = NULL;
    lh_status status = check_text(report, &readable, error);
    json_t *all =
        status == LH_OK
            ? json_pack("{s:s, s:b, s:s, s:s, s:O, s:O, s:s?, s:o, s:o, s:o, s:s}", "version", lh_version(),
                        "ok", report->verdict == CHECK_RIGHT, "verdict", check_verdict_name(report->verdict),
                        "first_wrong", first, "verdicts", verdicts, "faults", faults, "suggested",
                        report->suggested, "judged", names_json(report->judged), "not_judged",
                        names_json(report->present & check_computed() & ~report->judged), "unknown",
                        unknown_json(report), "text", readable)
            : NULL;
    json_decref(verdicts);
    json_decref(faults);
    free(readable);
    return status == LH_OK ? lh_json_text(all, JSON_INDENT(1), "report as JSON", text, error) : status;
}
