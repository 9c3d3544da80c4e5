/* The checker: catches and names what is planted, and leaves honest ports alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "core/random.h"
#include "tests/honest.h"
#include "tests/plant.h"
#include "tests/suite.h"
#include "check/check.h"

static bool names(const check_report *report, const lh_fault *fault)
{
    for (int i = 0; i < report->fault_count; i++) {
        if (report->faults[i] == fault)
            return true;
    }
    return false;
}

/* The port without a fault on a case, planted once. */
static const struct planted *honest_port(const verify_case *c, lh_dtype dtype)
{
    static struct {
        const verify_case *c;
        lh_dtype dtype;
        struct planted planted;
    } kept[16];
    lh_error error;
    int i = 0;
    while (kept[i].c && (kept[i].c != c || kept[i].dtype != dtype))
        ck_assert_int_lt(++i, 15);
    if (!kept[i].c) {
        ck_assert_msg(plant(c, dtype, PLANT_FULL, NULL, 0, &kept[i].planted, &error) == LH_OK, "%s",
                      error.text);
        kept[i].c = c;
        kept[i].dtype = dtype;
    }
    return &kept[i].planted;
}

static void check_planted(const char *id, lh_dtype dtype, enum plant_shape shape,
                          const lh_fault *const *faults, int count, check_report *report, bool *shows)
{
    struct planted planted;
    lh_error error;
    const verify_case *c = plant_case(id);
    const lh_status status = plant(c, dtype, shape, faults, count, &planted, &error);
    ck_assert_msg(status == LH_OK || status == LH_UNSUPPORTED, "%s", error.text);
    *shows = status == LH_OK && plant_shows(&planted, honest_port(c, dtype));
    if (status == LH_OK)
        ck_assert_msg(check_dump(&c->config, planted.present, NULL, report, &error) == LH_OK, "%s",
                      error.text);
    verify_free(&planted.trace);
}

/* On one of a few small draws every fault is caught, marked at its stage, and named. */
START_TEST(every_fault_is_caught_and_named)
{
    static const char *const ids[] = {"small", "small-ties", "groups", "p3", "sharpest"};
    const lh_dtype dtypes[] = {LH_F32, LH_BF16};
    const lh_fault *fault;
    for (int i = 0; (fault = lh_fault_at(i)); i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof ids / sizeof *ids && !found; k++) {
            check_report report;
            bool shows;
            check_planted(ids[k], dtypes[_i], PLANT_FULL, &fault, 1, &report, &shows);
            if (!shows || report.first_wrong < 0)
                continue;
            found = names(&report, fault);
            bool writes = false;
            for (const lh_tensor_id *id = lh_stage_writes(fault->stage); *id != LH_TENSOR_COUNT; id++)
                writes = writes || *id == report.rows[report.first_wrong].tensor;
            ck_assert_msg(writes, "%s: first wrong is %s", fault->name,
                          lh_tensor_name(report.rows[report.first_wrong].tensor));
        }
        ck_assert_msg(found, "%s is not caught and named", fault->name);
    }
}
END_TEST

