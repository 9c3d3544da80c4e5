/*
 * audit.h: what a run cost and what Lighthouse saved, from its journal.
 *
 * audit.json, beside the checkpoint:
 *   model {parameters, layers ...}, stages [{stage, steps, tokens, seconds, tokens_per_second,
 *   memory {activations, plans, weights}, rest_seconds, layers [{attention, kind, attention_seconds,
 *   outside_seconds, attention_flops, outside_flops, dense_seconds, dense_flops}]}],
 *   budget {tiles, tile_topk, spread, attention_flops_to_even, seconds} (--budget entropy alone: the journal's last
 *   line, the Lighthouse layers' FLOPs over those of even budgets, seconds of all changes),
 *   dense_probes [{layer, n, mean_seconds}], saved {seconds, flops, share}, monitor {...}, verdict, evaluation,
 *   held_out [{step, loss, seconds}] (--eval-every), changes [{step, setting, from, to}] (resumes),
 *   settings {every one}, text {path, sha256, bytes, learnt_from, files, passed_over}, made {program, compiler, products,
 *   host, processor, date}.
 *
 * Seconds and FLOPs in a layer are those of all the stage's steps, with the budgets that each step had. FLOPs
 * count multiplications and additions, forward and backward: products 3 times their forward, attention 3.5 times
 * (five products for two), causal pairs alone.
 */
#ifndef TRAIN_AUDIT_H
#define TRAIN_AUDIT_H

#include <jansson.h>

#include "train/evaluate.h"

/* Attention of one layer over `rows` positions, forward and backward. */
double attention_flops(const model_shape *shape, int64_t rows, int64_t batch);

/* Makes the audit of a run in `folder` from its log; evaluation may be NULL. products: whose (lh_arithmetic), NULL or "" for the
 * processor's. */
lh_status audit_make(const char *folder, const settings *s, const recipe *r, const corpus *t,
                     const evaluation *e, const char *products, json_t **audit, lh_error *error);
/* A short report for people. */
void audit_print(const json_t *audit, FILE *to);

#endif
