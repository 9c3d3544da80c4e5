/* Configurations: every rule of SPEC 2, by name and value, and what follows from a valid one. */
#include <stdio.h>
#include <string.h>

#include "tests/suite.h"

#define HUGE_N (INT64_C(1) << 40)
#define MAX INT64_MAX

/* B H G N d L p k m, and the error, "" for a valid one. */
static const struct {
    lh_config config;
    const char *part;
} cases[] = {
    {{2, 2, 2, 48, 3, 3, 2, 8, 4}, ""},
    {{1, 1, 1, 1, 1, 1, 2, 0, 0}, ""}, /* one token; L = 1 reads neither k nor m */
    {{1, 1, 1, 7, 5, 1, 9, -3, MAX}, ""},
    {{1, 1, 1, 6, 1, 2, 2, 2, 2}, ""},
    {{1, 1, 1, 81 * 4, 2, 5, 3, 4, 4}, ""}, /* p = 3; one global top-k, m = c */
    {{1, 1, 1, 100, 2, 3, 5, 4, 2}, ""},
    {{1, 6, 3, 96, 2, 2, 2, 12, 6}, ""},            /* grouped heads; m is no power of two */
    {{1, 1, 1, 1 << 25, 128, 4, 4, 4096, 128}, ""}, /* N past 2^24 */
    {{1, 1, 1, 524288, 64, 3, 4, 8192, 128}, ""},   /* S past 65,535 */
    {{1, 1, 1, HUGE_N, 1, 40, 2, 2, 2}, ""},
    {{0, 1, 1, 8, 1, 1, 2, 0, 0}, "batch is 0, wanted at least 1"},
    {{-5, 1, 1, 8, 1, 1, 2, 0, 0}, "batch is -5, wanted at least 1"},
    {{1, 0, 1, 8, 1, 1, 2, 0, 0}, "heads is 0, wanted at least 1"},
    {{1, 1, 0, 8, 1, 1, 2, 0, 0}, "kv_heads is 0, wanted at least 1"},
    {{1, 1, 1, 0, 1, 1, 2, 0, 0}, "tokens is 0, wanted at least 1"},
    {{1, 1, 1, 8, 0, 1, 2, 0, 0}, "dim is 0, wanted at least 1"},
    {{1, 1, 1, 8, 1, 0, 2, 0, 0}, "levels is 0, wanted at least 1"},
    {{1, 1, 1, 8, 1, -1, 2, 0, 0}, "levels is -1, wanted at least 1"},
    {{1, 1, 1, 8, 1, 63, 2, 2, 2}, "levels is 63, wanted at most 62"},
    {{1, 1, 1, 8, 1, 1, 1, 0, 0}, "pool is 1, wanted at least 2"},
    {{1, 1, 1, 8, 1, 2, 0, 2, 2}, "pool is 0, wanted at least 2"},
    {{1, 4, 3, 8, 1, 1, 2, 0, 0}, "kv_heads is 3, wanted a divisor of heads 4"},
    {{1, 2, 4, 8, 1, 1, 2, 0, 0}, "kv_heads is 4, wanted a divisor of heads 2"},
    {{1, 1, 1, 6, 1, 3, 2, 2, 2}, "tokens is 6, wanted a multiple of pool^(levels-1) = 2^2"},
    {{1, 1, 1, 8, 1, 2, 3, 2, 2}, "tokens is 8, wanted a multiple of pool^(levels-1) = 3^1"},
    {{1, 1, 1, 8, 1, 5, 2, 2, 2}, "tokens is 8, wanted a multiple of pool^(levels-1) = 2^4"},
    {{1, 1, 1, 48, 1, 2, 2, 6, 3}, "tile_topk is 3, wanted an even number"},
    {{1, 1, 1, 48, 1, 2, 2, 4, 0}, "tile_topk is 0, wanted at least 2"},
    {{1, 1, 1, 48, 1, 2, 2, 4, -2}, "tile_topk is -2, wanted at least 2"},
    {{1, 1, 1, 48, 1, 2, 2, 0, 2}, "topk is 0, wanted at least 2"},
    {{1, 1, 1, 48, 1, 2, 2, 6, 4}, "topk is 6, wanted a multiple of tile_topk 4"},
    {{1, 1, 1, 48, 1, 2, 2, 2, 4}, "topk is 2, wanted a multiple of tile_topk 4"},
    {{1, 1, 1, 48, 1, 3, 2, 10, 2}, "topk is 10: its 5 tiles (topk/tile_topk) do not divide the 12 coarsest"},
    {{1, 1, 1, 48, 1, 3, 2, 12, 4}, ""}, /* c = m exactly */
    {{1, 1, 1, 48, 1, 3, 2, 16, 4}, "tile_topk is 4, wanted at most a tile's 3 coarsest entries"},
    {{1, 1, 1, 1000448, 64, 3, 4, 7680, 128}, "topk is 7680: its 60 tiles"},
    {{1, 1, 1, 524288, 64, 3, 4, 3968, 128}, "topk is 3968: its 31 tiles"},
    /* overflow */
    {{1, 1, 1, MAX, 1, 1, 2, 0, 0}, "tokens is 9223372036854775807, wanted at most"},
    {{1, 1, 1, INT64_C(1) << 61, 1, 1, 2, 0, 0}, "tokens is 2305843009213693952, wanted at most"},
    {{MAX, MAX, 1, 8, MAX, 1, 2, 0, 0}, "a tensor would pass 2^63 bytes"},
    {{1, 1, 1, HUGE_N, INT64_C(1) << 30, 1, 2, 0, 0}, "a tensor would pass 2^63 bytes"},
    {{1, 1, 1, 8, 1, 62, MAX, 2, 2}, "tokens is 8, wanted a multiple of pool^(levels-1)"},
    {{1, 1, 1, 8, 1, 3, INT64_C(1) << 32, 2, 2}, "tokens is 8, wanted a multiple of pool^(levels-1)"},
    {{1, 1, 1, 8, 1, 2, 2, MAX - 1, 2}, "topk is 9223372036854775806: its 4611686018427387903 tiles"},
    {{1, 1, 1, 8, 1, 2, 2, MAX - 1, MAX - 1}, "tile_topk is 9223372036854775806, wanted at most"},
};

