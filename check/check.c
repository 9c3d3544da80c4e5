/*
 * The checker: what of somebody else's tensors can be judged is judged, and what is wrong is explained.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/check.h"
#include "scalar/run.h"

/* What an honest port's half type cannot hold is infinite there: an overflow, and not the port's fault. */
static bool overflows(const lh_tensor *found, const lh_tensor *want, verify_row *row)
{
    bool any = false;
    for (int64_t i = 0; i < lh_tensor_elements(want); i++) {
        const double x = verify_element(found, i), y = verify_element(want, i);
        if (isnan(x) || (isinf(x) && !check_overflows(found->dtype, x, y)))
            return false;
        if (isinf(x) && !any) {
            any = true;
            row->result.worst = i;
            row->result.got = x;
            row->result.wanted = y;
        }
    }
    if (any)
        check_note_overflow(row, found->dtype);
    return any;
}

/* Tensors set aside for an infinity, held to what the reference has there. */
static lh_status judge_infinities(const verify_dump *dump, const lh_tensor *found, check_report *report,
                                  lh_error *error)
{
    lh_tensor present[LH_TENSOR_COUNT];
    verify_trace want = {0};
    bool any = false;
    for (int i = 0; i < report->row_count; i++)
        any = any || report->rows[i].result.verdict == VERIFY_INF;
    if (!any)
        return LH_OK;
    memcpy(present, dump->present, sizeof present);
    for (int i = 0; i < report->row_count; i++) {
        if (report->rows[i].result.verdict == VERIFY_INF)
            present[report->rows[i].tensor] = found[report->rows[i].tensor];
    }
    lh_status status = verify_make_all(&want, &dump->config, LH_F64, VERIFY_PACKED, error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (dump->present[id].data)
            status = lh_tensor_convert(&want.tensor[id], &dump->present[id], error);
        else if (lh_listed(lh_layer_inputs, (lh_tensor_id)id))
            memset(want.tensor[id].data, 0, (size_t)lh_tensor_elements(&want.tensor[id]) * sizeof(double));
    }
    unsigned stages = verify_needed(present, 0, true);
    if (dump->present[LH_INDEX].data)
        stages &= ~LH_REF_STAGE(LH_SELECT);
    if (status == LH_OK)
        status = lh_ref_run(64, &dump->config, stages, want.tensor, NULL, error);
    for (int i = 0; i < report->row_count && status == LH_OK; i++) {
        verify_row *row = &report->rows[i];
        if (row->result.verdict == VERIFY_INF)
            overflows(&found[row->tensor], &want.tensor[row->tensor], row);
    }
    verify_free(&want);
    return status;
}

/* A row for each tensor of the dump that nothing was said of, and why. */
static void note_unjudged(const verify_dump *dump, const lh_tensor *found, check_report *report)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        const lh_stage stage = check_stage_of((lh_tensor_id)id);
        verify_row row = {.backend = "dump",
                          .dtype = found[id].dtype,
                          .part = "not judged",
                          .tensor = (lh_tensor_id)id,
                          .shape = found[id],
                          .result = {.verdict = VERIFY_UNJUDGED, .worst = -1}};
        row.shape.data = NULL;
        if (!found[id].data || stage == LH_STAGE_COUNT || check_row(report, (lh_tensor_id)id, false) ||
            check_row(report, (lh_tensor_id)id, true))
            continue;
        if (stage >= LH_SCATTER_BACKWARD && !found[LH_DOUT].data)
            snprintf(row.note, sizeof row.note, "dout is not in the dump");
        else if (dump->lost & 1u << LH_INDEX)
            snprintf(row.note, sizeof row.note, "it hangs on index, which cannot be used");
        else
            snprintf(row.note, sizeof row.note, "what it hangs on cannot be used");
        check_take_row(report, &row);
    }
}

