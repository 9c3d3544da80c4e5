/*
 * The allowance of a tensor: for its worst element, for every tile of 64 rows, and for every row.
 *
 *   element   MULTIPLE * twin's largest error + FLOOR u size + weights' rounding * weighed size + FLOOR least
 *   tile      the same of root sums of squares over the tile; the twin's share is at least what its error on the
 *             whole tensor is of the whole size
 *   row       as a tile of one row; in half types, whose other roundings are nothing beside that of storage
 *
 * u is the roundoff of what the tensor, or an operand of its products, is stored in; sizes are those of the terms that
 * were added up (condition.c); least is the smallest number of that storage. One bound for the largest element of
 * a tensor lets small rows vanish unnoticed: the last rows of dv in a long sequence. The tiles see them.
 */
#include <math.h>
#include <string.h>

#include "verify/allow.h"
#include "verify/condition.h"
#include "verify/factor.h"

double verify_in_own_unit(const verify_expect *e, double error)
{
    return e->dtype == LH_F64 ? error * (0x1p-53 / 0x1p-24) : error;
}

struct verify_tiling verify_tiling_of(const lh_tensor *t, int64_t per)
{
    return (struct verify_tiling){t->shape[0] * t->shape[1], t->shape[2], t->rank == 4 ? t->shape[3] : 1, per,
                                  (t->shape[2] + per - 1) / per};
}

void verify_tile_range(const struct verify_tiling *g, int64_t i, int64_t *first, int64_t *end)
{
    const int64_t head = i / g->tiles, row = i % g->tiles * g->per;
    const int64_t last = row + g->per < g->rows ? row + g->per : g->rows;
    *first = (head * g->rows + row) * g->width;
    *end = (head * g->rows + last) * g->width;
}

double verify_tile_error(const lh_tensor *a, const lh_tensor *b, int64_t first, int64_t end)
{
    double squares = 0;
    for (int64_t i = first; i < end; i++) {
        const double error = verify_element(a, i) - verify_element(b, i);
        squares += error * error;
    }
    return isfinite(squares) ? sqrt(squares) : INFINITY;
}

static double tile_size(const lh_tensor *t, int64_t first, int64_t end)
{
    double squares = 0;
    for (int64_t i = first; i < end; i++)
        squares += ((const double *)t->data)[i] * ((const double *)t->data)[i];
    return sqrt(squares);
}

static lh_status make_bounds(double **bounds, const lh_tensor *t, int64_t per, lh_error *error)
{
    const struct verify_tiling g = verify_tiling_of(t, per);
    const size_t bytes = (size_t)(g.heads * g.tiles) * sizeof(double);
    if (*bounds)
        return LH_OK;
    const lh_status status = lh_alloc((void **)bounds, bytes, "allowances of tiles", error);
    if (status == LH_OK)
        memset(*bounds, 0, bytes);
    return status;
}

static lh_status make_tiles(verify_expect *e, lh_tensor_id id, lh_error *error)
{
    const lh_status status = make_bounds(&e->tile[id], &e->want.tensor[id], VERIFY_TILE, error);
    return status == LH_OK && verify_half(e) ? make_bounds(&e->row[id], &e->want.tensor[id], 1, error)
                                             : status;
}

static void note_errors(const verify_expect *e, double *bounds, const lh_tensor *twin, const lh_tensor *want,
                        int64_t per)
{
    const struct verify_tiling g = verify_tiling_of(want, per);
    for (int64_t i = 0; bounds && i < g.heads * g.tiles; i++) {
        int64_t first, end;
        verify_tile_range(&g, i, &first, &end);
        bounds[i] = fmax(bounds[i], verify_in_own_unit(e, verify_tile_error(twin, want, first, end)));
    }
}

