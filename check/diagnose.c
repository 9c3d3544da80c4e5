/*
 * Diagnosis: which known bug gives just the tensors that are wrong.
 *
 * A fault of an earlier stage can only be the reason where the dump lacks that stage's outputs: otherwise they
 * have been judged by themselves, and the later stage on them.
 */
#include <math.h>
#include <string.h>

#include "core/convert.h"
#include "scalar/run.h"
#include "check/check.h"

unsigned check_suspects(const lh_tensor *present, lh_stage stage)
{
    unsigned set = LH_REF_STAGE(stage);
    for (int s = stage; s >= 0; s--) {
        if (!(set & LH_REF_STAGE(s)))
            continue;
        for (const lh_tensor_id *in = lh_stage_reads((lh_stage)s); *in != LH_TENSOR_COUNT; in++) {
            for (int earlier = 0; earlier < s && !present[*in].data; earlier++) {
                for (const lh_tensor_id *out = lh_stage_writes((lh_stage)earlier); *out != LH_TENSOR_COUNT;
                     out++)
                    set |= *out == *in ? LH_REF_STAGE(earlier) : 0;
            }
        }
    }
    return set;
}

/* An element as the dump would store it: what is too large is infinite there. */
static double as_stored(const lh_tensor *t, int64_t i, lh_dtype dtype)
{
    uint64_t cell = 0;
    const double x = verify_element(t, i);
    if (dtype == LH_I32 || dtype == LH_I64)
        return x;
    lh_store(&cell, dtype, 0, x);
    return lh_load(&cell, dtype, 0);
}

/* Largest finite element in that storage. */
static double largest(const lh_tensor *t, lh_dtype dtype)
{
    double most = 0;
    for (int64_t i = 0; i < lh_tensor_elements(t); i++) {
        const double x = fabs(as_stored(t, i, dtype));
        if (isfinite(x))
            most = fmax(most, x);
    }
    return most;
}

static bool close_to(const lh_tensor *got, const lh_tensor *faulty, double allowed)
{
    for (int64_t i = 0; i < lh_tensor_elements(faulty); i++) {
        const double x = verify_element(got, i), y = as_stored(faulty, i, got->dtype);
        if (isfinite(x) != isfinite(y) || (isfinite(x) && fabs(x - y) > allowed))
            return false;
    }
    return true;
}

/* An allowance for `want` as one for values of the size of `faulty`: a sum where a mean was wanted rounds on a larger
 * scale. */
static double grown(double allowed, const lh_tensor *faulty, const lh_tensor *want, lh_dtype stored)
{
    const double scale = largest(want, stored), size = largest(faulty, stored);
    return scale > 0 && size > scale ? allowed * (size / scale) : allowed;
}

static bool index_in_range(const lh_layout *layout, const lh_tensor *index)
{
    for (int64_t i = 0; i < lh_tensor_elements(index); i++) {
        const int64_t entry = lh_index_at(index, i);
        if (entry < 0 || entry >= layout->entries)
            return false;
    }
    return true;
}

static void redirect(lh_tensor *trace, lh_stage stage, const verify_trace *work)
{
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
        trace[*id] = work->tensor[*id];
}

/* Stages after the fault see the dump's tensor where it has one. */
static void restore_present(lh_tensor *trace, lh_stage stage, const lh_tensor *present,
                            const verify_expect *expect)
{
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++) {
        if (present[*id].data)
            trace[*id] = expect->given.tensor[*id];
    }
}

/* The stages between the fault, whose outputs are in `faulty`, and `stage`, whose outputs end in `made`. */
static lh_status run_behind(const struct check_evidence *evidence, lh_stage stage, unsigned between, int bits,
                            const lh_fault *fault, const verify_trace *faulty, const verify_trace *made,
                            lh_error *error)
{
    const verify_expect *e = evidence->stages;
    const lh_tensor *present = evidence->dump->present;
    lh_status status = LH_OK;
    lh_tensor trace[LH_TENSOR_COUNT];
    memcpy(trace, e->given.tensor, sizeof trace);
    redirect(trace, fault->stage, faulty);
    restore_present(trace, fault->stage, present, e);
    for (int s = fault->stage + 1; s <= (int)stage && status == LH_OK; s++) {
        if (!(between & LH_REF_STAGE(s)))
            continue;
        redirect(trace, (lh_stage)s, made);
        status = lh_ref_run(bits, &e->config, LH_REF_STAGE(s), trace, NULL, error);
        if (s != (int)stage)
            restore_present(trace, (lh_stage)s, present, e);
    }
    return status;
}

