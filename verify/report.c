/* The report as text: one line a case with a column a backend, and under it every tensor that failed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "verify/report.h"

enum {
    NAME_WIDTH = 20,
    CELL_WIDTH = 16
};

lh_status verify_report_create(const verify_wish *wish, FILE *out, bool keep_json, verify_report **report,
                               lh_error *error)
{
    lh_status status = lh_alloc((void **)report, sizeof **report, "report", error);
    if (status != LH_OK)
        return status;
    memset(*report, 0, sizeof **report);
    (*report)->wish = *wish;
    (*report)->out = out;
    const char *terminal = getenv("TERM"), *no_color = getenv("NO_COLOR"); /* https://no-color.org */
    (*report)->live = out && isatty(fileno(out)) && !(terminal && strcmp(terminal, "dumb") == 0);
    (*report)->colors = (*report)->live && !(no_color && *no_color);
    (*report)->started = lh_seconds();
    (*report)->json = keep_json ? json_array() : NULL;
    if (out) {
        fprintf(out, "%-*s", NAME_WIDTH, "case");
        for (int i = 0; i < wish->backends; i++)
            fprintf(out, "  %-*s", CELL_WIDTH, wish->backend[i]);
        fprintf(out, "\n");
    }
    return LH_OK;
}

void verify_report_destroy(verify_report *report)
{
    if (!report)
        return;
    json_decref(report->json);
    lh_free(report->failed);
    lh_free(report);
}

static void cell_text(const struct cell *cell, char *text, size_t size)
{
    if (cell->failures)
        snprintf(text, size, "%" PRId64 " WRONG", cell->failures);
    else if (cell->tensors == 0)
        snprintf(text, size, cell->skipped ? "skipped" : "-");
    else
        snprintf(text, size, "ok %3.0f %%%s%s", 100 * cell->share, cell->excused ? " tie" : "",
                 cell->skipped ? " skip" : "");
}

static void print_line(verify_report *report, bool last)
{
    if (report->live)
        fprintf(report->out, "\r");
    else if (!last)
        return;
    fprintf(report->out, "%-*s", NAME_WIDTH, report->subject->id);
    for (int i = 0; i < report->wish.backends; i++) {
        char text[48];
        cell_text(&report->cell[i], text, sizeof text);
        const char *color = report->cell[i].failures ? "\033[31m" : "\033[32m";
        fprintf(report->out, report->colors ? "  %s%-*s\033[0m" : "  %.0s%-*s", color, CELL_WIDTH, text);
    }
    fprintf(report->out, last ? "\n" : "");
    fflush(report->out);
}

void verify_report_case(verify_report *report, const verify_case *c)
{
    report->subject = c;
    report->cases++;
    report->failed_count = 0;
    memset(report->cell, 0, sizeof report->cell);
    if (report->json && !verify_json_case(report))
        report->lost++;
    if (report->out)
        print_line(report, false);
}

/* Keeps a failed row for printing; one that memory cannot be had for still counts. */
static void keep(verify_report *report, const verify_row *row)
{
    if (report->failed_count == report->failed_room) {
        const int64_t room = report->failed_room ? 2 * report->failed_room : 64;
        verify_row *more;
        if (lh_alloc((void **)&more, (size_t)room * sizeof *more, "failed rows", NULL) != LH_OK) {
            report->lost++;
            return;
        }
        if (report->failed_count)
            memcpy(more, report->failed, (size_t)report->failed_count * sizeof *more);
        lh_free(report->failed);
        report->failed = more;
        report->failed_room = room;
    }
    report->failed[report->failed_count++] = *row;
}

void verify_report_row(void *context, const verify_row *row)
{
    verify_report *report = context;
    const bool passed = verify_passed(row->result.verdict), skipped = row->result.verdict == VERIFY_SKIPPED;
    const bool failed = !passed && !skipped;
    report->tensors += !skipped;
    report->failures += failed;
    report->skipped += skipped;
    for (int i = 0; i < report->wish.backends; i++) {
        struct cell *cell = &report->cell[i];
        if (strcmp(report->wish.backend[i], row->backend) != 0)
            continue;
        cell->tensors += !skipped;
        cell->failures += failed;
        cell->skipped += skipped;
        cell->excused += row->result.verdict == VERIFY_EXCUSED;
        if (passed && row->result.share > cell->share)
            cell->share = row->result.share;
    }
    if (!passed)
        keep(report, row);
    if (report->json && !verify_json_row(report, row))
        report->lost++;
    if (report->live && lh_seconds() - report->shown > 0.1) {
        print_line(report, false);
        report->shown = lh_seconds();
    }
}

static void print_failed(const verify_report *report)
{
    char text[VERIFY_TEXT], command[256];
    const verify_row *last = NULL;
    for (int64_t i = 0; i < report->failed_count; i++) {
        const verify_row *row = &report->failed[i];
        if (row->result.verdict == VERIFY_SKIPPED)
            continue;
        if (!last || row->dtype != last->dtype || strcmp(row->backend, last->backend) != 0)
            fprintf(report->out, "  %s, %s: %s\n", row->backend, lh_dtype_name(row->dtype),
                    verify_row_command(row, command));
        fprintf(report->out, "    %-24s %-8s %s\n", row->part,
                row->result.verdict == VERIFY_REFUSED ? "" : lh_tensor_name(row->tensor),
                verify_row_text(row, text));
        last = row;
    }
}

/* A line for each reason. */
static void print_skipped(const verify_report *report)
{
    const verify_row *last = NULL;
    for (int64_t i = 0; i < report->failed_count; i++) {
        const verify_row *row = &report->failed[i];
        if (row->result.verdict != VERIFY_SKIPPED ||
            (last && row->dtype == last->dtype && strcmp(row->backend, last->backend) == 0 &&
             strcmp(row->note, last->note) == 0))
            continue;
        fprintf(report->out, "  %s, %s: %s: %s\n", row->backend, lh_dtype_name(row->dtype),
                verify_verdict_name(row->result.verdict), row->note);
        last = row;
    }
}

void verify_report_done(verify_report *report)
{
    if (!report->out)
        return;
    print_line(report, true);
    print_skipped(report);
    print_failed(report);
}

int64_t verify_report_tensors(const verify_report *report)
{
    return report->tensors;
}

int64_t verify_report_failures(const verify_report *report)
{
    return report->failures;
}

lh_status verify_report_summary(const verify_report *report, lh_error *error)
{
    if (report->out)
        fprintf(report->out, "%" PRId64 " case%s, %" PRId64 " tensors compared, %" PRId64 " failed, %.1f s\n",
                report->cases, report->cases == 1 ? "" : "s", report->tensors, report->failures,
                lh_seconds() - report->started);
    if (report->out && report->skipped)
        fprintf(report->out, "%" PRId64 " plans skipped: the attention asked for does not take them\n",
                report->skipped);
    return report->lost == 0 ? LH_OK
                             : lh_fail(error, LH_NO_MEMORY,
                                       "%" PRId64 " rows of the report could not be kept: memory for them "
                                       "could not be had",
                                       report->lost);
}