START_TEST(rule)
{
    const bool valid = !*cases[_i].part;
    lh_layout layout, before;
    lh_error error;
    memset(&layout, 0x5a, sizeof layout);
    before = layout;
    expect_status(lh_config_check(&cases[_i].config, &layout, &error), valid ? LH_OK : LH_INVALID, &error,
                  cases[_i].part);
    if (!valid)
        ck_assert_mem_eq(&layout, &before, sizeof layout); /* untouched */
    ck_assert_int_eq(lh_config_check(&cases[_i].config, NULL, NULL), valid ? LH_OK : LH_INVALID);
}
END_TEST

START_TEST(null)
{
    lh_error error;
    expect_status(lh_config_check(NULL, NULL, &error), LH_INVALID, &error, "config is NULL");
}
END_TEST

static int64_t power(int64_t base, int64_t exponent)
{
    int64_t result = 1;
    while (exponent-- > 0)
        result *= base;
    return result;
}

/* The rules of SPEC 2, as they are written there. */
static bool valid_by_spec(const lh_config *c)
{
    if (c->tokens < 1 || c->levels < 1 || c->pool < 2 || c->tokens % power(c->pool, c->levels - 1) != 0)
        return false;
    if (c->levels == 1)
        return true;
    const int64_t m = c->tile_topk, coarse = c->tokens / power(c->pool, c->levels - 1);
    if (m < 2 || m % 2 != 0 || c->topk < 1 || c->topk % m != 0)
        return false;
    const int64_t tiles = c->topk / m;
    return coarse % tiles == 0 && coarse / tiles >= m;
}

