/*
 * random.h: counter-based random numbers, Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random
 * Numbers: As Easy as 1, 2, 3", SC 2011). Integer arithmetic only, so every machine draws the same values,
 * in any order, from any thread.
 */
#ifndef LH_RANDOM_H
#define LH_RANDOM_H

#include <stdint.h>

/* Block `counter` of 4 words. The key is the seed; the counter's upper half is the stream. */
void lh_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);

/* Draw i, uniform on [0,1), a multiple of 2^-32. */
double lh_random_uniform(uint64_t seed, uint64_t stream, uint64_t i);

/* Draw i: the centred sum of 12 uniform 20-bit integers, times 2^-20 (Irwin-Hall). Mean 0, variance
 * 1 - 2^-40, within ±6, exactly representable in binary32. */
double lh_random_gaussian(uint64_t seed, uint64_t stream, uint64_t i);

#endif
