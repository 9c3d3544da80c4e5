/* Ranks that are MPI processes: one message a run of a block, several where a run passes 1 GiB. */
#include "dist/ranks_mpi.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "core/base.h"

enum {
    MESSAGE = 1 << 30, /* bytes at most: counts are int */
    TAGS = 1 << 14
};

static struct {
    int rank;
    unsigned begun;
    struct {
        bool busy;
        MPI_Request *requests;
        int count, room;
    } exchange[LH_EXCHANGES];
} mpi;

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

static lh_status begin(void *context, const lh_block *sends, int send_count, const lh_block *receives,
                       int receive_count, int *request, lh_error *error)
{
    (void)context;
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
    *request = slot;
    return LH_OK;
}

static lh_status finish(void *context, int request, lh_error *error)
{
    (void)context;
    const int code =
        MPI_Waitall(mpi.exchange[request].count, mpi.exchange[request].requests, MPI_STATUSES_IGNORE);
    mpi.exchange[request].busy = false;
    return code == MPI_SUCCESS ? LH_OK : failed("MPI_Waitall", code, error);
}

lh_status lh_mpi_start(lh_exchange *exchange, lh_error *error)
{
    int provided, ranks;
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (code != MPI_SUCCESS)
        return lh_fail(error, LH_DEVICE, "MPI_Init_thread failed with %d, wanted MPI to start", code);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    *exchange = (lh_exchange){mpi.rank, ranks, NULL, begin, finish};
    return LH_OK;
}

void lh_mpi_stop(void)
{
    MPI_Finalize();
    for (int i = 0; i < LH_EXCHANGES; i++) {
        lh_free(mpi.exchange[i].requests);
        mpi.exchange[i].requests = NULL;
        mpi.exchange[i].room = 0;
    }
}

void lh_mpi_abort(int status)
{
    MPI_Abort(MPI_COMM_WORLD, status);
}
