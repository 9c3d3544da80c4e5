/* Philox4x32-10 and what is drawn from it. */
#include "core/random.h"

void lh_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4])
{
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t a = UINT64_C(0xD2511F53) * c0;
        const uint64_t b = UINT64_C(0xCD9E8D57) * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double lh_random_uniform(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t words[4];
    lh_random_block(seed, stream, i / 4, words);
    return words[i % 4] * 0x1p-32;
}

double lh_random_gaussian(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t words[8];
    lh_random_block(seed, stream, 2 * i, words);
    lh_random_block(seed, stream, 2 * i + 1, words + 4);
    /* 20 high bits of each of 8 words, and 4 more integers out of the 12 low bits of two words each. */
    int32_t sum = -6 * ((1 << 20) - 1);
    for (int j = 0; j < 8; j++)
        sum += (int32_t)(words[j] >> 12);
    for (int j = 0; j < 8; j += 2)
        sum += (int32_t)((words[j] & 0xfff) << 8 | (words[j + 1] & 0xff));
    return sum * 0x1p-20;
}
