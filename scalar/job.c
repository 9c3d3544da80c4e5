/*
 * ref/ on tensors, compiled once for each REF_BITS: tensors are converted into the workspace, the stages run
 * there, and what they wrote is converted back.
 */
#include <string.h>

#include "scalar/run.h"
#include "ref/ref.h"

#if REF_BITS == 64
#define JOB_BYTES lh_ref64_bytes
#define JOB_RUN lh_ref64_job
#elif REF_BITS == 32
#define JOB_BYTES lh_ref32_bytes
#define JOB_RUN lh_ref32_job
#else
#define JOB_BYTES lh_ref113_bytes
#define JOB_RUN lh_ref113_job
#endif

/* Tensors come and go through a buffer of this type: lh_tensor_convert knows no 113-bit one. */
#if REF_BITS == 32
typedef float carrier;
static const lh_dtype carrier_dtype = LH_F32;
#else
typedef double carrier;
static const lh_dtype carrier_dtype = LH_F64;
#endif

static void (*const run[LH_STAGE_COUNT])(const struct ref_shape *, const struct ref_trace *) = {
    [LH_POOL] = ref_layer_pool,
    [LH_SCORE] = ref_layer_score,
    [LH_SELECT] = ref_layer_select,
    [LH_GATHER] = ref_layer_gather,
    [LH_ATTEND] = ref_layer_attend,
    [LH_SCATTER] = ref_layer_scatter,
    [LH_SCATTER_BACKWARD] = ref_layer_scatter_backward,
    [LH_ATTEND_BACKWARD] = ref_layer_attend_backward,
    [LH_UNPOOL] = ref_layer_unpool,
};

/* Where each tensor and the scratch lie in the workspace. */
struct frame {
    lh_tensor tensor[LH_TENSOR_COUNT];
    size_t offset[LH_TENSOR_COUNT];
    size_t candidates, slot, row, head, carrier;
    size_t bytes;
};

static size_t reserve(struct frame *f, int64_t elements, size_t size)
{
    const size_t at = f->bytes, align = 64;
    if ((size_t)elements > (SIZE_MAX - align - at) / size)
        f->bytes = SIZE_MAX - align; /* stays there: every later reserve fails too */
    else
        f->bytes = (at + (size_t)elements * size + align - 1) / align * align;
    return at;
}

static size_t element_size(lh_dtype dtype)
{
    return dtype == LH_I64 || dtype == LH_I32 ? lh_dtype_size(dtype) : sizeof(real);
}

static void reserve_listed(struct frame *f, const lh_tensor_id *id)
{
    for (; *id != LH_TENSOR_COUNT; id++) {
        if (f->offset[*id] == SIZE_MAX)
            f->offset[*id] =
                reserve(f, lh_tensor_elements(&f->tensor[*id]), element_size(f->tensor[*id].dtype));
    }
}

static void lay_out(struct frame *f, const lh_config *config, unsigned stages)
{
    lh_layout layout;
    memset(f, 0, sizeof *f);
    (void)lh_config_check(config, &layout, NULL);
    layout.index_dtype = LH_I64;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor_shape(config, &layout, carrier_dtype, (lh_tensor_id)id, &f->tensor[id]);
        f->offset[id] = SIZE_MAX;
    }
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        if (stages & LH_REF_STAGE(stage)) {
            reserve_listed(f, lh_stage_reads((lh_stage)stage));
            reserve_listed(f, lh_stage_writes((lh_stage)stage));
        }
    }
    f->candidates = reserve(f, layout.selected, sizeof(struct ref_candidate));
    f->slot = reserve(f, layout.entries, sizeof(int64_t));
    f->row = reserve(f, layout.selected, sizeof(real));
    if (stages & LH_REF_STAGE(LH_UNPOOL))
        f->head = reserve(f, config->tokens * config->dim, sizeof(real));
    const int64_t rows = layout.entries > layout.selected ? layout.entries : layout.selected;
    f->carrier = reserve(f, config->batch * config->heads * rows * config->dim, sizeof(carrier));
}

size_t JOB_BYTES(const lh_config *config, unsigned stages)
{
    struct frame f;
    lay_out(&f, config, stages);
    return f.bytes;
}

/* Trace tensor -> workspace. `local` has the workspace's address and integer dtype, or the carrier's. */
static lh_status load(const lh_tensor *local, carrier *buffer, const lh_tensor *from, lh_error *error)
{
    lh_tensor through = *local;
    if (local->dtype != carrier_dtype)
        return lh_tensor_convert(local, from, error);
    through.data = buffer;
    const lh_status status = lh_tensor_convert(&through, from, error);
    const int64_t elements = status == LH_OK ? lh_tensor_elements(local) : 0;
    for (int64_t i = 0; i < elements; i++)
        ((real *)local->data)[i] = buffer[i];
    return status;
}

