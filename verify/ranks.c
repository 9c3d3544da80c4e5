/*
 * A layer over ranks on one case: every rank computes its part, the first one puts the parts together and judges them
 * as a whole, against the same backend on one machine and against the reference with that one's index.
 */
#include <stdio.h>
#include <string.h>

#include "verify/row.h"
#include "verify/verify.h"

struct judging {
    const verify_case *subject;
    const char *backend;
    lh_options options;
    lh_dist_layout layout;
    const lh_exchange *exchange;
    verify_sink *sink;       /* the first rank's */
    verify_trace mine;       /* what this rank reads and writes */
    verify_trace whole, one; /* the first rank's: of all ranks, of one machine */
    lh_block *receives;      /* the first rank's: one of every rank */
    bool same_bits[LH_TENSOR_COUNT];
};

static const lh_tensor_id judged[] = {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT,         LH_COVERAGE,
                                      LH_DQ,    LH_DK,    LH_DV,  LH_TENSOR_COUNT};

static bool first(const struct judging *j)
{
    return j->exchange->rank == 0;
}

/* This rank's tokens of the whole inputs. */
static lh_status take_part(struct judging *j, const verify_trace *inputs, lh_error *error)
{
    lh_status status = LH_OK;
    for (int i = 0; i < LH_LAYER_INPUTS && status == LH_OK; i++) {
        const lh_tensor *to = &j->mine.tensor[lh_layer_inputs[i]];
        lh_tensor from = inputs->tensor[lh_layer_inputs[i]];
        from.data = (char *)from.data +
                    j->exchange->rank * to->shape[2] * from.stride[2] * (int64_t)lh_dtype_size(from.dtype);
        from.shape[2] = to->shape[2];
        status = lh_tensor_convert(to, &from, error);
    }
    return status;
}

static lh_status run_part(struct judging *j, const verify_trace *inputs, lh_error *error)
{
    lh_config part;
    lh_dist_plan *plan = NULL;
    lh_status status = lh_dist_part(&j->subject->config, j->exchange->ranks, &part, error);
    if (status == LH_OK)
        status = verify_make_all(&j->mine, &part, j->options.dtype, VERIFY_PACKED, error);
    if (status == LH_OK)
        status = take_part(j, inputs, error);
    if (status != LH_OK)
        return status;
    status = lh_dist_create(&j->subject->config, &j->options, j->layout, j->exchange, &plan, error);
    if (status == LH_OK)
        status = lh_dist_forward(plan, j->mine.tensor, error);
    if (status == LH_OK)
        status = lh_dist_backward(plan, j->mine.tensor, error);
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++)
        j->same_bits[id] = lh_dist_same_bits(plan, (lh_tensor_id)id);
    lh_dist_destroy(plan);
    return status;
}

/* Rank r's rows of a tensor, as blocks of its own tensor or of the whole one. */
static lh_block rows(const struct judging *j, const lh_tensor *t, int peer, bool whole, int rank)
{
    const int64_t mine = whole ? t->shape[2] / j->exchange->ranks : t->shape[2];
    const size_t row = (size_t)(t->rank == 4 ? t->shape[3] : 1) * lh_dtype_size(t->dtype);
    return (lh_block){.peer = peer,
                      .data = (char *)t->data + (whole ? (size_t)(rank * mine) * row : 0),
                      .bytes = (size_t)mine * row,
                      .stride = (size_t)t->shape[2] * row,
                      .count = t->shape[0] * t->shape[1]};
}

/* The ranks' tensors into the first rank's whole one. */
static lh_status collect(struct judging *j, lh_tensor_id id, lh_error *error)
{
    const lh_block send = rows(j, &j->mine.tensor[id], 0, false, 0);
    int request, count = 0;
    if (first(j))
        for (; count < j->exchange->ranks; count++)
            j->receives[count] = rows(j, &j->whole.tensor[id], count, true, count);
    const lh_status status =
        j->exchange->begin(j->exchange->context, &send, 1, j->receives, count, &request, error);
    return status == LH_OK ? j->exchange->finish(j->exchange->context, request, error) : status;
}