lh_status verify_note_twin(verify_expect *e, lh_tensor_id id, const lh_tensor *twin, lh_error *error)
{
    const lh_tensor *want = &e->want.tensor[id];
    lh_status status = make_tiles(e, id, error);
    if (status == LH_OK)
        status = verify_factor_note(e, id, twin, error);
    if (status != LH_OK)
        return status;
    e->twin[id] = fmax(e->twin[id], verify_in_own_unit(e, verify_distance(twin, want)));
    note_errors(e, e->tile[id], twin, want, VERIFY_TILE);
    note_errors(e, e->row[id], twin, want, 1);
    return LH_OK;
}

static double largest(const lh_tensor *t)
{
    const int64_t elements = lh_tensor_elements(t);
    double most = 0;
    for (int64_t i = 0; i < elements; i++)
        most = fmax(most, fabs(verify_element(t, i)));
    return most;
}

static bool behind_attention(const verify_expect *e, lh_stage stage)
{
    return stage == LH_ATTEND || stage == LH_ATTEND_BACKWARD ||
           (e->whole && (stage == LH_SCATTER || stage == LH_UNPOOL));
}

/* The weights' own relative error. Backward recomputes P = exp(logit - lse) from an lse that was stored: P is off by
 * that rounding, relatively; the twin, whose lse and logits round alike, does not show it. Habits add to it where
 * products are taken. */
static double weights_rounding(const verify_expect *e, lh_stage stage, const lh_tensor *trace,
                               const verify_trace *stored)
{
    if (!behind_attention(e, stage))
        return 0;
    const bool recomputed = stage == LH_ATTEND_BACKWARD || stage == LH_UNPOOL;
    const double logit = stored->tensor[LH_LSE].data ? largest(&stored->tensor[LH_LSE]) : e->size[LH_LSE];
    return verify_habit_rounding(e, logit) +
           (recomputed ? verify_lse_rounding(e) * largest(&trace[LH_LSE]) : 0);
}

/* Sums kept in the storage type lose a unit at every step; their errors add up as a random walk. */
static double sums_rounding(const verify_expect *e, lh_stage stage)
{
    const int64_t terms = e->layout.window[e->config.levels - 1];
    if (!(e->habits & VERIFY_HALF_SUMS) || behind_attention(e, stage))
        return 0;
    return verify_roundoff(e->dtype) * (1 + sqrt((double)terms));
}

/* What the allowances of a tensor's tiles have in common. */
struct terms {
    const lh_tensor *size, *heavy;
    double u, least, weights;
    double relative; /* the twin's error on the whole tensor, of the whole size */
};

/* Turns the twin's errors in `bounds` into allowances. */
static void allow_tiles(double *bounds, int64_t per, const struct terms *t)
{
    const struct verify_tiling g = verify_tiling_of(t->size, per);
    for (int64_t i = 0; bounds && i < g.heads * g.tiles; i++) {
        int64_t first, end;
        verify_tile_range(&g, i, &first, &end);
        const double here = tile_size(t->size, first, end);
        bounds[i] = verify_allowance(fmax(bounds[i], t->relative * here), t->u, here,
                                     t->least * sqrt((double)(end - first))) +
                    t->weights * tile_size(t->heavy, first, end);
    }
}

static void allow(verify_expect *e, lh_stage stage, lh_tensor_id id, double weights,
                  const verify_trace *stored, const verify_trace *weighed)
{
    const lh_tensor *size = &stored->tensor[id];
    const struct verify_tiling g = verify_tiling_of(size, VERIFY_TILE);
    const bool product = (stage == LH_ATTEND && id == LH_O_SEL) || stage == LH_ATTEND_BACKWARD;
    const double all = tile_size(size, 0, lh_tensor_elements(size));
    const bool scores = stage == LH_SCORE;
    struct terms t = {.size = size,
                      .heavy = &weighed->tensor[id],
                      .u = fmax(verify_roundoff(e->stored[id]), product ? verify_roundoff(e->dtype) : 0),
                      .least = verify_least(e->stored[id]),
                      .weights = weights};
    double twin = 0;
    t.u += sums_rounding(e, stage) / 2;
    /* Errors of a long sum add up as a random walk, of which the twin is one: a floor for those it fell short of. */
    if (behind_attention(e, stage))
        t.u += verify_arithmetic(e->dtype) * sqrt((double)e->layout.selected) / 2;
    e->size[id] = largest(size);
    e->allowed[id] = verify_allowance(e->twin[id], t.u, e->size[id], t.least) + weights * largest(t.heavy);
    for (int64_t i = 0; i < g.heads * g.tiles && !scores; i++)
        twin = hypot(twin, e->tile[id][i]);
    t.relative = scores ? e->score_rounding / 4 : all > 0 ? twin / all : 0;
    allow_tiles(e->tile[id], VERIFY_TILE, &t);
    allow_tiles(e->row[id], 1, &t);
}

