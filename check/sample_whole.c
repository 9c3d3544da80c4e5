/* What one pass over everything tells: that all is finite, that every index is an index. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "check/sample_walk.h"

lh_status sample_judge_finite(struct walk *w, lh_error *error)
{
    enum {
        PIECE = 65536
    };
    double *piece;
    lh_status status = lh_alloc((void **)&piece, PIECE * sizeof *piece, "piece of a tensor", error);
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        w->infinite[id] = -1;
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor t;
        bool bad = false;
        lh_tensor_shape(w->config, &w->layout, LH_F64, (lh_tensor_id)id, &t);
        const int64_t elements = lh_tensor_elements(&t);
        for (int64_t i = 0; i < elements && status == LH_OK && !bad && sample_has(w, (lh_tensor_id)id);
             i += PIECE) {
            const int64_t n = elements - i < PIECE ? elements - i : PIECE;
            status = w->source->fetch(w->source, (lh_tensor_id)id, i, n, piece, error);
            for (int64_t j = 0; j < n && status == LH_OK && !bad; j++) {
                if (isfinite(piece[j]))
                    continue;
                verify_row *row = sample_row_for(w->report, w, (lh_tensor_id)id, true);
                bad = true;
                w->infinite[id] = isinf(piece[j]) ? i + j : -1;
                if (lh_listed(lh_layer_inputs, (lh_tensor_id)id))
                    status =
                        lh_fail(error, LH_INVALID, "%s holds %s at element %" PRId64 ", wanted finite values",
                                lh_tensor_name((lh_tensor_id)id), isnan(piece[j]) ? "NaN" : "Inf", i + j);
                else if (row)
                    row->result = (verify_result){.verdict = isnan(piece[j]) ? VERIFY_NAN : VERIFY_INF,
                                                  .elements = 1,
                                                  .worst = i + j,
                                                  .got = piece[j],
                                                  .share = INFINITY};
            }
        }
    }
    lh_free(piece);
    return status;
}

/* Every head's index, whether it is one. */
lh_status sample_judge_indices(struct walk *w, bool *usable, lh_error *error)
{
    lh_error reason;
    lh_status status = LH_OK;
    *usable = true;
    for (int64_t i = 0; i < w->config->batch * w->config->heads && status == LH_OK && sample_has(w, LH_INDEX);
         i++) {
        w->b = i / w->config->heads;
        w->h = i % w->config->heads;
        status = sample_load_index(w, error);
        const lh_tensor index = sample_one_tensor(w, LH_INDEX, w->index);
        if (status != LH_OK || lh_index_check(&w->one, &w->layout, &index, &reason) == LH_OK)
            continue;
        verify_row *row = sample_row_for(w->report, w, LH_INDEX, true);
        *usable = false;
        if (row) {
            row->result.verdict = VERIFY_WRONG;
            snprintf(row->note, sizeof row->note, "head [%" PRId64 ",%" PRId64 "]: %.300s", w->b, w->h,
                     reason.text);
        }
        return LH_OK;
    }
    return status;
}
