/*
 * common.cl: what every stage shares: storage types, vectors of VEC floats, and addressing.
 *
 * Built in front of each program. -D options: STORE_F32, STORE_F16 or STORE_BF16 (what tensors are stored
 * as; arithmetic is float32), VEC (1, 4, 8 or 16), INDEX_64 when pyramid entries pass 2^31, WIDE_ACCESS where a
 * vector at a multiple of its size is worth an access of its own: vload and vstore are bound to know only an
 * element's alignment, and GPUs take them apart.
 */
#pragma OPENCL FP_CONTRACT ON

#define UNROLL _Pragma("unroll")
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

/* A pyramid entry, a token or a slot: every one of them is below P. */
#ifdef INDEX_64
typedef long index_t;
typedef ulong uindex_t;
#else
typedef int index_t;
typedef uint uindex_t;
#endif

#if VEC == 1
typedef float vfloat;
typedef int vint;
typedef uint vuint;
#define as_vfloat as_float
#define as_vint as_int
#else
typedef JOIN(float, VEC) vfloat;
typedef JOIN(int, VEC) vint;
typedef JOIN(uint, VEC) vuint;
#define as_vfloat JOIN(as_float, VEC)
#define as_vint JOIN(as_int, VEC)
#endif

/* Whether the vector at element i of a buffer is aligned as a whole: buffers themselves are. */
#ifdef WIDE_ACCESS
#define IS_WHOLE(i) (((i) & (VEC - 1)) == 0)
#else
#define IS_WHOLE(i) false
#endif

/* The plan and the chunk that a kernel works on: struct lh_cl_shape of opencl.h, the same bytes; every kernel's last
 * argument. */
struct shape {
    long tokens, entries, selected; /* N, P, S */
    long coarse, tiles, tile_coarse, tile_topk, pool;
    long sel_first; /* where the chunk's first head lies in the *_sel tensors, o_sel and lse */
    int levels, dim;
    int heads, kv_heads; /* H, G */
    int first, first_kv; /* of the chunk, counted over batches */
    int here, kv_here;   /* heads of the chunk */
    float scale;         /* 1 / sqrt(d) */
    int parts;           /* of dq, CPU body */
    long begin, end;     /* the segment: rows of long tensors that are in buffers */
};

/* Where levels and pooling factor are constants of a program, -D LEVELS and POOL, divisions are by a constant and a pull
 * holds its places in registers; else they are the plan's. */
#ifdef LEVELS
#define MOST_LEVELS LEVELS
#define LEVELS_OF(shape) LEVELS
#define POOL_OF(shape) POOL
#define UNROLL_LEVELS UNROLL
#else
#define MOST_LEVELS 62
#define LEVELS_OF(shape) ((shape).levels)
#define POOL_OF(shape) ((index_t)(shape).pool)
#define UNROLL_LEVELS
#endif

/* Storage: load and store one element, or VEC of them, at an element offset. LOOSE: VEC of them at no multiple of their size. */
#if defined STORE_F32

typedef float store_t;
#define LOAD_LOOSE(p) JOIN(vload, VEC)(0, p)
#define STORE_LOOSE(x, p) JOIN(vstore, VEC)(x, 0, p)
typedef vfloat vstore_t;

static float load(const global store_t *p, long i)
{
    return p[i];
}

static void store(float x, global store_t *p, long i)
{
    p[i] = x;
}

static vfloat widen(vstore_t x)
{
    return x;
}

static vstore_t narrow(vfloat x)
{
    return x;
}

#else /* 16 bits */

#if VEC == 1
typedef ushort vstore_t;
#define convert_vstore convert_ushort
#define convert_vuint convert_uint
#define as_vuint as_uint
#else
typedef JOIN(ushort, VEC) vstore_t;
#define convert_vstore JOIN(convert_ushort, VEC)
#define convert_vuint JOIN(convert_uint, VEC)
#define as_vuint JOIN(as_uint, VEC)
#endif

#if defined STORE_F16

typedef half store_t;
#define LOAD_LOOSE(p) JOIN(vload_half, VEC)(0, p)
#define STORE_LOOSE(x, p) JOIN(JOIN(vstore_half, VEC), _rte)(x, 0, p)

static float load(const global store_t *p, long i)
{
    return vload_half(0, p + i);
}

static void store(float x, global store_t *p, long i)
{
    vstore_half_rte(x, 0, p + i);
}

static vfloat widen(vstore_t x)
{
#if VEC == 1
    return vload_half(0, (const private half *)&x);
#else
    return JOIN(vload_half, VEC)(0, (const private half *)&x);
#endif
}

static vstore_t narrow(vfloat x)
{
    vstore_t narrowed;
#if VEC == 1
    vstore_half_rte(x, 0, (private half *)&narrowed);
#else
    JOIN(JOIN(vstore_half, VEC), _rte)(x, 0, (private half *)&narrowed);
#endif
    return narrowed;
}

#else /* STORE_BF16: the upper half of a float, rounded to nearest, ties to even */

