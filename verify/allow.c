/*
 * The allowance of a tensor: for its worst element, and for every tile of 64 rows.
 *
 *   element   MULTIPLE * twin's largest error + FLOOR u size + weights' rounding * weighed size + FLOOR least
 *   tile      the same of root sums of squares over the tile; the twin's share is at least what its error on the
 *             whole tensor is of the whole size
 *
 * u is the roundoff of what the tensor, or an operand of its products, is stored in; sizes are those of the terms that
 * were added up (condition.c); least is the smallest number of that storage. One bound for the largest element of
 * a tensor lets small rows vanish unnoticed: the last rows of dv in a long sequence. The tiles see them.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "verify/allow.h"
#include "verify/condition.h"

double verify_in_own_unit(const verify_expect *e, double error)
{
    return e->dtype == LH_F64 ? error * (0x1p-53 / 0x1p-24) : error;
}

/* Rows of a tile, and elements of a row: features, or 1. */
struct tiling {
    int64_t heads, rows, width, tiles; /* tiles of a head */
};

static struct tiling tiling_of(const lh_tensor *t)
{
    return (struct tiling){t->shape[0] * t->shape[1], t->shape[2], t->rank == 4 ? t->shape[3] : 1,
                           (t->shape[2] + VERIFY_TILE - 1) / VERIFY_TILE};
}

/* First element of tile i, and one past its last, row-major. */
static void tile_range(const struct tiling *g, int64_t i, int64_t *first, int64_t *end)
{
    const int64_t head = i / g->tiles, row = i % g->tiles * VERIFY_TILE;
    const int64_t last = row + VERIFY_TILE < g->rows ? row + VERIFY_TILE : g->rows;
    *first = (head * g->rows + row) * g->width;
    *end = (head * g->rows + last) * g->width;
}

static double tile_error(const lh_tensor *a, const lh_tensor *b, int64_t first, int64_t end)
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

static lh_status make_tiles(verify_expect *e, lh_tensor_id id, lh_error *error)
{
    const struct tiling g = tiling_of(&e->want.tensor[id]);
    const size_t bytes = (size_t)(g.heads * g.tiles) * sizeof(double);
    if (e->tile[id])
        return LH_OK;
    const lh_status status = lh_alloc((void **)&e->tile[id], bytes, "allowances of tiles", error);
    if (status == LH_OK)
        memset(e->tile[id], 0, bytes);
    return status;
}

lh_status verify_note_twin(verify_expect *e, lh_tensor_id id, const lh_tensor *twin, lh_error *error)
{
    const lh_tensor *want = &e->want.tensor[id];
    const struct tiling g = tiling_of(want);
    const lh_status status = make_tiles(e, id, error);
    e->twin[id] = fmax(e->twin[id], verify_in_own_unit(e, verify_distance(twin, want)));
    for (int64_t i = 0; i < g.heads * g.tiles && status == LH_OK; i++) {
        int64_t first, end;
        tile_range(&g, i, &first, &end);
        e->tile[id][i] = fmax(e->tile[id][i], verify_in_own_unit(e, tile_error(twin, want, first, end)));
    }
    return status;
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
    const double u = verify_roundoff(e->dtype),
                 logit = stored->tensor[LH_LSE].data ? largest(&stored->tensor[LH_LSE]) : e->size[LH_LSE];
    double rounding = 0;
    if (!behind_attention(e, stage))
        return 0;
    if (stage == LH_ATTEND_BACKWARD || stage == LH_UNPOOL)
        rounding +=
            fmax(verify_arithmetic(e->dtype), verify_roundoff(e->stored[LH_LSE])) * largest(&trace[LH_LSE]);
    if (e->habits & VERIFY_TF32)
        rounding += 2 * 0x1p-10;
    if (e->habits & VERIFY_ROUNDED_LOGITS)
        rounding += 2 * u * fmax(logit, 1);
    if (e->habits & VERIFY_HALF_SUMS)
        rounding += u * (2 + sqrt((double)e->layout.selected));
    return rounding;
}

/* Sums kept in the storage type lose a unit at every step; their errors add up as a random walk. */
static double sums_rounding(const verify_expect *e, lh_stage stage)
{
    const int64_t terms = e->layout.window[e->config.levels - 1];
    if (!(e->habits & VERIFY_HALF_SUMS) || behind_attention(e, stage))
        return 0;
    return verify_roundoff(e->dtype) * (1 + sqrt((double)terms));
}

