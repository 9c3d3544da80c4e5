/*
 * Expectations: the reference in binary64 over inputs that the port's dtype holds, and the twin beside it.
 *
 * Stage by stage, each stage is given its upstream tensors as the port stores them, so one early fault does
 * not drown the rest. End to end, the reference rounds nothing on the way and the twin rounds wherever the
 * port stores a tensor.
 */
#include <math.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "verify/allow.h"

static bool is_integer(lh_tensor_id id)
{
    return id == LH_INDEX || id == LH_COVERAGE;
}

/* What the twin stores in: the port's dtype, but binary32 holds all that binary32 computes. */
static lh_dtype twin_dtype(lh_dtype dtype)
{
    return dtype == LH_F64 ? LH_F32 : dtype;
}

static void round_to(lh_tensor *t, lh_dtype dtype)
{
    const int64_t elements = lh_tensor_elements(t);
    double *x = t->data;
    if (dtype == LH_F64)
        return;
    for (int64_t i = 0; i < elements; i++) {
        uint64_t cell = 0;
        lh_store(&cell, dtype, 0, x[i]);
        x[i] = lh_load(&cell, dtype, 0);
    }
}

static void copy(lh_tensor *dst, const lh_tensor *src)
{
    memcpy(dst->data, src->data, (size_t)lh_tensor_elements(src) * lh_dtype_size(src->dtype));
}

/* Reverses the features of every row: another order of every dot product, the same mathematics. */
static void reverse_features(lh_tensor *t)
{
    const int64_t d = t->shape[3], rows = t->rank == 4 ? lh_tensor_elements(t) / d : 0;
    const size_t size = lh_dtype_size(t->dtype);
    for (int64_t r = 0; r < rows; r++) {
        unsigned char *low = (unsigned char *)t->data + (size_t)(r * d) * size,
                      *high = low + (size_t)(d - 1) * size;
        for (; low < high; low += size, high -= size) {
            unsigned char element[8];
            memcpy(element, low, size);
            memcpy(low, high, size);
            memcpy(high, element, size);
        }
    }
}

/* A trace whose tensors of a stage are read from one trace and written to another. */
static void wire(lh_tensor *trace, lh_stage stage, const verify_trace *reads, const verify_trace *writes)
{
    memset(trace, 0, sizeof(lh_tensor) * LH_TENSOR_COUNT);
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT; id++)
        trace[*id] = reads->tensor[*id];
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
        trace[*id] = writes->tensor[*id];
}

static bool depends_on_feature_order(lh_stage stage)
{
    return stage == LH_ATTEND || stage == LH_ATTEND_BACKWARD;
}

/* What tf32 matrix units leave of their operands: 11 bits, the rest cut off, which is the worse of the two ways. */
static void cut_operands(lh_tensor *t)
{
    for (int64_t i = 0; i < lh_tensor_elements(t); i++) {
        int exponent;
        const double x = verify_element(t, i), m = frexp(x, &exponent);
        lh_store(t->data, t->dtype, i, ldexp(trunc(ldexp(m, 11)), exponent - 11));
    }
}

static bool is_operand(lh_tensor_id id)
{
    return id == LH_Q_SEL || id == LH_K_SEL || id == LH_V_SEL || id == LH_DO_SEL;
}

static lh_status measure_scores(verify_expect *e, lh_error *error)
{
    static const lh_tensor_id from[] = {LH_Q, LH_K}, to[] = {LH_SCORE_Q, LH_SCORE_K};
    lh_status status = LH_OK;
    for (int i = 0; i < 2 && status == LH_OK; i++) {
        double relative = 0;
        status = verify_twin_scores(&e->given.tensor[from[i]], &e->want.tensor[to[i]], twin_dtype(e->dtype),
                                    &e->twin[to[i]], &relative, error);
        relative = verify_in_own_unit(e, relative);
        e->twin[to[i]] = verify_in_own_unit(e, e->twin[to[i]]);
        e->score_rounding = fmax(e->score_rounding, verify_score_rounding(e->dtype, relative));
    }
    return status;
}

