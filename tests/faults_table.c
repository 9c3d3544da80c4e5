/*
 * Every known fault planted into dumps of every shape and dtype: was it caught, was it named?
 *
 *   faults_table [--check]     prints the table; --check exits 1 unless every fault is named in some dump of every tensor,
 *                              and over all that are caught the stage is found in 98 % and a wrong name given in 1 %
 *   faults_table NAME...       these alone, --verbose in front or not
 *   faults_table --verbose     the dumps where it is otherwise
 */
#include <stdio.h>
#include <string.h>

#include "tests/plant.h"
#include "check/check.h"
#include "tests/large_frames.h"

/* Small cases that between them let every fault show. */
static const char *const cases[] = {"small", "small-ties", "groups", "p3", "sharpest"};
static const lh_dtype dtypes[] = {LH_F32, LH_BF16, LH_F16};

enum {
    CASES = sizeof cases / sizeof *cases,
    DTYPES = sizeof dtypes / sizeof *dtypes
};

/* Dumps of one shape: that differ from the honest port's; called wrong; of these, those whose first wrong stage is the
 * fault's, or where the report has it among the stages that may be at fault; those where the fault is named; and those
 * where a stage is explained by names of which none is the fault. */
struct count {
    int shown, caught, placed, named, misnamed;
};

static void add(struct count *to, const struct count *more)
{
    to->shown += more->shown;
    to->caught += more->caught;
    to->placed += more->placed;
    to->named += more->named;
    to->misnamed += more->misnamed;
}

/* Whether the fault is among the names of a stage, or of any stage for LH_STAGE_COUNT. */
static bool named(const check_report *report, const lh_fault *fault, lh_stage stage)
{
    for (int i = 0; i < report->fault_count; i++) {
        if (report->faults[i] == fault && (stage == LH_STAGE_COUNT || report->explained[i] == stage))
            return true;
    }
    return false;
}

static struct count judged(const check_report *report, const lh_fault *fault)
{
    struct count count = {.shown = 1};
    if (report->first_wrong < 0)
        return count;
    count.caught = 1;
    count.placed = (report->suspects & 1u << fault->stage) != 0;
    count.named = named(report, fault, LH_STAGE_COUNT);
    for (int i = 0; i < report->fault_count; i++) {
        if (!named(report, fault, report->explained[i]))
            count.misnamed = 1;
    }
    return count;
}

static lh_status try_one(const lh_fault *fault, const verify_case *c, lh_dtype dtype, enum plant_shape shape,
                         const struct planted *honest, bool verbose, struct count *count, lh_error *error)
{
    struct planted planted;
    check_report report;
    lh_status status = plant(c, dtype, shape, &fault, 1, &planted, error);
    if (status == LH_OK && plant_shows(&planted, honest)) {
        status = check_dump(&c->config, planted.present, NULL, &report, error);
        if (status == LH_OK) {
            const struct count one = judged(&report, fault);
            add(count, &one);
            if (verbose && (!one.named || !one.placed || one.misnamed))
                fprintf(stderr, "%s on %s %s shape %d: %s%s%s\n", fault->name, c->id, lh_dtype_name(dtype),
                        (int)shape,
                        !one.caught  ? "not caught"
                        : !one.named ? "not named"
                                     : "named",
                        one.caught && !one.placed ? ", stage not found" : "",
                        one.misnamed ? ", misnamed" : "");
            for (int i = 0; verbose && one.misnamed && i < report.fault_count; i++)
                fprintf(stderr, "    %s: %s, at %.3g of the error\n", lh_stage_name(report.explained[i]),
                        report.faults[i]->name, report.distance[i]);
        }
    }
    verify_free(&planted.trace);
    return status == LH_UNSUPPORTED ? LH_OK : status;
}

static lh_status try_all(const lh_fault *fault, enum plant_shape shape, const struct planted *honest,
                         bool verbose, struct count *count, lh_error *error)
{
    lh_status status = LH_OK;
    for (int k = 0; k < CASES * DTYPES && status == LH_OK; k++)
        status = try_one(fault, plant_case(cases[k / DTYPES]), dtypes[k % DTYPES], shape, &honest[k], verbose,
                         count, error);
    return status;
}

static double percent(int part, int whole)
{
    return whole > 0 ? 100.0 * part / whole : 0;
}

static void print_total(const char *shape, const struct count *c)
{
    printf(
        "%-18s  %d dumps, %d caught (%.1f %%); of these the stage found in %d (%.1f %%), named %d (%.1f %%), "
        "misnamed %d (%.1f %%)\n",
        shape, c->shown, c->caught, percent(c->caught, c->shown), c->placed, percent(c->placed, c->caught),
        c->named, percent(c->named, c->caught), c->misnamed, percent(c->misnamed, c->caught));
}

int main(int argc, char **argv)
{
    const bool checking = argc > 1 && strcmp(argv[1], "--check") == 0;
    const bool verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
    static const char *const shapes[] = {"every tensor", "fused layer", "inputs and outputs"};
    static struct planted honest[CASES * DTYPES];
    const lh_fault *fault;
    struct count total[PLANT_SHAPES] = {{0}}, all = {0};
    bool good = true;
    lh_error error;
    for (int k = 0; k < CASES * DTYPES; k++) {
        if (plant(plant_case(cases[k / DTYPES]), dtypes[k % DTYPES], PLANT_FULL, NULL, 0, &honest[k],
                  &error) != LH_OK) {
            fprintf(stderr, "%s: %s\n", cases[k / DTYPES], error.text);
            return 2;
        }
    }
    printf("| bug | no. | every tensor | fused layer | inputs and outputs |\n|---|---|---|---|---|\n");
    for (int i = 0; (fault = lh_fault_at(i)); i++) {
        bool wanted = argc == 1 || (argc == 2 && (checking || verbose));
        for (int a = 1; a < argc; a++)
            wanted = wanted || strcmp(argv[a], fault->name) == 0;
        if (!wanted)
            continue;
        printf("| %s | %d |", fault->name, fault->family);
        for (int s = 0; s < PLANT_SHAPES; s++) {
            struct count count = {0};
            if (try_all(fault, (enum plant_shape)s, honest, verbose, &count, &error) != LH_OK) {
                fprintf(stderr, "%s: %s\n", fault->name, error.text);
                return 2;
            }
            if (count.shown)
                printf(" %d / %d / %d |", count.shown, count.caught, count.named);
            else
                printf(" – |");
            add(&total[s], &count);
            good = good && (s != PLANT_FULL || count.named > 0);
        }
        printf("\n");
        fflush(stdout);
    }
    printf("\n");
    for (int s = 0; s < PLANT_SHAPES; s++) {
        add(&all, &total[s]);
        print_total(shapes[s], &total[s]);
    }
    print_total("all", &all);
    good = good && 100 * all.placed >= 98 * all.caught && 100 * all.misnamed <= all.caught;
    for (int k = 0; k < CASES * DTYPES; k++)
        verify_free(&honest[k].trace);
    return checking && !good ? 1 : 0;
}
