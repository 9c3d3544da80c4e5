/*
 * The reference itself, held to what is not the reference: what upstream computed, the identities of SPEC 7,
 * values worked out by hand, and its own source in 113 bits.
 */
#include <stdio.h>
#include <string.h>

#include "scalar/run.h"
#include "verify/reference.h"

/* Upstream's selection is known to agree with exact arithmetic, so nothing excuses the reference where it chooses
 * otherwise: except u11, whose bf16 scores tie, and the f16 scores of u12 as they are stored. */
static void without_excuse(void *context, const verify_row *row)
{
    const verify_sink *sink = context;
    verify_row strict = *row;
    const unsigned bf16 = 1u << LH_BF16, f16 = 1u << LH_F16;
    const bool tied =
        row->subject->dtypes == bf16 || (row->subject->dtypes == f16 && strcmp(row->part, "layer") != 0);
    if (row->result.verdict == VERIFY_EXCUSED && !tied)
        strict.result.verdict = VERIFY_WRONG;
    sink->row(sink->context, &strict);
}

/* Upstream's tensors, judged as anybody's are: where they do not fit the reference, the reference is wrong. */
static lh_status judge_upstream(const struct verify_reference *reference, lh_error *error)
{
    verify_dump dump = {.subject = reference->subject, .name = "ref", .config = reference->subject->config};
    verify_sink strict = {without_excuse, reference->sink};
    verify_expect *e = NULL; /* stages, layer */
    lh_file *file = NULL;
    lh_status status = verify_upstream_open(reference->subject->id, &file, error);
    if (status != LH_OK)
        return status;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        const lh_tensor *found = lh_file_find(file, lh_tensor_name((lh_tensor_id)id));
        if (found)
            dump.present[id] = *found;
    }
    dump.dtype = dump.present[LH_Q].dtype;
    status = verify_expect_make(&e, 2, error);
    if (status == LH_OK)
        status = verify_judge_dump(&dump, &strict, &e[0], &e[1], error);
    verify_expect_unmake(e, 2);
    lh_file_free(file);
    return status;
}

/* 113 bits in software are slow, and the identities run the layer many times: only cases of at most so many
 * multiplications. */
static const double MOST_WORK = 1e6;

static double work(const lh_config *c, const lh_layout *layout)
{
    return (double)(c->batch * c->heads * c->dim) * (double)layout->selected * (double)layout->selected;
}

/* Each stage in 113 bits on the same inputs: binary64 must be within what binary64 rounds. */
static lh_status judge_wide(const struct verify_reference *reference, lh_error *error)
{
    const verify_expect *e = reference->trace;
    verify_trace wide = {0};
    lh_status status = verify_make_all(&wide, &e->config, LH_F64, VERIFY_PACKED, error);
    for (int s = 0; s < LH_STAGE_COUNT && status == LH_OK; s++) {
        lh_tensor trace[LH_TENSOR_COUNT];
        char part[48];
        memcpy(trace, e->given.tensor, sizeof trace);
        const lh_tensor_id *id = lh_stage_writes((lh_stage)s);
        for (; *id != LH_TENSOR_COUNT; id++)
            trace[*id] = wide.tensor[*id];
        status = lh_ref_run(113, &e->config, LH_REF_STAGE(s), trace, NULL, error);
        snprintf(part, sizeof part, "%s, 113 bits", lh_stage_name((lh_stage)s));
        for (id = lh_stage_writes((lh_stage)s); *id != LH_TENSOR_COUNT && status == LH_OK; id++)
            verify_reference_row(reference, part, *id,
                                 verify_compare(&e->want.tensor[*id], &wide.tensor[*id], e->allowed[*id]),
                                 "");
    }
    verify_free(&wide);
    return status;
}

lh_status verify_judge_reference(const verify_case *c, const verify_trace *inputs, verify_sink *sink,
                                 lh_error *error)
{
    verify_expect *trace;
    struct verify_reference reference = {.subject = c, .sink = sink};
    if (c->pattern == VERIFY_FILE)
        return judge_upstream(&reference, error);
    lh_status status = verify_expect_make(&trace, 1, error);
    if (status != LH_OK)
        return status;
    reference.trace = trace;
    status = verify_expect_stages(trace, &c->config, LH_F64, inputs, NULL, 0, error);
    if (status == LH_OK && c->hand)
        verify_reference_hand(&reference);
    if (status == LH_OK && c->config.tokens <= 1024)
        status = verify_reference_definition(&reference, error);
    const bool small = status == LH_OK && work(&c->config, &trace->layout) <= MOST_WORK;
    if (small && status == LH_OK)
        status = verify_reference_identities(&reference, error);
    if (small && status == LH_OK)
        status = judge_wide(&reference, error);
    verify_expect_unmake(trace, 1);
    return status;
}
