/* Plans and the calls on them: every wrong argument is refused by name before any work, for any backend. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const lh_config config = {2, 4, 2, 48, 8, 3, 2, 8, 4};
static const char *backend;
static lh_dtype dtype;

static struct layer work;
static lh_plan *plan;
static lh_error error;

static lh_options options(void)
{
    return (lh_options){.backend = backend, .dtype = dtype, .backward = true, .stages = true, .finite = true};
}

static void make_plan(const lh_options *wanted)
{
    const lh_status status = lh_plan_create(&config, wanted, &plan, &error);
    expect_status(status, LH_OK, &error, "");
}

static void setup(void)
{
    const lh_options o = options();
    make_plan(&o);
    layer_create(&work, &config, dtype, 11);
}

static void teardown(void)
{
    lh_plan_destroy(plan);
    layer_free(&work);
    ck_assert_int_eq(lh_alloc_live(), 0);
}

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

static bool may_be_strided(lh_tensor_id id)
{
    return id == LH_Q || id == LH_K || id == LH_V || id == LH_OUT || id == LH_DOUT || id >= LH_DQ;
}

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

/* ---- results ------------------------------------------------------------------------------------ */

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
    char name[64];
    backend = backend_under_test(argc, argv);
    dtype = dtype_under_test(backend);
    snprintf(name, sizeof name, "plan %s", backend);
    Suite *suite = suite_create(name);
    TCase *create = suite_case(suite, "create");
    tcase_add_test(create, create_refuses);
    tcase_add_test(create, create_too_large);
    tcase_add_loop_test(create, workspace_is_bounded, 0, 3);
    TCase *calls = suite_case(suite, "calls");
    tcase_add_checked_fixture(calls, setup, teardown);
    tcase_add_test(calls, create_describes);
    tcase_add_loop_test(calls, stage_refuses_tensors, 0, LH_STAGE_COUNT);
    tcase_add_loop_test(calls, stage_refuses_strides, 0, LH_STAGE_COUNT);
    tcase_add_test(calls, calls_refuse);
    tcase_add_test(calls, whole_calls_refuse_tensors);
    tcase_add_test(calls, index_refused);
    tcase_add_test(calls, not_finite_refused);
    tcase_add_test(calls, backward_needs_forward);
    tcase_add_test(calls, strided_and_kept);
    tcase_add_test(calls, given_index);
    tcase_add_test(calls, given_scores);
    tcase_add_test(calls, lent_workspace);
    tcase_add_test(calls, kept_rows);
    tcase_add_test(calls, profile);
    return suite_run(suite);
}
