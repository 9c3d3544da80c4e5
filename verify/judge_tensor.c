/*
 * One tensor held to its allowances: the worst element, tiles of rows, rows, and a factor common to a head.
 *
 * Whatever passes by its worst element is looked at more closely. Tiles see small rows that are off by less than large
 * ones may be; a row by itself is held to be lost where it is off by half of itself or more though rounding could
 * do but a quarter; factors see what is small in every element and the same in all (factor.c); and sums in a half type
 * that are all too small were cut off.
 */
#include <math.h>
#include <stdio.h>

#include "verify/allow.h"
#include "verify/factor.h"

/* What a tensor is judged by: `also` (may be NULL) allows whatever it allows besides. */
struct judging {
    const verify_expect *e, *also;
    lh_tensor_id id;
    const lh_tensor *got, *want;
    verify_result *result;
    char *note;
    size_t room;
};

/* Either may be NULL where the other has bounds. */
static double allowed_in(const double *bounds, const double *also, int64_t i)
{
    return !bounds ? also[i] : also ? fmax(bounds[i], also[i]) : bounds[i];
}

static const double *direction_of(const struct judging *j, int direction)
{
    const double *along = verify_factor_direction(j->e, j->id, direction);
    return along || !j->also ? along : verify_factor_direction(j->also, j->id, direction);
}

/* The result becomes that of the worst element in [first, end). */
static void blame(const struct judging *j, int64_t first, int64_t end)
{
    verify_result *r = j->result;
    r->verdict = VERIFY_WRONG;
    r->error = 0;
    for (int64_t k = first; k < end; k++) {
        const double here = fabs(verify_element(j->got, k) - verify_element(j->want, k));
        if (here > r->error) {
            r->error = here;
            r->worst = k;
            r->got = verify_element(j->got, k);
            r->wanted = verify_element(j->want, k);
        }
    }
}

/* A result that passes by its worst element fails by the tile that is farthest beyond its allowance. */
static void judge_tiles(const struct judging *j)
{
    const struct verify_tiling g = verify_tiling_of(j->want, VERIFY_TILE);
    const double *also = j->also ? j->also->tile[j->id] : NULL;
    double worst = 0;
    for (int64_t i = 0; i < g.heads * g.tiles; i++) {
        int64_t first, end;
        verify_tile_range(&g, i, &first, &end);
        const double error = verify_tile_error(j->got, j->want, first, end),
                     share = error / allowed_in(j->e->tile[j->id], also, i);
        if (error == 0 || share <= fmax(worst, j->result->share))
            continue;
        worst = share;
        j->result->share = share;
        if (share <= 1)
            continue;
        blame(j, first, end);
        snprintf(j->note, j->room, "rows %lld to %lld of [%lld,%lld]: %.3g times what their own size allows",
                 (long long)(first / g.width % g.rows), (long long)((end - 1) / g.width % g.rows),
                 (long long)(i / g.tiles / j->want->shape[1]), (long long)(i / g.tiles % j->want->shape[1]),
                 share);
    }
}

/* The row that is lost by most: off by what it holds, where rounding is but a small part of that. */
static void judge_rows(const struct judging *j)
{
    static const double LOST = 0.5, SMALL = 0.25;
    const struct verify_tiling g = verify_tiling_of(j->want, 1);
    const double *also = j->also ? j->also->row[j->id] : NULL;
    /* Weights below binary32's normal numbers may be flushed to nothing, each of a row's. */
    const double vanishing = 0x1p-126 * (double)g.rows * j->e->size[j->id];
    double worst = 1;
    for (int64_t i = 0; i < g.heads * g.tiles; i++) {
        int64_t first, end;
        verify_tile_range(&g, i, &first, &end);
        double squares = 0;
        for (int64_t k = first; k < end; k++)
            squares += verify_element(j->want, k) * verify_element(j->want, k);
        const double size = sqrt(squares), allowed = allowed_in(j->e->row[j->id], also, i),
                     error = verify_tile_error(j->got, j->want, first, end);
        if (!(size > vanishing && allowed <= SMALL * size && error >= LOST * size && error > worst * allowed))
            continue;
        worst = error / allowed;
        j->result->share = worst;
        blame(j, first, end);
        snprintf(j->note, j->room,
                 "row %lld of [%lld,%lld] is off by %.3g times what it holds, rounding by %.2g",
                 (long long)(i % g.tiles), (long long)(i / g.tiles / j->want->shape[1]),
                 (long long)(i / g.tiles % j->want->shape[1]), error / size, allowed / size);
    }
}

