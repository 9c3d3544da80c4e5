/*
 * Attend, forward: causal softmax attention over S rows (SPEC 3.6) that keeps no S x S matrix.
 *
 *   q, k, v  ->  o[i] = sum over j <= i of softmax(q[i] . k[j] / sqrt(d)) v[j],   lse: [S]
 *
 * One piece of work is one tile of LH_OMP_TILE queries, cut into blocks with a query in each lane, so that
 * maximum and sum of a row are vector operations. Over the key tiles in rising order, per block:
 *
 *   S'[j][i] = k[j] . q[i]                         log2(e)/sqrt(d) S' is the exponent of 2
 *   m        = max(m, S'),   P'[j][i] = 2^(S' - m),   l = l 2^(m_old - m) + sum of P'
 *   O'[c][i] = O'[c][i] 2^(m_old - m) + sum over j of v[j][c] P'[j][i]
 *
 * Keys past a block's last query are skipped, those past its first are masked. Operands, per head:
 *
 *   k: [key_rows/GROUP][d][GROUP]   v: [key_rows/TILE][dim_group/GROUP][TILE][GROUP]
 *   q, of a tile: [TILE/BLOCK][d][BLOCK]
 */
#include "openmp/pack.h"
#include "openmp/product.h"

struct operands {
    float *k, *v;
};

static size_t head_floats(const struct lh_omp_sizes *z)
{
    return (size_t)z->key_rows * (size_t)(z->dim + z->dim_group);
}

size_t lh_omp_forward_floats(const struct lh_omp_sizes *z)
{
    return head_floats(z) * (size_t)(z->heads_window ? z->heads_window : z->heads_forward);
}

static struct operands operands_of(const struct lh_omp_sizes *z, float *memory, int64_t slot)
{
    float *k = memory + head_floats(z) * (size_t)slot;
    return (struct operands){.k = k, .v = k + z->key_rows * z->dim};
}

static void pack_key_rows(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head,
                          int64_t first, const struct operands *x, float *buffer)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const struct lh_omp_rows k = lh_omp_rows_of(plan, &job->k, head, LH_OMP_MEAN, job->index);
    const struct lh_omp_rows v = lh_omp_rows_of(plan, &job->v, head, LH_OMP_MEAN, job->index);
    const float *row[PACK_ROWS];
    pack_read(&k, first, PACK_ROWS, z->rows, buffer, row);
    for (int64_t r = 0; r < PACK_ROWS; r += GROUP)
        pack_lanes(row + r, GROUP, z->dim, x->k + (first + r) * z->dim);
    pack_read(&v, first, PACK_ROWS, z->rows, buffer, row);
    pack_columns(row, PACK_ROWS, z, first, 1, x->v);
}

/* What the threads share: heads [first, first + heads) of a job, query tiles [from, from + tiles) of each, and where the
 * heads' operands are. */
struct work {
    const struct lh_omp_attention *job;
    int64_t first, heads, from, tiles;
    float *memory;
};

static void pack_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const int64_t pieces = lh_omp_state(plan)->sizes.key_rows / PACK_ROWS;
    const struct operands x = operands_of(&lh_omp_state(plan)->sizes, work->memory, i / pieces);
    pack_key_rows(plan, work->job, work->first + i / pieces, i % pieces * PACK_ROWS, &x, scratch);
}

/* q: [TILE/BLOCK][d][BLOCK] <- queries of one tile; buffer: [BLOCK][d] scratch */
static void pack_query_tile(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head,
                            int64_t first, float *q, float *buffer)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const struct lh_omp_rows rows = lh_omp_rows_of(plan, &job->q, head, LH_OMP_MEAN, job->index);
    const float *row[BLOCK];
    for (int64_t r = 0; r < LH_OMP_TILE; r += BLOCK) {
        pack_read(&rows, first - job->first + r, BLOCK, z->rows - job->first, buffer, row);
        pack_lanes(row, BLOCK, z->dim, q + r * z->dim);
    }
}

/* S'[0...n)[:] = k q, n rounded up to whole groups; k: [n/GROUP][d][GROUP], q: [d][BLOCK], s: [n][BLOCK].
 * most: [VECTORS] = each lane's largest. */