/* index is named by each rank in its own pyramid, whose dtype may be narrower. */
static lh_status rename_index(struct judging *j, lh_error *error)
{
    lh_config part;
    lh_tensor renamed;
    void *memory;
    lh_status status = lh_dist_part(&j->subject->config, j->exchange->ranks, &part, error);
    if (status == LH_OK)
        status = lh_tensor_describe(&part, j->options.dtype, LH_INDEX, &renamed, error);
    const size_t rank_bytes =
        status == LH_OK ? (size_t)lh_tensor_elements(&renamed) * lh_dtype_size(renamed.dtype) : 0;
    if (status == LH_OK)
        status = lh_alloc(&memory, rank_bytes * (size_t)j->exchange->ranks, "index of every rank", error);
    if (status != LH_OK)
        return status;
    const lh_tensor *whole = &j->whole.tensor[LH_INDEX];
    const int64_t rows_of_rank = renamed.shape[2], heads = renamed.shape[0] * renamed.shape[1];
    const size_t size = lh_dtype_size(renamed.dtype);
    for (int r = 0; r < j->exchange->ranks; r++)
        for (int64_t h = 0; h < heads; h++)
            memcpy((char *)memory + (size_t)r * rank_bytes + (size_t)(h * rows_of_rank) * size,
                   (char *)whole->data + (size_t)(h * whole->shape[2] + r * rows_of_rank) * size,
                   (size_t)rows_of_rank * size);
    for (int r = 0; r < j->exchange->ranks; r++) {
        renamed.data = (char *)memory + (size_t)r * rank_bytes;
        lh_dist_index_to_whole(&j->subject->config, r, j->exchange->ranks, &renamed, whole);
    }
    lh_free(memory);
    return LH_OK;
}

static lh_status run_one_machine(struct judging *j, const verify_trace *inputs, lh_error *error)
{
    lh_plan *plan = NULL;
    lh_status status = LH_OK;
    for (int i = 0; i < LH_LAYER_INPUTS && status == LH_OK; i++)
        status =
            lh_tensor_convert(&j->one.tensor[lh_layer_inputs[i]], &inputs->tensor[lh_layer_inputs[i]], error);
    if (status == LH_OK)
        status = lh_plan_create(&j->subject->config, &j->options, &plan, error);
    if (status == LH_OK)
        status = lh_forward(plan, j->one.tensor, error);
    if (status == LH_OK)
        status = lh_backward(plan, j->one.tensor, error);
    lh_plan_destroy(plan);
    return status;
}

static void judge(struct judging *j, const verify_expect *expect)
{
    char part[48];
    snprintf(part, sizeof part, "%d ranks by %s", j->exchange->ranks, lh_dist_layout_name(j->layout));
    for (const lh_tensor_id *id = judged; *id != LH_TENSOR_COUNT; id++) {
        const lh_tensor *got = &j->whole.tensor[*id], *one = &j->one.tensor[*id];
        verify_row row = {.subject = j->subject,
                          .backend = j->backend,
                          .dtype = j->options.dtype,
                          .part = part,
                          .tensor = *id,
                          .shape = *got};
        char note[160] = "";
        row.result = verify_judge_tensor(expect, *id, got, note, sizeof note);
        const int64_t differs = verify_first_difference(got, one);
        if (differs >= 0 && j->same_bits[*id] && verify_passed(row.result.verdict)) {
            row.result.verdict = VERIFY_OTHER_BITS;
            row.result.worst = differs;
            row.result.got = verify_element(got, differs);
            row.result.wanted = verify_element(one, differs);
        }
        verify_row_send(j->sink, &row, note);
    }
}

static lh_status judge_whole(struct judging *j, const verify_trace *inputs, lh_error *error)
{
    verify_expect *expect = NULL;
    lh_tensor present[LH_TENSOR_COUNT] = {0};
    lh_status status = rename_index(j, error);
    if (status == LH_OK)
        status = run_one_machine(j, inputs, error);
    for (const lh_tensor_id *id = judged; *id != LH_TENSOR_COUNT; id++) /* all are wanted */
        present[*id] = j->one.tensor[*id];
    if (status == LH_OK)
        status = verify_expect_make(&expect, 1, error);
    if (status == LH_OK)
        status =
            verify_expect_layer(expect, &j->subject->config, j->options.dtype, inputs, present, false, error);
    if (status == LH_OK)
        judge(j, expect);
    verify_expect_unmake(expect, 1);
    return status;
}