static lh_status run_fault(const verify_expect *e, const lh_fault *fault, const verify_trace *made,
                           lh_error *error)
{
    lh_tensor trace[LH_TENSOR_COUNT];
    memcpy(trace, e->given.tensor, sizeof trace);
    redirect(trace, fault->stage, made);
    return fault->run(fault, &e->config, &e->layout, trace, error);
}

/* An allowance above this part of the error explains nothing. */
#define SMALL_PART 0.1

/* What a fault makes of the dump's inputs, and how the twin rounds the stages behind it. */
struct hypothesis {
    verify_trace exact, twin;
};

static bool comparable(const lh_tensor *found, const lh_tensor *want)
{
    return found->data && found->rank == want->rank &&
           memcmp(found->shape, want->shape, sizeof *want->shape * (size_t)want->rank) == 0;
}

/* Largest difference of two tensors as the first stores it; infinite where one is finite and the other not. */
static double gap(const lh_tensor *found, const lh_tensor *other)
{
    double most = 0;
    for (int64_t i = 0; i < lh_tensor_elements(other); i++) {
        const double x = verify_element(found, i), y = as_stored(other, i, found->dtype);
        if (isfinite(x) != isfinite(y))
            return INFINITY;
        if (isfinite(x))
            most = fmax(most, fabs(x - y));
    }
    return most;
}

/* How near a hypothesis comes: the distance of what it gives from what was found, over that of what is right; 1 when it
 * explains nothing. Judged alone, a stage has its own allowance; with inputs missing, that of everything above it, and
 * of the twin on the fault's own values, which may be harder to compute than the right ones. An allowance that is no
 * small part of the error explains nothing. */
static double explains(const struct check_evidence *evidence, lh_stage stage, bool alone,
                       const struct hypothesis *made)
{
    const verify_expect *e = alone ? evidence->stages : evidence->layer;
    double nearest = 1;
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++) {
        const lh_tensor *found = &evidence->found[*id], *want = &e->want.tensor[*id];
        const lh_tensor *faulty = &made->exact.tensor[*id];
        if (!comparable(found, want))
            continue;
        double allowed = grown(e->allowed[*id], faulty, want, found->dtype);
        if (!alone)
            allowed = fmax(allowed, verify_allowance(verify_distance(&made->twin.tensor[*id], faulty),
                                                     verify_roundoff(e->stored[*id]),
                                                     largest(faulty, found->dtype), 0));
        if (!close_to(found, faulty, allowed))
            return 1;
        const double error = gap(found, want);
        if (error > e->allowed[*id] && allowed <= SMALL_PART * error)
            nearest = fmin(nearest, isfinite(error) ? gap(found, faulty) / error : 0);
    }
    return nearest;
}

/* Keeps the hypotheses of a stage that come nearest; those of the stage before it are in the report already. */
static void keep(check_report *report, const lh_fault *fault, lh_stage stage, double distance)
{
    int first = report->fault_count;
    while (first > 0 && report->explained[first - 1] == stage)
        first--;
    int at = first;
    while (at < report->fault_count && report->distance[at] <= distance)
        at++;
    if (at == first + CHECK_NAMES || at == CHECK_FAULTS)
        return;
    if (report->fault_count < first + CHECK_NAMES)
        report->fault_count++;
    for (int i = report->fault_count - 1; i > at; i--) {
        report->faults[i] = report->faults[i - 1];
        report->explained[i] = stage;
        report->distance[i] = report->distance[i - 1];
    }
    report->faults[at] = fault;
    report->explained[at] = stage;
    report->distance[at] = distance;
}

/* Whether no fault at all, on the nearest tensors that the dump has, gives what is wrong end to end: then the fault is
 * in those, and a bug that changes nothing here would do for an explanation. */
