/* Ranks that are threads of one process: blocks are copied from memory to memory by who receives them. */
#include <pthread.h>
#include <string.h>

#include "dist/dist.h"

enum {
    MOST = 1024 /* ranks */
};

/* What one rank has to give in one exchange. */
struct offer {
    int64_t number; /* of the exchange, from 1; 0: none */
    const lh_block *sends, *receives;
    int send_count, receive_count;
    int copying;                   /* ranks that are about it */
    unsigned char taken[MOST / 8]; /* a bit a rank that has copied its blocks */
};

struct team {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int ranks;
    int broken; /* 1 + the first rank that failed */
    lh_rank_fn *work;
    void *context;
    struct rank *rank;
};

struct rank {
    struct team *team;
    int number;
    int64_t begun;
    struct offer offer[LH_EXCHANGES];
    pthread_t thread;
    bool left; /* comes to no exchange any more */
    lh_status status;
    lh_error error;
};

static lh_status broken(const struct team *team, lh_error *error)
{
    return team->broken
               ? lh_fail(error, LH_DEVICE, "rank %d has failed, wanted it in the exchange", team->broken - 1)
               : lh_fail(error, LH_DEVICE, "a rank is done, wanted it in the exchange");
}

/* That exchange among a rank's; 0: a free place. NULL when there is none. */
static struct offer *offer_of(struct rank *rank, int64_t number)
{
    for (int i = 0; i < LH_EXCHANGES; i++) {
        if (rank->offer[i].number == number)
            return &rank->offer[i];
    }
    return NULL;
}

static lh_status begin(void *context, const lh_block *sends, int send_count, const lh_block *receives,
                       int receive_count, int *request, lh_error *error)
{
    struct rank *me = context;
    struct team *team = me->team;
    pthread_mutex_lock(&team->mutex);
    struct offer *free_one = offer_of(me, 0);
    lh_status status = LH_OK;
    if (free_one) {
        *free_one = (struct offer){.number = ++me->begun,
                                   .sends = sends,
                                   .receives = receives,
                                   .send_count = send_count,
                                   .receive_count = receive_count};
        *request = (int)(free_one - me->offer);
        pthread_cond_broadcast(&team->changed);
    } else {
        status = lh_fail(error, LH_INVALID, "exchanges begun and not finished are %d, wanted no more",
                         LH_EXCHANGES);
    }
    pthread_mutex_unlock(&team->mutex);
    return status;
}

/* The next block of a list with that peer, from *at on; NULL when there is none. */
static const lh_block *next_block(const lh_block *list, int count, int peer, int *at)
{
    while (*at < count && list[*at].peer != peer)
        ++*at;
    return *at < count ? &list[(*at)++] : NULL;
}

static lh_status copy_from(const struct offer *given, int giver, const struct offer *mine, int me,
                           lh_error *error)
{
    int sent = 0, received = 0;
    for (;;) {
        const lh_block *from = next_block(given->sends, given->send_count, me, &sent);
        const lh_block *to = next_block(mine->receives, mine->receive_count, giver, &received);
        if (!from && !to)
            return LH_OK;
        if (!from || !to || from->bytes != to->bytes || from->count != to->count)
            return lh_fail(error, LH_INVALID,
                           "rank %d sends %zu bytes %lld times, wanted %zu bytes %lld times", giver,
                           from ? from->bytes : 0, from ? (long long)from->count : 0, to ? to->bytes : 0,
                           to ? (long long)to->count : 0);
        for (int64_t i = 0; i < to->count; i++)
            memcpy((char *)to->data + (size_t)i * to->stride,
                   (const char *)from->data + (size_t)i * from->stride, to->bytes);
    }
}

static bool taken_by(const struct offer *offer, int rank)
{
    return offer->taken[rank / 8] >> rank % 8 & 1;
}

/* Whether a rank that has not left has yet to copy its blocks. */
static bool awaited(const struct team *team, const struct offer *offer)
{
    for (int r = 0; r < team->ranks; r++) {
        if (!team->rank[r].left && !taken_by(offer, r))
            return true;
    }
    return false;
}

