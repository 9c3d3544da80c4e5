/*
 * attend_cpu.cl: causal softmax attention, forward (SPEC 3.6), one work-item per BM queries.
 *
 * q_sel [heads,S,d], k_sel packed by columns, v_sel packed by rows -> o_sel [heads,S,d], lse [heads,S]. A query stands
 * in each lane of a vector, so maximum and sum of a row are vector operations and no row is reduced across lanes:
 *
 *   scores[key][query] = k . q,   o[column][query] += sum over keys of v[key][column] weights[key][query]
 *
 * for blocks of QUERIES queries, NR vectors of them. Online softmax in base 2: k_sel is scaled by log2(e)/sqrt(d).
 * -D PANEL: MR, the keys or columns of a product; see panel_cpu.cl for the rest.
 */
#define QUERIES (NR * VEC)

/*
 * out[r][:] = out[r][:] * factor + sum_k a[k*MR + r] * b[k][:] for MR rows r of QUERIES lanes; the sum alone without a
 * factor. The rows of `a` are broadcast, b is streamed.
 */
static void multiply_queries(float *out, const vfloat *factor, const global float *a, const float *b,
                             int count)
{
    vfloat sum[MR][NR];
    UNROLL
    for (int r = 0; r < MR; r++) {
        UNROLL
        for (int n = 0; n < NR; n++)
            sum[r][n] = 0;
    }
    for (int k = 0; k < count; k++) {
        vfloat right[NR];
        UNROLL
        for (int n = 0; n < NR; n++)
            right[n] = *(const vfloat *)(b + k * QUERIES + n * VEC);
        UNROLL
        for (int r = 0; r < MR; r++) {
            const vfloat left = a[k * MR + r];
            UNROLL
            for (int n = 0; n < NR; n++)
                sum[r][n] = fma(left, right[n], sum[r][n]);
        }
    }
    UNROLL
    for (int r = 0; r < MR; r++) {
        UNROLL
        for (int n = 0; n < NR; n++) {
            vfloat *to = (vfloat *)(out + r * QUERIES + n * VEC);
            *to = factor ? fma(*to, factor[n], sum[r][n]) : sum[r][n];
        }
    }
}

/* One instruction, where fmax is three: a NaN is never larger. */
static vfloat larger(vfloat largest, vfloat x)
{
    return select(largest, x, x > largest);
}

/* Running maximum and sum of a block's queries. */
struct softmax {
    vfloat largest[NR], total[NR];
};

/* scores [count][QUERIES] -> weights. Query i sees keys up to i + ahead. factor: what the sums so far shrink by. */
static void soften(float *scores, int count, int ahead, struct softmax *s, vfloat *factor)
{
    union {
        vint all;
        int each[VEC];
    } lanes;
    for (int i = 0; i < VEC; i++)
        lanes.each[i] = i;
    for (int key = max(0, ahead + 1); key < count; key++) {
        UNROLL
        for (int n = 0; n < NR; n++) {
            vfloat *x = (vfloat *)(scores + key * QUERIES + n * VEC);
            *x = select((vfloat)-INFINITY, *x, lanes.all + (n * VEC + ahead) >= (vint)key);
        }
    }
    vfloat largest[NR], total[NR];
    UNROLL
    for (int n = 0; n < NR; n++)
        largest[n] = s->largest[n];
    for (int key = 0; key < count; key++) {
        UNROLL
        for (int n = 0; n < NR; n++)
            largest[n] = larger(largest[n], *(vfloat *)(scores + key * QUERIES + n * VEC));
    }
    UNROLL
    for (int n = 0; n < NR; n++) {
        factor[n] = exp2_vector(s->largest[n] - largest[n]);
        total[n] = 0;
    }
    for (int key = 0; key < count; key++) {
        UNROLL
        for (int n = 0; n < NR; n++) {
            vfloat *x = (vfloat *)(scores + key * QUERIES + n * VEC);
            *x = exp2_vector(*x - largest[n]);
            total[n] += *x;
        }
    }
    UNROLL
    for (int n = 0; n < NR; n++) {
        s->total[n] = fma(s->total[n], factor[n], total[n]);
        s->largest[n] = largest[n];
    }
}

/* q: [WIDTH][QUERIES] <- queries `row` on; zeros past the last row and the last column. */
static void read_queries(float *q, const global float *q_sel, long head, index_t row, index_t selected,
                         int dim)
{
    for (int i = 0; i < QUERIES; i += 4) {
        for (int c = 0; c < WIDTH; c += VEC) {
            union fours rows;
            for (int r = 0; r < 4; r++) {
                const long from = (head * selected + row + i + r) * dim + c;
                rows.row[r] = row + i + r < selected ? load_columns(q_sel, from, dim - c) : (vfloat)0;
            }
            for (int n = 0; n < VEC; n += 4) {
                float4 columns[4];
                transpose_part(&rows, n / 4, columns);
                for (int m = 0; m < 4; m++)
                    *(float4 *)(q + (c + n + m) * QUERIES + i) = columns[m];
            }
        }
    }
}

