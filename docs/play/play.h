/*
 * play.h: the reference behind the page. The same source is compiled to WebAssembly for the page and by the native compiler
 * for the test that compares the two, bit for bit.
 *
 * One layer at a time lives in static memory: one head of at most PLAY_TOKENS tokens (two heads in play_case). No
 * tensor is computed here: the stages are those of ref/, and the two broken ones of explain/broken.h.
 */
#ifndef PLAY_H
#define PLAY_H

#include <stdint.h>

enum {
    PLAY_TOKENS = 256,
    PLAY_DIM = 8,
};

/* Bits of `broken`. */
enum {
    PLAY_NO_SHIFT = 1, /* entry i of level l is written to its own window (SPEC 8, fault 1) */
    PLAY_NO_MASK = 2,  /* every slot attends to every slot (SPEC 8, fault 18) */
};

/* 0, or 1 with the refusal in play_error(). Keeps no tensor of the layer before. */
int play_configure(int tokens, int dim, int levels, int pool, int topk, int tile_topk);
const char *play_error(void); /* one line, NUL at its end */

/* Draws q, k, v and dout, Gaussian, by counter from the seed. */
void play_draw(uint32_t seed);

/* Forward from q, k, v; with `keep` the index stays as it is. Unbroken, backward from dout as well. */
void play_run(int broken, int keep);

/* Adds 1 to every element of q, k and v of `token` in a copy and runs it forward, the index held where `keep`; fills
 * play_moved()[j] with whether out[j] differs in any bit, and returns how many positions before `token` do. */
int play_probe(int token, int broken, int keep);

/* Tensors by lh_tensor_id as binary64, NULL for index and coverage; what is in memory until the next configure. */
double *play_tensor(int id);
double *play_weights(void);         /* [S,S] */
const int32_t *play_index(void);    /* [S] */
const int32_t *play_coverage(void); /* [N] */
const int32_t *play_moved(void);    /* [N] */
int play_entries(void);             /* P */
int play_selected(void);            /* S */

/* Draws configuration number `seed` of an endless list, its tensors too (Gaussian, ties, large and small), runs it forward
 * and backward and returns a 64-bit FNV-1a hash over the bytes of every tensor of SPEC 5, in order. */
uint64_t play_case(uint32_t seed);

#endif
