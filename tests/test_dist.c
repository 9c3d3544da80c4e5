/* One layer over ranks that are threads: the bits of one machine, the edges, what is refused, ranks that fail. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "dist/dist.h"
#include "tests/layer.h"
#include "tests/suite.h"

static const char *backend;

/* A layer of one machine and what each rank is to find in it. */
struct whole {
    struct layer layer;
    lh_dtype dtype;
    lh_dist_layout layout;
    int ranks;
    bool keep_own;    /* index, o_sel, lse stay with the plan */
    bool token_major; /* [B,N,H,d] callers */
    bool index_given;
    bool ahead;     /* the exchange goes on while ranks compute: two pieces of heads under way */
    int threads;    /* of a rank */
    int64_t window; /* rows that the plan is to have in a window, where the port has windows */
};

static const lh_tensor_id by_token[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_OUT, LH_DQ, LH_DK, LH_DV, LH_COVERAGE},
                          by_row[] = {LH_O_SEL, LH_LSE},
                          outputs[] = {LH_OUT, LH_COVERAGE, LH_DQ, LH_DK, LH_DV};

static lh_options options_of(const struct whole *w)
{
    return (lh_options){
        .backend = backend, .dtype = w->dtype, .backward = true, .threads = w->threads > 0 ? w->threads : 1};
}

/* Tokens or rows of rank r in a tensor of the whole layer. */
static lh_tensor part_of(const lh_tensor *t, int rank, int ranks)
{
    lh_tensor part = *t;
    part.shape[2] /= ranks;
    part.data = (char *)t->data + rank * part.shape[2] * t->stride[2] * (int64_t)lh_dtype_size(t->dtype);
    return part;
}

static void compare(const lh_tensor *got, const lh_tensor *want, const char *name, int rank, bool exact)
{
    for (int64_t b = 0; b < got->shape[0]; b++)
        for (int64_t h = 0; h < got->shape[1]; h++)
            for (int64_t n = 0; n < got->shape[2]; n++)
                for (int64_t c = 0; c < (got->rank == 4 ? got->shape[3] : 1); c++) {
                    const int64_t i = lh_offset(got, b, h, n) + c, j = lh_offset(want, b, h, n) + c;
                    const size_t size = lh_dtype_size(got->dtype);
                    const bool same = memcmp((char *)got->data + (size_t)i * size,
                                             (char *)want->data + (size_t)j * size, size) == 0;
                    if (got->dtype == LH_I32 || exact) {
                        ck_assert_msg(same, "%s[%d,%d,%d,%d] of rank %d differs: %.17g, wanted %.17g", name,
                                      (int)b, (int)h, (int)n, (int)c, rank, lh_load(got->data, got->dtype, i),
                                      lh_load(want->data, want->dtype, j));
                        continue;
                    }
                    const double x = lh_load(got->data, got->dtype, i),
                                 y = lh_load(want->data, want->dtype, j);
                    const double unit = got->dtype == LH_BF16  ? 0x1p-8
                                        : got->dtype == LH_F16 ? 0x1p-11
                                                               : 0x1p-23;
                    ck_assert_msg(fabs(x - y) <= 16 * unit * (1 + fabs(y)), "%s of rank %d is %g, wanted %g",
                                  name, rank, x, y);
                }
}

/* Entries of a rank's own pyramid are those of the whole one. */
static void compare_index(const lh_dist_plan *plan, const lh_tensor *got, const lh_tensor *want)
{
    const int rank = plan->exchange.rank;
    for (int64_t b = 0; b < got->shape[0]; b++)
        for (int64_t h = 0; h < got->shape[1]; h++)
            for (int64_t s = 0; s < got->shape[2]; s++) {
                const int64_t entry = lh_index_at(got, lh_offset(got, b, h, s));
                const int level = lh_level_of(&plan->part_layout, (int)plan->config.levels, entry);
                const int64_t i = entry - plan->part_layout.level_offset[level] +
                                  rank * plan->part_layout.level_size[level];
                ck_assert_int_eq(plan->layout.level_offset[level] + i,
                                 lh_index_at(want, lh_offset(want, b, h, s + rank * got->shape[2])));
            }
}

