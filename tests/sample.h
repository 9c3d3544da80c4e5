/* sample.h: all tensors of one layer, for the tests of ref/ and for bits.c. Leans on ref/ and C alone. */
#ifndef REF_TESTS_SAMPLE_H
#define REF_TESTS_SAMPLE_H

#include "../ref/ref.h"

#if REF_BITS != 64
#define sample_new REF_NAME(sample_new)
#define sample_free REF_NAME(sample_free)
#define sample_fill REF_NAME(sample_fill)
#define sample_draw REF_NAME(sample_draw)
#endif

enum {
    SAMPLE_INPUTS = 4,
    SAMPLE_TENSORS = 22
};

struct sample {
    struct ref_shape shape;
    struct ref_trace trace; /* owns its arrays */
    /* The floating tensors of the trace by name; q, k, v and dout come first. */
    struct {
        const char *name;
        real *values;
        int64_t elements;
    } tensor[SAMPLE_TENSORS];
};

enum fill {
    GAUSSIAN, /* nearly: the sum of four uniform integers */
    SHARP,    /* 32 times that: one weight takes all, exp underflows */
    TINY,     /* 2^-100 of that: flat softmax, in the twin subnormal products */
    TIES,     /* -1, 0 and 1 only */
};

/* Ends the program where memory cannot be had. */
struct sample sample_new(const struct ref_shape *shape);
void sample_free(struct sample *sample);

/* 20 random bits, by an integer generator that is the same everywhere. */
int64_t sample_draw(uint64_t *state);
/* Draws q, k, v and dout, all of them exact in binary32. */
void sample_fill(struct sample *sample, enum fill fill, uint64_t *state);

#endif
