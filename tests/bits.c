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
#include <string.h>

#include "sample.h"

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

static void run_case(const char *name, const struct ref_shape *shape, enum fill fill, uint64_t *state)
{
    struct sample sample = sample_new(shape);
    sample_fill(&sample, fill, state);
    ref_forward(shape, &sample.trace);
    ref_backward(shape, &sample.trace);

    const int64_t heads = shape->batch * shape->heads;
    uint64_t index = basis, coverage = basis;
    for (int64_t i = 0; i < heads * ref_selected(shape); i++)
        index = hash_integer(index, (uint64_t)sample.trace.index[i], 8);
    for (int64_t i = 0; i < heads * shape->tokens; i++)
        coverage = hash_integer(coverage, (uint64_t)sample.trace.coverage[i], 4);
    print(name, "index", index);
    print(name, "coverage", coverage);
    for (int i = 0; i < SAMPLE_TENSORS; i++) {
        uint64_t hash = basis;
        for (int64_t j = 0; j < sample.tensor[i].elements; j++)
            hash = hash_real(hash, sample.tensor[i].values[j]);
        print(name, sample.tensor[i].name, hash);
    }
    sample_free(&sample);
}

/* exp from where it is 0 to where it is infinite, log over every exponent. */
static void run_functions(uint64_t *state)
{
    const int many = REF_BITS == 113 ? 2000 : 20000;
    const real lowest = (real)(REAL_MIN_EXP - REAL_DIGITS), span = (real)REAL_MAX_EXP - lowest;
    uint64_t exps = basis, logs = basis;
    for (int i = 0; i < many; i++) {
        const int64_t first = sample_draw(state), second = sample_draw(state);
        const real uniform = (real)first / 1048576 + (real)second / 1099511627776;
        const real x = (lowest + uniform * span) * (real)0.6931471805599453;
        exps = hash_real(exps, ref_exp(i % 2 ? x : x / 1024));
        real y = 1 + uniform;
        for (int64_t e = sample_draw(state) % (2 * REAL_MAX_EXP) - REAL_MAX_EXP; e != 0; e += e < 0 ? 1 : -1)
            y *= e < 0 ? (real)0.5 : (real)2;
        if (y > 0 && y - y == 0)
            logs = hash_real(logs, ref_log(y));
    }
    print("functions", "exp", exps);
    print("functions", "log", logs);
}

int main(void)
{
    uint64_t state = 20260523;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_case(cases[i].name, &cases[i].shape, cases[i].fill, &state);
    run_functions(&state);
    return 0;
}