/* The head whose error along a direction is farthest beyond what roundings add up to. */
static void judge_factors(const struct judging *j)
{
    const int64_t heads = j->want->shape[0] * j->want->shape[1], size = lh_tensor_elements(j->want) / heads;
    double worst = 0;
    for (int64_t i = 0; i < VERIFY_DIRECTIONS * heads; i++) {
        const int direction = (int)(i / heads);
        const int64_t head = i % heads, first = head * size;
        const double *along = direction_of(j, direction);
        double error = 0, whole = 0;
        for (int64_t k = 0; k < size; k++) {
            const double unit = along[first + k];
            error += (verify_element(j->got, first + k) - verify_element(j->want, first + k)) * unit;
            whole += unit * unit;
        }
        const double allowed = allowed_in(j->e->factor[j->id], j->also ? j->also->factor[j->id] : NULL, i),
                     share = fabs(error) / allowed;
        if (error == 0 || share <= fmax(worst, j->result->share))
            continue;
        worst = share;
        j->result->share = share;
        if (share <= 1)
            continue;
        blame(j, first, first + size);
        /* The gradient is what dP makes of it less what D does. */
        snprintf(j->note, j->room,
                 "%s of [%lld,%lld] is %.3g times what is wanted, rounding leaves 1 +- %.2g",
                 direction == VERIFY_ALL ? "all" : "the part of D", (long long)(head / j->want->shape[1]),
                 (long long)(head % j->want->shape[1]),
                 1 + (direction == VERIFY_ALL ? error : -error) / whole, allowed / whole);
    }
}

/* Sums of a few tokens, stored in a half type: rounding to nearest goes either way. Where it goes towards zero for so many
 * different values the bits behind were cut off. Zeros do not count: small numbers may be flushed. */
static void judge_cut(const struct judging *j)
{
    enum {
        ENOUGH = 64
    };
    double seen[ENOUGH];
    int count = 0;
    for (int64_t i = 0; i < lh_tensor_elements(j->want) && count < ENOUGH; i++) {
        const double got = fabs(verify_element(j->got, i)), want = fabs(verify_element(j->want, i));
        int k = 0;
        if (got > want)
            return;
        while (k < count && seen[k] != want)
            k++;
        if (got < want && got > 0 && k == count)
            seen[count++] = want;
    }
    if (count < ENOUGH)
        return;
    for (int64_t i = 0; i < lh_tensor_elements(j->want); i++) {
        if (fabs(verify_element(j->got, i)) > fabs(verify_element(j->want, i)))
            return;
    }
    blame(j, 0, lh_tensor_elements(j->want));
    snprintf(j->note, j->room, "no element is larger than what is wanted: cut off to %s, not rounded",
             lh_dtype_name(j->got->dtype));
}

/* Stages that add up a few tokens and multiply nothing. */
static bool only_adds(const verify_expect *e, lh_tensor_id id)
{
    static const lh_stage stages[] = {LH_POOL, LH_SCATTER, LH_SCATTER_BACKWARD, LH_UNPOOL};
    for (int i = 0; i < 4 && !e->whole; i++) {
        if (lh_listed(lh_stage_writes(stages[i]), id))
            return true;
    }
    return false;
}

static verify_result judge(const struct judging *j)
{
    verify_result *r = j->result;
    double allowed = j->e->allowed[j->id];
    if (j->also)
        allowed = fmax(allowed, j->also->allowed[j->id]);
    *r = verify_compare(j->got, j->want, allowed);
    j->note[0] = '\0';
    if (r->verdict == VERIFY_WITHIN && j->e->tile[j->id])
        judge_tiles(j);
    if (r->verdict == VERIFY_WITHIN && j->e->row[j->id])
        judge_rows(j);
    if (r->verdict == VERIFY_WITHIN && (j->e->factor[j->id] || (j->also && j->also->factor[j->id])))
        judge_factors(j);
    if (r->verdict == VERIFY_WITHIN && !j->also && only_adds(j->e, j->id) &&
        (j->got->dtype == LH_BF16 || j->got->dtype == LH_F16))
        judge_cut(j);
    if (j->id == LH_OUT && verify_passed(r->verdict)) {
        const int64_t at = verify_uncovered(j->got, &j->e->want.tensor[LH_COVERAGE]);
        if (at >= 0) {
            r->verdict = VERIFY_UNCOVERED;
            r->worst = at;
            r->got = verify_element(j->got, at);
            r->wanted = 0;
        }
    }
    return *r;
}

verify_result verify_judge_tensor(const verify_expect *e, lh_tensor_id id, const lh_tensor *got, char *note,
                                  size_t room)
{
    return verify_judge_either(e, NULL, id, got, note, room);
}

verify_result verify_judge_either(const verify_expect *e, const verify_expect *also, lh_tensor_id id,
                                  const lh_tensor *got, char *note, size_t room)
{
    verify_result result;
    return judge(&(struct judging){e, also, id, got, &e->want.tensor[id], &result, note, room});
}