/* Runs the twin of one stage on `given`, with features reversed or not, and widens e->twin. */
static lh_status measure_stage(verify_expect *e, lh_stage stage, bool reversed, verify_trace *reads,
                               verify_trace *writes, lh_error *error)
{
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_status status = LH_OK;
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT; id++) {
        copy(&reads->tensor[*id], &e->given.tensor[*id]);
        if (reversed && !is_integer(*id))
            reverse_features(&reads->tensor[*id]);
        if ((e->habits & VERIFY_TF32) && is_operand(*id))
            cut_operands(&reads->tensor[*id]);
    }
    wire(trace, stage, reads, writes);
    status = lh_ref_run(32, &e->config, LH_REF_STAGE(stage), trace, NULL, error);
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor *twin = &writes->tensor[*id];
        if (is_integer(*id))
            continue;
        if (reversed)
            reverse_features(twin);
        status = verify_note_twin(e, *id, twin, error);
    }
    return status;
}

static lh_status start(verify_expect *e, const lh_config *config, lh_dtype dtype, const lh_tensor *present,
                       unsigned habits, bool whole, lh_error *error)
{
    memset(e, 0, sizeof *e);
    e->whole = whole;
    e->needed = verify_needed(present, habits / VERIFY_STAGE, whole);
    e->habits = habits;
    e->config = *config;
    e->dtype = dtype;
    lh_status status = lh_config_check(config, &e->layout, error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor t;
        lh_tensor_shape(config, &e->layout, dtype, (lh_tensor_id)id, &t);
        /* An lse that a dump does not show may be kept in its half type. */
        const bool unseen = present && id == LH_LSE;
        e->stored[id] = present && present[id].data ? present[id].dtype : unseen ? dtype : t.dtype;
    }
    if (status == LH_OK)
        status = verify_make_all(&e->given, config, LH_F64, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = verify_make_all(&e->want, config, LH_F64, VERIFY_PACKED, error);
    return status;
}

unsigned verify_needed(const lh_tensor *present, unsigned also, bool whole)
{
    unsigned needed = 0;
    if (!present)
        return LH_REF_ALL;
    for (int s = LH_STAGE_COUNT - 1; s >= 0; s--) {
        bool wanted = also & LH_REF_STAGE(s);
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)s); *id != LH_TENSOR_COUNT; id++) {
            wanted = wanted || present[*id].data;
            for (int later = s + 1; later < LH_STAGE_COUNT; later++)
                wanted = wanted || (needed & LH_REF_STAGE(later) && (whole || !present[*id].data) &&
                                    lh_listed(lh_stage_reads((lh_stage)later), *id));
        }
        needed |= wanted ? LH_REF_STAGE(s) : 0;
    }
    return needed;
}

static void take_inputs(verify_expect *e, const verify_trace *inputs)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        copy(&e->given.tensor[ids[i]], &inputs->tensor[ids[i]]);
        round_to(&e->given.tensor[ids[i]], e->dtype);
        copy(&e->want.tensor[ids[i]], &e->given.tensor[ids[i]]);
    }
}

/* What later stages are given of tensor id: the dump's where it has one that can be used, else what was wanted, as
 * stored. */
static lh_status hand_on(verify_expect *e, lh_tensor_id id, const lh_tensor *present, lh_error *error)
{
    const bool usable = id != LH_INDEX || !present || !present[id].data ||
                        lh_index_check(&e->config, &e->layout, &present[id], NULL) == LH_OK;
    if (present && present[id].data && usable)
        return lh_tensor_convert(&e->given.tensor[id], &present[id], error);
    copy(&e->given.tensor[id], &e->want.tensor[id]);
    if (!is_integer(id))
        round_to(&e->given.tensor[id], e->stored[id]);
    return LH_OK;
}

lh_status verify_expect_stages(verify_expect *e, const lh_config *config, lh_dtype dtype,
                               const verify_trace *inputs, const lh_tensor *present, unsigned habits,
                               lh_error *error)
{
    verify_trace reads = {0}, writes = {0};
    lh_status status = start(e, config, dtype, present, habits, false, error);
    if (status == LH_OK)
        status = verify_make_all(&reads, config, LH_F64, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = verify_make_all(&writes, config, twin_dtype(dtype), VERIFY_PACKED, error);
    if (status == LH_OK)
        take_inputs(e, inputs);
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        const lh_stage stage = (lh_stage)s;
        lh_tensor trace[LH_TENSOR_COUNT];
        if (!(e->needed & LH_REF_STAGE(s)))
            continue;
        wire(trace, stage, &e->given, &e->want);
        status = lh_ref_run(64, config, LH_REF_STAGE(stage), trace, NULL, error);
        const bool measured = stage != LH_SCORE && stage != LH_SELECT && stage != LH_GATHER;
        if (status == LH_OK && measured)
            status = measure_stage(e, stage, false, &reads, &writes, error);
        if (status == LH_OK && depends_on_feature_order(stage))
            status = measure_stage(e, stage, true, &reads, &writes, error);
        if (status == LH_OK && stage == LH_SCORE)
            status = measure_scores(e, error);
        if (status == LH_OK && stage != LH_SELECT && stage != LH_GATHER)
            status = verify_allow_stage(e, stage, trace, error);
        for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++)
            status = hand_on(e, *id, present, error);
    }
    verify_free(&reads);
    verify_free(&writes);
    return status;
}

