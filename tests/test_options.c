/* What options of a plan promise, for any backend: memory within a formula, strides, and what a caller gives, lends or keeps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "tests/plan.h"

START_TEST(create_describes)
{
    ck_assert_mem_eq(lh_plan_config(plan), &config, sizeof config);
    ck_assert_int_eq(lh_plan_layout(plan)->selected, 44);
    ck_assert_uint_gt(lh_plan_workspace(plan), 0);
    lh_plan_destroy(NULL);
}
END_TEST

/* What a plan may hold, from its shapes: images of q k v out dout dq dk dv and three pyramids beside them; nine tensors of the
 * sub-sequence, one of them in sums; scores, slots and index of every entry; lse and D. Half as much again, and 32 MiB for
 * tiles of threads. No less than index, o_sel and lse, which a forward without them keeps for its backward. */
START_TEST(workspace_is_bounded)
{
    static const lh_config configs[] = {{1, 2, 2, 4096, 64, 3, 4, 128, 32},
                                        {2, 4, 2, 2048, 80, 2, 2, 64, 64},
                                        {1, 1, 1, 1000, 16, 1, 2, 0, 0}};
    const lh_config *c = &configs[_i];
    lh_layout l;
    lh_options o = options();
    lh_plan *made;
    expect_status(lh_config_check(c, &l, &error), LH_OK, &error, "");
    for (int stages = 0; stages < 2; stages++) {
        o.stages = stages;
        expect_status(lh_plan_create(c, &o, &made, &error), LH_OK, &error, "");
        const double lines = (double)(c->batch * c->heads), d = (double)c->dim, n = (double)c->tokens,
                     p = (double)l.entries, s = (double)l.selected;
        const double element = (double)lh_dtype_size(dtype), wide = element > 4 ? element : 4;
        const double most =
            lines * (8 * n * d * element + 3 * p * d * element + 9 * s * d * wide + 4 * p * 8 + 3 * s * 8);
        const double least = lines * s * (d * element + 4 + 4), found = (double)lh_plan_workspace(made);
        ck_assert_msg(found >= least && found <= 1.5 * most + (32 << 20),
                      "%s, %d: workspace is %.0f bytes, wanted %.0f to %.0f", backend, stages, found, least,
                      1.5 * most + (32 << 20));
        lh_plan_destroy(made);
    }
}
END_TEST

static void expect_same(const struct layer *a, const struct layer *b, const lh_tensor_id *ids, int count)
{
    for (int i = 0; i < count; i++) {
        lh_tensor packed = b->trace[ids[i]];
        lh_tensor_pack(&packed);
        packed.data = malloc(layer_bytes(&packed));
        ck_assert_ptr_nonnull(packed.data);
        expect_status(lh_tensor_convert(&packed, &b->trace[ids[i]], &error), LH_OK, &error, "");
        ck_assert_msg(memcmp(packed.data, a->trace[ids[i]].data, layer_bytes(&packed)) == 0, "%s differs",
                      lh_tensor_name(ids[i]));
        free(packed.data);
    }
}

/* [B,N,H,d] callers, kept or own index, o_sel and lse: the same bits. */
START_TEST(strided_and_kept)
{
    const lh_tensor_id outputs[] = {LH_OUT, LH_DQ, LH_DK, LH_DV};
    struct layer other;
    layer_create(&other, &config, dtype, 11);
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor *t = &other.trace[id];
        if (!may_be_strided((lh_tensor_id)id))
            continue;
        t->stride[1] = t->shape[3];
        t->stride[2] = t->shape[1] * t->shape[3];
        expect_status(lh_tensor_convert(t, &work.trace[id], &error), LH_OK, &error, "");
    }
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, other.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, other.trace, &error), LH_OK, &error, "");
    expect_same(&work, &other, outputs, 4);
    lh_tensor bare[LH_TENSOR_COUNT];
    memcpy(bare, other.trace, sizeof bare);
    bare[LH_INDEX].data = bare[LH_O_SEL].data = bare[LH_LSE].data = bare[LH_COVERAGE].data = NULL;
    expect_status(lh_forward(plan, bare, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, bare, &error), LH_OK, &error, "");
    expect_same(&work, &other, outputs, 4);
    layer_free(&other);
}
END_TEST

