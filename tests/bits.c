/*
 * Prints a hash of every tensor that ref/ computes on a few seeded cases, and of sweeps of its exp and log:
 *
 *   BITS CASE TENSOR HASH
 *
 * Leans on ref/ and the C library alone, so that bits-matrix.sh can build it with any compiler for any
 * machine. A hash is FNV-1a-64 over the values as little-endian binary64, a 113-bit value as three of them,
 * high to low.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../ref/ref.h"

enum fill {
    GAUSSIAN, /* nearly: the sum of four uniform integers */
    SHARP,    /* 32 times that: one weight takes all, exp underflows */
    TINY,     /* 2^-100 of that: flat softmax, in the twin subnormal products */
    TIES,     /* -1, 0 and 1 only */
};

static const struct {
    const char *name;
    struct ref_shape shape;
    enum fill fill;
} cases[] = {
    {"gaussian", {2, 2, 2, 48, 3, 3, 2, 8, 4}, GAUSSIAN},
    {"grouped", {1, 4, 2, 108, 5, 3, 3, 4, 2}, GAUSSIAN},
    {"dense", {1, 1, 1, 33, 7, 1, 2, 0, 0}, GAUSSIAN},
    {"deep", {1, 1, 1, 256, 16, 4, 2, 16, 8}, SHARP},
    {"flat", {1, 2, 1, 64, 4, 2, 4, 8, 4}, TINY},
    {"ties", {1, 1, 1, 96, 2, 3, 2, 16, 8}, TIES},
};

static uint64_t state;

static uint64_t next(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 44; /* 20 bits */
}

/* Exact in binary32. */
static real draw(enum fill fill)
{
    if (fill == TIES)
        return (real)((int)(next() % 3) - 1);
    int64_t sum = -2 * 1048576;
    for (int i = 0; i < 4; i++)
        sum += (int64_t)next();
    const real unit = (real)(0x1p-19 * (fill == SHARP ? 0x1p5 : fill == TINY ? 0x1p-100 : 1));
    return (real)sum * unit;
}

static uint64_t hash_integer(uint64_t hash, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        hash = (hash ^ (value >> 8 * i & 0xff)) * 0x100000001b3u;
    return hash;
}

static uint64_t hash_real(uint64_t hash, real value)
{
    /* A 113-bit value may lie outside the range of binary64: scaled into it, and the scaling hashed too. */
    const real far = (real)0x1p100;
    for (; REF_BITS == 113 && (value > far || value < -far) && value - value == 0; value /= far)
        hash = hash_integer(hash, 1, 1);
    for (; REF_BITS == 113 && value != 0 && value < 1 / far && value > -1 / far; value *= far)
        hash = hash_integer(hash, 2, 1);
    for (int part = 0; part < (REF_BITS == 113 ? 3 : 1); part++) {
        const double high = (double)value;
        uint64_t pattern;
        memcpy(&pattern, &high, sizeof pattern);
        hash = hash_integer(hash, pattern, 8);
        value = high - high == 0 ? value - (real)high : 0; /* an infinity has no rest */
    }
    return hash;
}

static const uint64_t basis = 0xcbf29ce484222325u;

static void print(const char *name, const char *tensor, uint64_t hash)
{
    printf("%d %s %s %016" PRIx64 "\n", REF_BITS, name, tensor, hash);
}

static void print_reals(const char *name, const char *tensor, const real *x, int64_t n)
{
    uint64_t hash = basis;
    for (int64_t i = 0; i < n; i++)
        hash = hash_real(hash, x[i]);
    print(name, tensor, hash);
}

static void *take(int64_t elements, size_t size)
{
    void *memory = malloc((size_t)elements * size);
    if (!memory) {
        fprintf(stderr, "bits: %" PRId64 " elements could not be had\n", elements);
        exit(2);
    }
    return memory;
}

