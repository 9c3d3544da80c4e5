/* Held-out loss and retrieval by depth and context length, always under dense attention. */
#include "train/evaluate.h"

#include <string.h>

#include "core/base.h"

lh_status dense_pass(const settings *s, const model *m, int64_t tokens, pass *p, lh_error *error)
{
    pass_options options = settings_pass(s, false, NULL);
    options.batch = 1;
    options.tokens = tokens;
    options.training = false;
    return pass_create(m, &options, p, error);
}

/* losses: [windows], of those from `first` on in steps of `step` */
static lh_status measure_windows(const settings *s, const model *m, const corpus *t, int64_t first,
                                 int64_t step, double *losses, lh_error *error)
{
    uint8_t *sequence;
    pass p = {.m = m};
    lh_status status = lh_alloc((void **)&sequence, (size_t)s->context + 1, "sequence", error);
    if (status == LH_OK)
        status = dense_pass(s, m, s->context, &p, error);
    for (int64_t i = first; i < s->held_out_windows && status == LH_OK; i += step) {
        text_held_out(t, i, s->held_out_windows, s->context + 1, sequence);
        status = pass_forward(&p, sequence, error);
        if (status == LH_OK)
            status = pass_loss(&p, sequence + 1, &losses[i], error);
    }
    pass_destroy(&p);
    lh_free(sequence);
    return status;
}

lh_status evaluate_held_out(const settings *s, const model *m, const corpus *t, const train_ranks *r,
                            double *loss, lh_error *error)
{
    const int64_t windows = s->held_out_windows;
    const int ranks = r ? r->exchange.ranks : 1, me = r ? r->exchange.rank : 0;
    double *losses, *all; /* [windows] [ranks, windows] */
    bool stop = false;
    *loss = 0;
    lh_status status = lh_alloc((void **)&losses, (size_t)(windows * (1 + ranks)) * sizeof *losses,
                                "losses of held-out windows", error);
    if (status == LH_OK) {
        memset(losses, 0, (size_t)windows * sizeof *losses);
        status = measure_windows(s, m, t, me, ranks, losses, error);
    }
    if (r)
        status = ranks_meet(r, status, &stop, error);
    all = ranks == 1 ? losses : losses + windows;
    if (status == LH_OK && ranks > 1)
        status = ranks_tell(r, losses, (size_t)windows * sizeof *losses, all, error);
    for (int64_t i = 0; i < windows && status == LH_OK; i++)
        *loss += all[i % ranks * windows + i] / (double)windows;
    lh_free(losses);
    return status;
}

static int best_digit(const real *logits)
{
    int best = 0;
    for (int digit = 1; digit < 10; digit++)
        best = logits['0' + digit] > logits['0' + best] ? digit : best;
    return best;
}

/* Trials of one context length; right: [DEPTHS] */
static lh_status retrieve(const settings *s, const model *m, int64_t tokens, evaluation *e, int64_t *right,
                          lh_error *error)
{
    uint8_t *sequence;
    pass p = {.m = m};
    lh_status status = lh_alloc((void **)&sequence, (size_t)tokens + 1, "sequence", error);
    if (status == LH_OK)
        status = dense_pass(s, m, tokens, &p, error);
    for (int depth = 0; depth < DEPTHS; depth++)
        for (int64_t trial = 0; trial < e->trials && status == LH_OK; trial++) {
            real logits[BYTES];
            const int digit = (int)(trial % 10);
            passkey_make(tokens + 1, e->depth[depth], digit, (uint64_t)(trial * DEPTHS + depth), sequence);
            status = pass_forward(&p, sequence, error);
            if (status == LH_OK)
                status = pass_logits(&p, tokens - 1, logits, error);
            if (status != LH_OK)
                break;
            right[depth] += best_digit(logits) == digit;
        }
    pass_destroy(&p);
    lh_free(sequence);
    return status;
}

lh_status evaluate_model(const settings *s, const model *m, const corpus *t, evaluation *e, lh_error *error)
{
    memset(e, 0, sizeof *e);
    e->windows = s->held_out_windows;
    e->trials = s->retrieval_trials;
    for (int i = 0; i < DEPTHS; i++)
        e->depth[i] = (double)i / (DEPTHS - 1);
    lh_status status = evaluate_held_out(s, m, t, NULL, &e->held_out, error);
    for (int i = 0; i < LENGTHS && status == LH_OK && e->trials > 0; i++) {
        e->length[i] = s->context >> (LENGTHS - 1 - i);
        if (e->length[i] >= passkey_least)
            status = retrieve(s, m, e->length[i], e, e->right[i], error);
        else
            e->length[i] = 0;
    }
    return status;
}
