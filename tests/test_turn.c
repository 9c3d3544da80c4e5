/* Layouts of dumps: what a shape leaves open is read off the tensor's kin, or asked. */
#include <string.h>

#include "tests/suite.h"
#include "check/check.h"

/* S = 12 = H: the selected rows read either way, the pyramid's (24) one way. */
static const lh_config config = {.batch = 1,
                                 .heads = 12,
                                 .kv_heads = 12,
                                 .tokens = 16,
                                 .dim = 4,
                                 .levels = 2,
                                 .pool = 2,
                                 .topk = 2,
                                 .tile_topk = 2};

static lh_tensor found[LH_TENSOR_COUNT];
static bool turned[LH_TENSOR_COUNT];

/* The tensor as a dump has it, [B,rows,heads,(d)] where `about`. */
static void show(lh_tensor_id id, bool about)
{
    lh_tensor *t = &found[id];
    ck_assert_int_eq(lh_tensor_describe(&config, LH_F32, id, t, NULL), LH_OK);
    if (about) {
        const int64_t heads = t->shape[1];
        t->shape[1] = t->shape[2];
        t->shape[2] = heads;
    }
}

static void read_as(const char *text, lh_status wanted, const char *part)
{
    check_layout layout;
    lh_error error;
    expect_status(check_parse_layout(text, &layout, &error), LH_OK, &error, "");
    expect_status(check_read_layout(&config, &layout, found, turned, &error), wanted, &error, part);
}

START_TEST(kin_tell_how_a_square_lies)
{
    for (int about = 0; about < 2; about++) {
        memset(found, 0, sizeof found);
        show(LH_Q, true);
        show(LH_Q_PYR, about);
        show(LH_Q_SEL, about);
        show(LH_SCORE_K, !about);
        show(LH_LSE, !about);
        read_as("bnhd", LH_OK, "");
        ck_assert(turned[LH_Q]);
        ck_assert_int_eq(turned[LH_Q_SEL], about);
        ck_assert_int_eq(turned[LH_LSE], !about);
        read_as("bhnd", LH_OK, "");
        ck_assert(!turned[LH_Q_SEL]);
    }
}
END_TEST

START_TEST(what_nothing_tells_is_asked)
{
    memset(found, 0, sizeof found);
    show(LH_Q, true);
    show(LH_LSE, false);
    show(LH_INDEX, false);
    read_as("bnhd", LH_INVALID, "index has shape [1,12,12], which reads either way");
    read_as("bnhd,index=bnhd", LH_OK, ""); /* and lse as index */
    ck_assert(turned[LH_INDEX] && turned[LH_LSE]);
    read_as("bnhd,index=bnhd,lse=bhnd", LH_OK, "");
    ck_assert(turned[LH_INDEX] && !turned[LH_LSE]);
}
END_TEST

START_TEST(what_was_said_must_fit)
{
    check_layout layout;
    lh_error error;
    memset(found, 0, sizeof found);
    show(LH_Q, true);
    show(LH_SCORE_Q, false);
    read_as("bnhd,score_q=bnhd", LH_INVALID, "score_q has shape [1,12,24], wanted one that lies as");
    expect_status(check_parse_layout("bnhd,lze=bnhd", &layout, &error), LH_INVALID, &error,
                  "'lze=bnhd' is the layout of no tensor");
    expect_status(check_parse_layout("bnhd,lse=bdhn", &layout, &error), LH_INVALID, &error,
                  "'lse=bdhn', wanted bhnd or bnhd");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("turn");
    TCase *tcase = suite_case(suite, "layouts of dumps");
    tcase_add_test(tcase, kin_tell_how_a_square_lies);
    tcase_add_test(tcase, what_nothing_tells_is_asked);
    tcase_add_test(tcase, what_was_said_must_fit);
    return suite_run(suite);
}