static void run_case(const char *name, const struct ref_shape *s, enum fill fill)
{
    const int64_t bh = s->batch * s->heads, bg = s->batch * s->kv_heads, d = s->dim;
    const int64_t n = s->tokens, entries = ref_entries(s), selected = ref_selected(s);
    struct ref_trace t;
    const struct {
        const char *name;
        real **at;
        int64_t elements;
    } tensors[] = {
        {"q", &t.q, bh * n * d},
        {"k", &t.k, bg * n * d},
        {"v", &t.v, bg * n * d},
        {"dout", &t.dout, bh * n * d}, /* the first four are inputs */
        {"q_pyr", &t.q_pyr, bh * entries * d},
        {"k_pyr", &t.k_pyr, bg * entries * d},
        {"v_pyr", &t.v_pyr, bg * entries * d},
        {"score_q", &t.score_q, bh * entries},
        {"score_k", &t.score_k, bg * entries},
        {"q_sel", &t.q_sel, bh * selected * d},
        {"k_sel", &t.k_sel, bh * selected * d},
        {"v_sel", &t.v_sel, bh * selected * d},
        {"o_sel", &t.o_sel, bh * selected * d},
        {"lse", &t.lse, bh * selected},
        {"out", &t.out, bh * n * d},
        {"do_sel", &t.do_sel, bh * selected * d},
        {"dq_sel", &t.dq_sel, bh * selected * d},
        {"dk_sel", &t.dk_sel, bh * selected * d},
        {"dv_sel", &t.dv_sel, bh * selected * d},
        {"dq", &t.dq, bh * n * d},
        {"dk", &t.dk, bg * n * d},
        {"dv", &t.dv, bg * n * d},
    };
    const int count = sizeof tensors / sizeof *tensors;
    for (int i = 0; i < count; i++)
        *tensors[i].at = take(tensors[i].elements, sizeof(real));
    t.index = take(bh * selected, sizeof *t.index);
    t.coverage = take(bh * n, sizeof *t.coverage);
    t.candidates = take(selected, sizeof *t.candidates);
    t.slot = take(entries, sizeof *t.slot);
    t.row = take(selected, sizeof *t.row);
    t.head = take(n * d, sizeof *t.head);

    for (int i = 0; i < 4; i++)
        for (int64_t j = 0; j < tensors[i].elements; j++)
            (*tensors[i].at)[j] = draw(fill);
    ref_forward(s, &t);
    ref_backward(s, &t);

    uint64_t index = basis, coverage = basis;
    for (int64_t i = 0; i < bh * selected; i++)
        index = hash_integer(index, (uint64_t)t.index[i], 8);
    for (int64_t i = 0; i < bh * n; i++)
        coverage = hash_integer(coverage, (uint64_t)t.coverage[i], 4);
    print(name, "index", index);
    print(name, "coverage", coverage);
    for (int i = 0; i < count; i++) {
        print_reals(name, tensors[i].name, *tensors[i].at, tensors[i].elements);
        free(*tensors[i].at);
    }
    void *rest[] = {t.index, t.coverage, t.candidates, t.slot, t.row, t.head};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        free(rest[i]);
}

/* exp from where it is 0 to where it is infinite, log over every exponent. */
static void run_functions(void)
{
    const int many = REF_BITS == 113 ? 2000 : 20000;
    const real lowest = (real)(REAL_MIN_EXP - REAL_DIGITS), span = (real)REAL_MAX_EXP - lowest;
    uint64_t exps = basis, logs = basis;
    for (int i = 0; i < many; i++) {
        const int64_t first = (int64_t)next(), second = (int64_t)next();
        const real uniform = (real)first / 1048576 + (real)second / 1099511627776;
        const real x = (lowest + uniform * span) * (real)0.6931471805599453;
        exps = hash_real(exps, ref_exp(i % 2 ? x : x / 1024));
        real y = 1 + uniform;
        for (int64_t e = (int64_t)next() % (2 * REAL_MAX_EXP) - REAL_MAX_EXP; e != 0; e += e < 0 ? 1 : -1)
            y *= e < 0 ? (real)0.5 : (real)2;
        if (y > 0 && y - y == 0)
            logs = hash_real(logs, ref_log(y));
    }
    print("functions", "exp", exps);
    print("functions", "log", logs);
}

int main(void)
{
    state = 20260523;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_case(cases[i].name, &cases[i].shape, cases[i].fill);
    run_functions();
    return 0;
}