/* A plan with index_given follows the index it is given, and only that. */
START_TEST(given_index)
{
    const lh_tensor_id outputs[] = {LH_OUT, LH_O_SEL, LH_LSE, LH_COVERAGE};
    struct layer other;
    lh_plan *given;
    lh_options o = options();
    o.index_given = true;
    layer_create(&other, &config, dtype, 11);
    expect_status(lh_plan_create(&config, &o, &given, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_forward(given, other.trace, &error), LH_INVALID, &error, "index[0,0,0] is");
    memcpy(other.trace[LH_INDEX].data, work.trace[LH_INDEX].data, layer_bytes(&work.trace[LH_INDEX]));
    expect_status(lh_forward(given, other.trace, &error), LH_OK, &error, "");
    expect_same(&work, &other, outputs, 4);
    other.trace[LH_INDEX].data = (free(other.trace[LH_INDEX].data), NULL);
    expect_status(lh_forward(given, other.trace, &error), LH_INVALID, &error, "index is NULL");
    lh_plan_destroy(given);
    layer_free(&other);
}
END_TEST

/* A plan with scores_given selects by the scores it is given, and by nothing else. */
START_TEST(given_scores)
{
    const lh_tensor_id outputs[] = {LH_OUT, LH_INDEX, LH_O_SEL, LH_LSE, LH_COVERAGE};
    struct layer other, drawn;
    lh_plan *given;
    lh_options o = options();
    o.scores_given = true;
    layer_create(&other, &config, dtype, 11);
    layer_create(&drawn, &config, dtype, 12); /* the scores are those of other tensors */
    expect_status(lh_run_stage(plan, LH_SCORE, drawn.trace, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    void *own = malloc(layer_bytes(&work.trace[LH_INDEX]));
    memcpy(own, work.trace[LH_INDEX].data, layer_bytes(&work.trace[LH_INDEX]));
    for (int id = LH_SCORE_Q; id <= LH_SCORE_K; id++) {
        memcpy(work.trace[id].data, drawn.trace[id].data, layer_bytes(&work.trace[id]));
        memcpy(other.trace[id].data, drawn.trace[id].data, layer_bytes(&work.trace[id]));
    }
    expect_status(lh_run_stage(plan, LH_SELECT, work.trace, &error), LH_OK, &error, "");
    ck_assert_msg(memcmp(own, work.trace[LH_INDEX].data, layer_bytes(&work.trace[LH_INDEX])) != 0,
                  "both scores select the same");
    free(own);
    lh_options indexed = options();
    indexed.index_given = true;
    lh_plan *by_index;
    expect_status(lh_plan_create(&config, &indexed, &by_index, &error), LH_OK, &error, "");
    expect_status(lh_forward(by_index, work.trace, &error), LH_OK, &error, "");
    lh_plan_destroy(by_index);
    expect_status(lh_plan_create(&config, &o, &given, &error), LH_OK, &error, "");
    expect_status(lh_forward(given, other.trace, &error), LH_OK, &error, "");
    expect_same(&work, &other, outputs, 5);
    expect_status(lh_backward(given, other.trace, &error), LH_OK, &error, "");
    ((unsigned char *)other.trace[LH_SCORE_K].data)[layer_bytes(&work.trace[LH_SCORE_K]) - 1] = 0x7f;
    ((unsigned char *)other.trace[LH_SCORE_K].data)[layer_bytes(&work.trace[LH_SCORE_K]) - 2] = 0xff;
    expect_status(lh_forward(given, other.trace, &error), LH_INVALID, &error, "score_k[1,1,83] is NaN");
    void *score = other.trace[LH_SCORE_Q].data;
    other.trace[LH_SCORE_Q].data = NULL;
    expect_status(lh_forward(given, other.trace, &error), LH_INVALID, &error, "score_q is NULL");
    other.trace[LH_SCORE_Q].data = score;
    lh_plan_destroy(given);
    layer_free(&drawn);
    layer_free(&other);
}
END_TEST

/* Lent memory: the same bits, another piece at each call, nothing kept in it, no byte written outside. */
START_TEST(lent_workspace)
{
    enum {
        GUARD = 4096
    };
    const lh_tensor_id outputs[] = {LH_OUT, LH_INDEX, LH_O_SEL, LH_LSE, LH_COVERAGE, LH_DQ, LH_DK, LH_DV};
    struct layer other;
    lh_plan *lent;
    lh_options o = options();
    o.workspace_given = true;
    expect_status(lh_plan_create(&config, &o, &lent, &error), LH_INVALID, &error,
                  "stages and workspace_given");
    o.stages = false;
    if (lh_plan_create(&config, &o, &lent, &error) == LH_UNSUPPORTED) {
        ck_assert_ptr_nonnull(strstr(error.text, "workspace_given is true"));
        return;
    }
    layer_create(&other, &config, dtype, 11);
    expect_status(lh_forward(lent, other.trace, &error), LH_INVALID, &error, "lent 0 bytes");
    expect_status(lh_plan_lend(plan, &o, 8, NULL, &error), LH_INVALID, &error, "workspace_given false");
    expect_status(lh_plan_lend(lent, (void *)(uintptr_t)64, 8, NULL, &error), LH_INVALID, &error,
                  "divisible");
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
    for (int backward = 0; backward < 2; backward++) {
        const size_t bytes = lh_plan_needs(lent, backward == 1);
        unsigned char *taken = malloc(bytes + 3 * GUARD);
        ck_assert_ptr_nonnull(taken);
        memset(taken, 0xa5, bytes + 3 * GUARD);
        unsigned char *at = taken + GUARD;
        at += LH_WORKSPACE_ALIGNMENT - (uintptr_t)at % LH_WORKSPACE_ALIGNMENT;
        expect_status(lh_plan_lend(lent, at, bytes - 1, NULL, &error), LH_OK, &error, "");
        expect_status((backward ? lh_backward : lh_forward)(lent, other.trace, &error), LH_INVALID, &error,
                      "wanted at least");
        expect_status(lh_plan_lend(lent, at, bytes, NULL, &error), LH_OK, &error, "");
        expect_status((backward ? lh_backward : lh_forward)(lent, other.trace, &error), LH_OK, &error, "");
        for (size_t i = 0; i < GUARD; i++)
            ck_assert_msg(taken[i] == 0xa5 && at[bytes + i] == 0xa5, "a byte outside was written");
        memset(taken, 0x5a, bytes + 3 * GUARD);
        free(taken);
    }
    expect_same(&work, &other, outputs, 8);
    void *kept = other.trace[LH_LSE].data;
    other.trace[LH_LSE].data = NULL;
    expect_status(lh_forward(lent, other.trace, &error), LH_INVALID, &error, "lse is NULL");
    other.trace[LH_LSE].data = kept;
    lh_plan_destroy(lent);
    layer_free(&other);
}
END_TEST

/* Rows kept by the caller: the same bits from a backward that never sees q k v. */
START_TEST(kept_rows)
{
    const lh_tensor_id rows[] = {LH_Q_SEL, LH_K_SEL, LH_V_SEL};
    const lh_tensor_id outputs[] = {LH_OUT, LH_Q_SEL, LH_K_SEL, LH_V_SEL, LH_DQ, LH_DK, LH_DV};
    struct layer other;
    lh_plan *keeping;
    lh_options o = options();
    o.rows_kept = true;
    expect_status(lh_plan_create(&config, &o, &keeping, &error), LH_INVALID, &error,
                  "rows_kept is true and workspace_given false");
    o.stages = false;
    o.workspace_given = true;
    if (lh_plan_create(&config, &o, &keeping, &error) == LH_UNSUPPORTED)
        return;
    lh_config dense = config;
    dense.levels = 1;
    lh_plan *none;
    expect_status(lh_plan_create(&dense, &o, &none, &error), LH_INVALID, &error,
                  "rows_kept is true with levels 1");
    layer_create(&other, &config, dtype, 11);
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_run_stage(plan, LH_POOL, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_run_stage(plan, LH_GATHER, work.trace, &error), LH_OK, &error, "");
    for (int backward = 0; backward < 2; backward++) {
        const size_t bytes = lh_plan_needs(keeping, backward == 1);
        void *memory = aligned_alloc(LH_WORKSPACE_ALIGNMENT,
                                     (bytes / LH_WORKSPACE_ALIGNMENT + 1) * LH_WORKSPACE_ALIGNMENT);
        ck_assert_ptr_nonnull(memory);
        expect_status(lh_plan_lend(keeping, memory, bytes, NULL, &error), LH_OK, &error, "");
        for (int i = 0; i < 3; i++) {
            const lh_tensor_id needed = backward ? rows[i] : lh_layer_inputs[i];
            void *data = other.trace[needed].data;
            char text[32];
            snprintf(text, sizeof text, "%s is NULL", lh_tensor_name(needed));
            other.trace[needed].data = NULL;
            expect_status((backward ? lh_backward : lh_forward)(keeping, other.trace, &error), LH_INVALID,
                          &error, text);
            other.trace[needed].data = data;
        }
        expect_status((backward ? lh_backward : lh_forward)(keeping, other.trace, &error), LH_OK, &error, "");
        for (int i = 0; i < 3; i++)
            other.trace[lh_layer_inputs[i]].data = (free(other.trace[lh_layer_inputs[i]].data), NULL);
        free(memory);
    }
    expect_same(&work, &other, outputs, 7);
    lh_plan_destroy(keeping);
    layer_free(&other);
}
END_TEST

START_TEST(profile)
{
    lh_plan_destroy(plan);
    lh_options o = options();
    o.profile = true;
    make_plan(&o);
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
    lh_profile seen;
    double total = 0;
    lh_plan_profile(plan, &seen);
    ck_assert_int_eq(seen.calls, 2);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        ck_assert(seen.seconds[stage] >= 0);
        total += seen.seconds[stage];
    }
    ck_assert(total > 0 && total < 600);
    lh_profile_reset(plan);
    lh_plan_profile(plan, &seen);
    ck_assert_int_eq(seen.calls, 0);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = plan_suite("options", argc, argv);
    tcase_add_loop_test(suite_case(suite, "workspace"), workspace_is_bounded, 0, 3);
    TCase *calls = plan_case(suite, "calls");
    tcase_add_test(calls, create_describes);
    tcase_add_test(calls, strided_and_kept);
    tcase_add_test(calls, given_index);
    tcase_add_test(calls, given_scores);
    tcase_add_test(calls, lent_workspace);
    tcase_add_test(calls, kept_rows);
    tcase_add_test(calls, profile);
    return suite_run(suite);
}
