/* `lighthouse verify --large`: backends at the size that people train with. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check/sample.h"
#include "cli/verify_large.h"

/* A row costs O(S d) for each tensor, so that these and the heads decide how long it takes. */
enum {
    ROWS = 96, /* drawn in each head and tensor, beside the first and the last 64 */
    HEADS = 4  /* of 8, the first and the last among them */
};

static lh_status judge(const verify_wish *wish, const char *backend, int64_t tokens, lh_dtype dtype,
                       bool *failed, lh_error *error)
{
    const lh_config config = check_large_config(tokens);
    const lh_options options = {.backend = backend,
                                .device = verify_device(wish, backend),
                                .dtype = dtype,
                                .backward = true,
                                .attention = wish->attention};
    const check_sample sample = {
        .rows = ROWS, .heads = HEADS, .seed = 1, .progress = isatty(2) ? stderr : NULL};
    static check_report report;
    char *text = NULL;
    printf("%s, %s\n", backend, lh_dtype_name(dtype));
    fflush(stdout);
    lh_status status = check_large(&config, &options, &sample, &report, error);
    if (status == LH_OK)
        status = check_text(&report, &text, error);
    if (status == LH_OK)
        fputs(text, stdout);
    free(text);
    *failed = *failed || (status == LH_OK && report.verdict != CHECK_RIGHT);
    return status;
}

lh_status cli_verify_large(const verify_wish *wish, int64_t tokens, bool *failed, lh_error *error)
{
    int judged = 0;
    lh_status status = LH_OK;
    for (int i = 0; i < wish->backends && status == LH_OK; i++) {
        lh_capabilities can;
        status = lh_backend_query(wish->backend[i], &can, error);
        if (status != LH_OK || can.reference)
            continue;
        for (int dtype = LH_F64; dtype <= LH_BF16 && status == LH_OK; dtype++) {
            const unsigned wanted = wish->dtypes ? wish->dtypes : 1u << LH_BF16;
            if (!(wanted & can.dtypes & 1u << dtype))
                continue;
            judged++;
            status = judge(wish, wish->backend[i], tokens, (lh_dtype)dtype, failed, error);
        }
    }
    if (status == LH_OK && judged == 0)
        status = lh_fail(
            error, LH_INVALID,
            "--large compared nothing, wanted a backend other than the reference and a dtype of its own");
    return status;
}