static lh_status run_rank(const lh_exchange *exchange, void *context, lh_error *error)
{
    struct whole *w = context;
    lh_options o = options_of(w);
    o.index_given = w->index_given;
    lh_exchange through = *exchange;
    lh_dist_plan *plan;
    through.background = w->ahead;
    lh_status status = lh_dist_create(&w->layer.config, &o, w->layout, &through, &plan, error);
    if (status != LH_OK)
        return status;
    ck_assert_int_eq(plan->sets, w->ahead && plan->pieces > 1 ? 2 : 1);
    ck_assert_int_eq(plan->window, w->window);
    struct layer part;
    lh_tensor trace[LH_TENSOR_COUNT];
    layer_create(&part, lh_dist_config(plan), w->dtype, 1);
    for (int i = 0; i < LH_LAYER_STRIDED && w->token_major; i++) {
        lh_tensor *t = &part.trace[lh_layer_strided[i]];
        t->stride[1] = t->shape[3];
        t->stride[2] = t->shape[1] * t->shape[3];
    }
    if (w->index_given)
        lh_dist_index_to_part(&w->layer.config, exchange->rank, exchange->ranks, &w->layer.trace[LH_INDEX],
                              &part.trace[LH_INDEX]);
    for (size_t i = 0; i < 4; i++) {
        const lh_tensor from = part_of(&w->layer.trace[by_token[i]], exchange->rank, exchange->ranks);
        ck_assert_int_eq(lh_tensor_convert(&part.trace[by_token[i]], &from, NULL), LH_OK);
    }
    memcpy(trace, part.trace, sizeof trace);
    for (int i = 0; i < 3 && w->keep_own; i++)
        trace[lh_layer_kept[i]].data = NULL;
    status = lh_dist_forward(plan, trace, error);
    if (status == LH_OK)
        status = lh_dist_backward(plan, trace, error);
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs && status == LH_OK; i++) {
        const lh_tensor want = part_of(&w->layer.trace[outputs[i]], exchange->rank, exchange->ranks);
        compare(&trace[outputs[i]], &want, lh_tensor_name(outputs[i]), exchange->rank,
                lh_dist_same_bits(plan, outputs[i]));
    }
    for (size_t i = 0; i < 2 && status == LH_OK && !w->keep_own; i++) {
        const lh_tensor want = part_of(&w->layer.trace[by_row[i]], exchange->rank, exchange->ranks);
        compare(&trace[by_row[i]], &want, lh_tensor_name(by_row[i]), exchange->rank,
                lh_dist_same_bits(plan, by_row[i]));
    }
    if (status == LH_OK && !w->keep_own)
        compare_index(plan, &trace[LH_INDEX], &w->layer.trace[LH_INDEX]);
    layer_free(&part);
    lh_dist_destroy(plan);
    return status;
}

/* What a port keeps is what it gives: own buffers or the caller's, the same. */
static void expect_same(struct whole w, const lh_config *config)
{
    const lh_options o = options_of(&w);
    lh_error error;
    lh_plan *plan;
    layer_create(&w.layer, config, w.dtype, 7);
    expect_status(lh_plan_create(config, &o, &plan, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, w.layer.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, w.layer.trace, &error), LH_OK, &error, "");
    lh_plan_destroy(plan);
    const int64_t live = lh_alloc_live();
    expect_status(lh_dist_threads(w.ranks, run_rank, &w, &error), LH_OK, &error, "");
    ck_assert_int_eq(lh_alloc_live(), live);
    layer_free(&w.layer);
}

static void expect_one_machine(const lh_config *config, int ranks, lh_dist_layout layout, lh_dtype dtype,
                               bool keep_own)
{
    expect_same(
        (struct whole){
            .dtype = dtype, .layout = layout, .ranks = ranks, .keep_own = keep_own, .ahead = ranks % 4 != 2},
        config);
}

static const struct {
    const char *why;
    lh_config config;
    int ranks[6];
} layers[] = {
    /* B H G N d L p k m */
    {"windows of 9 tokens cross every edge", {2, 8, 4, 288, 5, 3, 3, 32, 4}, {1, 2, 4, 8}},
    {"one tile a rank, every coarsest entry a parent; three pieces of heads",
     {3, 4, 4, 64, 8, 2, 2, 32, 8},
     {2, 4}},
    {"more ranks than key/value heads", {1, 4, 1, 96, 17, 3, 2, 16, 4}, {2, 4}},
    {"ranks that divide batch * heads alone", {3, 2, 1, 72, 3, 2, 2, 12, 2}, {1, 2, 3}},
    {"more ranks than sequences", {1, 1, 1, 160, 4, 3, 2, 40, 8}, {1, 5}},
    {"five ranks, three heads in one group", {1, 3, 1, 240, 6, 4, 2, 20, 4}, {1, 5}},
    {"dense", {1, 2, 1, 60, 8, 1, 2, 0, 0}, {1, 2, 3, 4}},
    {"runs of rows beyond a tile of attention", {1, 2, 2, 1536, 16, 2, 4, 128, 16}, {2, 4, 8}},
};

