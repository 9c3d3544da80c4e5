/* The checker as the library offers it. */
#include <stdlib.h>

#include "check/check.h"
#include "core/language.h"
#include "core/mode.h"

/* Integers are compared where they lie; floating tensors are converted, whatever their strides. */
static lh_status check_integers(const lh_tensor *present, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_INDEX, LH_COVERAGE};
    for (int i = 0; i < 2; i++) {
        const lh_tensor *t = &present[ids[i]];
        if (t->data && t->rank >= 0 && t->rank <= LH_MAX_RANK && !lh_tensor_contiguous(t))
            return lh_fail(error, LH_INVALID, "%s is strided, wanted a contiguous tensor",
                           lh_tensor_name(ids[i]));
    }
    return LH_OK;
}

static lh_tensor_id first_of(unsigned ids)
{
    int id = 0;
    while (!(ids >> id & 1))
        id++;
    return (lh_tensor_id)id;
}

static lh_status say_verdict(const check_report *found, lh_error *error)
{
    if (found->verdict == CHECK_RIGHT)
        return LH_OK;
    if (found->judged == 0)
        return lh_fail(error, LH_MISMATCH, "no tensor could be judged, wanted one that is computed, as out");
    if (found->verdict == CHECK_NOT_JUDGED)
        return lh_fail(error, LH_MISMATCH, "%s could not be judged, wanted all that is computed to be",
                       lh_tensor_name(first_of(check_missing(found))));
    return lh_fail(error, LH_MISMATCH, "%s is wrong, wanted the reference's within rounding",
                   lh_tensor_name(found->rows[found->first_wrong].tensor));
}

lh_status lh_check(const lh_config *config, const lh_tensor *present, char **report, lh_error *error)
{
    if (!report)
        return lh_fail(error, LH_INVALID, "report is NULL, wanted where to put the report");
    *report = NULL;
    if (!config || !present)
        return lh_fail(error, LH_INVALID, "%s is NULL, wanted %s", config ? "present" : "config",
                       config ? "an array of tensors by id" : "a configuration");
    check_report *found;
    lh_status status = lh_alloc((void **)&found, sizeof *found, "the report", error);
    if (status != LH_OK)
        return status;
    found->unknown_count = 0;
    lh_mode mode;
    /* Numbers in the report have a point, whatever the caller's language. */
    lh_language language;
    lh_language_begin(&language);
    lh_mode_begin(&mode);
    status = check_integers(present, error);
    if (status == LH_OK)
        status = check_dump(config, present, NULL, found, error);
    if (status == LH_OK)
        status = check_json(found, report, error);
    lh_mode_end(&mode);
    lh_language_end(&language);
    if (status == LH_OK)
        status = say_verdict(found, error);
    lh_free(found);
    return status;
}

void lh_text_free(char *text)
{
    free(text);
}
