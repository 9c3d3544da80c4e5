/* One call for the three widths of ref/. */
#include "core/mode.h"
#include "scalar/run.h"

lh_status lh_ref_run(int bits, const lh_config *config, unsigned stages, const lh_tensor *trace,
                     const lh_tensor *residual, lh_error *error)
{
    static const struct {
        int bits;
        size_t (*bytes)(const lh_config *, unsigned);
        lh_status (*job)(const struct lh_ref_job *, lh_error *);
    } widths[] = {
        {32, lh_ref32_bytes, lh_ref32_job},
        {64, lh_ref64_bytes, lh_ref64_job},
        {113, lh_ref113_bytes, lh_ref113_job},
    };
    const int count = sizeof widths / sizeof *widths;
    lh_status status = lh_config_check(config, NULL, error);
    if (status != LH_OK)
        return status;
    int i = 0;
    while (i < count && widths[i].bits != bits)
        i++;
    if (i == count)
        return lh_fail(error, LH_INVALID, "bits is %d, wanted 32, 64 or 113", bits);
    struct lh_ref_job job = {.config = config, .stages = stages, .trace = trace, .residual = residual};
    status = lh_alloc(&job.workspace, widths[i].bytes(config, stages), "reference workspace", error);
    lh_mode mode;
    lh_mode_begin(&mode);
    if (status == LH_OK)
        status = widths[i].job(&job, error);
    lh_mode_end(&mode);
    lh_free(job.workspace);
    return status;
}
