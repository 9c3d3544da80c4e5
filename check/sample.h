/*
 * sample.h: judging tensors of the size that people train with, by rows.
 *
 * Any row of any tensor follows from the tensors before it in O(S d) or less (SPEC 6). So a few rows of every head,
 * tile and tensor are computed in binary64 and compared, and what one pass over everything can tell is told: that all
 * is finite, that every index is an index, that coverage and the zero rows of out are what the index says.
 */
#ifndef LH_CHECK_SAMPLE_H
#define LH_CHECK_SAMPLE_H

#include "check/check.h"

/* Where tensors come from by pieces: a file, or memory. */
typedef struct check_source {
    const void *context;
    lh_dtype dtype[LH_TENSOR_COUNT];
    bool has[LH_TENSOR_COUNT];
    int64_t heads[LH_TENSOR_COUNT], rows[LH_TENSOR_COUNT],
        width[LH_TENSOR_COUNT]; /* of a tensor that lies as [B,rows,heads,width]; width 0: it does not */
    /* Elements first ... first+count-1 of tensor id, row-major, as doubles (integers too). */
    lh_status (*fetch)(const struct check_source *source, lh_tensor_id id, int64_t first, int64_t count,
                       double *to, lh_error *error);
} check_source;

/* Work of judging all of it, in multiplications: check_dump takes minutes above CHECK_LARGE. */
double check_work(const lh_config *config);
#define CHECK_LARGE 4e9

/* A file's tensors; file was opened by lh_file_open and outlives the source. Shapes and dtypes are checked: what
 * disagrees is a row of the report and not in the source. layout: how the file's tensors lie. */
lh_status check_source_file(const lh_file *file, const lh_config *config, const check_layout *layout,
                            check_source *source, check_report *report, lh_error *error);
/* Tensors in memory: contiguous host tensors by id, data NULL where absent. */
void check_source_memory(const lh_tensor *tensors, check_source *source);

/* Fills report: a row a tensor, the worst of the rows that were judged. q and k are in the source. */
lh_status check_sampled(const lh_config *config, const check_source *source, const check_sample *sample,
                        const check_wish *wish, check_report *report, lh_error *error);

/* B 1, H 8, d 128, L 3, p 4, m 128 and a budget of 1/64 of the tokens, a tile at least. */
lh_config check_large_config(int64_t tokens);
/* Runs one layer of Gaussian inputs, forward and backward, as the options say (backward is set) and judges index, o_sel,
 * lse, out, coverage, dq, dk, dv by rows. A status of the backend itself comes back as it is. */
lh_status check_large(const lh_config *config, const lh_options *options, const check_sample *sample,
                      check_report *report, lh_error *error);

/* One head of the sub-sequence in binary64, for sample_load.c and sample_rows.c; [S,d] each, lse and D [S]. */
struct sample_head {
    int64_t rows, dim;
    double *q, *k, *v, *o, *go, *lse, *D; /* o, lse, D, go: NULL where the source has none */
    double *q_size, *k_size,
        *v_size;    /* of the terms that q, k, v were pooled from; else q, k, v themselves */
    double *weight; /* [S] scratch */
    double small;   /* smallest normal number of a half type: an operand below it is off by small u; else 0 */
};
/* What a row should be, and the sizes of what rounds in it (verify/condition.c). */
struct sample_row {
    double *want, *stored, *weighed; /* [d] */
    double *of_D;                    /* [d]: what D takes from a gradient; NULL: not wanted */
    double logit;                    /* size of the largest logit's terms: what its rounding is relative to */
    double spread;                   /* root sum of squares of the largest logit's terms */
};
void sample_clear(struct sample_row *row, int64_t dim);
void sample_add(double *to, double factor, const double *x, int64_t count); /* to += factor x */
void sample_attend(const struct sample_head *head, int64_t row, struct sample_row *o, double *lse);
void sample_query(const struct sample_head *head, int64_t row, struct sample_row *dq);
void sample_key(const struct sample_head *head, int64_t row, struct sample_row *dk, struct sample_row *dv);

#endif
