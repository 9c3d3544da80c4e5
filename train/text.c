/* Drawing windows of a text by counter. */
#include "train/text.h"

#include <string.h>

#include "core/base.h"
#include "core/random.h"

/* Streams of the counter-based generator; the weights use the low numbers (one a parameter). */
enum {
    STREAM_TEXT = 1 << 20,
    STREAM_KIND
};

void text_free(corpus *t)
{
    lh_free(t->bytes);
    memset(t, 0, sizeof *t);
}

void text_sample(const corpus *t, uint64_t seed, int64_t number, int64_t length, uint8_t *sequence)
{
    const double starts = (double)(t->train - length + 1);
    const int64_t start = (int64_t)(lh_random_uniform(seed, STREAM_TEXT, (uint64_t)number) * starts);
    memcpy(sequence, t->bytes + start, (size_t)length);
}

void text_held_out(const corpus *t, int64_t i, int64_t n, int64_t length, uint8_t *sequence)
{
    const double room = (double)(t->size - t->train - length);
    const int64_t start = n > 1 ? (int64_t)(room * (double)i / (double)(n - 1)) : 0;
    memcpy(sequence, t->bytes + t->train + start, (size_t)length);
}

void stream_sample(const corpus *t, uint64_t seed, double passkey, int64_t number, int64_t length,
                   uint8_t *sequence)
{
    if (lh_random_uniform(seed, STREAM_KIND, (uint64_t)number) < passkey)
        passkey_sample(seed, number, length, sequence);
    else
        text_sample(t, seed, number, length, sequence);
}
