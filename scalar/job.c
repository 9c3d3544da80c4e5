/*
 * ref/ on tensors, compiled once for each REF_BITS: tensors are converted into the workspace, the stages run
 * there, and what they wrote is converted back.
 */
#include <string.h>

#include "core/arena.h"
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

/* The tensors that the stages touch and their scratch, in the workspace. */
struct frame {
    lh_tensor tensor[LH_TENSOR_COUNT];
    bool taken[LH_TENSOR_COUNT];
    struct ref_scratch scratch;
    carrier *carrier;
};

static void take_listed(struct frame *f, const lh_tensor_id *id, lh_arena *arena)
{
    for (; *id != LH_TENSOR_COUNT; id++) {
        lh_tensor *t = &f->tensor[*id];
        const bool integer = t->dtype == LH_I64 || t->dtype == LH_I32;
        if (!f->taken[*id])
            t->data = lh_arena_take(arena, (size_t)lh_tensor_elements(t),
                                    integer ? lh_dtype_size(t->dtype) : sizeof(real));
        f->taken[*id] = true;
    }
}

static void lay_out(struct frame *f, const lh_config *config, unsigned stages, lh_arena *arena)
{
    lh_layout layout;
    memset(f, 0, sizeof *f);
    (void)lh_config_check(config, &layout, NULL);
    layout.index_dtype = LH_I64;
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        lh_tensor_shape(config, &layout, carrier_dtype, (lh_tensor_id)id, &f->tensor[id]);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        if (stages & LH_REF_STAGE(stage)) {
            take_listed(f, lh_stage_reads((lh_stage)stage), arena);
            take_listed(f, lh_stage_writes((lh_stage)stage), arena);
        }
    }
    const size_t selected = (size_t)layout.selected, entries = (size_t)layout.entries;
    f->scratch.candidates = lh_arena_take(arena, selected, sizeof(struct ref_candidate));
    f->scratch.slot = lh_arena_take(arena, entries, sizeof(int64_t));
    f->scratch.row = lh_arena_take(arena, selected, sizeof(real));
    if (stages & LH_REF_STAGE(LH_UNPOOL))
        f->scratch.head = lh_arena_take(arena, (size_t)(config->tokens * config->dim), sizeof(real));
    const size_t rows = entries > selected ? entries : selected;
    f->carrier = lh_arena_take(arena, (size_t)(config->batch * config->heads) * rows * (size_t)config->dim,
                               sizeof(carrier));
}

size_t JOB_BYTES(const lh_config *config, unsigned stages)
{
    struct frame f;
    lh_arena counted = {NULL, 0};
    lay_out(&f, config, stages, &counted);
    return counted.used;
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

static struct ref_trace bind(const struct frame *f)
{
    return (struct ref_trace){
        .q = f->tensor[LH_Q].data,
        .k = f->tensor[LH_K].data,
        .v = f->tensor[LH_V].data,
        .q_pyr = f->tensor[LH_Q_PYR].data,
        .k_pyr = f->tensor[LH_K_PYR].data,
        .v_pyr = f->tensor[LH_V_PYR].data,
        .score_q = f->tensor[LH_SCORE_Q].data,
        .score_k = f->tensor[LH_SCORE_K].data,
        .index = f->tensor[LH_INDEX].data,
        .q_sel = f->tensor[LH_Q_SEL].data,
        .k_sel = f->tensor[LH_K_SEL].data,
        .v_sel = f->tensor[LH_V_SEL].data,
        .o_sel = f->tensor[LH_O_SEL].data,
        .lse = f->tensor[LH_LSE].data,
        .out = f->tensor[LH_OUT].data,
        .coverage = f->tensor[LH_COVERAGE].data,
        .dout = f->tensor[LH_DOUT].data,
        .do_sel = f->tensor[LH_DO_SEL].data,
        .dq_sel = f->tensor[LH_DQ_SEL].data,
        .dk_sel = f->tensor[LH_DK_SEL].data,
        .dv_sel = f->tensor[LH_DV_SEL].data,
        .dq = f->tensor[LH_DQ].data,
        .dk = f->tensor[LH_DK].data,
        .dv = f->tensor[LH_DV].data,
        .scratch = f->scratch,
    };
}

/* `known`: the tensors that the workspace already holds, a bit each. */
static lh_status run_stage(const struct lh_ref_job *job, const struct frame *f, const struct ref_trace *t,
                           lh_stage stage, unsigned *known, lh_error *error)
{
    const lh_config *c = job->config;
    const struct ref_shape shape = {c->batch,  c->heads, c->kv_heads, c->tokens,   c->dim,
                                    c->levels, c->pool,  c->topk,     c->tile_topk};
    lh_status status = LH_OK;
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (*known >> *id & 1)
            continue;
        status = load(&f->tensor[*id], f->carrier, &job->trace[*id], error);
        *known |= 1u << *id;
    }
    if (status == LH_OK)
        run[stage](&shape, t);
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        *known |= 1u << *id;
        if (!job->trace[*id].data)
            continue;
        const bool wanted = job->residual && job->residual[*id].data;
        status =
            store(&f->tensor[*id], f->carrier, &job->trace[*id], wanted ? &job->residual[*id] : NULL, error);
    }
    return status;
}

lh_status JOB_RUN(const struct lh_ref_job *job, lh_error *error)
{
    struct frame f;
    lay_out(&f, job->config, job->stages, &(lh_arena){job->workspace, 0});
    const struct ref_trace t = bind(&f);
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
