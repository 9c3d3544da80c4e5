/* From rows to a verdict: what is wrong first, and what was judged at all. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/check.h"

static const char *const verdicts[] = {"right", "wrong", "not judged"};

const char *check_verdict_name(check_verdict verdict)
{
    return verdicts[verdict];
}

void check_take_row(void *context, const verify_row *row)
{
    check_report *report = context;
    if (report->row_count < CHECK_ROWS)
        report->rows[report->row_count++] = *row;
}

static double most(lh_dtype dtype)
{
    return dtype == LH_F16 ? 65504 : dtype == LH_F64 ? 0x1.fffffffffffffp1023 : 0x1.fp127;
}

bool check_overflows(lh_dtype dtype, double x, double wanted)
{
    return isinf(x) && !signbit(x) == !signbit(wanted) && fabs(wanted) > 0.99 * most(dtype);
}

void check_note_overflow(verify_row *row, lh_dtype dtype)
{
    row->result.verdict = VERIFY_OVERFLOW;
    snprintf(row->note, sizeof row->note,
             "%s holds at most %.6g: values overflow; nothing behind them is judged", lh_dtype_name(dtype),
             most(dtype));
}

lh_stage check_stage_of(lh_tensor_id id)
{
    int s = 0;
    while (s < LH_STAGE_COUNT && !lh_listed(lh_stage_writes((lh_stage)s), id))
        s++;
    return (lh_stage)s;
}

const verify_row *check_row(const check_report *report, lh_tensor_id id, bool end_to_end)
{
    for (int i = 0; i < report->row_count; i++) {
        const bool layer = strcmp(report->rows[i].part, "layer") == 0;
        if (report->rows[i].tensor == id && layer == end_to_end)
            return &report->rows[i];
    }
    return NULL;
}

/* True when a tensor is right end to end and wrong only on what the dump says it was computed from. */
static bool misled(const check_report *report, const verify_row *alone, const verify_row *layer)
{
    const lh_stage stage = check_stage_of(alone->tensor);
    if (!layer || layer == alone || !verify_passed(layer->result.verdict) || stage == LH_STAGE_COUNT)
        return false;
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT; id++) {
        const verify_row *input = check_row(report, *id, true);
        if (input && verify_failed(input->result.verdict))
            return true;
    }
    return false;
}

/* Marks the stages to be explained. A tensor that is right on its own inputs but wrong end to end only carries on
 * what was wrong before it; one that is wrong on inputs that are wrong themselves, and right end to end, was computed
 * from others than those that were dumped. */
void check_find_wrong(check_report *report, bool wrong[LH_STAGE_COUNT])
{
    report->first_wrong = -1;
    for (int i = 0; i < report->row_count; i++) {
        const verify_row *row = &report->rows[i], *alone = check_row(report, row->tensor, false);
        if (!verify_failed(row->result.verdict) ||
            (row != alone && alone && !verify_failed(alone->result.verdict)) ||
            misled(report, row, check_row(report, row->tensor, true)))
            continue;
        const lh_stage stage = check_stage_of(row->tensor);
        if (report->first_wrong < 0 || stage < check_stage_of(report->rows[report->first_wrong].tensor))
            report->first_wrong = i;
        if (stage < LH_STAGE_COUNT)
            wrong[stage] = true;
    }
    /* A tensor that is right on the dump's own inputs, all of which are right themselves, is the port's own rounding
     * where it adds up end to end: no stage is to blame. One without own inputs was blamed above. */
}

unsigned check_computed(void)
{
    unsigned ids = 0;
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        ids |= check_stage_of((lh_tensor_id)id) < LH_STAGE_COUNT ? 1u << id : 0;
    return ids;
}

unsigned check_missing(const check_report *report)
{
    const unsigned wanted =
        report->wish.required ? report->wish.required : report->present & check_computed();
    return wanted & ~report->judged;
}

/* Where no stage is to blame, what differs is rounding that added up, or what was computed from others than the dump's
 * tensors: the rows say so, as the verdict does. */
static void excuse(check_report *report)
{
    for (int i = 0; i < report->row_count; i++) {
        verify_row *row = &report->rows[i];
        const bool layer = strcmp(row->part, "layer") == 0;
        if (!verify_failed(row->result.verdict) || check_stage_of(row->tensor) == LH_STAGE_COUNT)
            continue;
        row->result.verdict = VERIFY_EXCUSED;
        snprintf(row->note, sizeof row->note, "%s",
                 layer ? "right on the tensors it was computed from, whose rounding adds up to this"
                       : "right end to end: computed from others than the tensors in the dump");
    }
}

void check_conclude(check_report *report)
{
    bool wrong[LH_STAGE_COUNT] = {false}, failed = false;
    check_find_wrong(report, wrong);
    report->judged = 0;
    for (int i = 0; i < report->row_count; i++) {
        const verify_verdict verdict = report->rows[i].result.verdict;
        const bool counts = verdict != VERIFY_UNJUDGED && verdict != VERIFY_OVERFLOW;
        if (counts && check_stage_of(report->rows[i].tensor) < LH_STAGE_COUNT)
            report->judged |= 1u << report->rows[i].tensor;
        failed = failed || i == report->first_wrong;
    }
    if (!failed)
        excuse(report);
    report->verdict = failed                                         ? CHECK_WRONG
                      : report->judged == 0 || check_missing(report) ? CHECK_NOT_JUDGED
                                                                     : CHECK_RIGHT;
}
