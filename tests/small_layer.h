/* small_layer.h: a small layer as a file, whole or with one thing wrong with it. */
#ifndef LH_TESTS_SMALL_LAYER_H
#define LH_TESTS_SMALL_LAYER_H

#include "core/safetensors.h"

/* Two tiles, three levels, two heads that share one key/value head. */
extern const lh_config small;

enum fault {
    NONE,
    NAN_IN_Q,
    INF_IN_DOUT,
    INTEGER_Q,
    WIDE_K,
    SHORT_V,
    RANK_3_Q,
    HUGE_V,
    NO_V,
    WORD_FOR_LEVELS,
    GLA_SCORER,
    KV_HEADS_SAID_2,
    NO_METADATA,
    OTHER_DRAW, /* nothing wrong, other numbers */
};

/* A file of q k v dout like those the original implementation left: F32, configuration as strings. */
void write_small(const char *path, enum fault fault);

/* Reads a file that must be well-formed. */
lh_file *read_whole(const char *path);

#endif
