/*
 * text.h: bytes to learn from, and which of them a step sees.
 *
 * A step's sequences are a function of (seed, step, settings) alone, so a run that resumes sees what it
 * would have seen. A sequence has N + 1 bytes: inputs are the first N, targets the last N.
 */
#ifndef TRAIN_TEXT_H
#define TRAIN_TEXT_H

#include "lighthouse.h"

typedef struct corpus {
    uint8_t *bytes;
    int64_t train;         /* bytes [0, train) are learnt from, */
    int64_t size;          /* bytes [train, size) are held out */
    int64_t files, passed; /* read, and passed over: no text, or not to be read */
    char sha256[65];       /* of the file; of several files, of their hashes, sorted, a line each */
} corpus;

/*
 * Reads a file, or every text file under a folder, links followed and each file once. Files with a NUL byte are no text
 * and are passed over, and so are the run's `own` folder (NULL: none) and folders that hold another run.
 *
 * Files stand in the order of their SHA-256, so nothing depends on names or places, and equal files stand together.
 * A share `held_out` of all bytes is held out, at the end; at least `least`, and as many are learnt from. LH_INVALID
 * when there are fewer than twice `least` bytes. What a file grows by while it is read is not read.
 */
lh_status text_read(const char *path, double held_out, const char *own, int64_t least, corpus *t,
                    lh_error *error);
void text_free(corpus *t);

/* sequence: [length]; number: of the sequence in the whole run (step * batch + i) */
void text_sample(const corpus *t, uint64_t seed, int64_t number, int64_t length, uint8_t *sequence);
/* Held-out window i of n, evenly spread. */
void text_held_out(const corpus *t, int64_t i, int64_t n, int64_t length, uint8_t *sequence);

/* A generated passkey task: filler with one digit hidden at depth in [0,1], asked for at the very end, so
 * that the last byte is the digit. Too short a length leaves no room: wanted passkey_least. */
void passkey_make(int64_t length, double depth, int digit, uint64_t variety, uint8_t *sequence);
extern const int64_t passkey_least;
/* Passkey sequence `number` of a run: depth and digit drawn by counter. */
void passkey_sample(uint64_t seed, int64_t number, int64_t length, uint8_t *sequence);

/* Sequence `number` of a run's data stream: text, or with chance `passkey` a passkey task. */
void stream_sample(const corpus *t, uint64_t seed, double passkey, int64_t number, int64_t length,
                   uint8_t *sequence);

#endif
