/* Plans and the calls on them: every wrong argument is refused by name before any work, for any backend. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/convert.h"
#include "tests/plan.h"

/* ---- create ------------------------------------------------------------------------------------- */

static void refuse_create(const lh_config *c, const lh_options *o, lh_status wanted, const char *part)
{
    lh_plan *none = (lh_plan *)&config;
    expect_status(lh_plan_create(c, o, &none, &error), wanted, &error, part);
    ck_assert_ptr_null(none);
    ck_assert_int_eq(lh_plan_create(c, o, &none, NULL), wanted);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

START_TEST(create_refuses)
{
    lh_options o = options();
    refuse_create(NULL, &o, LH_INVALID, "config is NULL");
    refuse_create(&config, NULL, LH_INVALID, "options is NULL");
    expect_status(lh_plan_create(&config, &o, NULL, &error), LH_INVALID, &error, "plan is NULL");
    o.dtype = LH_I32;
    refuse_create(&config, &o, LH_INVALID, "dtype is I32, wanted F64, F32, F16 or BF16");
    o.dtype = (lh_dtype)-1;
    refuse_create(&config, &o, LH_INVALID, "dtype is unknown");
    o = options(), o.threads = -1;
    refuse_create(&config, &o, LH_INVALID, "threads is -1, wanted at least 0");
    o = options(), o.device = -1;
    refuse_create(&config, &o, LH_INVALID, "device is -1, wanted 0 to");
    o = options(), o.device = 1000;
    refuse_create(&config, &o, LH_INVALID, "device is 1000, wanted 0 to");
    o = options(), o.backend = "abacus";
    refuse_create(&config, &o, LH_INVALID, "backend is abacus, wanted one of those built here: ref");
    lh_config bad = config;
    bad.tile_topk = 3;
    o = options();
    refuse_create(&bad, &o, LH_INVALID, "tile_topk is 3, wanted an even number");
    const lh_backend *found;
    ck_assert_int_eq(lh_backend_find(backend, 0, &found, NULL), LH_OK);
    o.memory = LH_ON_DEVICE;
    if (!found->can.device_memory)
        refuse_create(&config, &o, LH_UNSUPPORTED, "memory is on device, wanted host memory");
    else
        refuse_create(&config, &o, LH_INVALID, "stream is NULL with memory on device, wanted the stream");
    for (int d = LH_F64; d <= LH_BF16; d++) {
        o = options(), o.dtype = (lh_dtype)d;
        if ((found->can.dtypes & 1u << o.dtype) == 0)
            refuse_create(&config, &o, LH_UNSUPPORTED, lh_dtype_name(o.dtype));
    }
}
END_TEST

/* A layer of exabytes is a status, not a crash. */
START_TEST(create_too_large)
{
    const lh_config large = {1, 1, 1, INT64_C(1) << 50, 64, 3, 2, 8, 4};
    const lh_options o = options();
    lh_plan *none;
    const lh_status status = lh_plan_create(&large, &o, &none, &error);
    ck_assert_msg(status == LH_NO_MEMORY || status == LH_INVALID || status == LH_UNSUPPORTED ||
                      status == LH_DEVICE,
                  "status is %s", lh_status_name(status));
    ck_assert_ptr_null(none);
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

/* ---- tensors of a stage ------------------------------------------------------------------------- */

enum flaw {
    NO_DATA,
    OTHER_DTYPE,
    OTHER_RANK,
    OTHER_SHAPE, /* + dimension */
    FLAWS = OTHER_SHAPE + LH_MAX_RANK,
};

/* Spoils `tensor`, says which words the error must have; false where the flaw cannot be. */
static bool spoil(lh_tensor *tensor, lh_tensor_id id, int flaw, char *part, size_t size)
{
    const char *name = lh_tensor_name(id);
    if (flaw == NO_DATA) {
        tensor->data = NULL;
        snprintf(part, size, "%s is NULL, wanted data", name);
        return id != LH_COVERAGE;
    }
    if (flaw == OTHER_DTYPE) {
        const lh_dtype was = tensor->dtype;
        tensor->dtype = was == LH_I32 ? LH_I64 : LH_F16;
        snprintf(part, size, "%s is %s, wanted %s as the plan has it", name, lh_dtype_name(tensor->dtype),
                 lh_dtype_name(was));
        return true;
    }
    if (flaw == OTHER_RANK) {
        tensor->rank++; /* whose first dimensions are right */
        snprintf(part, size, "%s has rank %d, wanted %d", name, tensor->rank, tensor->rank - 1);
        return true;
    } else {
        if (flaw - OTHER_SHAPE >= tensor->rank)
            return false;
        tensor->shape[flaw - OTHER_SHAPE]++;
    }
    snprintf(part, size, "%s has shape [", name);
    return true;
}

START_TEST(stage_refuses_tensors)
{
    const lh_stage stage = (lh_stage)_i;
    int refused = 0;
    for (int write = 0; write < 2; write++) {
        const lh_tensor_id *ids = write ? lh_stage_writes(stage) : lh_stage_reads(stage);
        for (; *ids != LH_TENSOR_COUNT; ids++) {
            for (int flaw = 0; flaw < FLAWS; flaw++) {
                lh_tensor trace[LH_TENSOR_COUNT];
                char part[128];
                memcpy(trace, work.trace, sizeof trace);
                if (!spoil(&trace[*ids], *ids, flaw, part, sizeof part))
                    continue;
                expect_status(lh_run_stage(plan, stage, trace, &error), LH_INVALID, &error, part);
                refused++;
            }
        }
    }
    ck_assert_int_gt(refused, 15);
    /* Nothing was written: what the stage writes still has its pattern. */
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++) {
        const unsigned char *bytes = work.trace[*id].data;
        for (size_t i = 0; i < layer_bytes(&work.trace[*id]); i++)
            ck_assert_msg(bytes[i] == 0x5a, "%s was written", lh_tensor_name(*id));
    }
}
END_TEST

/* Whole-layer calls: what they cannot do without, and what may have data NULL but never a wrong shape. */
static void refuse_whole(lh_status (*call)(lh_plan *, const lh_tensor *, lh_error *), const lh_tensor_id *ids,
                         bool required)
{
    for (; *ids != LH_TENSOR_COUNT; ids++) {
        for (int flaw = required ? NO_DATA : OTHER_DTYPE; flaw < FLAWS; flaw++) {
            lh_tensor trace[LH_TENSOR_COUNT];
            char part[128];
            memcpy(trace, work.trace, sizeof trace);
            if (spoil(&trace[*ids], *ids, flaw, part, sizeof part))
                expect_status(call(plan, trace, &error), LH_INVALID, &error, part);
        }
    }
}

START_TEST(whole_calls_refuse_tensors)
{
    static const lh_tensor_id forward[] = {LH_Q, LH_K, LH_V, LH_OUT, LH_TENSOR_COUNT};
    static const lh_tensor_id optional[] = {LH_INDEX, LH_O_SEL, LH_LSE, LH_COVERAGE, LH_TENSOR_COUNT};
    static const lh_tensor_id backward[] = {LH_Q,   LH_K,  LH_V,  LH_DOUT, LH_INDEX,       LH_O_SEL,
                                            LH_LSE, LH_DQ, LH_DK, LH_DV,   LH_TENSOR_COUNT};
    refuse_whole(lh_forward, forward, true);
    refuse_whole(lh_forward, optional, false);
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    refuse_whole(lh_backward, backward, true);
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
}
END_TEST

START_TEST(stage_refuses_strides)
{
    const lh_stage stage = (lh_stage)_i;
    for (int write = 0; write < 2; write++) {
        const lh_tensor_id *ids = write ? lh_stage_writes(stage) : lh_stage_reads(stage);
        for (; *ids != LH_TENSOR_COUNT; ids++) {
            lh_tensor trace[LH_TENSOR_COUNT];
            char part[128];
            memcpy(trace, work.trace, sizeof trace);
            lh_tensor *tensor = &trace[*ids];
            tensor->stride[0] *= 2;
            if (!may_be_strided(*ids)) {
                snprintf(part, sizeof part, "%s is strided, wanted a contiguous tensor",
                         lh_tensor_name(*ids));
                expect_status(lh_run_stage(plan, stage, trace, &error), LH_INVALID, &error, part);
                continue;
            }
            tensor->stride[0] *= -1;
            snprintf(part, sizeof part, "%s has stride %lld in dimension 0, wanted at least 1",
                     lh_tensor_name(*ids), (long long)tensor->stride[0]);
            expect_status(lh_run_stage(plan, stage, trace, &error), LH_INVALID, &error, part);
            *tensor = work.trace[*ids];
            tensor->stride[3] = 2;
            snprintf(part, sizeof part, "%s has stride 2 in dimension 3, wanted 1", lh_tensor_name(*ids));
            expect_status(lh_run_stage(plan, stage, trace, &error), LH_INVALID, &error, part);
        }
    }
}
END_TEST

START_TEST(calls_refuse)
{
    expect_status(lh_run_stage(NULL, LH_POOL, work.trace, &error), LH_INVALID, &error, "plan is NULL");
    expect_status(lh_forward(NULL, work.trace, &error), LH_INVALID, &error, "plan is NULL");
    expect_status(lh_backward(NULL, work.trace, &error), LH_INVALID, &error, "plan is NULL");
    expect_status(lh_run_stage(plan, LH_POOL, NULL, &error), LH_INVALID, &error, "trace is NULL");
    expect_status(lh_forward(plan, NULL, &error), LH_INVALID, &error, "trace is NULL");
    expect_status(lh_backward(plan, NULL, &error), LH_INVALID, &error, "trace is NULL");
    expect_status(lh_run_stage(plan, LH_STAGE_COUNT, work.trace, &error), LH_INVALID, &error,
                  "stage is 9, wanted 0 to 8");
    expect_status(lh_run_stage(plan, (lh_stage)-1, work.trace, &error), LH_INVALID, &error, "stage is -1");
    ck_assert_int_eq(lh_forward(NULL, NULL, NULL), LH_INVALID);
    lh_plan_destroy(plan);
    lh_options o = options();
    o.backward = o.stages = false;
    make_plan(&o);
    expect_status(lh_run_stage(plan, LH_POOL, work.trace, &error), LH_INVALID, &error,
                  "options.stages false");
    expect_status(lh_backward(plan, work.trace, &error), LH_INVALID, &error, "options.backward false");
    lh_plan_destroy(plan);
    o.stages = true;
    make_plan(&o);
    expect_status(lh_run_stage(plan, LH_UNPOOL, work.trace, &error), LH_INVALID, &error,
                  "options.backward false, wanted true to run unpool");
}
END_TEST

/* An index that would address outside, twice or out of order never reaches a backend. */
START_TEST(index_refused)
{
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    int32_t *index = work.trace[LH_INDEX].data;
    const lh_stage readers[] = {LH_GATHER, LH_SCATTER, LH_SCATTER_BACKWARD, LH_UNPOOL};
    const int64_t at = 1 * 4 * 44 + 2 * 44 + 5; /* [1,2,5] */
    const int32_t right = index[at], wrong[] = {-1, 84, INT32_MIN, INT32_MAX, index[at - 1], index[at + 1]};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char part[64];
        index[at] = wrong[i];
        snprintf(part, sizeof part, "index[1,2,");
        for (size_t r = 0; r < sizeof readers / sizeof *readers; r++)
            expect_status(lh_run_stage(plan, readers[r], work.trace, &error), LH_INVALID, &error, part);
        expect_status(lh_backward(plan, work.trace, &error), LH_INVALID, &error, part);
    }
    index[at] = right;
    expect_status(lh_backward(plan, work.trace, &error), LH_OK, &error, "");
}
END_TEST