static lh_status finish(void *context, int request, lh_error *error)
{
    struct rank *me = context;
    struct team *team = me->team;
    struct offer *mine = &me->offer[request];
    lh_status status = LH_OK;
    pthread_mutex_lock(&team->mutex);
    for (int step = 0; step < team->ranks && status == LH_OK; step++) {
        struct rank *giver = &team->rank[(me->number + step) % team->ranks];
        struct offer *given;
        while (!(given = offer_of(giver, mine->number)) && !giver->left)
            pthread_cond_wait(&team->changed, &team->mutex);
        if (!given) {
            status = broken(team, error);
            break;
        }
        given->copying++;
        pthread_mutex_unlock(&team->mutex);
        status = copy_from(given, giver->number, mine, me->number, error);
        pthread_mutex_lock(&team->mutex);
        given->copying--;
        given->taken[me->number / 8] |= (unsigned char)(1 << me->number % 8);
        pthread_cond_broadcast(&team->changed);
    }
    /* Whoever is at these blocks, or will be, is let finish: their owner may free them when this returns. After a failure
     * nobody new is let at them. */
    while (status == LH_OK && awaited(team, mine))
        pthread_cond_wait(&team->changed, &team->mutex);
    mine->number = 0;
    while (mine->copying > 0)
        pthread_cond_wait(&team->changed, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
    return status;
}

/* It comes to no exchange any more, and what it had to give is gone. */
static void leave(struct rank *me)
{
    struct team *team = me->team;
    pthread_mutex_lock(&team->mutex);
    if (me->status != LH_OK && !team->broken)
        team->broken = 1 + me->number;
    me->left = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->mutex);
}

static void *run_rank(void *argument)
{
    struct rank *me = argument;
    const lh_exchange exchange = {me->number, me->team->ranks, me, begin, finish, false, true};
    me->status = me->team->work(&exchange, me->team->context, &me->error);
    leave(me);
    return NULL;
}

/* What to return: of the rank that failed first where others only say that it did. */
static lh_status outcome(const struct team *team, lh_error *error)
{
    if (!team->broken)
        return LH_OK;
    const struct rank *first = &team->rank[team->broken - 1];
    for (int r = 0; r < team->ranks; r++) {
        if (team->rank[r].status == first->status) {
            first = &team->rank[r];
            break;
        }
    }
    if (error)
        *error = first->error;
    return first->status;
}

lh_status lh_dist_threads(int ranks, lh_rank_fn *work, void *context, lh_error *error)
{
    if (ranks < 1 || ranks > MOST)
        return lh_fail(error, LH_INVALID, "ranks is %d, wanted 1 to %d", ranks, MOST);
    struct team team = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER,
                        .ranks = ranks,
                        .work = work,
                        .context = context};
    lh_status status =
        lh_alloc((void **)&team.rank, (size_t)ranks * sizeof *team.rank, "ranks that are threads", error);
    if (status != LH_OK)
        return status;
    memset(team.rank, 0, (size_t)ranks * sizeof *team.rank);
    for (int r = 0; r < ranks; r++) {
        struct rank *rank = &team.rank[r];
        rank->team = &team;
        rank->number = r;
    }
    int started = 0;
    while (started < ranks &&
           pthread_create(&team.rank[started].thread, NULL, run_rank, &team.rank[started]) == 0)
        started++;
    for (int r = started; r < ranks; r++) {
        team.rank[r].status =
            lh_fail(&team.rank[r].error, LH_NO_MEMORY, "thread of rank %d could not be had", r);
        leave(&team.rank[r]);
    }
    for (int r = 0; r < started; r++)
        pthread_join(team.rank[r].thread, NULL);
    status = outcome(&team, error);
    lh_free(team.rank);
    pthread_mutex_destroy(&team.mutex);
    pthread_cond_destroy(&team.changed);
    return status;
}
