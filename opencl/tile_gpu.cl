/*
 * tile_gpu.cl: for devices whose work-items run in lockstep: the two products of attention over tiles in local
 * memory, each work-item holding a block of the result in registers.
 *
 * -D ROWS, COLUMNS: a tile's own rows and the other rows it is held against, RM, RN: the
 * block of a work-item (1, 2 or a multiple of 4), KC: how much of the inner dimension is in local memory at a time, SLICE: columns of d
 * that a work-group sums. A work-group is ROWS/RM times 16 work-items and COLUMNS is 16 RN. Two barriers a step.
 */
#define LANES_X 16
#define LANES_Y (ROWS / RM)
#define ITEMS (LANES_X * LANES_Y)
#define PAD 4
#define ROWS_PITCH (ROWS + PAD)
#define COLUMNS_PITCH (COLUMNS + PAD)
#define RC (SLICE / LANES_X)

/* A constant for the dimensions that models have, -D DIM. */
#ifdef DIM
#define DIM_OF(shape) DIM
#else
#define DIM_OF(shape) ((shape).dim)
#endif

/* Local memory: step, the operands of one step or the maxima of the rows, KC (ROWS + COLUMNS + 2 PAD), KC SLICE or
 * LANES_X ROWS floats, whichever is most; weights [COLUMNS][ROWS_PITCH], a tile of them. They are arguments of a
 * kernel, not arrays in it, because PoCL 3.1 lets its threads share such an array. */

/* `count` floats of local memory, by fours where that many are held: they lie at multiples of four. */
static void get_floats(float *to, const local float *from, int count)
{
    int i = 0;
#pragma unroll
    for (; i + 4 <= count; i += 4) {
        const float4 quad = *(const local float4 *)(from + i);
        to[i] = quad.x;
        to[i + 1] = quad.y;
        to[i + 2] = quad.z;
        to[i + 3] = quad.w;
    }
#pragma unroll
    for (; i < count; i++)
        to[i] = from[i];
}

/* Four columns of a row of x [heads,S,d]; zero past its end and for rows that are not there. */
static float4 load_quad(const global store_t *x, long at, int column, int dim, bool there)
{
#if VEC == 4
    if (dim % 4 == 0)
#ifdef STORE_F32
        return there && column < dim ? *(const global float4 *)(x + at + column) : (float4)0;
#else
        return there && column < dim ? load_vector(x, at + column) : (float4)0;
#endif
#endif
    float4 value;
    value.x = there && column < dim ? load(x, at + column) : 0;
    value.y = there && column + 1 < dim ? load(x, at + column + 1) : 0;
    value.z = there && column + 2 < dim ? load(x, at + column + 2) : 0;
    value.w = there && column + 3 < dim ? load(x, at + column + 3) : 0;
    return value;
}

/* KC columns from `column` on of `count` rows, transposed: to[c][row]. */
static void stage_columns(local float *to, int count, const global store_t *x, long head_at, index_t row,
                          int column, int dim, index_t selected, int item)
{
    for (int i = item; i < count * (KC / 4); i += ITEMS) {
        const int r = i / (KC / 4), c = i % (KC / 4) * 4;
        const float4 value =
            load_quad(x, head_at + (long)(row + r) * dim, column + c, dim, row + r < selected);
        to[(c + 0) * (count + PAD) + r] = value.x;
        to[(c + 1) * (count + PAD) + r] = value.y;
        to[(c + 2) * (count + PAD) + r] = value.z;
        to[(c + 3) * (count + PAD) + r] = value.w;
    }
}

/* SLICE columns from `column` on of KC rows, as they are: to[row][c]. */
static void stage_rows(local float *to, const global store_t *x, long head_at, index_t row, int column,
                       int dim, index_t selected, int item)
{
    for (int i = item; i < KC * (SLICE / 4); i += ITEMS) {
        const int r = i / (SLICE / 4), c = i % (SLICE / 4) * 4;
        *(local float4 *)(to + r * SLICE + c) =
            load_quad(x, head_at + (long)(row + r) * dim, column + c, dim, row + r < selected);
    }
}

/* The work-item is read once, in the kernel, and handed on: Intel's CPU compiler loses get_local_id inside a called
 * function that holds a barrier. */