static double least_of(lh_dtype dtype)
{
    switch (dtype) {
    case LH_F32:
        return 0x1p-149;
    case LH_F16:
        return 0x1p-24;
    case LH_BF16:
        return 0x1p-133;
    default:
        return 0x1p-1074;
    }
}

static void allow(verify_expect *e, lh_stage stage, lh_tensor_id id, double weights,
                  const verify_trace *stored, const verify_trace *weighed)
{
    const lh_tensor *size = &stored->tensor[id], *heavy = &weighed->tensor[id];
    const struct tiling g = tiling_of(size);
    const bool product = (stage == LH_ATTEND && id == LH_O_SEL) || stage == LH_ATTEND_BACKWARD;
    double u = fmax(verify_roundoff(e->stored[id]), product ? verify_roundoff(e->dtype) : 0);
    const double least = least_of(e->stored[id]), all = tile_size(size, 0, lh_tensor_elements(size));
    const bool scores = stage == LH_SCORE;
    double twin = 0;
    u += sums_rounding(e, stage) / 2;
    /* Errors of a long sum add up as a random walk, of which the twin is one: a floor for those it fell short of. */
    if (behind_attention(e, stage))
        u += verify_arithmetic(e->dtype) * sqrt((double)e->layout.selected) / 2;
    e->size[id] = largest(size);
    e->allowed[id] = verify_allowance(e->twin[id], u, e->size[id], least) + weights * largest(heavy);
    for (int64_t i = 0; i < g.heads * g.tiles && !scores; i++)
        twin = hypot(twin, e->tile[id][i]);
    const double relative = scores ? e->score_rounding / 4 : all > 0 ? twin / all : 0;
    for (int64_t i = 0; i < g.heads * g.tiles; i++) {
        int64_t first, end;
        tile_range(&g, i, &first, &end);
        const double here = tile_size(size, first, end);
        e->tile[id][i] = verify_allowance(fmax(e->tile[id][i], relative * here), u, here,
                                          least * sqrt((double)(end - first))) +
                         weights * tile_size(heavy, first, end);
    }
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
    const double small = verify_arithmetic(e->dtype) < verify_roundoff(e->dtype)
                             ? least_of(e->dtype) / verify_roundoff(e->dtype)
                             : 0;
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
        return verify_condition(&e->config, &e->layout, stage, trace, small, stored, weighed, error);
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
    verify_free(&own_stored);
    verify_free(&own_weighed);
    return status;
}

/* A result that passes by its worst element fails by the tile that is farthest beyond its allowance. */
static void judge_tiles(const verify_expect *e, lh_tensor_id id, const lh_tensor *got, verify_result *r,
                        char *note, size_t room)
{
    const lh_tensor *want = &e->want.tensor[id];
    const struct tiling g = tiling_of(want);
    double worst = 0;
    for (int64_t i = 0; i < g.heads * g.tiles; i++) {
        int64_t first, end;
        tile_range(&g, i, &first, &end);
        const double error = tile_error(got, want, first, end), share = error / e->tile[id][i];
        if (error == 0 || share <= fmax(worst, r->share))
            continue;
        worst = share;
        r->share = share;
        if (share <= 1)
            continue;
        r->verdict = VERIFY_WRONG;
        r->error = 0;
        for (int64_t k = first; k < end; k++) {
            const double here = fabs(verify_element(got, k) - verify_element(want, k));
            if (here > r->error) {
                r->error = here;
                r->worst = k;
                r->got = verify_element(got, k);
                r->wanted = verify_element(want, k);
            }
        }
        snprintf(note, room, "rows %lld to %lld of [%lld,%lld]: %.3g times what their own size allows",
                 (long long)(first / g.width % g.rows), (long long)((end - 1) / g.width % g.rows),
                 (long long)(i / g.tiles / want->shape[1]), (long long)(i / g.tiles % want->shape[1]), share);
    }
}

verify_result verify_judge_tensor(const verify_expect *e, lh_tensor_id id, const lh_tensor *got, char *note,
                                  size_t room)
{
    verify_result r = verify_compare(got, &e->want.tensor[id], e->allowed[id]);
    note[0] = '\0';
    if (r.verdict == VERIFY_WITHIN && e->tile[id])
        judge_tiles(e, id, got, &r, note, room);
    if (id == LH_OUT && verify_passed(r.verdict)) {
        const int64_t at = verify_uncovered(got, &e->want.tensor[LH_COVERAGE]);
        if (at >= 0) {
            r.verdict = VERIFY_UNCOVERED;
            r.worst = at;
            r.got = verify_element(got, at);
            r.wanted = 0;
        }
    }
    return r;
}