START_TEST(bits_of_one_machine)
{
    const lh_config *config = &layers[_i].config;
    const lh_dtype dtype = strcmp(backend, "ref") == 0 ? LH_F64 : LH_F32;
    for (int i = 0; i < 6 && layers[_i].ranks[i]; i++) {
        const int ranks = layers[_i].ranks[i];
        if (config->batch * config->heads % ranks == 0)
            expect_one_machine(config, ranks, LH_DIST_BY_HEADS, dtype, i % 2 == 1);
        expect_one_machine(config, ranks, LH_DIST_BY_ROWS, dtype, i % 2 == 0);
    }
}
END_TEST

/* Halves are converted on the way in, rounded where one machine rounds. */
START_TEST(bits_in_other_dtypes)
{
    const lh_dtype dtypes[] = {LH_F32, LH_BF16, LH_F16};
    const lh_backend *found;
    ck_assert_int_eq(lh_backend_find(backend, 0, &found, NULL), LH_OK);
    if ((found->can.dtypes & 1u << dtypes[_i]) == 0)
        return;
    expect_one_machine(&layers[0].config, 2, LH_DIST_BY_HEADS, dtypes[_i], true);
    expect_one_machine(&layers[0].config, 4, LH_DIST_BY_ROWS, dtypes[_i], false);
}
END_TEST

START_TEST(callers_of_other_kinds)
{
    const lh_dtype dtype = dtype_under_test(backend);
    expect_same((struct whole){.dtype = dtype, .layout = LH_DIST_BY_HEADS, .ranks = 2, .token_major = true},
                &layers[0].config);
    expect_same((struct whole){.dtype = dtype, .layout = LH_DIST_AUTO, .ranks = 3, .index_given = true},
                &layers[3].config);
}
END_TEST

/* Pieces that are attended over a window of rows at a time, where the port does so, have the bits too: windows of one tile of
 * the port and of several, that end a rank's rows or not; several sequences a rank; more threads than heads. */
START_TEST(bits_of_windows)
{
    static const struct {
        lh_config config;
        int ranks, threads;
        int64_t window;
        bool token_major;
    } cases[] = {
        {{2, 4, 2, 2048, 16, 3, 2, 64, 8}, 4, 1, 192, false},
        {{1, 8, 8, 2048, 16, 3, 2, 64, 8}, 8, 2, 96, true},
        {{1, 4, 1, 2560, 32, 2, 4, 80, 8}, 2, 3, 96, false},
        {{1, 2, 2, 6144, 16, 3, 2, 192, 8}, 1, 1, 768, true},
    };
    const lh_dtype dtypes[] = {LH_F32, LH_BF16, LH_F16, LH_F32};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dist_windows_from = 0;
        expect_same((struct whole){.dtype = dtypes[_i],
                                   .layout = LH_DIST_BY_HEADS,
                                   .ranks = cases[i].ranks,
                                   .threads = cases[i].threads,
                                   .window = cases[i].window,
                                   .token_major = cases[i].token_major,
                                   .keep_own = _i == 3},
                    &cases[i].config);
        dist_windows_from = DIST_WINDOWS_FROM;
    }
}
END_TEST

struct weighed {
    lh_config config;
    size_t bytes[8]; /* a rank */
};

static lh_status weigh_rank(const lh_exchange *exchange, void *context, lh_error *error)
{
    struct weighed *w = context;
    const lh_options o = {.backend = backend, .dtype = LH_F32, .backward = true, .threads = 1};
    lh_dist_plan *plan;
    const lh_status status = lh_dist_create(&w->config, &o, LH_DIST_BY_HEADS, exchange, &plan, error);
    w->bytes[exchange->rank] = status == LH_OK ? lh_dist_workspace(plan) : 0;
    lh_dist_destroy(plan);
    return status;
}

/* A rank's plan is at most 1.3 times its share of one machine's, where k, v, dk, dv of one head, whole, are not more than that
 * alone: what of the plan it cannot do without is those and what its forward keeps of o_sel, lse and index. */
