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
    bool keep_own; /* index, o_sel, lse stay with the plan */
};

static const lh_tensor_id by_token[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_OUT, LH_DQ, LH_DK, LH_DV, LH_COVERAGE},
                          by_row[] = {LH_O_SEL, LH_LSE},
                          outputs[] = {LH_OUT, LH_COVERAGE, LH_DQ, LH_DK, LH_DV};

static lh_options options_of(const struct whole *w)
{
    return (lh_options){.backend = backend, .dtype = w->dtype, .backward = true, .threads = 1};
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
    const lh_options o = options_of(w);
    lh_dist_plan *plan;
    lh_status status = lh_dist_create(&w->layer.config, &o, w->layout, exchange, &plan, error);
    if (status != LH_OK)
        return status;
    struct layer part;
    lh_tensor trace[LH_TENSOR_COUNT];
    layer_create(&part, lh_dist_config(plan), w->dtype, 1);
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
static void expect_one_machine(const lh_config *config, int ranks, lh_dist_layout layout, lh_dtype dtype,
                               bool keep_own)
{
    struct whole w = {.dtype = dtype, .layout = layout, .ranks = ranks, .keep_own = keep_own};
    const lh_options o = options_of(&w);
    lh_error error;
    lh_plan *plan;
    layer_create(&w.layer, config, dtype, 7);
    expect_status(lh_plan_create(config, &o, &plan, &error), LH_OK, &error, "");
    expect_status(lh_forward(plan, w.layer.trace, &error), LH_OK, &error, "");
    expect_status(lh_backward(plan, w.layer.trace, &error), LH_OK, &error, "");
    lh_plan_destroy(plan);
    const int64_t live = lh_alloc_live();
    expect_status(lh_dist_threads(ranks, run_rank, &w, &error), LH_OK, &error, "");
    ck_assert_int_eq(lh_alloc_live(), live);
    layer_free(&w.layer);
}

static const struct {
    const char *why;
    lh_config config;
    int ranks[6];
} layers[] = {
    /* B H G N d L p k m */
    {"windows of 9 tokens cross every edge", {2, 8, 4, 288, 5, 3, 3, 32, 4}, {1, 2, 4, 8}},
    {"one tile a rank, every coarsest entry a parent", {1, 4, 4, 64, 8, 2, 2, 32, 8}, {2, 4}},
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

int main(int argc, char **argv)
{
    char name[64];
    backend = backend_under_test(argc, argv);
    snprintf(name, sizeof name, "dist %s", backend);
    Suite *suite = suite_create(name);
    TCase *bits = suite_case(suite, "bits");
    tcase_add_loop_test(bits, bits_of_one_machine, 0, sizeof layers / sizeof *layers);
    tcase_add_loop_test(bits, bits_in_other_dtypes, 0, 3);
    return suite_run(suite);
}
