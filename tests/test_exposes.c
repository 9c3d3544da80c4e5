/*
 * What the case table says it exposes, it does: some bug of that number changes a tensor beyond its allowance.
 *
 *     test_exposes [PATTERN]     of the cases whose name fits
 */
#include <stdlib.h>
#include <string.h>

#include "tests/suite.h"
#include "check/faults.h"
#include "verify/verify.h"

/* Whether fault f, in place of its stage, makes the stage's outputs wrong. */
static bool shows(const lh_fault *f, const verify_expect *e, verify_trace *spare)
{
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_error error;
    memcpy(trace, e->given.tensor, sizeof trace);
    for (const lh_tensor_id *id = lh_stage_writes(f->stage); *id != LH_TENSOR_COUNT; id++) {
        verify_poison(spare, *id);
        trace[*id] = spare->tensor[*id];
    }
    if (f->run(f, &e->config, &e->layout, trace, &error) != LH_OK)
        return false;
    bool wrong = false;
    for (const lh_tensor_id *id = lh_stage_writes(f->stage); *id != LH_TENSOR_COUNT; id++)
        wrong = wrong ||
                !verify_passed(verify_compare(&trace[*id], &e->want.tensor[*id], e->allowed[*id]).verdict);
    return wrong;
}

static bool exposed(long family, const verify_expect *e, verify_trace *spare)
{
    const lh_fault *f;
    for (int i = 0; (f = lh_fault_at(i)); i++) {
        if (f->family == family && shows(f, e, spare))
            return true;
    }
    return false;
}

static const verify_case *chosen[256];

START_TEST(exposes_what_it_says)
{
    const verify_case *c = chosen[_i];
    verify_trace inputs = {0}, spare = {0};
    verify_expect e = {0};
    lh_error error;
    char missing[256] = "";
    expect_status(verify_inputs(c, &inputs, &error), LH_OK, &error, "");
    expect_status(verify_make_all(&spare, &c->config, LH_F64, VERIFY_PACKED, &error), LH_OK, &error, "");
    expect_status(verify_expect_stages(&e, &c->config, LH_F64, &inputs, NULL, false, &error), LH_OK, &error,
                  "");
    for (const char *at = c->exposes; *at;) {
        char *end;
        const long family = strtol(at, &end, 10);
        if (!exposed(family, &e, &spare))
            snprintf(missing + strlen(missing), sizeof missing - strlen(missing), " %ld", family);
        at = *end ? end + 1 : end;
    }
    ck_assert_msg(missing[0] == '\0', "%s says it exposes%s and does not", c->id, missing);
    verify_expect_free(&e);
    verify_free(&spare);
    verify_free(&inputs);
}
END_TEST

int main(int argc, char **argv)
{
    const verify_case *c;
    int cases = 0;
    for (int i = 0; (c = verify_case_at(i)) && cases < (int)(sizeof chosen / sizeof *chosen); i++) {
        if (verify_case_matches(c, argc > 1 ? argv[1] : NULL))
            chosen[cases++] = c;
    }
    Suite *suite = suite_create("exposes");
    tcase_add_loop_test(suite_case(suite, "exposes"), exposes_what_it_says, 0, cases);
    return suite_run(suite);
}
