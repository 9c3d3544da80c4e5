/*
 * bench.h: timing whole layers, Lighthouse and dense, on every backend.
 *
 * A point is one backend, attention, pass and number of tokens. Rates count causal attention alone, as the
 * literature does: 2 S^2 d H operations forward and 2.5 times that backward, S = N when dense.
 */
#ifndef LH_BENCH_H
#define LH_BENCH_H

#include <stdio.h>

#include "core/base.h"

/* What this machine, or a device in it, can do, measured in the process that the points are timed in. */
typedef struct bench_machine {
    const char
        *backend; /* whose device it is; NULL: the host, on the threads that the points are timed with */
    int device;
    char processor[128];
    int threads;          /* of the host */
    char product[64];     /* what was multiplied; "" where nothing could */
    double product_flops; /* per second */
    double copy_bytes;    /* read plus written per second */
} bench_machine;

/* The host's own matrix product, C = A B in float32: what its rate is measured with, and what turns are taken with. */
typedef struct bench_product {
    float *a; /* and b and c; NULL: no OpenBLAS here */
    int threads;
} bench_product;

lh_status bench_product_begin(int threads, bench_product *product, lh_error *error);
/* Computes it once and returns the seconds that took. */
double bench_product_run(const bench_product *product);
void bench_product_end(bench_product *product);
double bench_product_operations(void);

/* For about `seconds` each; threads 0: as OpenMP decides. */
lh_status bench_machine_measure(int threads, double seconds, bench_machine *machine, lh_error *error);
/* Of a backend's device, in a dtype; `host` again where the backend computes on the host. */
lh_status bench_device_measure(const char *backend, int device, lh_dtype dtype, double seconds,
                               const bench_machine *host, bench_machine *machine, lh_error *error);

typedef enum bench_pass {
    BENCH_FORWARD,
    BENCH_BACKWARD,
    BENCH_PASSES,
} bench_pass;

typedef struct bench_request {
    const char *backend;
    int device;
    lh_dtype dtype;
    lh_attention attention; /* of device backends */
    int threads;
    double seconds; /* of repeating each pass; one run longer than 4 times that is done once */
    lh_config config;
    bool dense; /* then config.levels is 1 */
    bool forward_only;
    double
        patience; /* seconds that one run of one pass may be expected to take; beyond, the point is skipped */
    const struct lh_tiles *tiles; /* of lh_options */
    double rate;                  /* attention operations per second to expect; 0: unknown */
    const bench_machine
        *host; /* which the backend computes on: passes take turns with its product; NULL: none */
} bench_request;

typedef struct bench_time {
    int runs;
    double least, median;         /* seconds of one run over all heads, without transfers */
    double transfer;              /* seconds between host and device beside them, mean of the runs */
    double stage[LH_STAGE_COUNT]; /* seconds of each, median of the runs; 0 where fused into another */
    int turns;                    /* taken with the host's product; 0: none */
    double share, low, high;      /* of the product's rate, turn by turn: median and quartiles */
    double product_flops;         /* of the product in those turns, median */
} bench_time;

typedef struct bench_point {
    bench_request request;
    lh_layout layout;
    int64_t timed_heads; /* 0: skipped; fewer than config.heads: times are scaled up from them */
    bench_time pass[BENCH_PASSES];
    double expected; /* seconds, where the point was skipped */
    size_t tensors, workspace,
        peak; /* bytes: of the caller, of the plan, at most resident beyond the start */
} bench_point;

/* Times forward and backward. Not enough time is a point with timed_heads 0; anything else is an error. */
lh_status bench_measure(const bench_request *request, bench_point *point, lh_error *error);

/* Operations of one pass over all heads. */
double bench_operations(const lh_config *config, const lh_layout *layout, bench_pass pass);
/* Bytes that a stage must read and write on the fused path, where gather pools as it reads; 0 for pool, which is
 * part of gather there, and for the attention stages, whose measure is operations. */
double bench_stage_bytes(const lh_config *config, const lh_layout *layout, lh_dtype dtype, lh_stage stage);

/* Smallest valid step towards topk = tokens/64 in tiles of at most `tile_topk`: sets topk and tile_topk. */
lh_status bench_choose_topk(lh_config *config, int64_t tile_topk, lh_error *error);

/* Resident memory: bench_peak_start forgets the highest value, bench_peak returns it less what was resident
 * then; 0 where the system does not say. */
void bench_peak_start(void);
size_t bench_peak(void);

typedef struct bench_result {
    bench_machine machine, after; /* measured before and after the points: how steady the machine was */
    bench_machine *devices;       /* of each backend */
    int device_count;
    bench_point *points; /* grouped by backend, tokens ascending as asked for */
    int count;
} bench_result;

void bench_table_head(FILE *file, const bench_machine *machine, const bench_request *request);
/* A line on a device's own ceilings, which shares on it are of. */
void bench_table_device(FILE *file, const bench_machine *device);
/* Says so when the machine's own rates moved while the points were timed. */
void bench_table_foot(FILE *file, const bench_result *result);
/* `dense` is the dense point of the same size, NULL for a dense point itself. */
void bench_table_point(FILE *file, const bench_machine *machine, const bench_point *point,
                       const bench_point *dense);
void bench_table_stages(FILE *file, const bench_machine *machine, const bench_point *point);
/* Both are written whole or not at all. */
lh_status bench_write_json(const char *path, const bench_result *result, lh_error *error);
lh_status bench_write_svg(const char *path, const bench_result *result, lh_error *error);

#endif
