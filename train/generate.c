/* Generation under dense attention, a byte at a time. */
#include <math.h>
#include <string.h>

#include "core/base.h"
#include "core/random.h"
#include "train/evaluate.h"

enum {
    STREAM_GENERATE = 1 << 22
};

/* The byte at which the running sum of softmax(logits / temperature) passes `draw`. */
static uint8_t choose(const real *logits, double temperature, double draw)
{
    double highest = logits[0], sum = 0, weight[BYTES];
    int best = 0;
    for (int i = 1; i < BYTES; i++)
        if ((double)logits[i] > highest) {
            highest = logits[i];
            best = i;
        }
    if (temperature <= 0)
        return (uint8_t)best;
    for (int i = 0; i < BYTES; i++)
        sum += weight[i] = exp(((double)logits[i] - highest) / temperature);
    double left = draw * sum;
    for (int i = 0; i < BYTES; i++) {
        left -= weight[i];
        if (left < 0)
            return (uint8_t)i;
    }
    return (uint8_t)best;
}

lh_status generate(const settings *s, const model *m, double temperature, int64_t length, int64_t count,
                   uint8_t *bytes, generate_watch *watch, void *user, lh_error *error)
{
    const int64_t wanted = length + count;
    const int64_t tokens = wanted < s->context ? wanted : s->context;
    uint8_t *window;
    pass p = {.m = m};
    lh_status status = lh_alloc((void **)&window, (size_t)tokens, "window", error);
    if (status == LH_OK)
        status = dense_pass(s, m, tokens, &p, error);
    for (int64_t at = length; at < wanted && status == LH_OK; at++) {
        /* Causal attention: what stands in the window past the last byte changes nothing before it. */
        const int64_t seen = at < tokens ? at : tokens;
        real logits[BYTES];
        memset(window, 0, (size_t)tokens);
        memcpy(window, bytes + at - seen, (size_t)seen);
        status = pass_forward(&p, window, error);
        if (status == LH_OK)
            status = pass_logits(&p, seen - 1, logits, error);
        if (status != LH_OK)
            break;
        bytes[at] =
            choose(logits, temperature, lh_random_uniform((uint64_t)s->seed, STREAM_GENERATE, (uint64_t)at));
        if (watch)
            watch(user, bytes[at]);
    }
    pass_destroy(&p);
    lh_free(window);
    return status;
}
