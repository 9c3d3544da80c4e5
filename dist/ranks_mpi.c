/*
 * Ranks that are MPI processes: one message a run of a block, several where a run passes 1 GiB.
 *
 * MPI moves most messages only while somebody calls it. Where ranks are on several hosts a thread of its own does, as long
 * as an exchange is under way: what travels goes on while this rank computes. On one host a copy takes a core whenever it
 * is made, and there is nothing to win. Who waits sleeps, and leaves the core to a rank that has work.
 */
#include "dist/ranks_mpi.h"

#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base.h"

enum {
    MESSAGE = 1 << 30, /* bytes at most: counts are int */
    TAGS = 1 << 14,
    EAGER_LOOKS = 200, /* a wait is short as a rule: it looks so often before it sleeps at all */
    SHORT_SLEEP = 20,
    SLEEP = 200 /* microseconds: of who waits, longer and longer, and of the thread */
};

static struct {
    int rank;
    unsigned begun;
    struct {
        bool busy, arrived;
        MPI_Request *requests;
        int count, room, code;
    } exchange[LH_EXCHANGES];
    pthread_mutex_t mutex; /* of all of it, and of MPI, which is called by one thread at a time */
    pthread_cond_t changed;
    pthread_t thread;
    int under_way;
    bool helped, ending; /* helped: the thread runs */
} mpi = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void doze(long microseconds)
{
    nanosleep(&(struct timespec){.tv_nsec = microseconds * 1000}, NULL);
}

/* Moves what can be moved. With the mutex. */
static void look(int slot)
{
    int arrived = 0;
    if (!mpi.exchange[slot].busy || mpi.exchange[slot].arrived)
        return;
    mpi.exchange[slot].code =
        MPI_Testall(mpi.exchange[slot].count, mpi.exchange[slot].requests, &arrived, MPI_STATUSES_IGNORE);
    mpi.exchange[slot].arrived = arrived || mpi.exchange[slot].code != MPI_SUCCESS;
    mpi.under_way -= mpi.exchange[slot].arrived;
}

static void *help(void *unused)
{
    pthread_mutex_lock(&mpi.mutex);
    while (!mpi.ending) {
        if (mpi.under_way == 0) {
            pthread_cond_wait(&mpi.changed, &mpi.mutex);
            continue;
        }
        for (int slot = 0; slot < LH_EXCHANGES; slot++)
            look(slot);
        pthread_mutex_unlock(&mpi.mutex);
        doze(SLEEP);
        pthread_mutex_lock(&mpi.mutex);
    }
    pthread_mutex_unlock(&mpi.mutex);
    return unused;
}

static lh_status failed(const char *call, int code, lh_error *error)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    return lh_fail(error, LH_DEVICE, "%s: %.*s", call, length < 300 ? length : 300, text);
}

static int64_t messages_of(const lh_block *b)
{
    return b->count * (int64_t)((b->bytes + MESSAGE - 1) / MESSAGE);
}

static lh_status make_room(int slot, int64_t requests, lh_error *error)
{
    if (requests <= mpi.exchange[slot].room)
        return LH_OK;
    if (requests > INT32_MAX)
        return lh_fail(error, LH_UNSUPPORTED, "an exchange has %lld messages, wanted at most %d",
                       (long long)requests, INT32_MAX);
    lh_free(mpi.exchange[slot].requests);
    mpi.exchange[slot].room = 0;
    const lh_status status = lh_alloc((void **)&mpi.exchange[slot].requests,
                                      (size_t)requests * sizeof(MPI_Request), "MPI requests", error);
    if (status == LH_OK)
        mpi.exchange[slot].room = (int)requests;
    return status;
}

/* This rank's own blocks, the i-th send into the i-th receive. */
static void copy_own(const lh_block *sends, int send_count, const lh_block *receives, int receive_count)
{
    int r = 0;
    for (int s = 0; s < send_count; s++) {
        if (sends[s].peer != mpi.rank)
            continue;
        while (r < receive_count && receives[r].peer != mpi.rank)
            r++;
        for (int64_t i = 0; r < receive_count && i < sends[s].count; i++)
            memcpy((char *)receives[r].data + (size_t)i * receives[r].stride,
                   (const char *)sends[s].data + (size_t)i * sends[s].stride, sends[s].bytes);
        r++;
    }
}

static int post(const lh_block *b, bool send, int tag, int slot)
{
    for (int64_t i = 0; i < b->count; i++) {
        char *run = (char *)b->data + (size_t)i * b->stride;
        for (size_t at = 0; at < b->bytes; at += MESSAGE) {
            const int bytes = b->bytes - at < MESSAGE ? (int)(b->bytes - at) : MESSAGE;
            MPI_Request *request = &mpi.exchange[slot].requests[mpi.exchange[slot].count++];
            const int code =
                send ? MPI_Isend(run + at, bytes, MPI_BYTE, b->peer, tag, MPI_COMM_WORLD, request)
                     : MPI_Irecv(run + at, bytes, MPI_BYTE, b->peer, tag, MPI_COMM_WORLD, request);
            if (code != MPI_SUCCESS)
                return code;
        }
    }
    return MPI_SUCCESS;
}