static void logits(const float *k, const float *q, int64_t d, int64_t n, float *s, vfloat *most)
{
    vfloat largest[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        largest[v] = splat(-INFINITY);
    for (int64_t j = 0; j < n; j += GROUP)
        product(GROUP, VECTORS, PRODUCT_STORE_MOST, s + j * BLOCK, BLOCK, k + j * d, 1, GROUP, q, BLOCK, d,
                largest);
    for (int v = 0; v < VECTORS; v++)
        most[v] = largest[v];
}

/* O' += v P';  v: one key tile's groups of columns, p: [n][BLOCK], o: [dim_group][BLOCK] */
static void weigh(const float *v, const float *p, int64_t n, int64_t dim_group, vfloat *factor, float *o)
{
    for (int64_t c = 0; c < dim_group; c += GROUP)
        product(GROUP, VECTORS, PRODUCT_RESCALE, o + c * BLOCK, BLOCK, v + c * LH_OMP_TILE, 1, GROUP, p,
                BLOCK, n, factor);
}

/* Maximum (of the logits as they are) and sum of a block's rows so far. The maximum is subtracted before the scale is applied:
 * its own exponential is exactly 1 then, however large the logits are (SPEC 3.6). */
struct softmax {
    vfloat max[VECTORS], sum[VECTORS];
};

/* s: [n][BLOCK] logits; rows j > i + ahead are hidden from lane i. most: [VECTORS] = the largest of the others. */
static void hide(float *s, int64_t n, int64_t ahead, vfloat *most)
{
    const vint lanes = vector_lanes();
    for (int v = 0; v < VECTORS; v++) {
        most[v] = splat(-INFINITY);
        for (int64_t j = 0; j < n; j++) {
            vfloat *x = (vfloat *)(s + j * BLOCK + v * LANES);
            *x = vector_select(lanes + (int32_t)(v * LANES + ahead) >= (int32_t)j, *x, splat(-INFINITY));
            most[v] = vector_max(most[v], *x);
        }
    }
}

/* s: [n][BLOCK] logits, most: their maxima -> weights. factor: what O' shrinks by. */
static void exponentiate(float *s, int64_t n, float scale, const vfloat *most, struct softmax *row,
                         vfloat *factor)
{
    vfloat max[VECTORS], sum[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        max[v] = vector_max(row->max[v], most[v]);
        factor[v] = vector_exp2(row->max[v] - max[v], scale);
        row->max[v] = max[v];
        sum[v] = splat(0);
    }
    for (int64_t j = 0; j < n; j++) {
        for (int v = 0; v < VECTORS; v++) {
            vfloat *x = (vfloat *)(s + j * BLOCK + v * LANES);
            const vfloat weight = vector_exp2(*x - max[v], scale);
            *x = weight;
            sum[v] += weight;
        }
    }
    for (int v = 0; v < VECTORS; v++)
        row->sum[v] = row->sum[v] * factor[v] + sum[v];
}

/* o: [dim_group][BLOCK] sums of one block, divided here -> rows first ... of the outputs; rows: [BLOCK][d] scratch */
static void store_block(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head, int64_t first,
                        float *o, const struct softmax *softmax, float *rows)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    for (int64_t c = 0; c < z->dim; c++)
        for (int v = 0; v < VECTORS; v++)
            *(vfloat *)(o + c * BLOCK + v * LANES) /= softmax->sum[v];
    unpack_lanes(o, z->dim, rows);
    for (int64_t i = 0; i < BLOCK && first + i < z->rows; i++) {
        for (int k = 0; k < 2; k++) {
            const lh_tensor *to = &job->o[k];
            if (to->data)
                lh_omp_write_row(to->data, to->dtype,
                                 lh_omp_head_offset(plan, to, head) +
                                     (first - job->first + i) * to->stride[2],
                                 rows + i * z->dim, z->dim);
        }
        if (job->lse.data) {
            const float max = softmax->max[i / LANES][i % LANES], sum = softmax->sum[i / LANES][i % LANES];
            ((float *)job->lse.data)[head * job->lse.shape[2] + first - job->first + i] =
                (float)(max / sqrt((double)z->dim) + log((double)sum));
        }
    }
}

size_t lh_omp_forward_bytes(const struct lh_omp_sizes *z)
{
    return sizeof(float) *
           (LH_OMP_TILE * BLOCK + LH_OMP_TILE * (size_t)(z->dim_group + z->dim) + BLOCK * (size_t)z->dim);
}