/* End to end, what attention's errors amount to goes on through scatter and un-pooling. */
static bool carries(const verify_expect *e, lh_stage stage)
{
    return e->whole && (stage == LH_ATTEND || stage == LH_ATTEND_BACKWARD);
}

static lh_status carry_on(verify_expect *e, lh_stage stage, const lh_tensor *trace, const verify_trace *sizes,
                          const verify_trace *to, lh_error *error)
{
    lh_tensor work[LH_TENSOR_COUNT];
    memcpy(work, trace, sizeof work);
    for (const lh_tensor_id *id = lh_stage_reads(stage); *id != LH_TENSOR_COUNT; id++) {
        if (sizes->tensor[*id].data)
            work[*id] = sizes->tensor[*id];
    }
    return verify_absolute(&e->config, stage, work, to, error);
}

static lh_status measure_sizes(verify_expect *e, lh_stage stage, const lh_tensor *trace, verify_trace *stored,
                               verify_trace *weighed, lh_error *error)
{
    const bool cut = e->habits & (VERIFY_TF32 | VERIFY_HALF_SUMS);
    const struct verify_coarse coarse = {
        verify_half(e) ? verify_least(e->dtype) / verify_roundoff(e->dtype) : 0, !verify_half(e) || cut};
    lh_status status = LH_OK;
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        status = verify_make(stored, &e->config, LH_F64, *id, VERIFY_PACKED, error);
        if (status == LH_OK)
            status = verify_make(weighed, &e->config, LH_F64, *id, VERIFY_PACKED, error);
        if (status == LH_OK && !verify_integer(e->want.tensor[*id].dtype))
            status = make_tiles(e, *id, error);
    }
    if (status != LH_OK)
        return status;
    if (!e->whole || (stage != LH_SCATTER && stage != LH_UNPOOL))
        return verify_condition(&e->config, &e->layout, stage, trace, &coarse, stored, weighed, error);
    status = carry_on(e, stage, trace, &e->stored_size, stored, error);
    return status == LH_OK ? carry_on(e, stage, trace, &e->weighed_size, weighed, error) : status;
}

lh_status verify_allow_stage(verify_expect *e, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    verify_trace own_stored = {0}, own_weighed = {0};
    verify_trace *stored = carries(e, stage) ? &e->stored_size : &own_stored,
                 *weighed = carries(e, stage) ? &e->weighed_size : &own_weighed;
    if (stage == LH_GATHER && !e->whole)
        return LH_OK;
    const lh_status status = measure_sizes(e, stage, trace, stored, weighed, error);
    const double weights = status == LH_OK ? expm1(weights_rounding(e, stage, trace, stored)) : 0;
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT && status == LH_OK; id++) {
        if (!verify_integer(e->want.tensor[*id].dtype))
            allow(e, stage, *id, weights, stored, weighed);
    }
    const bool gradients = stage == LH_ATTEND_BACKWARD || (stage == LH_UNPOOL && e->whole);
    const lh_status factors =
        status == LH_OK && gradients && verify_half(e) ? verify_factor_allow(e, stage, trace, error) : status;
    verify_free(&own_stored);
    verify_free(&own_weighed);
    return factors;
}
