/* Every chosen case, in every dtype that a chosen backend computes in, on every chosen backend. The reference's
 * expectations of a case are made once for all backends. */
#include "verify/verify.h"

static bool computes(const char *backend, lh_dtype dtype)
{
    lh_capabilities can;
    return lh_backend_query(backend, &can, NULL) == LH_OK && (can.dtypes & 1u << dtype) != 0;
}

static bool is_reference(const char *backend)
{
    lh_capabilities can;
    return lh_backend_query(backend, &can, NULL) == LH_OK && can.reference;
}

static bool chosen(const verify_wish *wish, const verify_case *c, const char *backend, lh_dtype dtype)
{
    return verify_case_wants(c, dtype) && (wish->dtypes == 0 || (wish->dtypes & 1u << dtype) != 0) &&
           computes(backend, dtype);
}

/* Whether the plan of a backend is judged: that of the reference only where it costs little, since its numbers
 * are compared with themselves there, and verify_judge_reference holds them to others. */
static bool plan_judged(const verify_case *c, const char *backend)
{
    return !is_reference(backend) || (c->pattern != VERIFY_FILE && c->config.tokens < 1024);
}

int verify_device(const verify_wish *wish, const char *backend)
{
    lh_capabilities can;
    return lh_backend_query(backend, &can, NULL) == LH_OK && can.numbered_devices ? wish->device : 0;
}

static lh_status run_dtype(const verify_wish *wish, const verify_case *c, const verify_trace *inputs,
                           lh_dtype dtype, verify_sink *sink, lh_error *error)
{
    verify_expect *e = NULL; /* stages, layer */
    lh_status status = LH_OK;
    for (int i = 0; i < wish->backends && status == LH_OK; i++) {
        if (!chosen(wish, c, wish->backend[i], dtype) || !plan_judged(c, wish->backend[i]))
            continue;
        if (!e) {
            status = verify_expect_make(&e, 2, error);
            if (status == LH_OK)
                status = verify_expect_both(&e[0], &e[1], &c->config, dtype, inputs, NULL, 0, error);
        }
        if (status == LH_OK)
            status =
                verify_judge_backend(c, &e[0], &e[1], wish->backend[i], verify_device(wish, wish->backend[i]),
                                     wish->attention, wish->tiles, sink, error);
    }
    verify_expect_unmake(e, 2);
    return status;
}

static bool has_reference(const verify_wish *wish)
{
    for (int i = 0; i < wish->backends; i++) {
        if (is_reference(wish->backend[i]))
            return true;
    }
    return false;
}

static lh_status run_case(const verify_wish *wish, const verify_case *c, verify_report *report,
                          lh_error *error)
{
    verify_trace inputs = {0};
    verify_sink sink = {verify_report_row, report};
    verify_report_case(report, c);
    lh_status status = verify_inputs(c, &inputs, error);
    for (int dtype = LH_F64; dtype <= LH_BF16 && status == LH_OK; dtype++)
        status = run_dtype(wish, c, &inputs, (lh_dtype)dtype, &sink, error);
    if (status == LH_OK && has_reference(wish))
        status = verify_judge_reference(c, &inputs, &sink, error);
    verify_free(&inputs);
    if (status == LH_OK)
        verify_report_done(report);
    return status;
}

lh_status verify_run(const verify_wish *wish, verify_report *report, lh_error *error)
{
    const verify_case *c;
    lh_status status = verify_check_pattern(wish->pattern, error);
    for (int i = 0; (c = verify_case_at(i)) && status == LH_OK; i++)
        if (verify_case_matches(c, wish->pattern))
            status = run_case(wish, c, report, error);
    return status;
}
