/* Stripe: the five products of one key tile and one query tile (SPEC 4), and the sums that dq is made of. */
#include "openmp/stripe.h"
#include "openmp/product.h"

static size_t stripe_rows(const struct lh_omp_sizes *z)
{
    return (size_t)(z->stripe_tiles * LH_OMP_TILE);
}

size_t lh_omp_stripe_floats(const struct lh_omp_sizes *z)
{
    return stripe_rows(z) * 2 * (size_t)(z->dim + z->dim_vector + 1);
}

size_t lh_omp_partial_floats(const struct lh_omp_sizes *z)
{
    return stripe_rows(z) * (size_t)z->dim_group;
}

struct lh_omp_stripe lh_omp_stripe_in(const struct lh_omp_sizes *z, float *memory)
{
    const size_t lanes = stripe_rows(z) * (size_t)z->dim, panels = stripe_rows(z) * (size_t)z->dim_vector;
    struct lh_omp_stripe x = {.q = memory, .dout = memory + lanes, .q_rows = memory + 2 * lanes};
    x.dout_rows = x.q_rows + panels;
    x.lse = x.dout_rows + panels;
    x.delta = x.lse + stripe_rows(z);
    return x;
}

/* delta: [BLOCK] = sum over c of dout[c] o[c], both [d][BLOCK]: the order that dP is summed in, so that what
 * cancels exactly in dP - D does so here too */
static void row_dots(const float *dout, const float *o, int64_t d, float *delta)
{
    for (int v = 0; v < VECTORS; v++) {
        vfloat sum = splat(0);
        for (int64_t c = 0; c < d; c++)
            sum += *(const vfloat *)(dout + c * BLOCK + v * LANES) *
                   *(const vfloat *)(o + c * BLOCK + v * LANES);
        *(vfloat *)(delta + v * LANES) = sum;
    }
}

/* A padded row weighs nothing. */
void lh_omp_pack_queries(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head, int64_t tile,
                         int64_t t, const struct lh_omp_stripe *x, float *buffer)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t d = z->dim, panels = t * LH_OMP_TILE * z->dim_vector;
    const lh_tensor *index = job->selected ? NULL : job->index;
    const struct lh_omp_rows q = lh_omp_rows_of(plan, &job->q, head, LH_OMP_MEAN, index);
    const struct lh_omp_rows dout = lh_omp_rows_of(plan, &job->dout, head, LH_OMP_SPREAD, job->index);
    const struct lh_omp_rows o = lh_omp_rows_of(plan, &job->o[0], head, LH_OMP_ROW, NULL);
    const float *lse = (const float *)job->lse.data + head * job->lse.shape[2];
    const int64_t end = z->rows - job->first;
    float *lanes = buffer + BLOCK * d;
    for (int64_t b = 0; b < LH_OMP_TILE; b += BLOCK) {
        const int64_t first = tile * LH_OMP_TILE + b - job->first, at = t * LH_OMP_TILE + b;
        const float *row[BLOCK];
        pack_read(&q, first, BLOCK, end, buffer, row);
        pack_lanes(row, BLOCK, d, x->q + at * d);
        pack_panels(row, BLOCK, z, b, pack_scale(z), x->q_rows + panels);
        pack_read(&dout, first, BLOCK, end, buffer, row);
        pack_lanes(row, BLOCK, d, x->dout + at * d);
        pack_panels(row, BLOCK, z, b, 1, x->dout_rows + panels);
        pack_read(&o, first, BLOCK, end, buffer, row);
        pack_lanes(row, BLOCK, d, lanes);
        row_dots(x->dout + at * d, lanes, d, x->delta + at);
        for (int64_t i = 0; i < BLOCK; i++)
            x->lse[at + i] = first + i < end ? lse[first + i] : INFINITY;
    }
}

/* s: [n][TILE] k q' -> P, dp: [n][TILE] v do' -> dS. Rows j > i + ahead are hidden from lane i. */
static void differentiate(float *s, float *dp, int64_t n, int64_t ahead, float scale, const float *lse,
                          const float *delta)
{
    const float log2e = (float)(EXP2_STEPS * 1.4426950408889634);
    const vint lanes = vector_lanes();
    const vfloat *shift = (const vfloat *)lse, *mean = (const vfloat *)delta;
    for (int64_t j = 0; j < n; j++) {
        for (int v = 0; v < VECTORS; v++) {
            vfloat *weight = (vfloat *)(s + j * LH_OMP_TILE + v * LANES);
            vfloat *gradient = (vfloat *)(dp + j * LH_OMP_TILE + v * LANES);
            /* No weight passes 1, though lse is rounded: logits of 1e9 leave it hundreds off. */
            vfloat p = vector_exp2(vector_min(splat(0), *weight * scale - shift[v]), log2e);
            vfloat ds = p * (*gradient - mean[v]);
            if (j > ahead) {
                const vint seen = lanes + (int32_t)(v * LANES + ahead) >= (int32_t)j;
                p = vector_select(seen, p, splat(0));
                ds = vector_select(seen, ds, splat(0));
            }
            *weight = p;
            *gradient = ds;
        }
    }
}

