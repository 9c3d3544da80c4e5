/* Sums over ranks: everyone adds up a slice of the gradients, and then all have all slices. */
#include "train/ranks.h"

#include <inttypes.h>
#include <string.h>

#include "dist/dist.h"

/* Elements of the gradients before rank r's slice. */
static int64_t slice(const train_ranks *r, int rank)
{
    const int64_t ranks = r->exchange.ranks;
    return r->size / ranks * rank + (rank < r->size % ranks ? rank : r->size % ranks);
}

static lh_status check(const settings *s, int ranks, bool tokens, lh_error *error)
{
    const int64_t parts = s->batch / s->micro_batch;
    lh_config part, config = settings_attention(s);
    lh_status status = LH_OK;
    if (ranks > 1 && strcmp(s->budget, "entropy") == 0)
        return lh_fail(error, LH_UNSUPPORTED, "budget is entropy, wanted even over ranks");
    if (!tokens && parts % ranks != 0)
        return lh_fail(error, LH_INVALID,
                       "batch / micro-batch is %" PRId64 ", wanted a multiple of the %d ranks over sequences",
                       parts, ranks);
    if (tokens && s->shards % ranks != 0)
        return lh_fail(error, LH_INVALID,
                       "shards is %" PRId64 ", wanted 0 or a multiple of the %d ranks over tokens", s->shards,
                       ranks);
    if (tokens && s->lighthouse_steps > 0 && s->levels > 1)
        status = lh_dist_part(&config, ranks, &part, error);
    config.levels = 1;
    return status == LH_OK && tokens ? lh_dist_part(&config, ranks, &part, error) : status;
}

static lh_status take(train_ranks *r, const settings *s, lh_error *error)
{
    const size_t ranks = (size_t)r->exchange.ranks, shards = (size_t)r->shards, size = (size_t)r->size;
    const size_t mine = (size_t)(slice(r, r->exchange.rank + 1) - slice(r, r->exchange.rank));
    const size_t rows = (size_t)(s->micro_batch * s->context);
    lh_status status = lh_alloc((void **)&r->apart, shards * size * sizeof(real), "gradients apart", error);
    if (status == LH_OK && ranks > 1)
        status = lh_alloc((void **)&r->received, (ranks * shards * mine + 1) * sizeof(real),
                          "gradients of ranks", error);
    if (status == LH_OK && r->tokens)
        status = lh_alloc((void **)&r->losses, rows * sizeof(double), "losses of ranks", error);
    if (status == LH_OK)
        memset(r->apart, 0, shards * size * sizeof(real));
    return status;
}

lh_status ranks_create(const settings *s, const model *m, const lh_exchange *exchange, enum ranks_over over,
                       train_ranks *r, lh_error *error)
{
    memset(r, 0, sizeof *r);
    r->exchange.ranks = 1;
    if (exchange)
        r->exchange = *exchange;
    const int ranks = r->exchange.ranks;
    if (ranks == 1 && s->shards == 0)
        return LH_OK;
    r->tokens =
        ranks > 1 && (over == OVER_TOKENS || (over == OVER_AUTO && s->batch / s->micro_batch % ranks != 0));
    r->size = m->size;
    r->shards = s->shards == 0 ? 1 : r->tokens ? s->shards / ranks : s->shards;
    const lh_status status = check(s, ranks, r->tokens, error);
    return status == LH_OK ? take(r, s, error) : status;
}

void ranks_destroy(train_ranks *r)
{
    lh_free(r->apart);
    lh_free(r->received);
    lh_free(r->losses);
    memset(r, 0, sizeof *r);
}

void ranks_pass(const train_ranks *r, pass_options *options)
{
    if (!r->tokens)
        return;
    options->exchange = &r->exchange;
    options->tokens /= r->exchange.ranks;
    options->topk /= r->exchange.ranks;
}

void ranks_narrow(const train_ranks *r, const settings *s, uint8_t *bytes)
{
    const int64_t tokens = s->context / r->exchange.ranks;
    for (int64_t b = 0; b < s->micro_batch && r->tokens; b++)
        memmove(bytes + b * tokens, bytes + b * s->context + r->exchange.rank * tokens, (size_t)tokens);
}

int64_t ranks_part(const train_ranks *r, int64_t round)
{
    return r->tokens ? round : round * r->exchange.ranks + r->exchange.rank;
}

int64_t ranks_rounds(const train_ranks *r, const settings *s)
{
    const int64_t parts = s->batch / s->micro_batch;
    return r->tokens ? parts : parts / r->exchange.ranks;
}

/* One block a rank, ranks in order: [ranks] each. */
static lh_status swap(const train_ranks *r, const lh_block *sends, const lh_block *receives, lh_error *error)
{
    int request;
    const int ranks = r->exchange.ranks;
    const lh_status status =
        r->exchange.begin(r->exchange.context, sends, ranks, receives, ranks, &request, error);
    return status == LH_OK ? r->exchange.finish(r->exchange.context, request, error) : status;
}

static lh_status blocks(const train_ranks *r, lh_block **sends, lh_block **receives, lh_error *error)
{
    const size_t ranks = (size_t)r->exchange.ranks;
    const lh_status status = lh_alloc((void **)sends, 2 * ranks * sizeof **sends, "blocks of ranks", error);
    if (status == LH_OK)
        *receives = *sends + ranks;
    return status;
}

