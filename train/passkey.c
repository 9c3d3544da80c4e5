/* Passkey tasks: one digit hidden in filler, asked for at the end (SPEC 10). */
#include <stdio.h>
#include <string.h>

#include "core/random.h"
#include "train/text.h"

static const char *const filler[] = {
    "The grass is green. ",     "The sky is blue. ",
    "The sun is yellow. ",      "Here we go. ",
    "There and back again. ",   "The river is wide and slow. ",
    "Nobody was at the door. ", "It rained all afternoon. ",
};
enum {
    FILLERS = sizeof filler / sizeof *filler,
    STREAM_DEPTH = 1 << 21,
    STREAM_DIGIT,
    STREAM_FILLER
};

static const char needle[] = "The pass key is %d. Remember it. ";
static const char question[] = "What is the pass key? The pass key is ";

const int64_t passkey_least = sizeof needle + sizeof question;

void passkey_make(int64_t length, double depth, int digit, uint64_t variety, uint8_t *sequence)
{
    char hidden[sizeof needle];
    const int64_t hidden_size = snprintf(hidden, sizeof hidden, needle, digit);
    const int64_t question_size = (int64_t)strlen(question);
    const int64_t body = length - 1 - question_size;
    int64_t at = 0;
    for (uint64_t i = 0; at < body; i++) {
        const char *sentence = filler[(int)(lh_random_uniform(variety, STREAM_FILLER, i) * FILLERS)];
        for (const char *c = sentence; *c && at < body; c++)
            sequence[at++] = (uint8_t)*c;
    }
    memcpy(sequence + (int64_t)(depth * (double)(body - hidden_size)), hidden, (size_t)hidden_size);
    memcpy(sequence + body, question, (size_t)question_size);
    sequence[length - 1] = (uint8_t)('0' + digit);
}

void passkey_sample(uint64_t seed, int64_t number, int64_t length, uint8_t *sequence)
{
    const double depth = lh_random_uniform(seed, STREAM_DEPTH, (uint64_t)number);
    const int digit = (int)(lh_random_uniform(seed, STREAM_DIGIT, (uint64_t)number) * 10);
    passkey_make(length, depth, digit, seed + (uint64_t)number, sequence);
}