/* rows [0, n) of to: [n][BLOCK of LH_OMP_TILE] = x y; x: [n/GROUP][d][GROUP], y: [d][BLOCK] */
static void dots(const float *x, const float *y, int64_t d, int64_t n, float *to)
{
    for (int64_t j = 0; j < n; j += GROUP)
        product(GROUP, VECTORS, PRODUCT_STORE, to + j * LH_OMP_TILE, LH_OMP_TILE, x + j * d, 1, GROUP, y,
                BLOCK, d, NULL);
}

/*
 * Rows of dk or dv of one key tile: to[j] += sum over queries i >= j - ahead of a[j][i] rows[i].
 * a: [n][TILE], rows: a tile's panels. Panel by panel, so that one stays in the first-level cache.
 */
LH_OMP_INLINE void add_panel(int vectors, const float *a, const float *panel, int64_t n, int64_t ahead,
                             float *to, int64_t to_row)
{
    for (int64_t j = 0; j < n; j += KEY_GROUP) {
        const int64_t first = j > ahead ? j - ahead : 0;
        product(KEY_GROUP, vectors, PRODUCT_ADD, to + j * to_row, to_row, a + j * LH_OMP_TILE + first,
                LH_OMP_TILE, 1, panel + first * vectors * LANES, vectors * LANES, LH_OMP_TILE - first, NULL);
    }
}

static void add_rows(const struct lh_omp_sizes *z, const float *a, const float *rows, int64_t n,
                     int64_t ahead, float *to)
{
    const int64_t row = z->dim_vector;
    for (int64_t c = 0, i = 0, columns; (columns = panel_columns(z, i)) > 0; c += columns, i++) {
        const float *panel = rows + c * LH_OMP_TILE;
        if (columns == PANEL)
            add_panel(PANEL / LANES, a, panel, n, ahead, to + c, row);
        else if (columns == 3 * LANES)
            add_panel(3, a, panel, n, ahead, to + c, row);
        else if (columns == 2 * LANES)
            add_panel(2, a, panel, n, ahead, to + c, row);
        else
            add_panel(1, a, panel, n, ahead, to + c, row);
    }
}

/* dq: [dim_group][BLOCK] = or += k' dS, k: one tile's columns, ds: [n][BLOCK of TILE] */
LH_OMP_INLINE void dq_of(enum product_end end, const float *k, const float *ds, int64_t n, int64_t dim_group,
                         float *dq)
{
    for (int64_t c = 0; c < dim_group; c += GROUP)
        product(GROUP, VECTORS, end, dq + c * BLOCK, BLOCK, k + c * LH_OMP_TILE, 1, GROUP, ds, LH_OMP_TILE, n,
                NULL);
}

void lh_omp_pair(const struct lh_omp_sizes *z, const struct lh_omp_keys *keys, const struct lh_omp_stripe *x,
                 int64_t t, int64_t ahead, bool begins, float *partial, float *s, float *ds)
{
    const int64_t d = z->dim, rows = t * LH_OMP_TILE * z->dim_vector;
    const float scale = (float)(1 / sqrt((double)d));
    for (int64_t b = 0; b < LH_OMP_TILE; b += BLOCK) {
        const int64_t at = t * LH_OMP_TILE + b;
        const int64_t seen = ahead + b + BLOCK < LH_OMP_TILE ? ahead + b + BLOCK : LH_OMP_TILE;
        const int64_t n = (seen + GROUP - 1) / GROUP * GROUP;
        if (seen <= 0)
            continue;
        dots(keys->k, x->q + at * d, d, n, s + b);
        dots(keys->v, x->dout + at * d, d, n, ds + b);
        differentiate(s + b, ds + b, n, ahead + b, scale, x->lse + at, x->delta + at);
        if (begins)
            dq_of(PRODUCT_STORE, keys->k_columns, ds + b, n, z->dim_group, partial + at * z->dim_group);
        else
            dq_of(PRODUCT_ADD, keys->k_columns, ds + b, n, z->dim_group, partial + at * z->dim_group);
    }
    const int64_t seen = ahead + LH_OMP_TILE < LH_OMP_TILE ? ahead + LH_OMP_TILE : LH_OMP_TILE;
    add_rows(z, s, x->dout_rows + rows, seen, ahead, keys->dv);
    add_rows(z, ds, x->q_rows + rows, seen, ahead, keys->dk);
}

/* sum: [d][BLOCK] += part, one of the sums of a block */
static void add_partial(const float *restrict part, int64_t d, float *restrict sum)
{
    for (int64_t e = 0; e < d * BLOCK; e += LANES)
        *(vfloat *)(sum + e) += *(const vfloat *)(part + e);
}

/* Sum after sum, as they come from further away than the block that they are added to. */
void lh_omp_sum_partials(const struct lh_omp_sizes *z, const float *partial, int64_t parts, int64_t t,
                         float *sum, float *dq)
{
    for (int64_t b = 0; b < LH_OMP_TILE; b += BLOCK) {
        const float *part = partial + (t * LH_OMP_TILE + b) * z->dim_group;
        memset(sum, 0, sizeof *sum * (size_t)(z->dim * BLOCK));
        for (int64_t g = 0; g < parts; g++)
            add_partial(part + g * (int64_t)lh_omp_partial_floats(z), z->dim, sum);
        unpack_lanes(sum, z->dim, dq + b * z->dim);
    }
}
