#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scalar/run.h"
#include "tests/plant.h"

static bool shown(enum plant_shape shape, lh_tensor_id id)
{
    static const lh_tensor_id run[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_OUT, LH_DQ, LH_DK, LH_DV};
    if (shape == PLANT_FULL || (shape == PLANT_FUSED && (id == LH_INDEX || id == LH_O_SEL || id == LH_LSE)))
        return true;
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        if (run[i] == id)
            return true;
    }
    return false;
}

static lh_status convert_all(const lh_tensor_id *ids, const verify_trace *to, const verify_trace *from,
                             lh_error *error)
{
    lh_status status = LH_OK;
    for (; *ids != LH_TENSOR_COUNT && status == LH_OK; ids++)
        status = lh_tensor_convert(&to->tensor[*ids], &from->tensor[*ids], error);
    return status;
}

/* The fault on what the dump holds so far, in binary64; its outputs as the dump stores them. */
static lh_status run_fault(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                           const struct planted *planted, const verify_trace *wide, lh_error *error)
{
    static const lh_tensor_id index[] = {LH_INDEX, LH_TENSOR_COUNT};
    lh_status status = convert_all(lh_stage_reads(fault->stage), wide, &planted->trace, error);
    if (status == LH_OK && fault->stage > LH_SELECT)
        status = convert_all(index, wide, &planted->trace, error);
    if (status == LH_OK)
        status = fault->run(fault, config, layout, wide->tensor, error);
    return status == LH_OK ? convert_all(lh_stage_writes(fault->stage), &planted->trace, wide, error)
                           : status;
}

static const lh_fault *fault_of(lh_stage stage, const lh_fault *const *faults, int count)
{
    for (int i = 0; i < count; i++) {
        if (faults[i]->stage == stage)
            return faults[i];
    }
    return NULL;
}

static lh_status fill(const verify_case *c, enum plant_shape shape, const lh_fault *const *faults, int count,
                      struct planted *planted, const verify_trace *wide, lh_error *error)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_TENSOR_COUNT};
    lh_layout layout;
    lh_status status = lh_config_check(&c->config, &layout, error);
    if (status == LH_OK)
        status = convert_all(inputs, &planted->trace, wide, error);
    for (int i = 0; i < 4; i++)
        planted->present[inputs[i]] = planted->trace.tensor[inputs[i]];
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        const lh_fault *fault = fault_of((lh_stage)s, faults, count);
        status = lh_ref_run(32, &c->config, LH_REF_STAGE(s), planted->trace.tensor, NULL, error);
        if (status == LH_OK && fault)
            status = run_fault(fault, &c->config, &layout, planted, wide, error);
        for (const lh_tensor_id *id = lh_stage_writes((lh_stage)s); *id != LH_TENSOR_COUNT; id++) {
            if (shown(shape, *id))
                planted->present[*id] = planted->trace.tensor[*id];
        }
        if (status == LH_OK && s == LH_SELECT && fault &&
            lh_index_check(&c->config, &layout, &planted->trace.tensor[LH_INDEX], NULL) != LH_OK)
            break;
    }
    return status;
}

lh_status plant(const verify_case *c, lh_dtype dtype, enum plant_shape shape, const lh_fault *const *faults,
                int count, struct planted *planted, lh_error *error)
{
    verify_trace wide = {0};
    memset(planted, 0, sizeof *planted);
    lh_status status = verify_make_all(&planted->trace, &c->config, dtype, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = verify_inputs(c, &wide, error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (!wide.tensor[id].data)
            status = verify_make(&wide, &c->config, LH_F64, (lh_tensor_id)id, VERIFY_PACKED, error);
    }
    if (status == LH_OK)
        status = fill(c, shape, faults, count, planted, &wide, error);
    verify_free(&wide);
    return status;
}

const verify_case *plant_case(const char *id)
{
    const verify_case *c;
    for (int i = 0; (c = verify_case_at(i)); i++) {
        if (strcmp(c->id, id) == 0)
            return c;
    }
    fprintf(stderr, "no case %s\n", id);
    abort();
}

bool plant_shows(const struct planted *planted, const struct planted *honest)
{
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        if (planted->present[id].data &&
            verify_first_difference(&planted->present[id], &honest->present[id]) >= 0)
            return true;
    }
    return false;
}