/* Inputs may be kept wider than anything that was computed of them: the computation is judged by what it wrote. */
static lh_dtype arithmetic_of(const lh_tensor *present)
{
    bool wide = false, narrow = false;
    for (int id = LH_Q_PYR; id < LH_TENSOR_COUNT && present[LH_Q].dtype == LH_F64; id++) {
        if (!present[id].data || id == LH_DOUT || verify_integer(present[id].dtype))
            continue;
        wide = wide || present[id].dtype == LH_F64;
        narrow = narrow || present[id].dtype != LH_F64;
    }
    return narrow && !wide ? LH_F32 : present[LH_Q].dtype;
}

/* Whether a stage that holds NaN or Inf comes behind one that is wrong: what it was given may have made them so, and any
 * bug that leaves them would do for an explanation. */
static bool follows(const check_report *report, const bool *wrong, lh_stage stage)
{
    bool earlier = false, infinite = false;
    for (int s = 0; s < (int)stage; s++)
        earlier = earlier || wrong[s];
    for (int i = 0; i < report->row_count; i++) {
        const verify_verdict verdict = report->rows[i].result.verdict;
        infinite = infinite || (check_stage_of(report->rows[i].tensor) == stage &&
                                (verdict == VERIFY_NAN || verdict == VERIFY_INF));
    }
    return earlier && infinite;
}

static lh_status explain(const struct check_evidence *evidence, const bool *wrong, check_report *report,
                         lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < report->row_count; i++) {
        if (report->rows[i].result.verdict == VERIFY_WRONG)
            check_extent(evidence, &report->rows[i]);
    }
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        /* What hangs on a dout that is missing was not computed. */
        if (wrong[s] && !follows(report, wrong, (lh_stage)s) &&
            evidence->stages->needed & evidence->layer->needed & LH_REF_STAGE(s))
            status = check_explain(evidence, (lh_stage)s, report, error);
    }
    if (report->first_wrong >= 0 && check_stage_of(report->rows[report->first_wrong].tensor) < LH_STAGE_COUNT)
        report->suspects =
            check_suspects(evidence->dump->present, check_stage_of(report->rows[report->first_wrong].tensor));
    return status;
}

lh_status check_dump(const lh_config *config, const lh_tensor *present, const check_wish *wish,
                     check_report *report, lh_error *error)
{
    verify_dump dump = {.name = "dump", .config = *config, .dtype = present[LH_Q].dtype};
    verify_expect *e = NULL; /* stages, layer */
    verify_sink sink = {check_take_row, report};
    lh_tensor found[LH_TENSOR_COUNT];
    memcpy(found, present, sizeof found);
    bool wrong[LH_STAGE_COUNT] = {false};
    memset(report, 0, offsetof(check_report, unknown));
    report->config = *config;
    report->first_wrong = -1;
    if (wish)
        report->wish = *wish;
    lh_status status = lh_config_check(config, NULL, error);
    if (status == LH_OK && present[LH_Q].data && verify_integer(dump.dtype))
        status =
            lh_fail(error, LH_INVALID, "q is %s, wanted F64, F32, F16 or BF16", lh_dtype_name(dump.dtype));
    if (status == LH_OK && present[LH_Q].data)
        dump.dtype = arithmetic_of(present);
    report->dtype = dump.dtype;
    dump.habits = report->wish.habits;
    if (status == LH_OK)
        status = check_screen(report, found, &dump, error);
    if (status == LH_OK)
        status = verify_expect_make(&e, 2, error);
    if (status == LH_OK)
        status = verify_judge_dump(&dump, &sink, &e[0], &e[1], error);
    if (status == LH_OK)
        status = judge_infinities(&dump, found, report, error);
    if (status == LH_OK) {
        note_unjudged(&dump, found, report);
        check_conclude(report);
        check_find_wrong(report, wrong);
        const struct check_evidence evidence = {&dump, found, &e[0], &e[1]};
        status = check_origin(&evidence, report, error);
        if (status == LH_OK)
            status = explain(&evidence, wrong, report, error);
    }
    verify_expect_unmake(e, 2);
    return status == LH_OK ? check_suggest(config, present, report, error) : status;
}
