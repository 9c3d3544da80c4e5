/*
 * The checker: what of somebody else's tensors can be judged is judged, and what is wrong is explained.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "check/check.h"

static verify_row *new_row(check_report *report, const char *part, lh_tensor_id id, const lh_tensor *tensor)
{
    if (report->row_count == CHECK_ROWS)
        return NULL;
    verify_row *row = &report->rows[report->row_count++];
    *row =
        (verify_row){.backend = "dump", .dtype = tensor->dtype, .part = part, .tensor = id, .shape = *tensor};
    row->shape.data = NULL;
    row->result.worst = -1;
    return row;
}

static void take_row(void *context, const verify_row *row)
{
    check_report *report = context;
    if (report->row_count < CHECK_ROWS)
        report->rows[report->row_count++] = *row;
}

/* Sets a tensor aside that nothing behind it can be judged on; its own row says why. */
static void set_aside(check_report *report, lh_tensor *usable, lh_tensor_id id, verify_verdict verdict,
                      const char *note)
{
    verify_row *row = new_row(report, "as found", id, &usable[id]);
    if (row) {
        row->result.verdict = verdict;
        snprintf(row->note, sizeof row->note, "%s", note);
    }
    usable[id].data = NULL;
}

static bool same_shape(const lh_tensor *a, const lh_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank) == 0;
}

static bool is_integer(lh_dtype dtype)
{
    return dtype == LH_I32 || dtype == LH_I64;
}

/* Shape and kind of dtype; LH_INVALID when one of q, k, v is not what a layer could be computed from. */
static lh_status screen_shape(check_report *report, lh_tensor *usable, lh_tensor_id id, lh_error *error)
{
    lh_tensor *t = &usable[id], want;
    lh_error why;
    const lh_status status = lh_tensor_describe(&report->config, report->dtype, id, &want, error);
    if (status != LH_OK)
        return status;
    why.text[0] = '\0';
    if (!same_shape(t, &want)) {
        char found[LH_SHAPE_TEXT], wanted[LH_SHAPE_TEXT];
        lh_fail(&why, LH_INVALID, "%s has shape %s, wanted %s", lh_tensor_name(id), lh_shape_text(t, found),
                lh_shape_text(&want, wanted));
    } else if (is_integer(t->dtype) != is_integer(want.dtype)) {
        lh_fail(&why, LH_INVALID, "%s is %s, wanted %s", lh_tensor_name(id), lh_dtype_name(t->dtype),
                is_integer(want.dtype) ? "I32 or I64" : "F64, F32, F16 or BF16");
    }
    if (why.text[0] == '\0')
        return LH_OK;
    if (id <= LH_V)
        return lh_fail(error, LH_INVALID, "%s", why.text);
    set_aside(report, usable, id, VERIFY_SHAPE, why.text);
    return LH_OK;
}

static lh_status screen_values(check_report *report, lh_tensor *usable, lh_tensor_id id, lh_error *error)
{
    lh_layout layout;
    lh_error why;
    lh_config_check(&report->config, &layout, NULL);
    if (id == LH_INDEX) {
        if (lh_index_check(&report->config, &layout, &usable[id], &why) != LH_OK)
            set_aside(report, usable, id, VERIFY_WRONG, why.text);
        return LH_OK;
    }
    if (is_integer(usable[id].dtype) || lh_tensor_finite(&usable[id], lh_tensor_name(id), &why) == LH_OK)
        return LH_OK;
    if (id <= LH_V)
        return lh_fail(error, LH_INVALID, "%s", why.text);
    set_aside(report, usable, id, VERIFY_NAN, why.text);
    return LH_OK;
}

/* Puts what can be judged into the dump. */
static lh_status screen(check_report *report, const lh_tensor *present, verify_dump *dump, lh_error *error)
{
    lh_status status = LH_OK;
    lh_tensor *usable = dump->present;
    memcpy(usable, present, sizeof dump->present);
    for (int id = 0; id <= LH_V; id++) {
        if (!present[id].data)
            return lh_fail(error, LH_INVALID, "tensor %s is missing, wanted q, k and v",
                           lh_tensor_name((lh_tensor_id)id));
    }
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        report->absent += !present[id].data;
        if (usable[id].data)
            status = screen_shape(report, usable, (lh_tensor_id)id, error);
        if (status == LH_OK && usable[id].data)
            status = screen_values(report, usable, (lh_tensor_id)id, error);
    }
    dump->index_lost = present[LH_INDEX].data && !usable[LH_INDEX].data;
    return status;
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
    if (status == LH_OK && is_integer(report->dtype))
        status =
            lh_fail(error, LH_INVALID, "q is %s, wanted F64, F32, F16 or BF16", lh_dtype_name(report->dtype));
    if (status == LH_OK)
        status = screen(report, present, &dump, error);
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
