#include "tests/twin.h"

#include <math.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "tests/suite.h"

static lh_error error;

static void ok(lh_status status)
{
    ck_assert_msg(status == LH_OK, "%s", error.text);
}

double twin_unit(lh_dtype dtype)
{
    return dtype == LH_F16 ? 0x1p-11 : dtype == LH_BF16 ? 0x1p-8 : 0x1p-24;
}

static double largest_of(const lh_tensor *t)
{
    double largest = 0;
    for (int64_t i = 0; i < lh_tensor_elements(t); i++)
        largest = fmax(largest, fabs(lh_load(t->data, t->dtype, i)));
    return largest;
}

static void expect_close(const lh_tensor *got, const lh_tensor *twin, const lh_tensor *exact, double largest,
                         const char *name, const lh_config *c)
{
    const int64_t elements = lh_tensor_elements(exact);
    double twin_error = 0, error_found = 0;
    int64_t worst = 0;
    for (int64_t i = 0; i < elements; i++) {
        const double want = lh_load(exact->data, exact->dtype, i);
        const double off = fabs(lh_load(got->data, got->dtype, i) - want);
        twin_error = fmax(twin_error, fabs(lh_load(twin->data, twin->dtype, i) - want));
        if (!(off <= error_found)) { /* NaN is the worst of all */
            error_found = off;
            worst = i;
        }
    }
    const double allowed = 4 * twin_error + 2 * twin_unit(got->dtype) * largest;
    ck_assert_msg(
        error_found <= allowed,
        "%s [%lld] of N=%lld d=%lld L=%lld %s: got %.9g, wanted %.9g, off by %.3g, allowed %.3g (twin %.3g)",
        name, (long long)worst, (long long)c->tokens, (long long)c->dim, (long long)c->levels,
        lh_dtype_name(got->dtype), lh_load(got->data, got->dtype, worst),
        lh_load(exact->data, exact->dtype, worst), error_found, allowed, twin_error);
}

static void expect_tensor(const struct twin *t, lh_tensor_id id)
{
    const lh_tensor *got = &t->got.trace[id], *want = &t->exact.trace[id];
    const char *name = lh_tensor_name(id);
    double largest;
    if (want->dtype == LH_I32 || want->dtype == LH_I64) {
        ck_assert_msg(memcmp(got->data, want->data, layer_bytes(want)) == 0, "%s differs, N=%lld d=%lld",
                      name, (long long)t->got.config.tokens, (long long)t->got.config.dim);
        return;
    }
    largest = largest_of(want);
    if (id == LH_DQ_SEL || id == LH_DK_SEL)
        largest = fmax(largest, largest_of(&t->exact.trace[LH_DV_SEL]));
    if (id == LH_DQ || id == LH_DK)
        largest = fmax(largest, largest_of(&t->exact.trace[LH_DV]));
    expect_close(got, &t->twin.trace[id], want, largest, name, &t->got.config);
}

void twin_expect(const struct twin *t, const lh_tensor_id *ids)
{
    for (; *ids != LH_TENSOR_COUNT; ids++)
        expect_tensor(t, *ids);
}

static void create(struct twin *t, const lh_config *config, lh_dtype dtype)
{
    t->dtype = dtype;
    layer_create(&t->got, config, dtype, 17);
    layer_create(&t->twin, config, dtype, 17);
    layer_create(&t->exact, config, LH_F64, 17);
}

static void destroy(struct twin *t)
{
    layer_free(&t->got);
    layer_free(&t->twin);
    layer_free(&t->exact);
}

static void copy_tensor(const struct layer *to, const struct layer *from, lh_tensor_id id)
{
    ok(lh_tensor_convert(&to->trace[id], &from->trace[id], &error));
}

static void give(const struct twin *t, lh_tensor_id id)
{
    copy_tensor(&t->exact, &t->got, id);
    copy_tensor(&t->twin, &t->got, id);
}

void twin_stages(const lh_config *config, lh_dtype dtype, twin_port *port)
{
    struct twin t;
    create(&t, config, dtype);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        for (const lh_tensor_id *id = lh_stage_reads((lh_stage)stage); *id != LH_TENSOR_COUNT; id++)
            give(&t, *id);
        ok(lh_ref_run(64, config, LH_REF_STAGE(stage), t.exact.trace, NULL, &error));
        ok(lh_ref_run(32, config, LH_REF_STAGE(stage), t.twin.trace, NULL, &error));
        const lh_tensor_id *writes = lh_stage_writes((lh_stage)stage);
        port(&t, stage, writes);
        for (const lh_tensor_id *id = writes; *id != LH_TENSOR_COUNT; id++)
            copy_tensor(&t.got, &t.exact, *id);
    }
    destroy(&t);
}

void twin_layer(const lh_config *config, lh_dtype dtype, twin_port *port)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT, LH_INDEX}, none = LH_TENSOR_COUNT;
    static const lh_tensor_id outputs[] = {LH_INDEX, LH_O_SEL, LH_LSE, LH_OUT,         LH_COVERAGE,
                                           LH_DQ,    LH_DK,    LH_DV,  LH_TENSOR_COUNT};
    struct twin t;
    create(&t, config, dtype);
    port(&t, LH_STAGE_COUNT, &none); /* for the index */
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        give(&t, inputs[i]);
    ok(lh_ref_run(64, config, LH_REF_FORWARD_GIVEN, t.exact.trace, NULL, &error));
    ok(lh_ref_run(64, config, LH_REF_BACKWARD, t.exact.trace, NULL, &error));
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++) {
        if (stage != LH_SCORE && stage != LH_SELECT)
            ok(lh_ref_run(32, config, LH_REF_STAGE(stage), t.twin.trace, NULL, &error));
    }
    port(&t, LH_STAGE_COUNT, outputs);
    destroy(&t);
}