START_TEST(memory_of_a_rank)
{
    const int ranks = 1 << (_i + 1);
    struct weighed w = {.config = {1, 8, 8, 98304, 64, 3, 4, 1536, 64}};
    const lh_options o = {.backend = backend, .dtype = LH_F32, .backward = true, .threads = 2};
    const size_t row = 64 * sizeof(float), rows = 18432;
    const size_t floor = 4 * rows * row + 8 * rows / (size_t)ranks * (row + sizeof(float) + sizeof(int32_t));
    lh_error error;
    lh_plan *one;
    expect_status(lh_plan_create(&w.config, &o, &one, &error), LH_OK, &error, "");
    const size_t share = lh_plan_workspace(one) / (size_t)ranks;
    lh_plan_destroy(one);
    expect_status(lh_dist_threads(ranks, weigh_rank, &w, &error), LH_OK, &error, "");
    for (int r = 0; r < ranks; r++) {
        ck_assert_uint_gt(w.bytes[r], floor);
        ck_assert_msg(w.bytes[r] <= (ranks < 8 ? 13 * share / 10 : floor + (3 << 20)),
                      "rank %d of %d holds %zu bytes, its share is %zu, its floor %zu", r, ranks, w.bytes[r],
                      share, floor);
    }
}
END_TEST

/* ---- what is refused ---------------------------------------------------------------------------- */

/* What one rank does otherwise than the rest. */
enum oddity {
    OTHER_TOPK,
    OTHER_DTYPE,
    OTHER_LAYOUT,
    NO_TENSOR,
    NOT_FINITE,
    BAD_INDEX,
    LEAVES,
};
struct odd {
    enum oddity oddity;
    int rank;
    struct {
        lh_status status;
        lh_error error;
    } seen[4];
};

static lh_status run_odd(const lh_exchange *exchange, void *context, lh_error *error)
{
    struct odd *odd = context;
    const bool me = exchange->rank == odd->rank;
    lh_config config = layers[0].config;
    struct layer part;
    lh_dist_plan *plan;
    lh_dist_layout layout = LH_DIST_AUTO;
    const bool other = strcmp(backend, "ref") != 0;
    lh_options o = {.backend = backend, .dtype = LH_F32, .backward = true, .threads = 1, .finite = true};
    if (me && odd->oddity == OTHER_TOPK)
        config.topk /= 2;
    if (me && odd->oddity == OTHER_DTYPE)
        o.dtype = other ? LH_BF16 : LH_F64;
    if (me && odd->oddity == OTHER_LAYOUT)
        layout = LH_DIST_BY_ROWS;
    lh_status status = lh_dist_create(&config, &o, layout, exchange, &plan, error);
    if (status == LH_OK) {
        layer_create(&part, lh_dist_config(plan), LH_F32, 3);
        if (me && odd->oddity == NO_TENSOR)
            part.trace[LH_V].data = (free(part.trace[LH_V].data), NULL);
        if (me && odd->oddity == NOT_FINITE)
            ((float *)part.trace[LH_Q].data)[7] = NAN;
        status = me && odd->oddity == LEAVES ? lh_fail(error, LH_IO, "the disk is gone, wanted a disk")
                                             : lh_dist_forward(plan, part.trace, error);
        if (status == LH_OK && me && odd->oddity == BAD_INDEX)
            ((int32_t *)part.trace[LH_INDEX].data)[3] = -1;
        if (status == LH_OK)
            status = lh_dist_backward(plan, part.trace, error);
        layer_free(&part);
        lh_dist_destroy(plan);
    }
    odd->seen[exchange->rank].status = status;
    if (status != LH_OK)
        odd->seen[exchange->rank].error = *error;
    return status;
}

static const struct {
    enum oddity oddity;
    lh_status status, elsewhere; /* of the odd rank, and of the others */
    const char *text;
} oddities[] = {
    {OTHER_TOPK, LH_INVALID, LH_INVALID, "topk is 16 on rank 2, wanted 32 as on rank 0"},
    {OTHER_DTYPE, LH_INVALID, LH_INVALID, "on rank 2, wanted F32 as on rank 0"},
    {OTHER_LAYOUT, LH_INVALID, LH_INVALID, "layout is rows on rank 2, wanted auto as on rank 0"},
    {NO_TENSOR, LH_INVALID, LH_INVALID, "v is NULL, wanted data"},
    {NOT_FINITE, LH_INVALID, LH_INVALID, "q[0,0,1,2] is NaN, wanted a finite value"},
    {BAD_INDEX, LH_INVALID, LH_INVALID, "index[0,0,3] is -1"},
    {LEAVES, LH_IO, LH_DEVICE, "the disk is gone"},
};

