/*
 * The checker: what of somebody else's tensors can be judged is judged, and what is wrong is explained.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "check/check.h"

static void take_row(void *context, const verify_row *row)
{
    check_report *report = context;
    if (report->row_count < CHECK_ROWS)
        report->rows[report->row_count++] = *row;
}

static lh_stage stage_of(lh_tensor_id id)
{
    for (int s = 0; s < LH_STAGE_COUNT; s++) {
        for (const lh_tensor_id *w = lh_stage_writes((lh_stage)s); *w != LH_TENSOR_COUNT; w++) {
            if (*w == id)
                return (lh_stage)s;
        }
    }
    return LH_STAGE_COUNT; /* an input */
}

static const verify_row *row_of(const check_report *report, lh_tensor_id id, bool end_to_end)
{
    for (int i = 0; i < report->row_count; i++) {
        const bool layer = strcmp(report->rows[i].part, "layer") == 0;
        if (report->rows[i].tensor == id && layer == end_to_end)
            return &report->rows[i];
    }
    return NULL;
}

/* Marks the stages to be explained. A tensor that is right on its own inputs but wrong end to end only carries on
 * what was wrong before it. */
static void find_wrong(check_report *report, bool wrong[LH_STAGE_COUNT])
{
    report->first_wrong = -1;
    for (int i = 0; i < report->row_count; i++) {
        const verify_row *row = &report->rows[i], *alone = row_of(report, row->tensor, false);
        if (verify_passed(row->result.verdict) ||
            (row != alone && alone && verify_passed(alone->result.verdict)))
            continue;
        const lh_stage stage = stage_of(row->tensor);
        if (report->first_wrong < 0 || stage < stage_of(report->rows[report->first_wrong].tensor))
            report->first_wrong = i;
        if (stage < LH_STAGE_COUNT)
            wrong[stage] = true;
    }
    /* Rounding that only adds up end to end is still wrong: without a stage to blame, its row is the first. */
    for (int i = 0; i < report->row_count && report->first_wrong < 0; i++) {
        if (!verify_passed(report->rows[i].result.verdict))
            report->first_wrong = i;
    }
}

/* The rows of one judgement behind what was said of the file as found. */
static lh_status judge(verify_dump *dump, bool tf32, verify_expect *stages, verify_expect *layer, int found,
                       check_report *report, bool *wrong, lh_error *error)
{
    verify_sink sink = {take_row, report};
    verify_expect_free(stages);
    verify_expect_free(layer);
    memset(wrong, 0, sizeof *wrong * LH_STAGE_COUNT);
    report->row_count = found;
    dump->tf32 = report->tf32 = tf32;
    const lh_status status = verify_judge_dump(dump, &sink, stages, layer, error);
    if (status == LH_OK)
        find_wrong(report, wrong);
    return status;
}

lh_status check_dump(const lh_config *config, const lh_tensor *present, check_report *report, lh_error *error)
{
    verify_dump dump = {.name = "dump", .config = *config, .dtype = present[LH_Q].dtype};
    verify_expect stages = {0}, layer = {0};
    bool wrong[LH_STAGE_COUNT];
    memset(report, 0, sizeof *report);
    report->config = *config;
    report->dtype = dump.dtype;
    lh_status status = lh_config_check(config, NULL, error);
    if (status == LH_OK && verify_integer(report->dtype))
        status =
            lh_fail(error, LH_INVALID, "q is %s, wanted F64, F32, F16 or BF16", lh_dtype_name(report->dtype));
    if (status == LH_OK)
        status = check_screen(report, present, &dump, error);
    const int found = report->row_count;
    if (status == LH_OK)
        status = judge(&dump, false, &stages, &layer, found, report, wrong, error);
    /* Float32 tensors that no float32 arithmetic gives may still be an honest port's on tf32 matrix units. */
    if (status == LH_OK && report->first_wrong >= 0 && report->dtype == LH_F32) {
        status = judge(&dump, true, &stages, &layer, found, report, wrong, error);
        if (status == LH_OK && report->first_wrong >= 0)
            status = judge(&dump, false, &stages, &layer, found, report, wrong, error);
    }
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        if (wrong[s])
            status = check_explain(&(struct check_evidence){&dump, present, &stages, &layer}, (lh_stage)s,
                                   report, error);
    }
    verify_expect_free(&stages);
    verify_expect_free(&layer);
    return status;
}