static bool follows_from_own(const struct check_evidence *evidence, lh_stage stage)
{
    bool any = false;
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++) {
        const lh_tensor *found = &evidence->found[*id], *want = &evidence->layer->want.tensor[*id];
        const double error = comparable(found, want) ? gap(found, want) : 0;
        if (!(error > evidence->layer->allowed[*id]))
            continue;
        const double off = gap(found, &evidence->stages->want.tensor[*id]);
        if (!isfinite(off) || off > SMALL_PART * error)
            return false;
        any = true;
    }
    return any;
}

/* False when the hypothesis cannot explain anything, whatever the twin says of it: see explains(). */
static bool promising(const struct check_evidence *evidence, lh_stage stage, const struct hypothesis *made)
{
    const verify_expect *e = evidence->layer;
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++) {
        const lh_tensor *found = &evidence->found[*id];
        if (!comparable(found, &e->want.tensor[*id]))
            continue;
        const double error = gap(found, &e->want.tensor[*id]);
        if (error > e->allowed[*id] && gap(found, &made->exact.tensor[*id]) <= SMALL_PART * error)
            return true;
    }
    return false;
}

/* The fault and what follows of it up to `stage`, exactly. */
static lh_status make_exact(const struct check_evidence *evidence, lh_stage stage, unsigned set,
                            const lh_fault *fault, const struct hypothesis *made, lh_error *error)
{
    const verify_expect *e = evidence->stages;
    lh_status status = run_fault(e, fault, &made->exact, error);
    if (status != LH_OK || set == LH_REF_STAGE(stage))
        return status;
    if (fault->stage != stage && fault->stage == LH_SELECT &&
        !index_in_range(&e->layout, &made->exact.tensor[LH_INDEX]))
        return lh_fail(error, LH_UNSUPPORTED, "%s leaves an index nothing can follow", fault->name);
    return run_behind(evidence, stage, set, 64, fault, &made->exact, &made->exact, error);
}

/* What follows of the fault as the twin computes it. */
static lh_status make_twin(const struct check_evidence *evidence, lh_stage stage, unsigned set,
                           const lh_fault *fault, const struct hypothesis *made, lh_error *error)
{
    lh_status status = LH_OK;
    for (const lh_tensor_id *id = lh_stage_writes(fault->stage); *id != LH_TENSOR_COUNT && status == LH_OK;
         id++)
        status = lh_tensor_convert(&made->twin.tensor[*id], &made->exact.tensor[*id], error);
    return status == LH_OK ? run_behind(evidence, stage, set, 32, fault, &made->exact, &made->twin, error)
                           : status;
}

lh_status check_explain(const struct check_evidence *evidence, lh_stage stage, check_report *report,
                        lh_error *error)
{
    const unsigned set = check_suspects(evidence->dump->present, stage);
    const bool alone = set == LH_REF_STAGE(stage);
    const lh_config *config = &evidence->dump->config;
    const lh_dtype dtype = evidence->dump->dtype;
    const lh_fault *fault;
    struct hypothesis made = {0};
    if (!alone && follows_from_own(evidence, stage))
        return LH_OK;
    lh_status status = verify_make_all(&made.exact, config, LH_F64, VERIFY_PACKED, error);
    if (status == LH_OK && !alone)
        status = verify_make_all(&made.twin, config, dtype == LH_F64 ? LH_F32 : dtype, VERIFY_PACKED, error);
    for (int i = 0; (fault = lh_fault_at(i)) && status == LH_OK; i++) {
        if (!(set & LH_REF_STAGE(fault->stage)))
            continue;
        lh_status ran = make_exact(evidence, stage, set, fault, &made, error);
        const bool worth = ran == LH_OK && (alone || promising(evidence, stage, &made));
        if (worth && !alone)
            ran = make_twin(evidence, stage, set, fault, &made, error);
        if (ran != LH_OK && ran != LH_UNSUPPORTED)
            status = ran;
        const double distance = worth && ran == LH_OK ? explains(evidence, stage, alone, &made) : 1;
        if (distance < 1)
            keep(report, fault, stage, distance);
    }
    verify_free(&made.exact);
    verify_free(&made.twin);
    return status;
}
