/* Whether what is wrong would be right of a port with one of the habits that a port may have if it says so. */
#include <string.h>

#include "check/check.h"

/* The dump judged once more, with `habit` besides. */
static lh_status judge_with(const lh_config *config, const lh_tensor *present, unsigned habit,
                            const check_report *report, check_report *again, lh_error *error)
{
    verify_dump dump = {
        .name = "dump", .config = *config, .dtype = report->dtype, .habits = report->wish.habits | habit};
    verify_sink sink = {check_take_row, again};
    verify_expect *e; /* stages, layer */
    lh_tensor found[LH_TENSOR_COUNT];
    memcpy(found, present, sizeof found);
    memset(again, 0, sizeof *again);
    again->config = *config;
    again->dtype = report->dtype;
    lh_status status = verify_expect_make(&e, 2, error);
    if (status != LH_OK)
        return status;
    status = check_screen(again, found, &dump, error);
    if (status == LH_OK)
        status = verify_judge_dump(&dump, &sink, &e[0], &e[1], error);
    if (status == LH_OK)
        check_conclude(again);
    verify_expect_unmake(e, 2);
    return status;
}

lh_status check_suggest(const lh_config *config, const lh_tensor *present, check_report *report,
                        lh_error *error)
{
    const bool half = verify_arithmetic(report->dtype) < verify_roundoff(report->dtype);
    const char *what;
    unsigned habit;
    check_report *again;
    report->suggested = NULL;
    if (report->verdict != CHECK_WRONG || report->fault_count > 0 || report->dtype == LH_F64 ||
        report->rows[report->first_wrong].result.verdict != VERIFY_WRONG)
        return LH_OK;
    lh_status status = lh_alloc((void **)&again, sizeof *again, "a second report", error);
    if (status != LH_OK)
        return status;
    for (int i = 0; check_habit(i, &habit, &what) && status == LH_OK && !report->suggested; i++) {
        /* Half types have no use for tf32, and float32 has its own type for sums. */
        if (half == (habit == VERIFY_TF32) || (report->wish.habits & habit) == habit)
            continue;
        status = judge_with(config, present, habit, report, again, error);
        if (status == LH_OK && again->verdict != CHECK_WRONG)
            report->suggested = check_habit(i, &habit, &what);
    }
    lh_free(again);
    return status;
}
