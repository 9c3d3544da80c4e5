/* Exchanges of tensors, and what ranks tell each other, over the one exchange that a transport offers. */
#include <stdio.h>
#include <string.h>

#include "dist/dist.h"

void dist_clear(struct dist_move *move)
{
    move->send_count = move->receive_count = 0;
}

static lh_block block(int peer, const lh_tensor *t, int64_t head, int64_t heads, int64_t first, int64_t rows)
{
    const int64_t row = dist_row_bytes(t), all = t->shape[2];
    return (lh_block){.peer = peer,
                      .data = (char *)t->data + (head * all + first) * row,
                      .bytes = (size_t)(rows * row),
                      .stride = (size_t)(all * row),
                      .count = rows > 0 ? heads : 0};
}

void dist_send(struct dist_move *move, int peer, const lh_tensor *t, int64_t head, int64_t heads,
               int64_t first, int64_t rows)
{
    if (rows > 0 && heads > 0)
        move->sends[move->send_count++] = block(peer, t, head, heads, first, rows);
}

void dist_receive(struct dist_move *move, int peer, const lh_tensor *t, int64_t head, int64_t heads,
                  int64_t first, int64_t rows)
{
    if (rows > 0 && heads > 0)
        move->receives[move->receive_count++] = block(peer, t, head, heads, first, rows);
}

lh_status dist_begin(lh_dist_plan *plan, struct dist_move *move, lh_error *error)
{
    const double since = lh_seconds();
    for (int i = 0; i < move->send_count; i++) {
        const lh_block *sent = &move->sends[i];
        if (sent->peer == plan->exchange.rank)
            continue;
        plan->profile.bytes += sent->bytes * (uint64_t)sent->count;
        plan->profile.messages += sent->count;
    }
    const lh_status status = plan->exchange.begin(plan->exchange.context, move->sends, move->send_count,
                                                  move->receives, move->receive_count, &move->request, error);
    move->under_way = status == LH_OK;
    plan->profile.exchange += lh_seconds() - since;
    return status;
}

lh_status dist_finish(lh_dist_plan *plan, struct dist_move *move, lh_error *error)
{
    const double since = lh_seconds();
    const lh_status status = plan->exchange.finish(plan->exchange.context, move->request, error);
    move->under_way = false;
    plan->profile.exchange += lh_seconds() - since;
    return status;
}

void dist_drain(lh_dist_plan *plan)
{
    struct dist_move *const moves[] = {&plan->set[0].move, &plan->set[1].move, &plan->back, &plan->edge};
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        if (moves[i]->under_way)
            (void)dist_finish(plan, moves[i], NULL);
    }
}

lh_status dist_gather_all(const lh_exchange *exchange, const void *mine, size_t bytes, void *all,
                          lh_error *error)
{
    enum {
        RANKS = 64 /* told at a time */
    };
    lh_block sends[RANKS], receives[RANKS];
    lh_status status = LH_OK;
    /* In turn `step`, rank r sends to ranks r + step, r + step + 1, ...: everyone's turns fit together. */
    for (int step = 0; step < exchange->ranks && status == LH_OK; step += RANKS) {
        const int count = exchange->ranks - step < RANKS ? exchange->ranks - step : RANKS;
        int request;
        for (int i = 0; i < count; i++) {
            const int to = (exchange->rank + step + i) % exchange->ranks;
            const int from = (exchange->rank + 2 * exchange->ranks - step - i) % exchange->ranks;
            sends[i] = (lh_block){to, (void *)mine, bytes, bytes, 1};
            receives[i] = (lh_block){from, (char *)all + (size_t)from * bytes, bytes, bytes, 1};
        }
        status = exchange->begin(exchange->context, sends, count, receives, count, &request, error);
        if (status == LH_OK)
            status = exchange->finish(exchange->context, request, error);
    }
    return status;
}

struct card {
    lh_status status;
    char text[DIST_CARD - sizeof(lh_status)];
};

lh_status dist_agree(const lh_exchange *exchange, lh_status mine, char *cards, lh_error *error)
{
    struct card card = {.status = mine, .text = ""};
    lh_error lost;
    if (mine != LH_OK && error)
        snprintf(card.text, sizeof card.text, "%.*s", (int)sizeof card.text - 1, error->text);
    const lh_status status = dist_gather_all(exchange, &card, sizeof card, cards, &lost);
    if (mine != LH_OK && status != LH_OK)
        return mine;
    if (status != LH_OK)
        return lh_fail(error, status, "%s", lost.text);
    for (int r = 0; r < exchange->ranks; r++) {
        memcpy(&card, cards + (size_t)r * sizeof card, sizeof card);
        if (card.status == LH_OK)
            continue;
        return r == exchange->rank ? mine : lh_fail(error, card.status, "rank %d: %s", r, card.text);
    }
    return LH_OK;
}