typedef ushort store_t;
/* PoCL takes vload and vstore of shorts apart, and GPUs' compilers what is packed. */
#ifdef WIDE_ACCESS
#define LOAD_LOOSE(p) widen(JOIN(vload, VEC)(0, p))
#define STORE_LOOSE(x, p) JOIN(vstore, VEC)(narrow(x), 0, p)
#else
typedef struct __attribute__((packed)) {
    vstore_t all;
} loose_t;
#define LOAD_LOOSE(p) widen(((const global loose_t *)(p))->all)
#define STORE_LOOSE(x, p) ((global loose_t *)(p))->all = narrow(x)
#endif

static float load(const global store_t *p, long i)
{
    return as_float((uint)p[i] << 16);
}

static void store(float x, global store_t *p, long i)
{
    const uint bits = as_uint(x);
    p[i] = isnan(x) ? (ushort)(bits >> 16 | 0x40) : (ushort)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static vfloat widen(vstore_t x)
{
    return as_vfloat(convert_vuint(x) << 16);
}

static vstore_t narrow(vfloat x)
{
#if VEC == 1
    const uint bits = as_uint(x);
    return isnan(x) ? (ushort)(bits >> 16 | 0x40) : (ushort)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#else
    const vuint bits = as_vuint(x);
    const vuint number = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return convert_vstore(select(number, bits >> 16 | 0x40, isnan(x)));
#endif
}

#endif
#endif

/* VEC elements at a multiple of their size. NVIDIA's compiler takes a vector of eight 16-bit elements apart. */
static vfloat load_whole(const global store_t *p, long i)
{
#if VEC == 8 && !defined STORE_F32
    return widen(as_ushort8(*(const global uint4 *)(p + i)));
#else
    return widen(*(const global vstore_t *)(p + i));
#endif
}

static void store_whole(vfloat x, global store_t *p, long i)
{
#if VEC == 8 && !defined STORE_F32
    *(global uint4 *)(p + i) = as_uint4(narrow(x));
#else
    *(global vstore_t *)(p + i) = narrow(x);
#endif
}

static vfloat load_vector(const global store_t *p, long i)
{
#if VEC == 1
    return load(p, i);
#else
    if (IS_WHOLE(i))
        return load_whole(p, i);
    return LOAD_LOOSE(p + i);
#endif
}

static void store_vector(vfloat x, global store_t *p, long i)
{
#if VEC == 1
    store(x, p, i);
#else
    if (IS_WHOLE(i))
        store_whole(x, p, i);
    else
        STORE_LOOSE(x, p + i);
#endif
}

/* VEC columns of a row of which `left` remain; those past its end read as zero and are not stored. */
union columns {
    vfloat all;
    float each[VEC];
};

static vfloat load_columns(const global store_t *p, long i, int left)
{
    if (left >= VEC)
        return load_vector(p, i);
    union columns x;
    x.all = 0;
    for (int c = 0; c < left; c++)
        x.each[c] = load(p, i + c);
    return x.all;
}

static void store_columns(vfloat value, global store_t *p, long i, int left)
{
    if (left >= VEC) {
        store_vector(value, p, i);
        return;
    }
    union columns x;
    x.all = value;
    for (int c = 0; c < left; c++)
        store(x.each[c], p, i + c);
}

/* Whether each row of a tensor is of whole vectors, each at a multiple of its size, and rows are close enough for an int between two of them.
 * A kernel asks once and has a body for either answer: the test at each access takes registers, and places in the instruction cache. */
static bool has_whole_rows(long4 at, int dim)
{
#ifdef WIDE_ACCESS
    return ((at.x | at.y | at.z | at.w | dim) & (VEC - 1)) == 0 && at.w <= INT_MAX;
#else
    return false;
#endif
}

#define BODY static inline __attribute__((always_inline))

BODY vfloat load_of(bool whole, const global store_t *p, long i, int left)
{
    return whole ? load_whole(p, i) : load_columns(p, i, left);
}

BODY void store_of(bool whole, vfloat value, global store_t *p, long i, int left)
{
    if (whole)
        store_whole(value, p, i);
    else
        store_columns(value, p, i, left);
}

/* Where row i lies behind row 0. */
BODY long rows_on(bool whole, index_t i, long pitch)
{
    return whole ? i * (long)(int)pitch : i * pitch;
}

#if VEC >= 4
/* VEC columns of each of 4 rows, in fours. */
union fours {
    vfloat row[4];
    float4 part[4][VEC / 4];
};

/* Part i of the rows, each row in a lane. */
static void transpose_part(const union fours *rows, int i, float4 columns[4])
{
    const float4 a = rows->part[0][i], b = rows->part[1][i], c = rows->part[2][i], d = rows->part[3][i];
    columns[0] = (float4)(a.x, b.x, c.x, d.x);
    columns[1] = (float4)(a.y, b.y, c.y, d.y);
    columns[2] = (float4)(a.z, b.z, c.z, d.z);
    columns[3] = (float4)(a.w, b.w, c.w, d.w);
}
#endif

/* An entry's number in its level and the tokens it stands for. */
static index_t find_window(index_t entry, index_t tokens, index_t pool, index_t *width)
{
    index_t number = entry, size = tokens;
    *width = 1;
    while (number >= size) {
        number -= size;
        size /= pool;
        *width *= pool;
    }
    return number;
}