/* Every small configuration, valid or not, against the rules and sums as SPEC 2 and 3.3 put them. */
START_TEST(every_small_one)
{
    int accepted = 0, refused = 0, wrong = 0;
    lh_config c = {.batch = 1, .heads = 1, .kv_heads = 1, .dim = 1};
    for (c.tokens = 0; c.tokens <= 72; c.tokens++)
        for (c.levels = 0; c.levels <= 5; c.levels++)
            for (c.pool = 1; c.pool <= 5; c.pool++)
                for (c.topk = -1; c.topk <= 16; c.topk++)
                    for (c.tile_topk = -1; c.tile_topk <= 9; c.tile_topk++) {
                        lh_layout layout;
                        const bool ok = lh_config_check(&c, &layout, NULL) == LH_OK;
                        wrong += ok != valid_by_spec(&c);
                        accepted += ok;
                        refused += !ok;
                        if (!ok)
                            continue;
                        int64_t entries = 0;
                        for (int64_t l = 0; l < c.levels; l++) {
                            wrong += layout.window[l] != power(c.pool, l);
                            wrong += layout.level_offset[l] != entries;
                            wrong += layout.level_size[l] != c.tokens / power(c.pool, l);
                            entries += c.tokens / power(c.pool, l);
                        }
                        const int64_t coarse = c.tokens / power(c.pool, c.levels - 1);
                        wrong += layout.entries != entries || layout.level_offset[c.levels] != entries;
                        wrong += layout.coarse != coarse || layout.index_dtype != LH_I32;
                        wrong += layout.tiles * layout.tile_coarse != coarse;
                        wrong += layout.selected !=
                                 (c.levels == 1 ? c.tokens : coarse + (c.levels - 1) * c.pool * c.topk);
                    }
    ck_assert_int_eq(wrong, 0);
    ck_assert_int_gt(accepted, 10000);
    ck_assert_int_gt(refused, 10000);
}
END_TEST

START_TEST(index_width)
{
    lh_layout layout;
    lh_config c = {1, 1, 1, INT32_MAX - 1, 1, 1, 2, 0, 0};
    ck_assert_int_eq(lh_config_check(&c, &layout, NULL), LH_OK);
    ck_assert_int_eq(layout.index_dtype, LH_I32);
    c.tokens = INT64_C(1) << 31;
    ck_assert_int_eq(lh_config_check(&c, &layout, NULL), LH_OK);
    ck_assert_int_eq(layout.index_dtype, LH_I64);
    c = (lh_config){1, 1, 1, INT64_C(1) << 31, 1, 2, 2, 2, 2};
    ck_assert_int_eq(lh_config_check(&c, &layout, NULL), LH_OK);
    ck_assert_int_eq(layout.index_dtype, LH_I64);
    ck_assert_int_eq(layout.entries, 3 * (INT64_C(1) << 30));
}
END_TEST

/* ---- tensors of a configuration ----------------------------------------------------------------- */

