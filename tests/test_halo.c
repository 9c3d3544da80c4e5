/* What crosses an edge between ranks, spoilt on its way: verify --ranks sees each fault. */
#include <stdio.h>
#include <string.h>

#include "dist/dist.h"
#include "tests/layer.h"
#include "tests/suite.h"
#include "verify/verify.h"

enum {
    RANKS = 4
};

static const char *backend;

/* What a rank is given from its neighbour. */
enum fault {
    HONEST,
    LOST,    /* nothing */
    LAST,    /* all but the last row: the coarsest entry's, or position p^(L-1) - 2 */
    SHIFTED, /* every row one place further */
    TWICE,   /* the last row in the first one's place too */
    FLAGS,   /* that every level's last entry was selected */
    FAULTS
};

/* A transport with a fault, and how often that came to bear. */
struct wrapped {
    const lh_exchange *inner;
    enum fault fault;
    struct {
        bool edge;
        lh_block rows, flags;
    } request[LH_EXCHANGES];
    int spoilt;
};

/* Of all exchanges this one alone receives from one neighbour and not from the rank itself. */
static bool crosses_an_edge(int rank, const lh_block *receives, int count)
{
    for (int i = 0; i < count; i++) {
        if (receives[i].peer != receives[0].peer ||
            (receives[i].peer != rank - 1 && receives[i].peer != rank + 1))
            return false;
    }
    return count == 1 || count == 2;
}

static lh_status begin(void *context, const lh_block *sends, int send_count, const lh_block *receives,
                       int receive_count, int *request, lh_error *error)
{
    struct wrapped *w = context;
    const lh_status status =
        w->inner->begin(w->inner->context, sends, send_count, receives, receive_count, request, error);
    if (status != LH_OK)
        return status;
    w->request[*request].edge = crosses_an_edge(w->inner->rank, receives, receive_count);
    if (w->request[*request].edge) {
        w->request[*request].rows = receives[0];
        w->request[*request].flags = receives[receive_count - 1];
        w->request[*request].flags.count = receive_count == 2 ? receives[1].count : 0;
    }
    return status;
}

/* One head's rows. many-tiles: d = 4; two rows forward, three backward. */
static void spoil_rows(enum fault fault, char *data, size_t bytes, size_t row)
{
    if (fault == LOST)
        memset(data, 0, bytes);
    else if (fault == LAST)
        memset(data + bytes - row, 0, row);
    else if (fault == SHIFTED)
        memmove(data + row, data, bytes - row);
    else if (fault == TWICE)
        memcpy(data, data + bytes - row, row);
}

static lh_status finish(void *context, int request, lh_error *error)
{
    struct wrapped *w = context;
    const lh_status status = w->inner->finish(w->inner->context, request, error);
    if (status != LH_OK || !w->request[request].edge || w->fault == HONEST)
        return status;
    const lh_block *rows = &w->request[request].rows, *flags = &w->request[request].flags;
    const size_t row = 4 * (strcmp(backend, "ref") == 0 ? sizeof(double) : sizeof(float));
    for (int64_t i = 0; i < rows->count; i++)
        spoil_rows(w->fault, (char *)rows->data + (size_t)i * rows->stride, rows->bytes, row);
    for (int64_t i = 0; i < flags->count && w->fault == FLAGS; i++)
        for (size_t at = 0; at < flags->bytes; at += sizeof(int32_t))
            memcpy((char *)flags->data + (size_t)i * flags->stride + at, &(int32_t){1}, sizeof(int32_t));
    w->spoilt++;
    return status;
}

struct judged {
    const verify_wish *wish;
    verify_report *report;
    enum fault fault;
    int spoilt[RANKS];
};

static lh_status judge(const lh_exchange *exchange, void *context, lh_error *error)
{
    struct judged *j = context;
    struct wrapped w = {.inner = exchange, .fault = j->fault};
    const lh_exchange through = {exchange->rank,       exchange->ranks,   &w, begin, finish,
                                 exchange->background, exchange->together};
    const lh_status status =
        verify_run_ranks(j->wish, &through, exchange->rank == 0 ? j->report : NULL, error);
    j->spoilt[exchange->rank] = w.spoilt;
    return status;
}

START_TEST(a_spoilt_edge_is_seen)
{
    const verify_wish wish = {.backend = {backend},
                              .backends = 1,
                              .pattern = "many-tiles",
                              .dtypes = 1u << (strcmp(backend, "ref") == 0 ? LH_F64 : LH_F32)};
    struct judged j = {.wish = &wish, .fault = (enum fault)_i};
    lh_error error;
    expect_status(verify_report_create(&wish, NULL, false, &j.report, &error), LH_OK, &error, "");
    expect_status(lh_dist_threads(RANKS, judge, &j, &error), LH_OK, &error, "");
    ck_assert_int_gt(verify_report_tensors(j.report), 0);
    if (_i == HONEST) {
        ck_assert_int_eq(verify_report_failures(j.report), 0);
    } else {
        for (int r = 0; r < RANKS; r++)
            ck_assert_int_gt(j.spoilt[r], 0);
        ck_assert_msg(verify_report_failures(j.report) > 0, "fault %d was not seen", _i);
    }
    verify_report_destroy(j.report);
}
END_TEST

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_over_threads(argc, argv);
    snprintf(name, sizeof name, "halo %s", backend);
    Suite *suite = suite_create(name);
    tcase_add_loop_test(suite_case(suite, "edges"), a_spoilt_edge_is_seen, 0, FAULTS);
    return suite_run(suite);
}