/* Workspace -> trace tensor and, where wanted, what rounding to the carrier left -> residual. */
static lh_status store(const lh_tensor *local, carrier *buffer, const lh_tensor *to,
                       const lh_tensor *residual, lh_error *error)
{
    lh_tensor through = *local;
    if (local->dtype != carrier_dtype)
        return lh_tensor_convert(to, local, error);
    through.data = buffer;
    const real *value = local->data;
    const int64_t elements = lh_tensor_elements(local);
    for (int64_t i = 0; i < elements; i++)
        buffer[i] = (carrier)value[i];
    lh_status status = lh_tensor_convert(to, &through, error);
    if (status != LH_OK || !residual)
        return status;
    for (int64_t i = 0; i < elements; i++)
        buffer[i] = (carrier)(value[i] - (real)buffer[i]);
    return lh_tensor_convert(residual, &through, error);
}

static struct ref_trace bind(const struct frame *f, char *workspace)
{
    void *at[LH_TENSOR_COUNT];
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        at[id] = f->offset[id] == SIZE_MAX ? NULL : workspace + f->offset[id];
    return (struct ref_trace){
        .q = at[LH_Q],
        .k = at[LH_K],
        .v = at[LH_V],
        .q_pyr = at[LH_Q_PYR],
        .k_pyr = at[LH_K_PYR],
        .v_pyr = at[LH_V_PYR],
        .score_q = at[LH_SCORE_Q],
        .score_k = at[LH_SCORE_K],
        .index = at[LH_INDEX],
        .q_sel = at[LH_Q_SEL],
        .k_sel = at[LH_K_SEL],
        .v_sel = at[LH_V_SEL],
        .o_sel = at[LH_O_SEL],
        .lse = at[LH_LSE],
        .out = at[LH_OUT],
        .coverage = at[LH_COVERAGE],
        .dout = at[LH_DOUT],
        .do_sel = at[LH_DO_SEL],
        .dq_sel = at[LH_DQ_SEL],
        .dk_sel = at[LH_DK_SEL],
        .dv_sel = at[LH_DV_SEL],
        .dq = at[LH_DQ],
        .dk = at[LH_DK],
        .dv = at[LH_DV],
        .scratch = {(void *)(workspace + f->candidates), (void *)(workspace + f->slot),
                    (void *)(workspace + f->row), (void *)(workspace + f->head)},
    };
}

/* `known`: the tensors that the workspace already holds, a bit each. */
static lh_status run_stage(const struct lh_ref_job *job, const struct frame *f, const struct ref_trace *t,
                           lh_stage stage, unsigned *known, lh_error *error)
{
    const lh_config *c = job->config;
    const struct ref_shape shape = {c->batch,  c->heads, c->kv_heads, c->tokens,   c->dim,
                                    c->levels, c->pool,  c->topk,     c->tile_topk};
    carrier *buffer = (void *)((char *)job->workspace + f->carrier);
    lh_status status = LH_OK;
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (*known >> *id & 1)
            continue;
        lh_tensor local = f->tensor[*id];
        local.data = (char *)job->workspace + f->offset[*id];
        status = load(&local, buffer, &job->trace[*id], error);
        *known |= 1u << *id;
    }
    if (status == LH_OK)
        run[stage](&shape, t);
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        *known |= 1u << *id;
        if (!job->trace[*id].data)
            continue;
        lh_tensor local = f->tensor[*id];
        local.data = (char *)job->workspace + f->offset[*id];
        const bool wanted = job->residual && job->residual[*id].data;
        status = store(&local, buffer, &job->trace[*id], wanted ? &job->residual[*id] : NULL, error);
    }
    return status;
}

lh_status JOB_RUN(const struct lh_ref_job *job, lh_error *error)
{
    struct frame f;
    lay_out(&f, job->config, job->stages);
    const struct ref_trace t = bind(&f, job->workspace);
    unsigned known = 0;
    lh_status status = LH_OK;
    for (int stage = 0; stage < LH_STAGE_COUNT && status == LH_OK; stage++) {
        if (!(job->stages & LH_REF_STAGE(stage)))
            continue;
        const double start = job->profile ? lh_seconds() : 0;
        status = run_stage(job, &f, &t, (lh_stage)stage, &known, error);
        if (job->profile)
            job->profile->seconds[stage] += lh_seconds() - start;
    }
    return status;
}