START_TEST(two_faults_in_different_stages_are_both_found)
{
    static const char *const pairs[][2] = {{"score-mean", "scatter-no-shift"},
                                           {"pool-query-first-token", "backward-without-scale"},
                                           {"select-global", "unpool-leaves-only"},
                                           {"attend-unscaled", "scatter-backward-mean"},
                                           {"order-by-start", "pool-sum"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const lh_fault *faults[] = {lh_fault_by_name(pairs[i][0]), lh_fault_by_name(pairs[i][1])};
        check_report report;
        bool shows;
        ck_assert(faults[0] && faults[1]);
        check_planted("small", LH_F32, PLANT_FULL, faults, 2, &report, &shows);
        ck_assert(shows);
        for (int f = 0; f < 2; f++)
            ck_assert_msg(names(&report, faults[f]), "%s is not named", faults[f]->name);
    }
}
END_TEST

/* With lse to base 10 the weights of the backward are enormous or infinite, and all behind it is off. With one batch,
 * "batch 0's index for all" is no fault at all and gives just what the dump's own lse leads to. */
START_TEST(what_a_fault_leads_to_is_given_no_name)
{
    static const struct {
        const char *id;
        enum plant_shape shape;
    } dumps[] = {{"p3", PLANT_FUSED}, {"sharpest", PLANT_FULL}, {"sharpest", PLANT_FUSED}};
    const lh_fault *fault = lh_fault_by_name("attend-lse-base-10");
    for (size_t i = 0; i < sizeof dumps / sizeof *dumps; i++) {
        check_report report;
        bool shows;
        check_planted(dumps[i].id, LH_F32, dumps[i].shape, &fault, 1, &report, &shows);
        ck_assert(shows && names(&report, fault));
        for (int n = 0; n < report.fault_count; n++)
            ck_assert_msg(report.explained[n] == LH_ATTEND, "%s: %s comes out as %s", dumps[i].id,
                          lh_stage_name(report.explained[n]), report.faults[n]->name);
    }
}
END_TEST

/* ---- honest ports --------------------------------------------------------------------------- */

enum {
    HONEST_BATCHES = 8
};

/* Drawn in one run: HONEST_PORTS says how many. */
static uint64_t honest_ports(void)
{
    const char *text = getenv("HONEST_PORTS");
    const long n = text ? strtol(text, NULL, 10) : 160;
    ck_assert_msg(n >= HONEST_BATCHES, "HONEST_PORTS is '%s', wanted at least %d", text, HONEST_BATCHES);
    return (uint64_t)n;
}

static struct honest draw_port(uint64_t n)
{
    static const int parts[] = {1, 2, 4, 8, 16}, blocks[] = {0, 5, 16, 32, 64};
    static const lh_dtype storage[] = {LH_F32, LH_F32, LH_BF16, LH_F16};
    uint32_t r[4], s[4];
    lh_random_block(11, 1, n, r);
    lh_random_block(11, 2, n, s);
    const lh_dtype dtype = storage[r[0] % 4];
    return (struct honest){.storage = dtype,
                           .parts = parts[r[1] % 5],
                           .reversed = r[2] % 2,
                           .fused = r[3] % 2,
                           .block = blocks[s[0] % 5],
                           .operand_bits = dtype == LH_F32 && s[1] % 4 == 0 ? 11 : 24,
                           .squared_norms = s[2] % 2,
                           .level_by_level = s[3] % 2,
                           .d_from_p = s[3] / 2 % 2};
}

static verify_case draw_case(uint64_t n)
{
    static const lh_config configs[] = {
        {2, 2, 2, 48, 3, 3, 2, 8, 4},   {1, 4, 2, 48, 16, 3, 2, 8, 4}, {1, 2, 1, 54, 5, 3, 3, 4, 2},
        {1, 1, 1, 64, 64, 2, 4, 8, 8},  {1, 2, 2, 96, 8, 4, 2, 8, 4},  {1, 1, 1, 80, 33, 2, 2, 16, 8},
        {1, 1, 1, 64, 128, 3, 2, 8, 8},
    };
    static const verify_pattern patterns[] = {VERIFY_GAUSSIAN, VERIFY_GAUSSIAN, VERIFY_SHARP,   VERIFY_FLAT,
                                              VERIFY_RAMP,     VERIFY_OFFSET,   VERIFY_INTEGERS};
    uint32_t r[4];
    lh_random_block(11, 3, n, r);
    return (verify_case){.id = "honest",
                         .config = configs[r[0] % 7],
                         .seed = 1000 + n,
                         .pattern = patterns[r[1] % 7],
                         .exposes = "",
                         .why = ""};
}

static void scale_all(const lh_tensor *t, double by)
{
    for (int64_t i = 0; i < lh_tensor_elements(t); i++)
        lh_store(t->data, t->dtype, i, by * lh_load(t->data, t->dtype, i));
}

static void check_honest(uint64_t n)
{
    const struct honest port = draw_port(n);
    const verify_case c = draw_case(n);
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    verify_trace drawn = {0}, dump = {0};
    check_report report;
    lh_error error;
    char *text = NULL;
    report.unknown_count = 0;
    ck_assert_msg(verify_inputs(&c, &drawn, &error) == LH_OK, "%s", error.text);
    ck_assert_msg(verify_make_all(&dump, &c.config, port.storage, VERIFY_PACKED, &error) == LH_OK, "%s",
                  error.text);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(lh_tensor_convert(&dump.tensor[inputs[i]], &drawn.tensor[inputs[i]], &error), LH_OK);
    ck_assert_msg(honest_layer(&port, &c.config, dump.tensor, &error) == LH_OK, "%s", error.text);
    ck_assert_msg(check_dump(&c.config, dump.tensor,
                             &(check_wish){.habits = port.operand_bits < 24 ? VERIFY_TF32 : 0}, &report,
                             &error) == LH_OK,
                  "%s", error.text);
    if (report.first_wrong >= 0)
        check_text(&report, &text, &error);
    ck_assert_msg(
        report.first_wrong < 0,
        "honest port %d is called wrong (%s, %d parts, %s, fma %d, block %d, %d bits, squared %d, stepwise "
        "%d, D from P %d, %s)\n%s",
        (int)n, lh_dtype_name(port.storage), port.parts, port.reversed ? "reversed" : "forward", port.fused,
        port.block, port.operand_bits, port.squared_norms, port.level_by_level, port.d_from_p,
        verify_pattern_name(c.pattern), text);
    verify_free(&drawn);
    verify_free(&dump);
}

/* A port whose products cut their operands as tf32 does and that does not say so is wrong, and told what to say. */
START_TEST(a_habit_that_was_not_said_is_suggested)
{
    const struct honest port = {.storage = LH_F32, .parts = 1, .operand_bits = 11};
    const verify_case c = {.id = "habit", .config = {1, 1, 1, 64, 64, 2, 4, 8, 8}, .seed = 3};
    const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    verify_trace drawn = {0}, dump = {0};
    check_report report;
    lh_error error;
    char *text;
    report.unknown_count = 0;
    ck_assert_int_eq(verify_inputs(&c, &drawn, &error), LH_OK);
    ck_assert_int_eq(verify_make_all(&dump, &c.config, LH_F32, VERIFY_PACKED, &error), LH_OK);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(lh_tensor_convert(&dump.tensor[inputs[i]], &drawn.tensor[inputs[i]], &error), LH_OK);
    ck_assert_int_eq(honest_layer(&port, &c.config, dump.tensor, &error), LH_OK);
    ck_assert_int_eq(check_dump(&c.config, dump.tensor, NULL, &report, &error), LH_OK);
    ck_assert_int_eq(report.verdict, CHECK_WRONG);
    ck_assert_int_eq(check_text(&report, &text, &error), LH_OK);
    ck_assert_msg(strstr(text, "with --habit tf32 nothing would be wrong") != NULL, "%s", text);
    free(text);
    /* No habit explains a sign. */
    scale_all(&dump.tensor[LH_DQ_SEL], -1);
    ck_assert_int_eq(check_dump(&c.config, dump.tensor, NULL, &report, &error), LH_OK);
    ck_assert_ptr_null(report.suggested);
    verify_free(&drawn);
    verify_free(&dump);
}
END_TEST

START_TEST(honest_ports_raise_no_alarm)
{
    const uint64_t each = honest_ports() / HONEST_BATCHES;
    for (uint64_t n = (uint64_t)_i * each; n < ((uint64_t)_i + 1) * each; n++)
        check_honest(n);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("check");
    TCase *planted = suite_case(suite, "planted faults");
    tcase_add_loop_test(planted, every_fault_is_caught_and_named, 0, 2);
    tcase_add_test(planted, two_faults_in_different_stages_are_both_found);
    tcase_add_test(planted, what_a_fault_leads_to_is_given_no_name);
    TCase *honest = suite_case(suite, "honest ports");
    tcase_add_test(honest, a_habit_that_was_not_said_is_suggested);
    tcase_add_loop_test(honest, honest_ports_raise_no_alarm, 0, HONEST_BATCHES);
    return suite_run(suite);
}