START_TEST(shapes)
{
    const lh_config c = {2, 6, 3, 48, 5, 3, 2, 8, 4}; /* P = 84, S = 44 */
    const struct {
        lh_tensor_id id;
        int rank;
        int64_t shape[4];
        lh_dtype in_bf16, in_f64;
    } wanted[] = {
        {LH_Q, 4, {2, 6, 48, 5}, LH_BF16, LH_F64},      {LH_K, 4, {2, 3, 48, 5}, LH_BF16, LH_F64},
        {LH_DV, 4, {2, 3, 48, 5}, LH_BF16, LH_F64},     {LH_DQ, 4, {2, 6, 48, 5}, LH_BF16, LH_F64},
        {LH_Q_PYR, 4, {2, 6, 84, 5}, LH_BF16, LH_F64},  {LH_V_PYR, 4, {2, 3, 84, 5}, LH_BF16, LH_F64},
        {LH_SCORE_Q, 3, {2, 6, 84}, LH_F32, LH_F64},    {LH_SCORE_K, 3, {2, 3, 84}, LH_F32, LH_F64},
        {LH_INDEX, 3, {2, 6, 44}, LH_I32, LH_I32},      {LH_K_SEL, 4, {2, 6, 44, 5}, LH_BF16, LH_F64},
        {LH_DK_SEL, 4, {2, 6, 44, 5}, LH_BF16, LH_F64}, {LH_LSE, 3, {2, 6, 44}, LH_F32, LH_F64},
        {LH_COVERAGE, 3, {2, 6, 48}, LH_I32, LH_I32},   {LH_DOUT, 4, {2, 6, 48, 5}, LH_BF16, LH_F64},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        lh_tensor t;
        ck_assert_int_eq(lh_tensor_describe(&c, LH_BF16, wanted[i].id, &t, NULL), LH_OK);
        ck_assert_int_eq(t.dtype, wanted[i].in_bf16);
        ck_assert_int_eq(t.rank, wanted[i].rank);
        ck_assert_mem_eq(t.shape, wanted[i].shape, sizeof(int64_t) * (size_t)t.rank);
        ck_assert(lh_tensor_contiguous(&t));
        ck_assert_ptr_null(t.data);
        ck_assert_int_eq(lh_tensor_describe(&c, LH_F64, wanted[i].id, &t, NULL), LH_OK);
        ck_assert_int_eq(t.dtype, wanted[i].in_f64);
    }
    lh_tensor t;
    lh_error error;
    expect_status(lh_tensor_describe(&c, LH_I32, LH_Q, &t, &error), LH_INVALID, &error, "dtype is I32");
    expect_status(lh_tensor_describe(&c, LH_F32, LH_TENSOR_COUNT, &t, &error), LH_INVALID, &error,
                  "tensor id is 24, wanted 0 to 23");
    const lh_config bad = {1, 1, 0, 8, 1, 1, 2, 0, 0};
    expect_status(lh_tensor_describe(&bad, LH_F32, LH_Q, &t, &error), LH_INVALID, &error, "kv_heads is 0");
}
END_TEST

START_TEST(names)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        ck_assert_int_eq(lh_tensor_by_name(lh_tensor_name((lh_tensor_id)id)), id);
    ck_assert_int_eq(lh_tensor_by_name("Q"), LH_TENSOR_COUNT);
    ck_assert_str_eq(lh_tensor_name(LH_TENSOR_COUNT), "unknown");
    for (int dtype = 0; dtype < LH_DTYPE_COUNT; dtype++) {
        lh_dtype parsed;
        ck_assert_int_eq(lh_dtype_parse(lh_dtype_name((lh_dtype)dtype), &parsed, NULL), LH_OK);
        ck_assert_int_eq(parsed, dtype);
    }
    lh_dtype parsed;
    lh_error error;
    ck_assert_int_eq(lh_dtype_parse("bf16", &parsed, NULL), LH_OK);
    expect_status(lh_dtype_parse("fp16", &parsed, &error), LH_INVALID, &error,
                  "dtype is fp16, wanted one of");
    expect_status(lh_dtype_parse(NULL, &parsed, &error), LH_INVALID, &error, "dtype is NULL");
}
END_TEST

/* What a stage reads was written by an earlier one, or is an input. */
START_TEST(stage_order)
{
    bool known[LH_TENSOR_COUNT + 1] = {[LH_Q] = true, [LH_K] = true, [LH_V] = true, [LH_DOUT] = true};
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        for (const lh_tensor_id *id = lh_stage_reads((lh_stage)stage); *id != LH_TENSOR_COUNT; id++)
            ck_assert_msg(known[*id], "%s reads %s too early", lh_stage_name((lh_stage)stage),
                          lh_tensor_name(*id));
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)stage); *id != LH_TENSOR_COUNT; id++)
            known[*id] = true;
    }
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        ck_assert_msg(known[id], "no stage writes %s", lh_tensor_name((lh_tensor_id)id));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *rules = suite_case(suite, "rules");
    tcase_add_loop_test(rules, rule, 0, sizeof cases / sizeof *cases);
    tcase_add_test(rules, null);
    tcase_add_test(rules, every_small_one);
    tcase_add_test(rules, index_width);
    TCase *tensors = suite_case(suite, "tensors");
    tcase_add_test(tensors, shapes);
    tcase_add_test(tensors, names);
    tcase_add_test(tensors, stage_order);
    return suite_run(suite);
}