START_TEST(not_finite_refused)
{
    const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V};
    for (int i = 0; i < 3; i++) {
        const lh_tensor *t = &work.trace[ids[i]];
        const int64_t at = lh_offset(t, 1, 1, 37) + 5;
        const double right = lh_load(t->data, t->dtype, at);
        char part[64];
        lh_store(t->data, t->dtype, at, i == 1 ? -INFINITY : NAN);
        snprintf(part, sizeof part, "%s[1,1,37,5] is %s, wanted a finite value", lh_tensor_name(ids[i]),
                 i == 1 ? "-Inf" : "NaN");
        expect_status(lh_forward(plan, work.trace, &error), LH_INVALID, &error, part);
        lh_store(t->data, t->dtype, at, right);
    }
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    lh_store(work.trace[LH_DOUT].data, dtype, 0, INFINITY);
    expect_status(lh_backward(plan, work.trace, &error), LH_INVALID, &error, "dout[0,0,0,0] is Inf");
}
END_TEST

/* backward needs index, o_sel and lse: the caller's, or those of a forward that the plan kept. */
START_TEST(backward_needs_forward)
{
    lh_tensor bare[LH_TENSOR_COUNT];
    memcpy(bare, work.trace, sizeof bare);
    bare[LH_INDEX].data = bare[LH_O_SEL].data = bare[LH_LSE].data = bare[LH_COVERAGE].data = NULL;
    expect_status(lh_backward(plan, bare, &error), LH_INVALID, &error, "index is NULL");
    expect_status(lh_forward(plan, work.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, bare, &error), LH_INVALID, &error, "index is NULL");
    expect_status(lh_forward(plan, bare, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, bare, &error), LH_OK, &error, "");
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = plan_suite("plan", argc, argv);
    TCase *create = suite_case(suite, "create");
    tcase_add_test(create, create_refuses);
    tcase_add_test(create, create_too_large);
    TCase *calls = plan_case(suite, "calls");
    tcase_add_loop_test(calls, stage_refuses_tensors, 0, LH_STAGE_COUNT);
    tcase_add_loop_test(calls, stage_refuses_strides, 0, LH_STAGE_COUNT);
    tcase_add_test(calls, calls_refuse);
    tcase_add_test(calls, whole_calls_refuse_tensors);
    tcase_add_test(calls, index_refused);
    tcase_add_test(calls, not_finite_refused);
    tcase_add_test(calls, backward_needs_forward);
    return suite_run(suite);
}