/* The natural logarithm of a normal x within 2 ulp, of sums and products alone: drivers' log2 differ in bits, and backward
 * hangs on lse. NaN for NaN, infinity for infinity. x = 2^e (1 + f), f in [sqrt(1/2) - 1, sqrt(2) - 1]; the polynomial is
 * that of Cephes' logf. */
static float natural_log(float x)
{
    if (!isfinite(x))
        return x;
    const int exponent = (as_int(x) - 0x3f3504f3) >> 23; /* 0x3f3504f3: sqrt(1/2) */
    const float e = exponent, f = as_float(as_int(x) - (exponent << 23)) - 1, square = f * f;
    float y = fma(7.0376836292e-2f, f, -1.1514610310e-1f);
    y = fma(y, f, 1.1676998740e-1f);
    y = fma(y, f, -1.2420140846e-1f);
    y = fma(y, f, 1.4249322787e-1f);
    y = fma(y, f, -1.6668057665e-1f);
    y = fma(y, f, 2.0000714765e-1f);
    y = fma(y, f, -2.4999993993e-1f);
    y = fma(y, f, 3.3333331174e-1f);
    y = fma(y * f, square, fma(square, -0.5f, f));
    /* ln 2 in two parts, of which the first times e is exact */
    return fma(e, 0.693359375f, fma(e, -2.12194440e-4f, y));
}

/* o: [WIDE][QUERIES] -> o_sel, lse */
static void write_queries(const float *o, const struct softmax *s, global float *o_sel, global float *lse,
                          long head, index_t row, index_t selected, int dim)
{
    const float *largest = (const float *)s->largest, *total = (const float *)s->total;
    for (int i = 0; i < QUERIES && row + i < selected; i++) {
        const long to = head * selected + row + i;
        for (int c = 0; c < dim; c++)
            o_sel[to * dim + c] = o[c * QUERIES + i] / total[i];
        lse[row + i] = fma(largest[i], M_LN2_F, natural_log(total[i]));
    }
}

/* q_sel, o_sel: from head `rows_first` on */
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attend_forward(const global float *q_sel, const global float *k_columns, const global float *v_rows,
               global float *o_sel, global float *lse, volatile global uint *turns, long rows_first,
               long padded_rows, const struct shape s)
{
    const index_t selected = s.selected, padded = padded_rows, tiles = (selected + BM - 1) / BM;
    /* Of a head the longest first. */
    const uint turn = next_turn(turns);
    const index_t row = (tiles - 1 - turn % tiles) * BM;
    const long local_head = turn / tiles;
    const long head = rows_first + local_head;
    const global float *k = k_columns + local_head * padded * WIDTH;
    const global float *v = v_rows + local_head * padded * WIDE;
    float q[BM * WIDTH] __attribute__((aligned(64)));
    float o[BM * WIDE] __attribute__((aligned(64)));
    float scores[BN * QUERIES] __attribute__((aligned(64)));
    struct softmax softmax[BM / QUERIES];
    lse += (s.sel_first + local_head) * selected;
    for (int b = 0; b < BM / QUERIES; b++) {
        read_queries(q + b * QUERIES * WIDTH, q_sel, head, row + b * QUERIES, selected, s.dim);
        for (int n = 0; n < NR; n++) {
            softmax[b].largest[n] = -INFINITY;
            softmax[b].total[n] = 0;
        }
    }
    for (int i = 0; i < BM * WIDE; i += VEC)
        *(vfloat *)(o + i) = 0;
    const index_t end = min(row + BM, selected);
    for (index_t key = 0; key < end; key += BN) {
        for (int b = 0; b < BM / QUERIES; b++) {
            const int ahead = min((index_t)BN, row + b * QUERIES - key); /* of the block's first query */
            const int count = min(BN, (ahead + QUERIES + MR - 1) / MR * MR);
            vfloat factor[NR];
            if (ahead + QUERIES <= 0)
                continue;
            for (int j = 0; j < count; j += MR)
                multiply_queries(scores + j * QUERIES, 0, k + (key + j) * WIDTH, q + b * QUERIES * WIDTH,
                                 WIDTH);
            soften(scores, count, ahead, &softmax[b], factor);
            for (int p = 0; p < WIDE_PANELS; p++)
                multiply_queries(o + (b * WIDE + p * MR) * QUERIES, factor, v + key * WIDE + p * BN * MR,
                                 scores, count);
        }
    }
    for (int b = 0; b < BM / QUERIES; b++)
        write_queries(o + b * QUERIES * WIDE, &softmax[b], o_sel, lse, head, row + b * QUERIES, selected,
                      s.dim);
}