/* out[r][n] = sum_c own[own_row + r][c] * other[other_row + n][c]: the work-item's RM rows, RN columns. */
static void tile_dot(float out[RM][RN], const global store_t *own, index_t own_row,
                     const global store_t *other, index_t other_row, long head_at, int dim, index_t selected,
                     local float *step, int item)
{
    const int x = item % LANES_X, y = item / LANES_X;
    local float *a = step, *b = step + KC * ROWS_PITCH;
#pragma unroll
    for (int r = 0; r < RM; r++) {
#pragma unroll
        for (int n = 0; n < RN; n++)
            out[r][n] = 0;
    }
    for (int column = 0; column < dim; column += KC) {
        barrier(CLK_LOCAL_MEM_FENCE);
        stage_columns(a, ROWS, own, head_at, own_row, column, dim, selected, item);
        stage_columns(b, COLUMNS, other, head_at, other_row, column, dim, selected, item);
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int c = 0; c < KC; c++) {
            float left[RM], right[RN];
            get_floats(left, a + c * ROWS_PITCH + y * RM, RM);
            get_floats(right, b + c * COLUMNS_PITCH + x * RN, RN);
#pragma unroll
            for (int r = 0; r < RM; r++) {
#pragma unroll
                for (int n = 0; n < RN; n++)
                    out[r][n] = fma(left[r], right[n], out[r][n]);
            }
        }
    }
}

/* Column `i` of the RC that a work-item sums, from the slice's first: quads, LANES_X apart. */
static int slice_column(int i, int item)
{
    return (i / 4 * LANES_X + item % LANES_X) * 4 + i % 4;
}

/* out[r][i] += sum_n weights[n][r] * other[other_row + n][column + slice_column(i, item)] */
static void tile_apply(float out[RM][RC], const local float *weights, const global store_t *other,
                       index_t other_row, long head_at, int column, int dim, index_t selected,
                       local float *step, int item)
{
    const int y = item / LANES_X;
    for (int begin = 0; begin < COLUMNS; begin += KC) {
        barrier(CLK_LOCAL_MEM_FENCE);
        stage_rows(step, other, head_at, other_row + begin, column, dim, selected, item);
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int n = 0; n < KC; n++) {
            float left[RM], right[RC];
            get_floats(left, weights + (begin + n) * ROWS_PITCH + y * RM, RM);
#pragma unroll
            for (int i = 0; i < RC; i += 4)
                get_floats(right + i, step + n * SLICE + slice_column(i, item), 4);
#pragma unroll
            for (int r = 0; r < RM; r++) {
#pragma unroll
                for (int i = 0; i < RC; i++)
                    out[r][i] = fma(left[r], right[i], out[r][i]);
            }
        }
    }
}

/* A work-item's block of scores into the tile of weights. */
static void put_weights(local float *weights, float block[RM][RN], int item)
{
    const int x = item % LANES_X, y = item / LANES_X;
#pragma unroll
    for (int n = 0; n < RN; n++) {
#pragma unroll
        for (int r = 0; r < RM; r++)
            weights[(x * RN + n) * ROWS_PITCH + y * RM + r] = block[r][n];
    }
}

static void store_slice(float sums[RM][RC], float factor, global store_t *to, long head_at, index_t row,
                        int column, int dim, index_t selected, int item)
{
    const int y = item / LANES_X;
    for (int r = 0; r < RM; r++) {
        if (row + y * RM + r < selected) {
#pragma unroll
            for (int i = 0; i < RC; i++) {
                if (column + slice_column(i, item) < dim)
                    store(sums[r][i] * factor, to,
                          head_at + (long)(row + y * RM + r) * dim + column + slice_column(i, item));
            }
        }
    }
}

/* Which tile, head and slice a work-group has. Tiles with the longest walk come first. */
struct place {
    index_t row;
    long head, local_head;
    int column;
};

static struct place find_place(const struct shape *s, bool longest_is_last)
{
    const long group = get_group_id(0);
    const index_t tiles = (s->selected + ROWS - 1) / ROWS;
    const int slices = (DIM_OF(*s) + SLICE - 1) / SLICE;
    const index_t turn = group / (s->here * slices);
    struct place p;
    p.row = (longest_is_last ? tiles - 1 - turn : turn) * ROWS;
    p.local_head = group % s->here;
    p.head = s->sel_first + p.local_head;
    p.column = group / s->here % slices * SLICE;
    return p;
}