/* The twin of the whole layer, stage by stage through tensors of the port's dtype. */
static lh_status measure_layer(verify_expect *e, bool reversed, verify_trace *twin, lh_error *error)
{
    static const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_INDEX};
    lh_status status = LH_OK;
    for (size_t i = 0; i < sizeof ids / sizeof *ids && status == LH_OK; i++) {
        status = lh_tensor_convert(&twin->tensor[ids[i]], &e->want.tensor[ids[i]], error);
        if (reversed)
            reverse_features(&twin->tensor[ids[i]]);
    }
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        if (s != LH_SELECT && e->needed & LH_REF_STAGE(s))
            status = lh_ref_run(32, &e->config, LH_REF_STAGE(s), twin->tensor, NULL, error);
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)s);
             *id != LH_TENSOR_COUNT && (e->habits & VERIFY_TF32); id++) {
            if (is_operand(*id))
                cut_operands(&twin->tensor[*id]);
        }
    }
    if (status != LH_OK)
        return status;
    for (int s = 0; s < LH_STAGE_COUNT; s++) {
        if (s == LH_SCORE || !(e->needed & LH_REF_STAGE(s)))
            continue;
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)s); *id != LH_TENSOR_COUNT && status == LH_OK;
             id++) {
            if (reversed && !is_integer(*id))
                reverse_features(&twin->tensor[*id]);
            if (!is_integer(*id))
                status = verify_note_twin(e, *id, &twin->tensor[*id], error);
        }
    }
    return status;
}

lh_status verify_expect_layer(verify_expect *e, const lh_config *config, lh_dtype dtype,
                              const verify_trace *inputs, const lh_tensor *present, unsigned habits,
                              lh_error *error)
{
    verify_trace twin = {0};
    const lh_tensor *index = NULL;
    lh_status status = start(e, config, dtype, present, habits, true, error);
    if (status == LH_OK)
        status = verify_make_all(&twin, config, twin_dtype(dtype), VERIFY_PACKED, error);
    if (status == LH_OK)
        take_inputs(e, inputs);
    if (status == LH_OK && present && present[LH_INDEX].data &&
        lh_index_check(config, &e->layout, &present[LH_INDEX], NULL) == LH_OK)
        index = &present[LH_INDEX];
    if (index)
        status = lh_tensor_convert(&e->want.tensor[LH_INDEX], index, error);
    if (status == LH_OK)
        status = lh_ref_run(64, config, index ? e->needed & ~LH_REF_STAGE(LH_SELECT) : e->needed,
                            e->want.tensor, NULL, error);
    if (status == LH_OK)
        status = measure_layer(e, false, &twin, error);
    if (status == LH_OK)
        status = measure_layer(e, true, &twin, error);
    if (status == LH_OK && e->needed & LH_REF_STAGE(LH_SCORE))
        status = measure_scores(e, error);
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        if (s != LH_SELECT && e->needed & LH_REF_STAGE(s))
            status = verify_allow_stage(e, (lh_stage)s, e->want.tensor, error);
    }
    verify_free(&twin);
    return status;
}

void verify_expect_free(verify_expect *e)
{
    verify_free(&e->given);
    verify_free(&e->want);
    verify_free(&e->stored_size);
    verify_free(&e->weighed_size);
    verify_free(&e->part_of_D);
    verify_free(&e->twin_error);
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        double **const bounds[] = {&e->tile[id], &e->row[id], &e->factor[id]};
        for (int i = 0; i < 3; i++) {
            lh_free(*bounds[i]);
            *bounds[i] = NULL;
        }
    }
}

lh_status verify_expect_make(verify_expect **e, int n, lh_error *error)
{
    const size_t bytes = (size_t)n * sizeof **e;
    const lh_status status = lh_alloc((void **)e, bytes, "what is expected", error);
    if (status == LH_OK)
        memset(*e, 0, bytes);
    return status;
}

void verify_expect_unmake(verify_expect *e, int n)
{
    for (int i = 0; e && i < n; i++)
        verify_expect_free(&e[i]);
    lh_free(e);
}
