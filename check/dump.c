/* A dump as it was found: which of its tensors can be judged. */
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
    } else if (verify_integer(t->dtype) != verify_integer(want.dtype)) {
        lh_fail(&why, LH_INVALID, "%s is %s, wanted %s", lh_tensor_name(id), lh_dtype_name(t->dtype),
                verify_integer(want.dtype) ? "I32 or I64" : "F64, F32, F16 or BF16");
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
    if (verify_integer(usable[id].dtype) || lh_tensor_finite(&usable[id], lh_tensor_name(id), &why) == LH_OK)
        return LH_OK;
    if (id <= LH_V)
        return lh_fail(error, LH_INVALID, "%s", why.text);
    set_aside(report, usable, id, VERIFY_NAN, why.text);
    return LH_OK;
}

/* Puts what can be judged into the dump. */
lh_status check_screen(check_report *report, const lh_tensor *present, verify_dump *dump, lh_error *error)
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