static lh_status run_layout(struct judging *j, const verify_trace *inputs, lh_error *error)
{
    lh_status status = run_part(j, inputs, error);
    if (status == LH_OK && first(j))
        status = verify_make_all(&j->whole, &j->subject->config, j->options.dtype, VERIFY_PACKED, error);
    if (status == LH_OK && first(j))
        status = verify_make_all(&j->one, &j->subject->config, j->options.dtype, VERIFY_PACKED, error);
    if (status == LH_OK && first(j))
        status = lh_alloc((void **)&j->receives, (size_t)j->exchange->ranks * sizeof *j->receives,
                          "blocks of every rank", error);
    for (const lh_tensor_id *id = judged; *id != LH_TENSOR_COUNT && status == LH_OK; id++)
        status = collect(j, *id, error);
    if (status == LH_OK && first(j))
        status = judge_whole(j, inputs, error);
    lh_free(j->receives);
    verify_free(&j->mine);
    verify_free(&j->whole);
    verify_free(&j->one);
    return status;
}

static bool chosen(const verify_wish *wish, const verify_case *c, const char *backend, lh_dtype dtype)
{
    lh_capabilities can;
    return verify_case_wants(c, dtype) && (wish->dtypes == 0 || (wish->dtypes & 1u << dtype) != 0) &&
           lh_backend_query(backend, &can, NULL) == LH_OK && (can.dtypes & 1u << dtype) != 0;
}

static lh_status run_case(const verify_wish *wish, const verify_case *c, const lh_exchange *exchange,
                          verify_report *report, lh_error *error)
{
    const bool by_heads = c->config.batch * c->config.heads % exchange->ranks == 0;
    verify_trace inputs = {0};
    verify_sink sink = {verify_report_row, report};
    lh_status status = verify_inputs(c, &inputs, error);
    if (report)
        verify_report_case(report, c);
    for (int b = 0; b < wish->backends; b++)
        for (int dtype = LH_F64; dtype <= LH_BF16; dtype++)
            for (int layout = by_heads ? LH_DIST_BY_HEADS : LH_DIST_BY_ROWS; layout <= LH_DIST_BY_ROWS;
                 layout++) {
                struct judging j = {.subject = c,
                                    .backend = wish->backend[b],
                                    .options = {.backend = wish->backend[b],
                                                .device = verify_device(wish, wish->backend[b]),
                                                .dtype = (lh_dtype)dtype,
                                                .attention = wish->attention,
                                                .backward = true,
                                                .threads = 1},
                                    .layout = (lh_dist_layout)layout,
                                    .exchange = exchange,
                                    .sink = &sink};
                if (status == LH_OK && chosen(wish, c, wish->backend[b], (lh_dtype)dtype))
                    status = run_layout(&j, &inputs, error);
            }
    verify_free(&inputs);
    if (status == LH_OK && report)
        verify_report_done(report);
    return status;
}

lh_status verify_run_ranks(const verify_wish *wish, const lh_exchange *exchange, verify_report *report,
                           lh_error *error)
{
    const verify_case *c;
    lh_config part;
    int cases = 0;
    lh_status status = LH_OK;
    for (int i = 0; (c = verify_case_at(i)) && status == LH_OK; i++) {
        if (!verify_case_matches(c, wish->pattern) ||
            lh_dist_part(&c->config, exchange->ranks, &part, NULL) != LH_OK)
            continue;
        cases++;
        status = run_case(wish, c, exchange, report, error);
    }
    if (status == LH_OK && cases == 0)
        status = lh_fail(error, LH_INVALID, "ranks is %d, wanted a divisor of the tiles of a chosen case",
                         exchange->ranks);
    return status;
}