/* One rank's fault is everyone's, named; nobody waits for ever and nothing is left behind. */
START_TEST(odd_ranks)
{
    struct odd odd = {.oddity = oddities[_i].oddity, .rank = 2};
    const int64_t live = lh_alloc_live();
    lh_error error;
    expect_status(lh_dist_threads(4, run_odd, &odd, &error), oddities[_i].status, &error, oddities[_i].text);
    for (int r = 0; r < 4; r++) {
        const bool odd_one = r == odd.rank;
        ck_assert_int_eq(odd.seen[r].status, odd_one ? oddities[_i].status : oddities[_i].elsewhere);
        ck_assert_msg(strstr(odd.seen[r].error.text, odd_one || oddities[_i].elsewhere != LH_DEVICE
                                                         ? oddities[_i].text
                                                         : "rank 2 has failed"),
                      "rank %d says \"%s\"", r, odd.seen[r].error.text);
    }
    ck_assert_int_eq(lh_alloc_live(), live);
}
END_TEST

static lh_status create_only(const lh_exchange *exchange, void *context, lh_error *error)
{
    const struct whole *w = context;
    const lh_options o = options_of(w);
    lh_dist_plan *plan;
    const lh_status status = lh_dist_create(&w->layer.config, &o, w->layout, exchange, &plan, error);
    lh_dist_destroy(plan);
    return status;
}

START_TEST(create_refuses)
{
    const struct {
        lh_config config;
        int ranks;
        lh_dist_layout layout;
        const char *text;
    } cases[] = {
        {layers[0].config, 3, LH_DIST_AUTO, "ranks is 3, wanted a divisor of the 8 tiles (topk/tile_topk)"},
        {layers[6].config, 7, LH_DIST_AUTO, "ranks is 7, wanted a divisor of the 60 tokens"},
        {layers[4].config, 5, LH_DIST_BY_HEADS, "ranks is 5, wanted a divisor of batch * heads = 1"},
        {layers[0].config, 2, (lh_dist_layout)9, "layout is 9, wanted auto, heads or rows"},
        {{1, 1, 1, 8, 1, 9, 2, 4, 2}, 2, LH_DIST_AUTO, "tokens is 8"},
    };
    lh_error error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct whole w = {.layer.config = cases[i].config, .dtype = LH_F32, .layout = cases[i].layout};
        expect_status(lh_dist_threads(cases[i].ranks, create_only, &w, &error), LH_INVALID, &error,
                      cases[i].text);
    }
    struct whole w = {.layer.config = layers[0].config, .dtype = LH_F32};
    expect_status(lh_dist_threads(0, create_only, &w, &error), LH_INVALID, &error,
                  "ranks is 0, wanted 1 to 1024");
    lh_dist_plan *plan;
    const lh_options o = options_of(&w);
    expect_status(lh_dist_create(&layers[0].config, &o, LH_DIST_AUTO, NULL, &plan, &error), LH_INVALID,
                  &error, "exchange is NULL");
    ck_assert_ptr_null(plan);
}
END_TEST

/* Whichever rank's allocation fails, all come back and all is given back. */
START_TEST(memory_runs_out)
{
    struct whole w = {.layer.config = layers[1].config, .dtype = dtype_under_test(backend)};
    lh_error error;
    lh_status status = LH_NO_MEMORY;
    int failures = 0;
    for (int64_t n = 1; status != LH_OK && n < 1000; n++) {
        const int64_t live = lh_alloc_live();
        lh_alloc_fail_at(n);
        status = lh_dist_threads(2, create_only, &w, &error);
        lh_alloc_fail_at(0);
        failures += status == LH_NO_MEMORY;
        ck_assert_msg(status == LH_OK || status == LH_NO_MEMORY || status == LH_DEVICE, "%s", error.text);
        ck_assert_int_eq(lh_alloc_live(), live);
    }
    ck_assert_int_eq(status, LH_OK);
    ck_assert_int_gt(failures, 20);
}
END_TEST

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_over_threads(argc, argv);
    snprintf(name, sizeof name, "dist %s", backend);
    Suite *suite = suite_create(name);
    TCase *bits = suite_case(suite, "bits");
    tcase_add_loop_test(bits, bits_of_one_machine, 0, sizeof layers / sizeof *layers);
    tcase_add_loop_test(bits, bits_in_other_dtypes, 0, 3);
    tcase_add_test(bits, callers_of_other_kinds);
    const lh_backend *found;
    if (lh_backend_find(backend, 0, &found, NULL) == LH_OK && found->windows) {
        tcase_add_loop_test(bits, bits_of_windows, 0, 4);
        tcase_add_loop_test(bits, memory_of_a_rank, 0, 3);
    }
    TCase *refused = suite_case(suite, "refused");
    tcase_add_test(refused, create_refuses);
    tcase_add_loop_test(refused, odd_ranks, 0, sizeof oddities / sizeof *oddities);
    tcase_add_test(refused, memory_runs_out);
    return suite_run(suite);
}