/* One query tile: S', O' and q live in the thread's scratch. */
static void attend_tile(const lh_plan *plan, const struct lh_omp_attention *job, int64_t head, int64_t tile,
                        const struct operands *x, float *scratch)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const float scale = (float)(EXP2_STEPS * 1.4426950408889634 / sqrt((double)z->dim));
    float *s = scratch, *o = s + LH_OMP_TILE * BLOCK;
    float *q = o + LH_OMP_TILE * z->dim_group, *row = q + LH_OMP_TILE * z->dim;
    const int64_t first = tile * LH_OMP_TILE;
    const int64_t end = first + LH_OMP_TILE < z->rows ? first + LH_OMP_TILE : z->rows;
    struct softmax softmax[LH_OMP_TILE / BLOCK];
    pack_query_tile(plan, job, head, first, q, row);
    for (int b = 0; b < LH_OMP_TILE / BLOCK; b++) {
        for (int v = 0; v < VECTORS; v++) {
            softmax[b].max[v] = splat(-INFINITY);
            softmax[b].sum[v] = splat(0);
        }
    }
    memset(o, 0, sizeof *o * LH_OMP_TILE * (size_t)z->dim_group);
    for (int64_t key = 0; key < end; key += LH_OMP_TILE) {
        for (int b = 0; b < LH_OMP_TILE / BLOCK; b++) {
            const int64_t ahead = first + b * BLOCK - key; /* of the block's first query */
            const int64_t seen = ahead + BLOCK < LH_OMP_TILE ? ahead + BLOCK : LH_OMP_TILE;
            const int64_t n = (seen + GROUP - 1) / GROUP * GROUP;
            vfloat most[VECTORS], factor[VECTORS];
            if (seen <= 0)
                continue;
            logits(x->k + key * z->dim, q + b * BLOCK * z->dim, z->dim, n, s, most);
            if (ahead + 1 < n)
                hide(s, n, ahead, most);
            exponentiate(s, n, scale, most, &softmax[b], factor);
            weigh(x->v + key * z->dim_group, s, n, z->dim_group, factor, o + b * z->dim_group * BLOCK);
        }
    }
    for (int b = 0; b < LH_OMP_TILE / BLOCK; b++)
        store_block(plan, job, head, first + b * BLOCK, o + b * z->dim_group * BLOCK, &softmax[b], row);
}

/* Head after head, so that the threads read one head's keys while they are in the cache that they share; its long rows
 * first, so that no thread is left with one at the end. */
static void attend_piece(const lh_plan *plan, const void *job, int64_t i, void *scratch)
{
    const struct work *work = job;
    const int64_t head = i / work->tiles;
    const struct operands x = operands_of(&lh_omp_state(plan)->sizes, work->memory, head);
    attend_tile(plan, work->job, work->first + head, work->from + work->tiles - 1 - i % work->tiles, &x,
                scratch);
}

static void pack_keys(const lh_plan *plan, const struct work *work)
{
    lh_omp_for(plan, work->heads * (lh_omp_state(plan)->sizes.key_rows / PACK_ROWS), 4, pack_piece, work);
}

void lh_omp_attend(lh_plan *plan, const struct lh_omp_attention *job)
{
    const struct lh_omp_sizes *z = &lh_omp_state(plan)->sizes;
    const int64_t all = plan->config.batch * plan->config.heads;
    double since = lh_seconds();
    for (int64_t head = 0; head < all; head += z->heads_forward) {
        const struct work work = {.job = job,
                                  .first = head,
                                  .heads = lh_omp_least(all - head, z->heads_forward),
                                  .from = z->first_tile,
                                  .tiles = z->tiles - z->first_tile,
                                  .memory = lh_omp_state(plan)->pack};
        pack_keys(plan, &work);
        lh_omp_book(plan, LH_GATHER, &since);
        lh_omp_for(plan, work.heads * work.tiles, 1, attend_piece, &work);
        lh_omp_book(plan, LH_ATTEND, &since);
    }
}

void lh_omp_pack_keys(lh_plan *plan, const struct lh_omp_attention *job, float *memory)
{
    const struct work work = {.job = job, .heads = plan->config.batch * plan->config.heads, .memory = memory};
    pack_keys(plan, &work);
}

void lh_omp_attend_tiles(lh_plan *plan, const struct lh_omp_attention *job, float *memory, int64_t from,
                         int64_t tiles)
{
    const struct work work = {.job = job,
                              .heads = plan->config.batch * plan->config.heads,
                              .from = from,
                              .tiles = tiles,
                              .memory = memory};
    lh_omp_for(plan, work.heads * tiles, 1, attend_piece, &work);
}

lh_status lh_omp_stage_attend(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    (void)error;
    const struct lh_omp_attention job = {
        .q = trace[LH_Q_SEL],
        .k = trace[LH_K_SEL],
        .v = trace[LH_V_SEL],
        .o = {trace[LH_O_SEL]},
        .lse = trace[LH_LSE],
    };
    lh_omp_attend(plan, &job);
    return LH_OK;
}