static lh_status begin_alone(const lh_block *sends, int send_count, const lh_block *receives,
                             int receive_count, int *request, lh_error *error)
{
    int slot = 0;
    while (slot < LH_EXCHANGES && mpi.exchange[slot].busy)
        slot++;
    if (slot == LH_EXCHANGES)
        return lh_fail(error, LH_INVALID, "exchanges begun and not finished are %d, wanted no more",
                       LH_EXCHANGES);
    int64_t messages = 0;
    for (int i = 0; i < send_count; i++)
        messages += sends[i].peer == mpi.rank ? 0 : messages_of(&sends[i]);
    for (int i = 0; i < receive_count; i++)
        messages += receives[i].peer == mpi.rank ? 0 : messages_of(&receives[i]);
    lh_status status = make_room(slot, messages, error);
    if (status != LH_OK)
        return status;
    const int tag = (int)(mpi.begun++ % TAGS);
    int code = MPI_SUCCESS;
    mpi.exchange[slot].count = 0;
    for (int i = 0; i < receive_count && code == MPI_SUCCESS; i++)
        code = receives[i].peer == mpi.rank ? code : post(&receives[i], false, tag, slot);
    for (int i = 0; i < send_count && code == MPI_SUCCESS; i++)
        code = sends[i].peer == mpi.rank ? code : post(&sends[i], true, tag, slot);
    if (code != MPI_SUCCESS)
        return failed("MPI", code, error);
    copy_own(sends, send_count, receives, receive_count);
    mpi.exchange[slot].busy = true;
    mpi.exchange[slot].arrived = false;
    mpi.under_way++;
    pthread_cond_signal(&mpi.changed);
    *request = slot;
    return LH_OK;
}

static lh_status begin(void *context, const lh_block *sends, int send_count, const lh_block *receives,
                       int receive_count, int *request, lh_error *error)
{
    (void)context;
    pthread_mutex_lock(&mpi.mutex);
    const lh_status status = begin_alone(sends, send_count, receives, receive_count, request, error);
    pthread_mutex_unlock(&mpi.mutex);
    return status;
}

static lh_status finish(void *context, int request, lh_error *error)
{
    (void)context;
    bool arrived = false;
    int code = MPI_SUCCESS;
    for (int looks = 0; !arrived; looks++) {
        pthread_mutex_lock(&mpi.mutex);
        look(request);
        arrived = mpi.exchange[request].arrived;
        code = mpi.exchange[request].code;
        mpi.exchange[request].busy = !arrived;
        pthread_mutex_unlock(&mpi.mutex);
        if (!arrived && looks >= EAGER_LOOKS)
            doze(looks < 2 * EAGER_LOOKS ? SHORT_SLEEP : SLEEP);
    }
    return code == MPI_SUCCESS ? LH_OK : failed("MPI_Testall", code, error);
}

/* LIGHTHOUSE_OVERLAP, 0 or 1, says otherwise: to see what it is worth. */
static bool over_hosts(int ranks)
{
    const char *said = getenv("LIGHTHOUSE_OVERLAP");
    MPI_Comm host;
    int here = ranks;
    if (said)
        return strcmp(said, "0") != 0;
    if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host) != MPI_SUCCESS)
        return true;
    MPI_Comm_size(host, &here);
    MPI_Comm_free(&host);
    return here < ranks;
}

lh_status lh_mpi_start(lh_exchange *exchange, lh_error *error)
{
    int provided, ranks;
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
    if (code != MPI_SUCCESS)
        return lh_fail(error, LH_DEVICE, "MPI_Init_thread failed with %d, wanted MPI to start", code);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    mpi.ending = false;
    mpi.helped = provided >= MPI_THREAD_SERIALIZED && over_hosts(ranks) &&
                 pthread_create(&mpi.thread, NULL, help, NULL) == 0;
    *exchange = (lh_exchange){mpi.rank, ranks, NULL, begin, finish, mpi.helped, false};
    return LH_OK;
}

void lh_mpi_stop(void)
{
    pthread_mutex_lock(&mpi.mutex);
    mpi.ending = true;
    pthread_cond_signal(&mpi.changed);
    pthread_mutex_unlock(&mpi.mutex);
    if (mpi.helped)
        pthread_join(mpi.thread, NULL);
    mpi.helped = false;
    MPI_Finalize();
    for (int i = 0; i < LH_EXCHANGES; i++) {
        lh_free(mpi.exchange[i].requests);
        mpi.exchange[i].requests = NULL;
        mpi.exchange[i].room = 0;
    }
}

void lh_mpi_abort(int status)
{
    pthread_mutex_lock(&mpi.mutex); /* kept: nobody calls MPI after this */
    MPI_Abort(MPI_COMM_WORLD, status);
}
