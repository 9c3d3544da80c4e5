/* The report for machines that run other people's tests: JUnit XML and SARIF 2.1.0. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/check.h"
#include "core/json.h"
#include "core/text.h"
#include "verify/row.h"

/* Text as XML may hold it: markup escaped, what XML 1.0 has no character for as '?'. */
static void put_xml(FILE *out, const char *text)
{
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '&' || c == '<' || c == '>' || c == '"')
            fprintf(out, "&#%d;", c);
        else
            fputc(c < 0x20 && c != '\n' && c != '\t' ? '?' : c, out);
    }
}

static void write_case(FILE *out, const check_report *report, const verify_row *row)
{
    char text[VERIFY_TEXT];
    const verify_verdict verdict = row->result.verdict;
    const bool first = report->first_wrong >= 0 && row == &report->rows[report->first_wrong];
    fprintf(out, "  <testcase classname=\"lighthouse.%s\" name=\"%s\">", row->part,
            lh_tensor_name(row->tensor));
    if (verify_failed(verdict)) {
        fprintf(out, "<failure message=\"%s%s\">", verify_verdict_name(verdict),
                first ? ", first wrong" : "");
        put_xml(out, verify_row_text(row, text));
        fprintf(out, "</failure>");
    } else if (!verify_passed(verdict)) {
        fprintf(out, "<skipped message=\"");
        put_xml(out, row->note);
        fprintf(out, "\"/>");
    }
    fprintf(out, "</testcase>\n");
}

static void write_junit(FILE *out, const check_report *report, const char *readable)
{
    int failures = 0, skipped = 0;
    for (int i = 0; i < report->row_count; i++) {
        const verify_verdict verdict = report->rows[i].result.verdict;
        failures += verify_failed(verdict);
        skipped += !verify_failed(verdict) && !verify_passed(verdict);
    }
    const bool nothing = report->verdict == CHECK_NOT_JUDGED;
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"lighthouse check\" tests=\"%d\" "
            "failures=\"%d\" errors=\"0\" skipped=\"%d\">\n",
            report->row_count + 1, failures + (report->verdict != CHECK_RIGHT), skipped);
    for (int i = 0; i < report->row_count; i++)
        write_case(out, report, &report->rows[i]);
    fprintf(out, "  <testcase classname=\"lighthouse\" name=\"verdict\">");
    if (report->verdict != CHECK_RIGHT)
        fprintf(out, "<failure message=\"%s\"/>", nothing ? "not judged" : "wrong");
    fprintf(out, "</testcase>\n  <system-out>");
    put_xml(out, readable);
    fprintf(out, "</system-out>\n</testsuite>\n");
}

lh_status check_junit(const check_report *report, char **text, lh_error *error)
{
    char *readable = NULL;
    lh_text made;
    *text = NULL;
    lh_status status = check_text(report, &readable, error);
    if (status == LH_OK)
        status = lh_text_open(&made, "report as XML", error);
    if (status == LH_OK) {
        write_junit(made.stream, report, readable);
        status = lh_text_close(&made, text, NULL, error);
    }
    free(readable);
    return status;
}

static json_t *sarif_result(const check_report *report, const verify_row *row, const char *path)
{
    char text[VERIFY_TEXT], message[VERIFY_TEXT + 256];
    const lh_stage stage = check_stage_of(row->tensor);
    int length = snprintf(message, sizeof message, "%s (%s): %s", lh_tensor_name(row->tensor), row->part,
                          verify_row_text(row, text));
    for (int i = 0; i < report->fault_count && length < (int)sizeof message - 1; i++) {
        if (report->explained[i] == stage)
            length += snprintf(message + length, sizeof message - (size_t)length, "; as with %s: %s",
                               report->faults[i]->name, report->faults[i]->fix);
    }
    return json_pack("{s:s, s:s, s:{s:s}, s:[{s:{s:{s:s}}}]}", "ruleId", lh_tensor_name(row->tensor), "level",
                     "error", "message", "text", message, "locations", "physicalLocation", "artifactLocation",
                     "uri", path);
}

lh_status check_sarif(const check_report *report, const char *file, char **text, lh_error *error)
{
    char path[4096]; /* file names need not be UTF-8 */
    snprintf(path, sizeof path, "%s", file);
    lh_clean(path);
    json_t *results = json_array();
    for (int i = 0; i < report->row_count; i++) {
        if (verify_failed(report->rows[i].result.verdict))
            results = lh_json_append(results, sarif_result(report, &report->rows[i], path));
    }
    if (report->verdict == CHECK_NOT_JUDGED)
        results = lh_json_append(results, json_pack("{s:s, s:s, s:{s:s}, s:[{s:{s:{s:s}}}]}", "ruleId",
                                                    "not-judged", "level", "error", "message", "text",
                                                    "not all that was wanted could be judged", "locations",
                                                    "physicalLocation", "artifactLocation", "uri", path));
    json_t *all =
        json_pack("{s:s, s:s, s:[{s:{s:{s:s, s:s}}, s:o}]}", "$schema",
                  "https://json.schemastore.org/sarif-2.1.0.json", "version", "2.1.0", "runs", "tool",
                  "driver", "name", "lighthouse check", "version", lh_version(), "results", results);
    return lh_json_text(all, JSON_INDENT(1), "report as SARIF", text, error);
}