/* Everyone's gradients of my slice. */
static lh_status collect(const train_ranks *r, lh_error *error)
{
    const int me = r->exchange.rank;
    const size_t mine = (size_t)(slice(r, me + 1) - slice(r, me)) * sizeof(real);
    lh_block *sends, *receives;
    lh_status status = blocks(r, &sends, &receives, error);
    if (status != LH_OK)
        return status;
    for (int q = 0; q < r->exchange.ranks; q++) {
        const size_t theirs = (size_t)(slice(r, q + 1) - slice(r, q)) * sizeof(real);
        sends[q] = (lh_block){q, r->apart + slice(r, q), theirs, (size_t)r->size * sizeof(real), r->shards};
        receives[q] =
            (lh_block){q, (char *)r->received + (size_t)(q * r->shards) * mine, mine, mine, r->shards};
    }
    status = swap(r, sends, receives, error);
    lh_free(sends);
    return status;
}

static lh_status sum_gradients(const train_ranks *r, const model *m, lh_error *error)
{
    const int64_t first = slice(r, r->exchange.rank), elements = slice(r, r->exchange.rank + 1) - first;
    const bool alone = r->exchange.ranks == 1;
    const lh_status status = alone ? LH_OK : collect(r, error);
    if (status != LH_OK)
        return status;
    for (int64_t i = 0; i < r->exchange.ranks * r->shards; i++) {
        const real *from = (alone ? r->apart : r->received) + i * elements;
        real *to = m->gradients + first;
#pragma omp parallel for if (elements > 1 << 15)
        for (int64_t e = 0; e < elements; e++)
            to[e] += from[e];
    }
    memset(r->apart, 0, (size_t)(r->shards * r->size) * sizeof(real));
    return LH_OK;
}

/* Every rank's rows of losses -> their mean, summed in the order of one process. */
static lh_status mean_of_rows(const train_ranks *r, const pass *p, double *mean, lh_error *error)
{
    const int64_t ranks = r->exchange.ranks, tokens = p->options.tokens;
    const lh_status status =
        dist_gather_all(&r->exchange, p->losses, (size_t)p->rows * sizeof(double), r->losses, error);
    double sum = 0;
    for (int64_t b = 0; b < p->options.batch && status == LH_OK; b++)
        for (int64_t q = 0; q < ranks; q++)
            for (int64_t n = 0; n < tokens; n++)
                sum += r->losses[q * p->rows + b * tokens + n];
    *mean = sum / (double)(p->rows * ranks);
    return status;
}

static lh_status sum_losses(const train_ranks *r, const pass *p, double mine, int64_t parts, double *loss,
                            lh_error *error)
{
    double all[1024];
    lh_status status = LH_OK;
    if (r->tokens) {
        status = mean_of_rows(r, p, &mine, error);
        *loss += mine / (double)parts;
        return status;
    }
    all[0] = mine;
    if (r->exchange.ranks > 1)
        status = dist_gather_all(&r->exchange, &mine, sizeof mine, all, error);
    for (int q = 0; q < r->exchange.ranks && status == LH_OK; q++)
        *loss += all[q] / (double)parts;
    return status;
}

lh_status ranks_sum(const train_ranks *r, const pass *p, double mine, int64_t parts, double *loss,
                    lh_error *error)
{
    const lh_status status = sum_losses(r, p, mine, parts, loss, error);
    return status == LH_OK ? sum_gradients(r, p->m, error) : status;
}

lh_status ranks_spread(const train_ranks *r, const model *m, lh_error *error)
{
    const int me = r->exchange.rank;
    lh_block *sends, *receives;
    if (r->exchange.ranks == 1)
        return LH_OK;
    lh_status status = blocks(r, &sends, &receives, error);
    if (status != LH_OK)
        return status;
    for (int q = 0; q < r->exchange.ranks; q++) {
        const size_t mine = (size_t)(slice(r, me + 1) - slice(r, me)) * sizeof(real),
                     theirs = (size_t)(slice(r, q + 1) - slice(r, q)) * sizeof(real);
        /* My own slice is where it is to be. */
        sends[q] = (lh_block){q, m->gradients + slice(r, me), mine, mine, q == me ? 0 : 1};
        receives[q] = (lh_block){q, m->gradients + slice(r, q), theirs, theirs, q == me ? 0 : 1};
    }
    status = swap(r, sends, receives, error);
    lh_free(sends);
    return status;
}

lh_status ranks_meet(const train_ranks *r, lh_status status, bool *stop, lh_error *error)
{
    char all[1024], mine = (char)*stop;
    void *cards;
    if (r->exchange.ranks <= 1)
        return status;
    const lh_status had =
        lh_alloc(&cards, (size_t)r->exchange.ranks * DIST_CARD, "what ranks tell each other", error);
    if (had != LH_OK)
        return had;
    status = dist_agree(&r->exchange, status, cards, error);
    lh_free(cards);
    if (status == LH_OK)
        status = dist_gather_all(&r->exchange, &mine, 1, all, error);
    for (int q = 0; q < r->exchange.ranks && status == LH_OK; q++)
        *stop = *stop || all[q];
    return status;
}

lh_status ranks_tell(const train_ranks *r, const void *mine, size_t bytes, void *all, lh_error *error)
{
    return dist_gather_all(&r->exchange, mine, bytes, all, error);
}
